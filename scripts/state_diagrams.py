#!/usr/bin/env python3
"""Draws both state machines from the golden traces: their phases, and the events between them.

    .venv/bin/python scripts/state_diagrams.py            prints the diagrams (Mermaid)
    .venv/bin/python scripts/state_diagrams.py --write    writes them to docs/architecture.md

A test compares the document with the diagrams. A transition that is in no trace is not drawn: add a trace.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from fl_edge.session.state import Session  # noqa: E402
from tests.scenarios import test_edge_traces, test_traces  # noqa: E402
from tests.support.round_playbook import Playbook  # noqa: E402
from tests.support.session_script import SessionScript  # noqa: E402

DOCUMENT = ROOT / "docs" / "architecture.md"
Transitions = dict[tuple[str, str], set[str]]
START = "[*]"


def of_the_round() -> Transitions:
    """The transitions between the phases of a run."""
    found: Transitions = defaultdict(set)
    handle = Playbook.handle

    def recorded(playbook: Playbook, event: Any) -> None:
        before = playbook.state.phase
        if not playbook.told:
            found[START, type(before).__name__].add("")
        handle_one(playbook, event, before)

    def handle_one(playbook: Playbook, event: Any, before: object) -> None:
        auto, playbook.auto = playbook.auto, False
        told = len(playbook.told)
        handle(playbook, event)
        playbook.auto = auto
        _add(found, before, playbook.state.phase, event)
        if auto:
            playbook.follow(playbook.told[told][1])

    with patch.object(Playbook, "handle", recorded):
        for trace in test_traces.TRACES:
            test_traces.play(trace.read_text(encoding="utf-8"))
    return found


def of_the_session() -> dict[str, Transitions]:
    """The transitions of an edge's parallel machines, by the member of ``Session`` that holds each."""
    found: dict[str, Transitions] = defaultdict(lambda: defaultdict(set))
    happen = SessionScript.happen

    def recorded(script: SessionScript, event: Any) -> Any:
        before = script.state
        effects = happen(script, event)
        after = script.state
        if isinstance(before, Session) and isinstance(after, Session):
            for member in Session.__dataclass_fields__:
                one, other = getattr(before, member), getattr(after, member)
                if is_dataclass(one) and is_dataclass(other) and type(one) is not type(other):
                    _add(found[member], one, other, event)
        return effects

    with patch.object(SessionScript, "happen", recorded):
        for trace in test_edge_traces.TRACES:
            test_edge_traces.replayed(trace.read_text(encoding="utf-8"))
    return dict(found)


def _add(found: Transitions, before: object, after: object, event: object) -> None:
    if type(before) is not type(after):
        found[type(before).__name__, type(after).__name__].add(type(event).__name__)


def mermaid(transitions: Transitions) -> str:
    """Transitions as a state diagram in Mermaid, sorted."""
    lines = ["```mermaid", "stateDiagram-v2"]
    for (before, after), events in sorted(transitions.items()):
        label = ", ".join(sorted(events - {""}))
        lines.append(f"    {before} --> {after}" + (f": {label}" if label else ""))
    return "\n".join([*lines, "```"])


def diagrams() -> dict[str, str]:
    """The diagrams, by the names of their places in the document."""
    session = "\n\n".join(
        f"`{member}`:\n\n{mermaid(transitions)}" for member, transitions in sorted(of_the_session().items())
    )
    return {"round": mermaid(of_the_round()), "session": session}


def put_in(text: str, made: dict[str, str]) -> str:
    """``text`` with each diagram between its two comments. Raises ``SystemExit`` if a comment is missing."""
    for name, diagram in made.items():
        head, begin, rest = text.partition(f"<!-- {name} machine -->\n")
        _, end, tail = rest.partition("\n<!-- end -->")
        if not begin or not end:
            raise SystemExit(f"{DOCUMENT}: no place for the {name} machine")
        text = head + begin + diagram + end + tail
    return text


def main() -> None:
    """Prints the diagrams, or with ``--write`` writes them to the document."""
    made = diagrams()
    if "--write" in sys.argv[1:]:
        DOCUMENT.write_text(put_in(DOCUMENT.read_text(encoding="utf-8"), made), encoding="utf-8")
    else:
        sys.stdout.write("\n\n".join(made.values()) + "\n")


if __name__ == "__main__":
    main()
