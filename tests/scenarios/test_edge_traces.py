"""Golden traces of an edge's session: what happens (``>``, in the language of ``tests.edge_script``) and what it does.

``UPDATE_TRACES=1 pytest tests/scenarios`` writes down what it does now; read the difference before you commit it.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.edge_script import Play, identity

FOLDER = Path(__file__).parent / "edge"
TRACES = sorted(FOLDER.glob("*.txt"))


def replayed(text: str) -> str:
    """The trace with what the machine does now after each event."""
    roles: tuple[str, ...] = ("train", "predict")
    lines = []
    play = None
    for line in text.splitlines():
        if line.startswith("roles: "):
            roles = tuple(line.removeprefix("roles: ").split(", "))
        if line.startswith(("#", "roles: ")) or not line.strip():
            lines.append(line)
        elif line.startswith("> "):
            play = play or Play(identity(roles=roles))
            lines += [line, *(f"    {effect}" for effect in play.texts(line.removeprefix("> ")))]
    return "\n".join(lines) + "\n"


def test_there_are_traces() -> None:
    assert len(TRACES) >= 6


@pytest.mark.parametrize("trace", TRACES, ids=lambda path: path.stem)
def test_trace(trace: Path) -> None:
    written = trace.read_text()
    now = replayed(written)
    if os.environ.get("UPDATE_TRACES"):
        trace.write_text(now)
    assert now == written


def test_a_trace_that_is_wrong_is_found() -> None:
    written = TRACES[0].read_text()
    assert replayed(written.replace("session=s1", "session=s9")) != written.replace(
        "session=s1", "session=s9"
    )
