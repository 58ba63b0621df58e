"""Trackers never disturb a run; TensorBoard's files are what TensorBoard reads."""

from __future__ import annotations

import logging
import math
import resource
import signal
import struct
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from fl_aggregator.configuration.settings import Settings
from fl_aggregator.monitoring.tracking import tensorboard
from fl_aggregator.monitoring.tracking.event_file import EventFile, steps
from fl_aggregator.monitoring.tracking.mlflow import allowed_name
from fl_aggregator.monitoring.tracking.prometheus import (
    Prometheus,
    edges_family,
    edges_statistics,
    metric_families,
)
from fl_aggregator.monitoring.tracking.tensorboard import TensorBoard
from fl_aggregator.monitoring.tracking.trackers import CLOSE_TIMEOUT, RuntimeMetrics, Tracker, Trackers
from fl_aggregator.monitoring.views.round_record import RoundRecord, Traffic
from fl_aggregator.round.effects import Effect
from fl_aggregator.round.state import Run, new_run
from fl_aggregator.storage.run_directory import AttackRecord, FleetRecord, RunRecord, new_record
from tests.support.builders import ACCURACY, MAE
from tests.support.round_playbook import Playbook, round_done
from tests.support.tensorboard import events, scalars

RECORD = new_record(Settings(chunk=1024))
PRIVATE = {
    "dp": "central",
    "dp_clip": "0.5",
    "dp_noise": 2.0,
    "per_round": 2,
    "quorum": 1,
    "dp_insecure_seed": 5,
}


def line(number: int, **metrics: float) -> RoundRecord:
    return RoundRecord(
        round=number,
        outcome="committed",
        version=number,
        participants=["0", "1"],
        missing={"2": "late"},
        refused={"2": {"late": 2, "surplus": 1}},
        examples=30,
        metrics=metrics or {"accuracy": 0.5, "train_loss": 0.25},
        declared=[ACCURACY],
        split="test",
        seconds={"collecting": 1.5},
        bytes=Traffic(up=100, down=50),
    )


def runtime_metrics() -> RuntimeMetrics:
    return RuntimeMetrics(0, 0, 0, 0, True, False, {})


def run(
    *chosen: Tracker,
    rounds: Iterable[RoundRecord] = (),
    record: RunRecord = RECORD,
    earlier: Iterable[RoundRecord] = (),
    close_timeout: float = CLOSE_TIMEOUT,
) -> Trackers:
    with Trackers(chosen, close_timeout=close_timeout) as trackers:
        trackers.begin(record, earlier, runtime_metrics)
        for each in rounds:
            trackers.observe(new_run(Settings()), ())
            trackers.log_round(each)
        trackers.run_ended("finished")
    return trackers


class Broken:
    """Fails wherever it can."""

    name = "broken"

    def begin(
        self, run: RunRecord, earlier: Iterable[RoundRecord], runtime_metrics: Callable[[], RuntimeMetrics]
    ) -> None:
        raise OSError(28, f"No space left for {run.run} {earlier} {runtime_metrics}")

    def observe(self, state: Run, effects: tuple[Effect, ...]) -> None:
        raise KeyError(state, effects)

    def log_round(self, record: RoundRecord) -> None:
        raise RuntimeError(record)

    def close(self, outcome: str | None) -> None:
        raise ValueError(outcome)


class Slow:
    """Hangs in its first round until it is let go."""

    name = "slow"

    def __init__(self) -> None:
        self.go = threading.Event()
        self.rounds: list[int] = []
        self.outcome: str | None = None

    def begin(
        self, run: RunRecord, earlier: Iterable[RoundRecord], runtime_metrics: Callable[[], RuntimeMetrics]
    ) -> None:
        self.begun_with = (run, earlier, runtime_metrics)

    def observe(self, state: Run, effects: tuple[Effect, ...]) -> None:
        self.seen = (state, effects)

    def log_round(self, record: RoundRecord) -> None:
        assert self.go.wait(30)
        self.rounds.append(record.round)

    def close(self, outcome: str | None) -> None:
        self.outcome = outcome


