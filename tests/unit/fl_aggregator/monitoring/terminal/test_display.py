"""What a person sees of a run, off a terminal: a line a round, and a table at the end that stays of a size."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Collection
from dataclasses import dataclass, field, replace

import pytest
from rich.console import Console

from fl_aggregator.cli.summary import outcome_line
from fl_aggregator.configuration.settings import Settings
from fl_aggregator.monitoring.terminal.display import Display
from fl_aggregator.monitoring.terminal.render import View, table
from fl_aggregator.monitoring.terminal.snapshot import EdgeCounts, Snapshot
from fl_aggregator.monitoring.terminal.text import progress_line, round_line, sparkline, summary_lines
from fl_aggregator.monitoring.views.history import MAX_RECENT_ROUNDS, RoundHistory
from fl_aggregator.monitoring.views.history_row import HistoryRow
from fl_aggregator.monitoring.views.notices import absence_text, waiting_text
from fl_aggregator.monitoring.views.round_record import RoundRecord
from fl_aggregator.round.effects import AnnounceRound, WriteHistory
from fl_aggregator.round.phases import Finished
from fl_aggregator.round.state import Summary, new_run
from fl_aggregator.round.two_machines import TWO_MACHINES
from fl_aggregator.server.outcome import Outcome
from fl_aggregator.storage.run_directory import RunRecord, new_record
from fl_shared.cli.logging import start_logging
from fl_shared.protocol import messages as m
from fl_shared.protocol.messages import ModelReference
from tests.support.builders import ACCURACY, round_summary
from tests.support.round_playbook import Playbook


@dataclass
class Aggregator:
    """What a display asks one for."""

    history: RoundHistory = field(default_factory=RoundHistory)
    pause_reason: str | None = None
    record: RunRecord = field(default_factory=lambda: new_record(Settings(task="digits")))

    def uploading(self) -> Collection[str]:
        return ()


def summary(number: int) -> Summary:
    missing = {f"edge-{edge}": "offline: for 0.5 s" for edge in range(8)}
    return round_summary(number, cohort=("0", *missing), missing=missing, seconds={"collecting": 0.25})


def played(rounds: int, console: Console, *, live: bool = False) -> tuple[Display, Aggregator]:
    aggregator = Aggregator()
    display = Display(console, "run", live=live)
    display.set_source(aggregator)
    state = Playbook(clients=1, per_round=1, rounds=rounds).play("start", "join 0").state
    for number in range(1, rounds + 1):
        one = summary(number)
        aggregator.history.add(RoundRecord.of(one, 1000, 2000))
        display.observe(state, (WriteHistory(one),), now=float(number))
    return display, aggregator


def test_each_round_is_one_line_however_long_and_the_last_hundred_are_remembered(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    _, aggregator = played(250, Console(file=io.StringIO(), width=80))
    recent = aggregator.history.recent()
    assert list(recent) == list(range(151, 251))
    assert (aggregator.history.round_count, MAX_RECENT_ROUNDS) == (250, 100)
    assert table(recent.values()).row_count == 100
    lines = [line for line in caplog.messages if not line.startswith("waiting")]
    assert len(lines) == 250
    assert all("1.0 kB up, 2.0 kB down; missing: edge-0, edge-1, " in line for line in lines)
    assert all(line.endswith("edge-7 (offline: for 0.5 s)") for line in lines)


def test_a_table_that_is_cut_says_so() -> None:
    console = Console(file=io.StringIO(), width=120)
    records = [RoundRecord.of(summary(number), 1000, 2000) for number in range(31, 41)]
    console.print(table(records, earlier=30), table(records))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert text.count("30 earlier rounds are not shown") == 1


def test_a_round_that_begins_during_an_evaluation_says_so(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    playbook = Playbook(clients=12, per_round=11, rounds=2, first_weights=True, holdout=0)
    playbook.play(
        "start", "join e roles=evaluate", *(f"join {n}" for n in range(12)), *(f"load {n}" for n in range(12))
    )
    display = Display(Console(file=io.StringIO()), "run", live=False)
    display.set_source(Aggregator())
    cohort = playbook.cohort
    for name in cohort:
        playbook.play(f"send {name}")
    announced = [
        effect for _, effects in playbook.told for effect in effects if isinstance(effect, AnnounceRound)
    ]
    display.observe(playbook.state, (announced[-1],), 1.0)
    names = sorted(announced[-1].cohort, key=int)
    assert f"round 2: selected {', '.join(names)}; version 1 is evaluated meanwhile" in caplog.messages


def test_edges_that_never_came_are_named_at_the_start_in_each_round_and_at_the_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    playbook = Playbook(clients=4, per_round=1, quorum=1, wait=10).play("start", "join 1", "load 1")
    display = Display(Console(file=io.StringIO()), "run", live=False)
    display.set_source(Aggregator())
    display.observe(playbook.state, (), 0.0)
    nobody = Playbook(clients=4, per_round=1, wait=10).play("start").state
    assert waiting_text(nobody) == "0 of 4 ready; missing: 4 more", "whose ids may be any"
    absence = "3 of 4 edges (--clients) have never registered: 0, 2-3"
    declined = Playbook(clients=4, per_round=1).play("start", "join a unable=bad-cell", "join b", "join c")
    assert absence_text(declined.state) == (
        "1 of 4 edges (--clients) has never registered; 1 of 4 edges (--clients) does not take part: a (bad-cell)"
    )
    assert waiting_text(declined.state).endswith(
        "0 of 4 ready; get their data when the run starts: b, c; missing: 1 more; do not take part: a (bad-cell)"
    )
    declined.play("join d", "join e")
    assert absence_text(declined.state) == "", "there are enough"
    assert absence not in caplog.text
    playbook.play("wait 10")
    display.observe(playbook.state, (), 10.0)
    display.observe(playbook.state, (WriteHistory(summary(1)),), 11.0)
    assert f"the run goes on without all edges: {absence}" in caplog.messages[0]
    assert caplog.messages[-1].endswith(f"edge-7 (offline: for 0.5 s); {absence}")
    finished = replace(playbook.state, phase=Finished(at=12.0, reason="rounds"))
    assert outcome_line(Outcome(finished, 12.0), "").endswith(f"; {absence}")
    playbook.play("join 0", "join 2", "join x")
    assert absence_text(playbook.state) == ""


def test_as_json_a_round_is_an_object_and_quiet_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    start_logging(0, "json")
    played(1, Console(file=io.StringIO()))
    (line,) = capsys.readouterr().err.splitlines()
    fields = json.loads(line)
    assert fields["message"].startswith("round 1: version 1 of 1, 1 of 9 in")
    assert fields["round"]["round"] == 1
    assert fields["round"]["missing"]["edge-0"] == "offline: for 0.5 s"
    start_logging(0, "text", quiet=True)
    played(1, Console(file=io.StringIO()))
    assert capsys.readouterr().err == ""


def test_what_strangers_write_does_not_reach_the_terminal_as_it_is(
    capsys: pytest.CaptureFixture[str],
) -> None:
    start_logging(0, "text")
    logging.getLogger("x").info("edge %s: %s", "7", "\x1b[2J\n12:00:00 all is well")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("edge 7:  [2J 12:00:00 all is well")


def test_who_is_selected_is_said(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    display = Display(Console(file=io.StringIO()), "run", live=False)
    display.set_source(Aggregator())
    names = tuple(str(n) for n in range(25))
    display.observe(new_run(Settings()), (AnnounceRound(0, None, "f32", ("3",), 1.0),), 0.0)
    display.observe(
        new_run(Settings()),
        (AnnounceRound(1, ModelReference(version=0, digest="a" * 64), "f32", names, 1.0),),
        0.0,
    )
    assert caplog.messages[0] == "round 0: edge 3 will create the initial weights"
    assert caplog.messages[1].startswith("round 1: selected 0, 1, ")
    assert caplog.messages[1].endswith("19 and 5 more")


NINE = tuple(f"e{number}" for number in range(9))


def record(
    number: int, participants: tuple[str, ...], missing: dict[str, str], seconds: float, **metrics: float
) -> RoundRecord:
    summary = round_summary(
        number,
        cohort=(*participants, *missing),
        participants=participants,
        missing=missing,
        metrics=metrics,
        declared=(ACCURACY,),
        split="test",
        seconds={"collecting": seconds},
    )
    return RoundRecord.of(summary, 17_243_200, 34_486_400)


def picture(**changes: object) -> Snapshot:
    status = m.Status(
        run="3f9a1c0b7e22", incarnation=1, seq=1, written="2026-11-24T12:00:00Z", task="digits", phase="collecting",
        round=3, version=2, rounds=10, have=4, need=10, present=18, seconds_left=592.0, missing=("3", "5"),
        metrics={"accuracy": 0.75, "loss": 0.5}, primary=ACCURACY, split="test",
    ).model_copy(update=changes)  # fmt: skip
    records = (
        record(1, ("0", *NINE), {}, 2.0, accuracy=0.25, loss=2.0, train_loss=1.9),
        record(2, NINE, {"7": "offline: for 3.1 s"}, 4.0, accuracy=0.75, loss=0.5, train_loss=0.4),
    )
    counts = EdgeCounts.of(
        [
            ("1", "in", None),
            ("3", "training", None),
            ("7", "missing", "failed: x\x1b[31m"),
            ("9", "offline", "lost"),
        ],
        3,
        {
            m.Environment(library="torch 2.9.0", platform="Linux x86_64", cores=4, memory=8_300_000_000): 3,
            m.Environment(library="torch 2.5.1", platform="Linux x86_64", cores=1, fl_mqtt="0.1.0"): 1,
        },
    )
    rows = tuple(HistoryRow.of(each) for each in records)
    return Snapshot(status, rows, {each.round: each for each in records}, counts)


@pytest.mark.parametrize("width", [80, 120])
def test_the_view_has_what_a_person_asks_for_and_fits(width: int) -> None:
    console = Console(file=io.StringIO(), width=width, height=30, force_terminal=True, color_system=None)
    console.print(View(picture(), "no broker for 3 s"))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    for words in ("no broker", "2 of 10", "round 3", "4 of 10 in", "1 training", "1 missing", "▁█ 0.7500",
                  "█▁ 0.5000", "17.2 MB up", "1 offline", "7 (failed: x [31m)"):  # fmt: skip
        assert words in shown, words
    assert "\x1b[31m" not in shown
    assert max(map(len, shown.splitlines())) <= width


def test_a_pause_by_the_operator_says_what_ends_it() -> None:
    held = picture(paused="by the operator: lunch", held=True)
    assert progress_line(held) == "paused: by the operator: lunch; fl-aggregator resume continues it"


def test_a_pause_stands_in_the_view() -> None:
    console = Console(file=io.StringIO(), width=120, height=40)
    console.print(View(picture(paused="no room on the disk")))
    assert "no room on the disk; continues by itself" in console.file.getvalue()  # type: ignore[attr-defined]
    assert (
        progress_line(picture(paused="no room")) == "paused: no room; continues by itself when that is over"
    )


SUMS = "the aggregator sees only sums of at least 6 updates"


@pytest.mark.parametrize(
    ("certified", "said"),
    [(True, SUMS), (False, f"{SUMS}; the edges' keys are not certified, since there are no kits")],
)
def test_a_masked_run_says_what_the_aggregator_sees(certified: bool, said: str) -> None:
    masked = picture(masked=m.MaskedSums(least=6, certified=certified))
    assert summary_lines(masked)[1] == f"updates are masked: {said}"
    console = Console(file=io.StringIO(), width=140, height=40)
    console.print(View(masked))
    shown = " ".join(console.file.getvalue().split())  # type: ignore[attr-defined]
    assert f"masked {said} versions" in shown


ROUND_2 = "round 2: version 2 of 10, 9 of 10 in, accuracy 0.7500, loss 0.5000 (test), 4.0 s, 17.2 MB up, 34.5 MB down"


def test_a_look_in_lines() -> None:
    assert summary_lines(picture()) == [
        "run 3f9a1c0b7e22: digits, version 2 of 10, about 24 s left",
        "round 3: collecting, 4 of 10 in, 1 missing: 7 (failed: x [31m), waiting for 3, 5, at most 9 min 52 s left",
        "accuracy 0.7500, loss 0.5000 (test)  ▁█",
        f"{ROUND_2}; missing: 7 (offline: for 3.1 s)",
        "edges: 1 in, 1 training, 1 missing, 1 offline",
        "the edges compute with torch 2.9.0 on Linux x86_64 (3), torch 2.5.1 on Linux x86_64 (1)",
        "the edges run on Linux x86_64, 4 cores, 8.3 GB (3); Linux x86_64, 1 core, fl-mqtt 0.1.0 (1)",
        "missing: 7 (failed: x [31m)",
        "offline: 9 (lost)",
    ]


def test_ids_that_two_machines_use_are_named_whatever_they_do() -> None:
    counts = EdgeCounts.of(
        [("1", "in", TWO_MACHINES), ("2", "present", f"{TWO_MACHINES}; loading its data"), ("3", "in", None)],
        3,
        {},
    )
    assert (counts.counts, counts.not_ready_text) == ({"in": 2, "present": 1}, "2 (loading its data)")
    lines = summary_lines(replace(picture(), edge_counts=counts))
    assert f"1, 2: {TWO_MACHINES}" in lines


def test_nothing_is_estimated_of_a_run_whose_aggregator_is_offline() -> None:
    stalled = replace(picture(), stalled=True)
    assert (stalled.time_left(), stalled.seconds_left) == (None, None)
    assert " left" in " ".join(summary_lines(picture()))
    assert " left" not in " ".join(summary_lines(stalled))
    console = Console(file=io.StringIO(), width=120, height=40)
    console.print(View(stalled))
    assert " left" not in console.file.getvalue()  # type: ignore[attr-defined]


def test_virtual_time_is_called_so() -> None:
    virtual = {"virtual_seconds": 300.0, "real_seconds": 2.0}
    recent = {n: one.model_copy(update=virtual) for n, one in picture().recent.items()}
    assert "(test), 4.0 s of virtual time, " in round_line(recent[2], 10)
    console = Console(file=io.StringIO(), width=120, height=40)
    console.print(View(replace(picture(), recent=recent)))
    assert "virtual: 5 min until round 2, in 2.0 s" in console.file.getvalue()  # type: ignore[attr-defined]


def test_trends() -> None:
    assert sparkline([]) == ""
    assert sparkline([0.5, 0.5]) == "▅▅"
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7]) == "▁▂▃▄▅▆▇█"
    assert sparkline([0, 7], ascii_only=True) == "_@"
    assert sparkline([float(n) for n in range(1000)], 4) == "▁▃▆█"
    assert sparkline([-1e308, 1e308]) == "▁█"
