"""A served model is looked at on the edges' newest data, and gives way to a candidate that is better there only."""

from __future__ import annotations

import json
import signal
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from fl_aggregator.storage.served_history import LookedAt, ServedHistory
from tests.support import programs
from tests.support.broker import Mosquitto
from tests.support.tables import write_csv
from tests.support.wait import wait_until

pytestmark = [pytest.mark.broker, pytest.mark.edge]

EDGES = 3
OTHER = {"ill": "well", "well": "ill"}
TASK = (
    "--task",
    "tabular",
    "--task-option",
    "target=state",
    "--partition",
    "own",
    "--epochs",
    "20",
    "--lr",
    "0.5",
)


def write_people(directory: Path, *, old_are: str | None) -> None:
    """Writes each edge's table, in which old people are all of one kind, and young ones of the other.

    null: nothing follows from the age.
    """
    for number in range(EDGES):
        rng = np.random.default_rng(number)
        ages = rng.uniform(20, 90, 60).round(1)
        chance = rng.choice(["ill", "well"], 60)
        states = chance if old_are is None else np.where(ages > 55, old_are, OTHER[old_are])
        rows: list[tuple[object, ...]] = [
            (age, state) for age, state in zip(ages.tolist(), states.tolist(), strict=True)
        ]
        write_csv(directory / str(number) / "people.csv", ("age", "state"), rows)


class Site:
    """A broker, edges whose tables can change, and a finished run whose model is served."""

    def __init__(self, stack: ExitStack, directory: Path, broker: Mosquitto, prefix: str) -> None:
        self.directory, self.run = directory, directory / "first" / "run"
        self.history = ServedHistory(self.run)
        self._stack, self.common = stack, ("--broker", broker.url, "--prefix", prefix)
        write_people(directory, old_are="ill")
        self.edges = [
            stack.enter_context(
                programs.edges(
                    directory / f"edge-{number}", broker.url, str(number), "--prefix", prefix, "--light",
                    "--data", str(directory / str(number)),
                )
            )
            for number in range(EDGES)
        ]  # fmt: skip
        training = ("--clients", str(EDGES), "--rounds", "2", *TASK)
        first = programs.aggregator(directory / "first", broker.url, "--prefix", prefix, *training)
        stack.enter_context(first).ends_well()

    def serve(self, name: str, *arguments: str, program: str = "fl-aggregator") -> programs.Program:
        asked = ("--retrain-below", "accuracy=0.9", "--rounds", "3", *arguments)
        return self._stack.enter_context(
            programs.Program(self.directory / name, program, "serve", str(self.run), *self.common, *asked)
        )

    def predicted(self) -> str:
        asked = self.directory / "asked.json"
        asked.write_text(json.dumps({"age": 80.0}))
        done = programs.run("fl-aggregator", "predict", *self.common, "--json", str(asked))
        assert done.returncode == 0, done.stderr
        return str(json.loads(done.stdout)["label"])

    @property
    def served(self) -> list[tuple[int, str]]:
        return [(line.version, line.why) for line in self.history.versions()]

    @property
    def looks(self) -> list[tuple[int, str]]:
        return [(line.version, line.outcome) for line in self.history.lines() if isinstance(line, LookedAt)]

    def wait_for_prediction(self, label: str) -> None:
        wait_until(lambda: self.predicted() == label or None, 60.0, f"the prediction {label}")