def test_tensorboard_reads_what_was_written(tmp_path: Path) -> None:
    run(
        TensorBoard(tmp_path),
        rounds=[line(1, accuracy=0.25), line(2, accuracy=0.5), line(200, accuracy=0.75)],
    )
    found = scalars(tmp_path)
    assert found["test/accuracy"] == [(1, 0.25), (2, 0.5), (200, 0.75)]
    assert found["seconds/collecting"][0] == (1, 1.5)
    assert found["bytes/up"][0] == (1, 100.0)
    assert found["round/participants"][0] == (1, 2.0)
    assert found["round/missing"][0] == (1, 1.0)
    assert found["round/refused"][0] == (1, 3.0)
    assert "edges/train_loss" in scalars_of(tmp_path / "more", line(1))


ATTACKED = RECORD.model_copy(
    update={
        "fleet": FleetRecord(
            broker=None,
            attack=AttackRecord(specification="sign-flip:edges=1", summary="1 of 3 edges attacks"),
        )
    }
)


def test_a_run_with_attackers_is_marked_in_tensorboard_and_prometheus(tmp_path: Path) -> None:
    run(TensorBoard(tmp_path), rounds=[line(1)], record=ATTACKED)
    found = events(tmp_path)
    (tag,) = found.Tags()["tensors"]
    assert found.SummaryMetadata(tag).plugin_data.plugin_name == "text"
    (event,) = found.Tensors(tag)
    assert (tag, event.step, event.tensor_proto.string_val) == ("attack", 1, [b"1 of 3 edges attacks"])

    for record, samples in ((ATTACKED, [({"attack": "1 of 3 edges attacks"}, 1.0)]), (RECORD, [])):
        prometheus = Prometheus("127.0.0.1", 0, {})
        prometheus.begin(record, (), runtime_metrics)
        families = [family for family in prometheus.collect() if family.name == "fl_attack_info"]
        assert [(one.labels, one.value) for family in families for one in family.samples] == samples
        prometheus.close(None)


def test_a_run_whose_updates_are_masked_is_marked_in_tensorboard_and_prometheus(tmp_path: Path) -> None:
    masked = RECORD.model_copy(update={"settings": Settings(masked=True)})
    run(TensorBoard(tmp_path), rounds=[line(1)], record=masked)
    (event,) = events(tmp_path).Tensors("updates")
    (text,) = event.tensor_proto.string_val
    assert text.startswith(b"updates are masked: the aggregator sees only sums of at least ")

    for record, samples in ((masked, [({"least": "5", "certified": "false"}, 1.0)]), (RECORD, [])):
        prometheus = Prometheus("127.0.0.1", 0, {})
        prometheus.begin(record, (), runtime_metrics)
        families = [family for family in prometheus.collect() if family.name == "fl_masked_info"]
        assert [(one.labels, one.value) for family in families for one in family.samples] == samples
        prometheus.close(None)


def scalars_of(directory: Path, *lines: RoundRecord) -> dict[str, list[tuple[int, float]]]:
    directory.mkdir()
    run(TensorBoard(directory), rounds=lines)
    return scalars(directory)


def test_names_and_numbers_of_all_kinds_are_written(tmp_path: Path) -> None:
    name = "ÄÖ <&> " + "x" * 50
    found = scalars_of(tmp_path / "run", line(2**40, **{name: 1e300, "small": -1e300, "loss": 1e-3}))
    assert found[f"edges/{name}"] == [(2**40, math.inf)]
    assert found["edges/small"] == [(2**40, -math.inf)]
    assert found["test/loss"] == [(2**40, struct.unpack("<f", struct.pack("<f", 1e-3))[0])]


def test_a_run_that_is_taken_up_again_goes_on_where_it_was(tmp_path: Path) -> None:
    run(TensorBoard(tmp_path), rounds=[line(1, loss=3.0), line(2, loss=2.0)])
    (file,) = (tmp_path / "tensorboard").iterdir()
    with file.open("ab") as torn:  # it died in the middle of the next one
        torn.write(file.read_bytes()[-40:-10])
    again = RECORD.model_copy(update={"incarnation": 2})
    earlier = [line(1, loss=3.0), line(2, loss=2.0), line(3, loss=1.5)]  # of which the third was not written
    run(TensorBoard(tmp_path), rounds=[line(4, loss=1.0)], record=again, earlier=earlier)
    assert scalars(tmp_path)["test/loss"] == [(1, 3.0), (2, 2.0), (3, 1.5), (4, 1.0)]


