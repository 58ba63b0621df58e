"""Golden traces of an edge's session: what happens (``>``, as in ``tests.support.session_script``) and what it does.

Lines before that say what the edge is: its ``roles``, its ``chunk``, the ``size`` of its updates (bytes), the
round for which an update was ``kept`` by an earlier process of it.

``UPDATE_TRACES=1 pytest tests/scenarios`` writes down what it does now; read the difference before you commit it.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.session_script import SessionScript, identity

FOLDER = Path(__file__).parent / "edge"
TRACES = sorted(FOLDER.glob("*.txt"))


def replayed(text: str) -> str:
    """The trace with what the machine does now after each event."""
    changes: dict[str, object] = {}
    size = kept = None
    lines = []
    script = None
    for line in text.splitlines():
        name, _, value = line.partition(": ")
        if name == "roles":
            changes["roles"] = tuple(value.split(", "))
        elif name == "chunk":
            changes["chunk_size"] = int(value)
        elif name == "size":
            size = int(value)
        elif name == "kept":
            kept = int(value)
        if line.startswith("#") or name in ("roles", "chunk", "size", "kept") or not line.strip():
            lines.append(line)
        elif line.startswith("> "):
            script = script or SessionScript(identity(**changes), size, kept)
            lines += [line, *(f"    {effect}" for effect in script.texts(line.removeprefix("> ")))]
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