def test_drift_starts_a_training_whose_model_wins_and_can_be_rolled_back(
    tmp_path: Path, shared_mosquitto: Mosquitto
) -> None:
    with ExitStack() as stack:
        site = Site(stack, tmp_path, shared_mosquitto, "serve/wins")
        site.serve("good", "--looks", "1").ends_well()
        assert (site.served, site.looks) == ([(1, "first")], [(1, "good")])
        assert site.predicted() == "ill"
        write_people(tmp_path, old_are="well")
        drifted = site.serve("drifted", "--every", "1s", "--looks", "2")
        drifted.ends_well()
        assert site.served == [(1, "first"), (2, "better")], drifted.output
        assert site.looks == [(1, "good"), (1, "replaced"), (2, "good")], drifted.output
        assert site.predicted() == "well"
        serving = site.serve("holding")
        wait_until(lambda: "version 2 is served; next look at" in serving.err or None, 60.0, "a look to come")
        second = programs.run("fl-aggregator", "serve", str(site.run), "--retrain-below", "accuracy=0.9")
        assert (second.returncode, second.stderr) == (
            2, f"fl-aggregator: DIR {site.run}: is served by another process already\n",
        )  # fmt: skip
        back = programs.run("fl-aggregator", "serve", str(site.run), "--rollback")
        assert (back.returncode, back.stdout) == (0, "version 1 is served from now on (from 2)\n"), (
            back.stderr
        )
        wait_until(lambda: "version 1 is served; next look at" in serving.err or None, 60.0, "the rollback")
        site.wait_for_prediction("ill")
        state = programs.run("fl-aggregator", "status", *site.common)
        assert "serves version 1; next look at" in state.stdout
        serving.send(signal.SIGINT)
        assert serving.wait() == 130
        shown = programs.run("fl-aggregator", "serve", str(site.run), "--history").stdout.splitlines()
        assert [line.split("  ", 1)[1].partition(":")[0] for line in shown] == [
            "version 1 is served (first)",
            "look at version 1",
            "version 2 is served (better)",
            "look at version 1",
            "look at version 2",
            "version 1 is served (rollback)",
        ]


def test_a_candidate_that_is_not_better_is_not_served_nor_a_model_that_nobody_measures(
    tmp_path: Path, shared_mosquitto: Mosquitto
) -> None:
    with ExitStack() as stack:
        site = Site(stack, tmp_path, shared_mosquitto, "serve/loses")
        write_people(tmp_path, old_are=None)
        serving = site.serve("kept", "--looks", "1")
        serving.ends_well()
        assert (site.served, site.looks) == ([(1, "first")], [(1, "kept")]), serving.output
        assert "no candidate is better" in serving.out
        assert site.predicted() == "ill"
        for edge in site.edges[1:]:
            programs.kill(edge)
        alone = site.serve("alone", "--looks", "1", "--every", "1s", "--wait", "3")
        alone.ends_well()
        assert site.looks[1:] == [(1, "failed")], alone.output
        assert "the model stays" in alone.out
        assert site.predicted() == "ill"


def test_a_kill_before_a_better_model_is_published_loses_nothing(
    tmp_path: Path, shared_mosquitto: Mosquitto
) -> None:
    with ExitStack() as stack:
        site = Site(stack, tmp_path, shared_mosquitto, "serve/killed")
        write_people(tmp_path, old_are="well")
        killed = site.serve("killed", program="tests.support.killed_before_it_serves")
        assert killed.wait() == -signal.SIGKILL, killed.output
        assert site.served == [(1, "first"), (2, "better")]
        assert site.predicted() == "ill", "the better model is not published yet"
        serving = site.serve("again")
        wait_until(lambda: "version 2 is served; next look at" in serving.err or None, 60.0, "a look to come")
        site.wait_for_prediction("well")
        assert site.served == [(1, "first"), (2, "better")]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ((), "--retrain-below: missing, expected METRIC=VALUE, for example accuracy=0.9"),
        (
            ("--retrain-below", "accuracy"),
            "--retrain-below 'accuracy': expected METRIC=VALUE with a finite number",
        ),
        (("--retrain-below", "a=1", "--every", "soon"), "--every 'soon': expected a number and s, m, h or d"),
        (("--retrain-below", "a=1"), "contains no run (no run.json), expected a run directory"),
        (("--rollback", "first"), "--rollback 'first': expected the number of a version"),
    ],
)
def test_mistakes_are_one_clear_line(tmp_path: Path, arguments: tuple[str, ...], problem: str) -> None:
    done = programs.run("fl-aggregator", "serve", str(tmp_path), *arguments)
    assert done.returncode == 2
    assert problem in done.stderr
    assert len(done.stderr.splitlines()) == 1
