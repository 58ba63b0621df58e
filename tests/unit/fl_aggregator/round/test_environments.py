"""What an edge says of where it runs: `docs/protocol.md`, 4.13."""

from __future__ import annotations

import io
import json
import logging
from dataclasses import replace

import pytest
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fl_aggregator.monitoring.terminal.snapshot import EdgeCounts
from fl_aggregator.monitoring.views import edge_states, notices
from fl_aggregator.round import events as on
from fl_aggregator.round.snapshot import Snapshot
from fl_shared.protocol import messages as m
from tests.support.round_playbook import Playbook

TORCH = m.Environment(
    fl_mqtt="0.1.0", python="3.11.7", library="torch 2.9.0+cpu", platform="Linux x86_64", cores=2
)
OLDER = TORCH.model_copy(update={"library": "torch 2.5.1"})


def registers(playbook: Playbook, line: str, environment: m.Environment | None) -> on.Registered:
    event = playbook.event(line)
    assert isinstance(event, on.Registered)
    event = replace(event, environment=environment)
    playbook.play(event)
    return event


def test_edges_that_are_alike_share_one_description() -> None:
    playbook = Playbook(clients=5, per_round=1).play("start")
    for name, environment in enumerate((TORCH, OLDER, TORCH.model_copy(), None)):
        registers(playbook, f"join {name}", environment)
    state = playbook.state
    assert state.environments == (TORCH, OLDER)
    assert [state.roster[name].environment for name in sorted(state.roster)] == [0, 1, 0, None]
    views = edge_states.open_round_views(state, (), {})
    assert [views[name].environment for name in sorted(views)] == [0, 1, 0, None]
    assert m.environment_counts(state.environments, (view.environment for view in views.values())) == {
        TORCH: 2,
        OLDER: 1,
    }


def test_an_edge_that_returns_with_other_software_says_so() -> None:
    playbook = Playbook(clients=2, per_round=1).play("start")
    registers(playbook, "join 0", TORCH)
    playbook.play("lose 0")
    registers(playbook, "rejoin 0", OLDER)
    assert playbook.state.environments[playbook.state.roster["0"].environment or 0] == OLDER


def test_a_snapshot_has_each_description_once() -> None:
    playbook = Playbook(clients=4, per_round=1).play("start")
    for name in range(4):
        registers(playbook, f"join {name}", TORCH)
    fields = json.dumps(Snapshot(playbook.state).fields())
    assert fields.count("torch 2.9.0") == 1
    assert Snapshot.from_fields(json.loads(fields), playbook.state.settings).state == playbook.state


def test_strangers_cannot_make_the_list_grow_for_ever() -> None:
    playbook = Playbook(clients=m.MAX_ENVIRONMENTS + 2, per_round=1).play("start")
    for name in range(m.MAX_ENVIRONMENTS + 1):
        registers(playbook, f"join {name}", TORCH.model_copy(update={"cores": name}))
    state = playbook.state
    assert len(state.environments) == m.MAX_ENVIRONMENTS
    assert state.roster[str(m.MAX_ENVIRONMENTS)].environment is None


def test_what_computes_differently_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    playbook = Playbook(clients=5, per_round=1).play("start")

    def logged(line: str, environment: m.Environment) -> list[str]:
        caplog.clear()
        before = playbook.state
        event = registers(playbook, line, environment)
        with caplog.at_level(logging.WARNING):
            notices.log_presence(event, before, playbook.state)
        return caplog.messages

    assert logged("join 0", TORCH) == []
    assert logged("join 1", TORCH.model_copy(update={"cores": 4})) == [], "that changes no bits"
    (line,) = logged("join 2", OLDER)
    assert line == (
        "edge 2 computes with torch 2.5.1 on Linux x86_64, the first edge with torch 2.9.0+cpu on Linux x86_64: their "
        "updates may differ in the last bits, so a run with the same seed may end in another model"
    )
    assert logged("join 3", OLDER) == [], "once for each, not for each edge"
    assert logged("join 4", OLDER.model_copy(update={"cores": 4})) == []


def test_4_15_what_stays_on_edges_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    playbook = Playbook(clients=4, per_round=1).play("start")

    def logged(line: str, local_part: str | None) -> list[str]:
        caplog.clear()
        before, event = playbook.state, playbook.event(line)
        assert isinstance(event, on.Registered)
        event = replace(event, local_part=local_part)
        playbook.play(event)
        with caplog.at_level(logging.INFO):
            notices.log_presence(event, before, playbook.state)
        return caplog.messages

    assert logged("join 0", None) == []
    assert logged("join 1", "fc2.*") == ["edge 1 keeps arrays of its model that are not shared: fc2.*"]
    assert logged("join 2", "fc2.*") == []
    assert logged("join 3", "fc1.bias") == ["edge 3 keeps arrays of its model that are not shared: fc1.bias"]
    playbook.play("lose 1")
    assert logged("rejoin 1", None) == []
    assert playbook.state.roster["1"].local_part == "fc2.*", "its first registration does not know yet"


@pytest.mark.parametrize("text", ["\x1b[31mred", "two\nlines", "Süd", "", "x" * 65, "\u202eevil", "bell\x07"])
def test_4_13_nothing_but_printable_ascii_is_taken(text: str) -> None:
    with pytest.raises(ValidationError, match="platform"):
        m.Environment(platform=text)


def test_4_13_markup_is_shown_as_it_is() -> None:
    """On a terminal; pages escape it (`test_report.py`), and no label of a metric has it."""
    hostile = m.Environment(
        platform='[bold red]<script>"', fl_mqtt="[/]", memory=m.MAX_COUNT, cores=m.MAX_COUNT
    )
    counts = EdgeCounts.of([("0", "present", None)], None, {hostile: 1})
    console = Console(file=io.StringIO(), width=200)
    grid = Table.grid()
    grid.add_row(Text(counts.machines_text))
    console.print(grid)
    assert '[bold red]<script>"' in console.file.getvalue()  # type: ignore[attr-defined]
    many = {m.Environment(platform=f"P{number}"): 1 for number in range(9)}
    assert EdgeCounts.of([], None, many).machines_text == "P0 (1); P1 (1); P2 (1); P3 (1); others (5)"
