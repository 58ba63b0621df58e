"""What a correction must keep so that edges can be told of it, and updates can contain its sections."""

from __future__ import annotations

from typing import Final

from pydantic import ValidationError

from fl_aggregator.aggregation.strategies.parts import Correction, values_of
from fl_shared.protocol import messages as m
from fl_shared.protocol.kinds.round import MAX_COMPANIONS
from fl_shared.tensors.sections import DELTA, LARGE, SHARES, TALLIES, WEIGHTS

RESERVED_SECTIONS: Final = frozenset({DELTA, LARGE, SHARES, TALLIES, WEIGHTS})
"""Names of sections that models and updates have for other purposes."""
MAX_SECTIONS: Final = MAX_COMPANIONS
"""The most sections of a correction: as many companions as the opening of a round may name (protocol, 5.15)."""


def refusal_of(correct: Correction) -> str | None:
    """Returns why no run can have this correction, with what was expected; null if it can."""
    try:
        m.Correction(name=correct.name, settings=values_of(correct))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        what = ".".join(str(one) for one in first["loc"] if one != "[key]").replace("settings.", "field ")
        message = str(first["msg"])
        return f"{what} is {first['input']!r}, which edges cannot be told: {message[0].lower()}{message[1:]}"
    sections = correct.sections
    if not isinstance(sections, tuple):
        return f"sections is {sections!r}, expected a tuple of names"
    for section in sections:
        try:
            m.Companion(section=section, digest="0" * 64)
        except ValidationError as error:
            message = str(error.errors(include_url=False)[0]["msg"])
            return f"sections has {section!r}: {message[0].lower()}{message[1:]}"
        if section in RESERVED_SECTIONS:
            return f"sections has {section!r}, which is reserved, expected a name of its own"
    if len(set(sections)) < len(sections):
        return f"sections is {sections!r}, expected each name once"
    if len(sections) > MAX_SECTIONS:
        return f"sections has {len(sections)} names, expected at most {MAX_SECTIONS}"
    if missing := [section for section in sections if section not in correct.state()]:
        return f"state() has no {missing[0]!r}, expected a vector for each of its sections"
    return None
