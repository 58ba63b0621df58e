"""Golden traces of the round machine: what happens stands at the margin, what is to be done about it is indented.

The notation is that of `tests.support.round_playbook` and `tests.support.round_text`. A line `. …` is what the
interpreter reports by itself, a line `= …` the time and the phase afterwards. `gather` lets all edges join and
load, and `begin` the first weights be made as well: what that looks like is in `happy-path.txt`.

`UPDATE_TRACES=1 pytest tests/scenarios` writes the indented lines anew: look at the difference before you commit it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
from pathlib import Path
from typing import Any

import pytest

from fl_aggregator.round import events as on
from fl_aggregator.round import machine
from fl_aggregator.round.phases import Collecting
from tests.support.round_playbook import Playbook
from tests.support.round_text import describe, describe_phase
from tests.support.versions import version_of

TRACES = sorted(Path(__file__).parent.glob("*.txt"))
VERSION_FILE = Path(__file__).parent / "machine_version.json"


@pytest.mark.parametrize("path", TRACES, ids=lambda path: path.stem)
def test_trace(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    played = play(text)
    if os.environ.get("UPDATE_TRACES") == "1":
        path.write_text(played, encoding="utf-8")
    assert played == text or os.environ.get("UPDATE_TRACES") == "1"


def test_a_changed_trace_raises_the_version_of_the_machine() -> None:
    """A journal that an earlier version wrote would be replayed to another state (`machine.MACHINE_VERSION`)."""
    recorded = json.loads(VERSION_FILE.read_text(encoding="utf-8"))
    digests = {path.stem: hashlib.sha256(path.read_bytes()).hexdigest() for path in TRACES}
    changed = {name for name, digest in recorded["traces"].items() if digests.get(name) != digest}
    if os.environ.get("UPDATE_TRACES") == "1" and (
        not changed or recorded["version"] < machine.MACHINE_VERSION
    ):
        VERSION_FILE.write_text(
            json.dumps({"version": machine.MACHINE_VERSION, "traces": digests}, indent=1) + "\n"
        )
        return
    assert not changed, f"raise machine.VERSION above {recorded['version']}, then UPDATE_TRACES=1"
    now = {"version": machine.MACHINE_VERSION, "traces": digests}
    assert recorded == now, "UPDATE_TRACES=1 records new traces"


def test_there_are_traces_and_a_wrong_one_is_noticed() -> None:
    assert len(TRACES) >= 6
    text = (Path(__file__).parent / "happy-path.txt").read_text(encoding="utf-8")
    wrong = text.replace("fold 1@1", "fold 1@2")
    assert wrong != text
    assert play(wrong) == text


def play(text: str) -> str:
    """The trace that the machine makes of the unindented lines of ``text``."""
    playbook: Playbook | None = None
    lines: list[str] = []
    for line in text.splitlines():
        if line.startswith(" "):
            continue
        lines.append(line)
        if not line or line.startswith("#"):
            continue
        if playbook is None:
            verb, *words = shlex.split(line)
            assert verb == "settings", f"{line!r}: a trace begins with its settings"
            given: dict[str, str] = dict(word.split("=", 1) for word in words)
            numbers: dict[str, Any] = {key: int(value) for key, value in given.items() if value.isdecimal()}
            numbers |= {key: value == "yes" for key, value in given.items() if value in ("yes", "no")}
            playbook = Playbook(**{**given, **numbers})
            continue
        if line in ("gather", "begin"):
            _set_up(playbook, first_weights=line == "begin")
            lines.append(_where(playbook))
        else:
            lines += _told(playbook, line)
    assert playbook is not None
    playbook.invariants.check_replay(playbook.state)
    return "\n".join(lines) + "\n"


def _set_up(playbook: Playbook, *, first_weights: bool) -> None:
    playbook.play("start")
    for client in range(playbook.state.settings.clients):
        playbook.play(f"join {client}", f"load {client}")
    if first_weights:
        playbook.play(f"send {playbook.cohort[0]}")


def _where(playbook: Playbook) -> str:
    phase = playbook.state.phase
    more = (
        f", next {','.join(phase.substitutes)}" if isinstance(phase, Collecting) and phase.substitutes else ""
    )
    return f"  = {playbook.now:g} s: {describe_phase(playbook.state)}{more}"


def _told(playbook: Playbook, line: str) -> list[str]:
    """What comes of one line: effects, what the interpreter reports, the phase if it has changed."""
    before, steps = describe_phase(playbook.state), len(playbook.told)
    playbook.play(line)
    lines: list[str] = []
    for number, (event, effects) in enumerate(playbook.told[steps:]):
        if number:
            lines.append(f"  . {_say_event(event)}")
        lines += [f"    {describe(effect)}" for effect in effects]
    after = describe_phase(playbook.state)
    if after != before:
        lines.append(_where(playbook))
    return lines


def _say_event(event: on.Event) -> str:
    match event:
        case on.UpdateStored(update=update):
            return f"kept {update.digest}"
        case on.ModelCreated(digest=digest):
            return f"made v{version_of(digest)}"
        case on.SharesKept(digest=digest):
            return f"kept {digest}"
        case on.UnmaskFailed(client=client, detail=detail):
            return f"not unmasked: {detail} of {client or '-'}"
        case _:
            raise AssertionError(f"not the interpreter's: {event}")
