"""Who is not in time is never trained, and the times are those of the devices."""

from __future__ import annotations

from pathlib import Path

import pytest

from fl_aggregator.aggregation.worker import JobDone
from fl_aggregator.configuration.settings import Settings
from fl_aggregator.round import events as on
from fl_aggregator.round.phases import Aggregating, Finished
from fl_mqtt.simulation.virtual.devices import Device
from fl_mqtt.simulation.virtual.network import Link
from tests.support.virtual_federation import EXAMPLES, VALUES, Federation

SETTINGS = Settings(task=f"synthetic-{VALUES}", clients=6, per_round=3, over_select=3, rounds=4, holdout=0.0)


def device(client: str) -> Device:
    """The even edges are ten times as fast as the odd ones."""
    return Device(1000.0 if client in "024" else 100.0, Link(0.05, 1e6, 1e6))


def test_what_is_surplus_is_never_trained(tmp_path: Path) -> None:
    federation = Federation(tmp_path / "run", SETTINGS, device=device)
    federation.run()
    assert isinstance(federation.aggregator.state.phase, Finished)
    federation.close()
    trained = [(client, number) for client, number in federation.jobs.trained if number > 0]
    assert sorted(trained) == [(client, number) for client in "024" for number in (1, 2, 3, 4)]
    fast = EXAMPLES * 10 / 1000
    assert 4 * fast < federation.world.now < 4 * fast + 5
    assert federation.jobs.open == 0, "what was closed out is cancelled"


@pytest.mark.parametrize("trained", [True, False])
def test_an_edge_that_restarts_while_the_others_are_averaged_does_not_train_in_vain(
    trained: bool, tmp_path: Path
) -> None:
    """Protocol 4.3. Its update was rejected as surplus, or it has none yet; the selection is still retained."""
    settings = SETTINGS.model_copy(update={"clients": 3, "per_round": 2, "over_select": 1, "rounds": 2})

    def seconds(job: JobDone) -> float:
        return 60.0 if isinstance(job.event, on.ModelCreated) and job.event.round == 1 else 0.0

    federation = Federation(tmp_path / "run", settings, device=device, job_seconds=seconds)
    world, slow, found = federation.world, federation.edges["1"], federation.jobs.trained
    while not (isinstance(phase := federation.aggregator.state.phase, Aggregating) and phase.round == 1):
        federation.run(1)
    until = world.now + (15.0 if trained else 5.0)
    while world.now < until:
        federation.run(1)
    assert (("1", 1) in found) is trained
    slow.kill()
    slow.connect()
    federation.run()
    assert isinstance(federation.aggregator.state.phase, Finished)
    federation.close()
    assert found.count(("1", 1)) == trained


def test_a_link_takes_one_message_after_the_other_and_drops_them_when_it_ends(tmp_path: Path) -> None:
    federation = Federation(tmp_path / "run", SETTINGS)
    network, world = federation.network, federation.world
    done: list[float] = []
    network.transfer("0", 1_250_000, lambda: done.append(world.now))
    network.transfer("0", 1_250_000, lambda: done.append(world.now))
    network.transfer("1", 1_250_000, lambda: done.append(world.now))
    world.after(0.5, lambda: network.disconnect("1"))
    start = world.now
    while len(done) < 2 and world.step():
        pass
    federation.close()
    assert [at - start for at in done] == [1.05, 2.05]
