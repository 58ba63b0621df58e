"""A run whose aggregator is killed and resumed is the run that it would have been (G1, G2, G3)."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Iterator

import pytest

from tests.support import programs
from tests.support.broker import Mosquitto
from tests.support.crashing_runs import (
    Cluster,
    Reference,
    contributions,
    dies_and_goes_on,
    events,
    undisturbed_run,
)
from tests.support.wait import wait_until

pytestmark = [pytest.mark.broker, pytest.mark.edge]

RUN = (
    "--task", "digits-mlp", "--clients", "3", "--per-round", "2", "--rounds", "2", "--epochs", "1", "--grace", "0",
    "--wait", "60", "--deadline", "60",
)  # fmt: skip


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    directory = tmp_path_factory.mktemp("resume")
    (directory / "broker").mkdir()
    broker = Mosquitto(directory / "broker")
    with programs.edges(directory / "edges", broker.url, "0-2", "--light") as fleet:
        yield Cluster(broker, fleet, directory, RUN)
    broker.stop()


@pytest.fixture(scope="module")
def undisturbed(cluster: Cluster) -> Reference:
    return undisturbed_run(cluster)


# One of them here, all in the long tests; `tests/property/test_chaos.py` has any of them in virtual time.
@pytest.mark.parametrize("boundary", [32])
def test_killed_before_an_effect_and_resumed_it_makes_the_same_model(
    cluster: Cluster, undisturbed: Reference, boundary: int
) -> None:
    dies_and_goes_on(cluster, undisturbed, boundary)


@pytest.mark.long
@pytest.mark.timeout(960)
def test_killed_again_and_again_it_makes_the_same_model(cluster: Cluster, undisturbed: Reference) -> None:
    code = int(-signal.SIGKILL)
    notes: list[str] = []
    for start in range(40):
        assert code == -signal.SIGKILL, notes
        code, note = cluster.crash("again-and-again", 24 + start % 5, again=start > 0)
        notes.append(note)
        if code == 0:
            break
    directory = cluster.directory / "again-and-again"
    assert code == 0, notes
    assert len(notes) > 2, "it was killed more than once"
    assert cluster.model("again-and-again") == undisturbed.model
    assert contributions(directory) == undisturbed.contributions
    epochs = [event["incarnation"] for event in events(directory) if event["event"] == "Resumed"]
    assert epochs == sorted(set(epochs)), "the incarnation grows at each start"
    assert json.loads((directory / "run" / "run.json").read_text())["incarnation"] == len(notes)


def test_a_run_in_memory_only_begins_its_round_anew(cluster: Cluster) -> None:
    """``--durability memory`` pays nothing, and loses the open round with the process, not the run."""
    name = "memory"
    directory = cluster.directory / name
    with programs.Program(
        directory, "fl-aggregator", "start", *RUN, "--epochs", "60", "--durability", "memory",
        "--broker", cluster.broker.url, "--keepalive", programs.KEEPALIVE, "--run-dir", str(directory / "run"),
    ) as run:  # fmt: skip
        wait_until(lambda: (1 in contributions(directory)) or not run.running(), 60, "an update of round 1")
        run.send(signal.SIGKILL)
        run.wait()
    before = contributions(directory)
    with cluster.resume(name, "--broker", cluster.broker.url) as again:
        again.ends_well()
    if len(before[1]) == 1:
        assert "accepted updates of round 1 are missing" in again.err
        assert programs.history(directory)[0]["outcome"] == "abandoned"
    assert [line["version"] for line in programs.history(directory) if line["version"]] == [1, 2]


def test_a_run_that_is_online_is_not_taken_up_from_a_copy_of_its_directory(cluster: Cluster) -> None:
    directory = cluster.directory / "original"
    with programs.Program(
        directory, "fl-aggregator", "start", *RUN, "--epochs", "3000", "--prefix", "fl",
        "--broker", cluster.broker.url, "--keepalive", programs.KEEPALIVE, "--run-dir", str(directory / "run"),
    ) as run:  # fmt: skip
        wait_until(lambda: "round 1: selected" in run.err, 60, "round 1")
        shutil.copytree(directory / "run", cluster.directory / "copy" / "run")
        with cluster.resume("copy", "--broker", cluster.broker.url) as copy:
            assert copy.wait(30) == 2
        assert "is online under the prefix 'fl'" in copy.err
        assert run.running()
        run.send(signal.SIGINT)
        assert run.wait(30) == 130


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_killed_before_each_effect_and_resumed_it_makes_the_same_model(
    cluster: Cluster, undisturbed: Reference
) -> None:
    notes = [
        dies_and_goes_on(cluster, undisturbed, boundary, "each") for boundary in range(undisturbed.effects)
    ]
    about_to = {note.split()[1] for note in notes if note != "lives"}
    assert {"Record", "AnnounceRound", "StoreUpdate", "SendReply", "Fold", "Average", "PublishModel", "PublishResult",
            "WithdrawRound", "WriteHistory", "EndRun"} <= about_to  # fmt: skip
