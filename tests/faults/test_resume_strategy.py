"""What a strategy keeps survives the aggregator, and what it needs is read again: the same model, bit for bit."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fl_aggregator.storage.checkpoint import Checkpoints
from tests.support import programs
from tests.support.broker import Mosquitto
from tests.support.crashing_runs import Cluster, Reference, dies_and_goes_on, events, undisturbed_run

pytestmark = pytest.mark.broker

RUN = (
    "--clients", "5", "--per-round", "5", "--quorum", "5", "--rounds", "2", "--grace", "0",
    "--wait", "60", "--deadline", "60",
)  # fmt: skip
SYNTHETIC = ("--task", "synthetic-50")
STRATEGIES = {
    "fedadam": (*SYNTHETIC, "--strategy", "fedadam"),
    "median": (*SYNTHETIC, "--strategy", "median", "--server-optimizer", "sgd:momentum=0.9"),
    "served": (*SYNTHETIC, "--serve", "average:2"),
    "multi-krum": (*SYNTHETIC, "--strategy", "multi-krum:bad=1", "--transform", "clip:norm=1"),
    # What its edges have kept must go back with it, or their updates differ.
    "scaffold": ("--task", "digits-mlp", "--epochs", "1", "--strategy", "scaffold"),
    "personal": ("--task", "digits-mlp", "--epochs", "1", "--keep-local", "fc2.*", "--personalize", "1"),
}


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(name, marks=() if name in ("fedadam", "scaffold", "personal") else pytest.mark.long)
        for name in STRATEGIES
    ],
)
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    directory = tmp_path_factory.mktemp(request.param)
    (directory / "broker").mkdir()
    broker = Mosquitto(directory / "broker")
    with programs.edges(directory / "edges", broker.url, "0-4", "--light") as fleet:
        yield Cluster(broker, fleet, directory, (*RUN, *STRATEGIES[request.param]))
    broker.stop()


@pytest.fixture(scope="module")
def undisturbed(cluster: Cluster) -> Reference:
    return undisturbed_run(cluster)


def states(cluster: Cluster, name: str) -> list[tuple[str | None, str | None]]:
    """The digests of the strategy's state and of the mean that is served, of each version."""
    made = [one for one in events(cluster.directory / name) if one["event"] == "ModelCreated"]
    return [(one["strategy_state"], one["served"]) for one in made]


def goes_on(cluster: Cluster, undisturbed: Reference, boundary: int, name: str = "at") -> str:
    note = dies_and_goes_on(cluster, undisturbed, boundary, name)
    if note != "lives":
        assert states(cluster, f"{name}-{boundary}") == states(cluster, "undisturbed"), note
        found, expected = (
            [(line["strategy"], line["personal"]) for line in programs.history(cluster.directory / run)]
            for run in (f"{name}-{boundary}", "undisturbed")
        )
        assert found == expected, note
        assert all(said is not None for said, _ in found)
    return note


def test_it_is_written_beside_the_models(cluster: Cluster, undisturbed: Reference) -> None:
    assert undisturbed.model
    first, *later = (state for state, _ in states(cluster, "undisturbed"))
    assert first is None, "the first weights are nobody's average"
    checkpoints = Checkpoints(cluster.directory / "undisturbed" / "run")
    keeps = not any(name in cluster.directory.name for name in ("multi-krum", "served", "personal"))
    assert [digest is not None for digest in later] == [keeps, keeps]
    assert [checkpoints.state_path(n).exists() for n in (0, 1, 2)] == [False, keeps, keeps]
    if keeps:
        assert checkpoints.read_state(2, later[-1])


@pytest.mark.parametrize("from_the_end", [8, pytest.param(25, marks=pytest.mark.long)])
def test_killed_before_an_effect_it_makes_the_same_model(
    cluster: Cluster, undisturbed: Reference, from_the_end: int
) -> None:
    """Before the end of round 2, and of round 1."""
    goes_on(cluster, undisturbed, undisturbed.effects - from_the_end)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_killed_before_each_effect_it_makes_the_same_model(cluster: Cluster, undisturbed: Reference) -> None:
    notes = [goes_on(cluster, undisturbed, boundary, "each") for boundary in range(6, undisturbed.effects)]
    assert {"Fold", "Average", "PublishModel"} <= {note.split()[1] for note in notes if note != "lives"}
