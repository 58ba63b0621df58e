"""`fl_mqtt.Aggregator` and `fl_mqtt.Edge`: one side each, on a broker that is there."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fl_mqtt import Aggregator, Edge, RunFailed, UserError
from tests.support import programs
from tests.support.broker import Mosquitto
from tests.support.library_task import Sum

pytestmark = [pytest.mark.broker, pytest.mark.usefixtures("light_edges", "forked_children")]


class Local(Sum):
    """Named by this module, which an edge finds where this process found it."""


def test_both_sides_train_a_class_together(tmp_path: Path, mosquitto: Mosquitto) -> None:
    children = programs.Children()

    class Mine(Sum):
        """Cannot be imported: both sides give it the same name."""

    for task in (Local, Mine):
        prefix = f"fl/{task.__name__}"
        aggregator = Aggregator(
            task, broker=mosquitto.url, prefix=prefix, clients=2, rounds=2, wait=60.0,
            run_dir=tmp_path / task.__name__,
        )  # fmt: skip
        with (
            Edge(0, broker=mosquitto.url, task=task, prefix=prefix, state_dir=tmp_path / prefix / "0"),
            Edge(
                "lab", broker=mosquitto.url, task=task, prefix=prefix, state_dir=tmp_path / prefix / "1"
            ) as edge,
        ):
            result = aggregator.run()
            with pytest.raises(TimeoutError, match=r"edge lab still runs after 0.01 s"):
                edge.wait(0.01)
            assert "lab" in edge.log
        assert (result.outcome, result.version, set(result.edges)) == ("finished", 2, {"0", "lab"})
        assert edge.log == ""
    assert not children.started()


def test_a_run_is_stopped_from_another_thread(tmp_path: Path, mosquitto: Mosquitto) -> None:
    begun = threading.Event()
    aggregator = Aggregator(
        Local, broker=mosquitto.url, clients=1, rounds=100_000, wait=60.0, evaluate_every=1000,
        run_dir=tmp_path / "run", log=lambda _line: begun.set(),
    )  # fmt: skip
    with (
        Edge(0, broker=mosquitto.url, task=Local, state_dir=tmp_path / "0"),
        ThreadPoolExecutor(1) as pool,
    ):
        running = pool.submit(aggregator.run)
        assert begun.wait(60)
        aggregator.stop("enough")
        result = running.result(60)
    assert (result.outcome, result.history[0]["outcome"]) == ("stopped", "committed")
    assert result.version >= 1
    assert result.model


def test_a_stop_before_the_run_counts(tmp_path: Path, mosquitto: Mosquitto) -> None:
    aggregator = Aggregator(Local, broker=mosquitto.url, clients=1, run_dir=tmp_path / "run")
    aggregator.stop()
    with pytest.raises(RunFailed, match="stopped by the program"):
        aggregator.run()
    assert not (tmp_path / "run").exists(), "there was no run yet"


def test_an_edge_with_a_mistake_says_it(tmp_path: Path, mosquitto: Mosquitto) -> None:
    wrong = Edge(7, broker=mosquitto.url, task="nothing", state_dir=tmp_path / "7").start()
    with pytest.raises(
        UserError, match=r"^edge 7: task: 'nothing' is unknown here, expected one of: digits, "
    ):
        wrong.wait(60)
    with pytest.raises(UserError):
        wrong.stop()
    with pytest.raises(RuntimeError, match="has been started before"):
        wrong.start()


def test_a_run_without_edges_fails_and_names_the_mistake_of_its_edge(
    tmp_path: Path, mosquitto: Mosquitto
) -> None:
    edge = Edge(7, broker=mosquitto.url, task="nothing", state_dir=tmp_path / "7")
    aggregator = Aggregator(Local, broker=mosquitto.url, clients=1, wait=0.5, run_dir=tmp_path / "run")

    def run() -> None:
        with edge:
            with pytest.raises(UserError):
                edge.wait(60)
            aggregator.run()

    with pytest.raises(RunFailed) as error:
        run()
    notes = error.value.__notes__
    assert notes[0] == f"the run is in {tmp_path / 'run'}"
    assert notes[1].startswith("edge 7: task: 'nothing' is unknown here")


def test_a_broker_that_is_not_there_is_the_callers_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="localhost"):
        Aggregator(Local, broker="mqtt://localhost:1", run_dir=tmp_path / "run").run()
    assert not (tmp_path / "run").exists()
