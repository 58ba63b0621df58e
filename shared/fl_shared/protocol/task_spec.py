"""A task and its options as one text: ``tabular``, or ``tabular?hidden=64&target=price`` (protocol, 2.4).

A member whose name has a hyphen is the run's own, and no option of the task: what stays on the edges (protocol, 5.17),
and what a survey asks for (protocol, 13).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Final
from urllib.parse import parse_qsl, quote, urlencode

KEEP_LOCAL: Final = "keep-local"
"""``batchnorm`` and globs of names, separated by commas: the arrays of the model that stay on the edges."""
LOCAL_SEED: Final = "local-seed"
"""The seed from which an edge that has none of these arrays yet makes them."""


SURVEY_LEAST: Final = "survey-least"
"""The fewest edges in a sum. A task with this member is surveyed, and not trained."""
SURVEY_RANGES: Final = "survey-ranges"
"""Public ranges of columns: ``COLUMN:LOW:HIGH``, separated by commas, with percent-encoded names."""
SURVEY_PRIVATE: Final = "survey-private"
"""``yes``: edges send proportions, whose sum gets noise, instead of exact sums."""


def format_task(name: str, options: Mapping[str, str]) -> str:
    """Returns the task ``name`` with its options in the order of their names, percent-encoded as in a URL's query."""
    query = urlencode(sorted(options.items()), quote_via=quote, safe="")
    return f"{name}?{query}" if query else name


def parse_task(text: str) -> tuple[str, dict[str, str]]:
    """Returns the name and the options. Of an option that is given twice, the last value counts."""
    name, _, query = text.partition("?")
    return name, dict(parse_qsl(query, keep_blank_values=True))


def task_name(text: str) -> str:
    """Returns the name alone."""
    return text.partition("?")[0]


def own_options(text: str) -> tuple[str, dict[str, str]]:
    """Returns the name and the options of the task itself, without the run's own."""
    name, options = parse_task(text)
    return name, {option: value for option, value in options.items() if "-" not in option}


def keeps_local(text: str) -> bool:
    """Whether a part of the model stays on the edges."""
    return KEEP_LOCAL in parse_task(text)[1]


def is_private_survey(text: str) -> bool:
    """Whether the task is surveyed under a privacy budget."""
    return SURVEY_PRIVATE in parse_task(text)[1]


@lru_cache(64)
def is_survey(text: str) -> bool:
    """Whether the task is surveyed, and not trained."""
    return SURVEY_LEAST in parse_task(text)[1]