def test_a_round_that_is_written_once_more_counts_once(tmp_path: Path) -> None:
    """Its line in the history had not all of its evaluation yet when the aggregator died."""
    run(TensorBoard(tmp_path), rounds=[line(1, loss=3.0), line(2, loss=9.0)])
    again = RECORD.model_copy(update={"incarnation": 2})
    run(TensorBoard(tmp_path), rounds=[line(2, loss=2.0), line(3, loss=1.0)], record=again, earlier=[line(1)])
    assert scalars(tmp_path)["test/loss"] == [(1, 3.0), (2, 2.0), (3, 1.0)]


def test_steps_end_where_a_file_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "events"
    file = EventFile(path)
    for step in (1, 300, 70_000):
        file.scalars(step, {"a": 1.0})
    file.close()
    whole = path.read_bytes()
    assert list(steps(path)) == [0, 1, 300, 70_000]
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        assert list(steps(path)) == [0, 1, 300, 70_000][: len(list(steps(path)))]
        assert len(list(steps(path))) < 4
    path.write_bytes(bytes(byte ^ 0xFF for byte in whole))
    assert list(steps(path)) == []


@pytest.fixture
def little_room() -> Iterable[Callable[[int], None]]:
    """Lets no file of this process grow beyond so many bytes; what is more is an ``OSError``, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


def test_what_finds_no_room_leaves_nothing_behind(tmp_path: Path, little_room: Callable[[int], None]) -> None:
    path = tmp_path / "events"
    little_room(10)
    with pytest.raises(OSError, match="large"):
        EventFile(path)
    little_room(10**6)
    file = EventFile(path)
    file.scalars(1, {"a": 1.0})
    size = path.stat().st_size
    for room in range(size, size + 20):  # none of it, or some
        little_room(room)
        with pytest.raises(OSError, match="large"):
            file.scalars(2, {"a": 2.0})
        assert path.stat().st_size == size
    little_room(10**6)
    file.scalars(3, {"a": 3.0})
    file.close()
    assert list(steps(path)) == [0, 1, 3]


def test_failures_are_said_once_and_counted(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    with caplog.at_level(logging.WARNING):
        trackers = run(Broken(), TensorBoard(tmp_path), rounds=[line(1), line(2)])
    assert trackers.failures == {"broken": 6}, "begin, two steps, two rounds, close"
    assert [record.getMessage() for record in caplog.records] == [caplog.records[0].getMessage()]
    assert "broken: " in caplog.text
    assert "the run continues" in caplog.text
    assert [step for step, _ in scalars(tmp_path)["test/accuracy"]] == [1, 2], "the others are not disturbed"


def test_a_folder_that_cannot_be_made(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    (tmp_path / "tensorboard").write_text("a file")
    trackers = run(TensorBoard(tmp_path), rounds=[line(1), line(2)])
    assert trackers.failures["tensorboard"] == 2
    assert len(caplog.records) == 1
    assert "File exists" in caplog.text


def test_a_slow_tracker_holds_nobody_up() -> None:
    slow = Slow()
    with Trackers([slow], max_waiting=5) as trackers:
        trackers.begin(RECORD, (), runtime_metrics)
        for number in range(1, 101):
            trackers.log_round(line(number))
        assert trackers.failures["slow"] >= 90
        slow.go.set()
        trackers.run_ended("interrupted")
    assert slow.rounds == sorted(set(slow.rounds)), "in their order, each once"
    assert slow.rounds[0] == 1, "nobody has waited for it, or it would have given up"
    assert len(slow.rounds) + trackers.failures["slow"] == 100
    assert slow.outcome == "interrupted"


def test_the_end_waits_for_a_hanging_tracker_only_so_long(caplog: pytest.LogCaptureFixture) -> None:
    slow = Slow()
    run(slow, rounds=[line(1)], close_timeout=0.3)
    assert "still writing" in caplog.text
    slow.go.set()


def test_a_run_without_a_round_leaves_nothing_behind(tmp_path: Path) -> None:
    run(TensorBoard(tmp_path))
    assert not list(tmp_path.iterdir())


def test_without_trackers_there_is_no_thread() -> None:
    before = threading.active_count()
    with Trackers() as trackers:
        trackers.begin(RECORD, (), runtime_metrics)
        assert threading.active_count() == before


def test_a_tracker_is_not_told_who_or_how_many_are_in_a_secret_cohort() -> None:
    told: list[object] = []
    busy = RuntimeMetrics(3, 100, 20, 30, True, False, {"late": 2})
    secret = line(1).model_copy(update={"secret": True})

    class Curious(Slow):
        def begin(
            self,
            run: RunRecord,
            earlier: Iterable[RoundRecord],
            runtime_metrics: Callable[[], RuntimeMetrics],
        ) -> None:
            del run
            told.extend([*(one.participants for one in earlier), runtime_metrics()])

        def log_round(self, record: RoundRecord) -> None:
            told.append(record.participants)

    for against, kept in [("models", runtime_metrics()), ("wire", busy)]:
        private = Settings.model_validate({**PRIVATE, "dp_against": against})
        with Trackers([Curious()]) as trackers:
            trackers.begin(new_record(private), [secret], lambda: busy)
            trackers.log_round(secret)
        assert told == [[], kept, []]
        told.clear()


def test_names_that_mlflow_rejects_are_changed() -> None:
    names = {
        "test/top-5": "test/top-5",
        "test/R²": "test/R²",
        "edges/../x": "edges/__/x",
        "a//b\n": "a/b_",
        "/": "_",
    }
    assert {tag: allowed_name(tag) for tag in names} == names


def test_prometheus_has_every_metric_with_its_unit_and_split() -> None:
    playbook = Playbook(clients=1, per_round=1, declared=(MAE, ACCURACY))
    assert list(metric_families(playbook.state)) == []
    playbook.play("start", "join e roles=evaluate", "join 0", "load 0", "send 0")
    round_done(playbook).play("evaluate e 1 21.5 0.75 split=test")
    found = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in metric_families(playbook.state)
        for sample in family.samples
    }
    assert found == {
        ("fl_metric", ("metric", "mae"), ("split", "test"), ("unit", "kWh")): 21.5,
        ("fl_metric", ("metric", "accuracy"), ("split", "test"), ("unit", "%")): 0.75,
        ("fl_metric", ("metric", "loss"), ("split", "test"), ("unit", "")): 0.5,
        ("fl_metric_best", ("metric", "mae"), ("unit", "kWh")): 21.5,
    }


def test_the_primary_metric_of_each_split_is_everywhere() -> None:
    measured = {"mae": 21.5, "before_mae": 23.5, "after_mae": 20.5, "train_loss": 0.25}
    record = line(1, **measured).model_copy(update={"declared": [MAE]})
    assert tensorboard.scalars(record).items() >= {
        "test/mae": 21.5, "edges/before_mae": 23.5, "edges/after_mae": 20.5, "edges/train_loss": 0.25,
    }.items()  # fmt: skip
    assert [(*sample.labels.values(), sample.value) for sample in edges_family(record).samples] == [
        ("loss", "", "train", 0.25), ("mae", "kWh", "before", 23.5), ("mae", "kWh", "after", 20.5),
    ]  # fmt: skip
    assert [record.unit_of(name) for name in ("mae", "after_mae", "train_loss", "loss", "mae_after")] == [
        "kWh", "kWh", "", "", "",
    ]  # fmt: skip


def test_the_mean_the_tenth_percentile_and_the_worst_edge_are_everywhere() -> None:
    measured = {"mae": 21.5, "edges_mean": 22.0, "edges_p10": 25.0, "edges_worst": 30.0}
    record = line(1, **measured).model_copy(update={"declared": [MAE]})
    assert tensorboard.scalars(record).items() >= {
        "edges/mean": 22.0, "edges/p10": 25.0, "edges/worst": 30.0,
    }.items()  # fmt: skip
    assert [(*sample.labels.values(), sample.value) for sample in edges_statistics(record).samples] == [
        ("mae", "kWh", "mean", 22.0), ("mae", "kWh", "p10", 25.0), ("mae", "kWh", "worst", 30.0),
    ]  # fmt: skip
    assert record.unit_of("edges_worst") == "kWh"
