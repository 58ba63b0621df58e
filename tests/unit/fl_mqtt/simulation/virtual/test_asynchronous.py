"""Asynchronous runs in virtual time: wherever they are killed, their journals lead to their models."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from fl_aggregator.configuration.settings import Settings
from fl_aggregator.round import effects as do
from fl_aggregator.round.events import UpdateMetadata
from fl_aggregator.round.phases import Finished
from fl_mqtt.simulation.virtual.devices import Device
from fl_mqtt.simulation.virtual.network import Link
from fl_shared.tensors.manifest import ArraySpec, Manifest, Vector
from tests.support import virtual_federation
from tests.support.buffered_averages import check_models
from tests.support.virtual_federation import MANIFEST, UNIFORM, VALUES, Federation, delta_of

SETTINGS = Settings.model_validate(
    {
        "task": f"synthetic-{VALUES}", "clients": 5, "rounds": 6, "holdout": 0.0, "mode": "async", "concurrency": 4,
        "buffer": 2, "max_staleness": 4,
    }
)  # fmt: skip


def delta(accepted: UpdateMetadata) -> Vector:
    return delta_of(SETTINGS.seed, accepted.round, accepted.client)


def with_a_slow_edge(client: str) -> Device:
    return Device(100.0, Link(0.05, 1.25e6, 1.25e6)) if client == "3" else UNIFORM


def finish(federation: Federation, manifest: Manifest = MANIFEST) -> list[do.Average]:
    federation.run()
    state = federation.aggregator.state
    federation.close()
    assert isinstance(state.phase, Finished), state.phase
    (first,) = (client for client, number in federation.jobs.trained if number == 0)
    assert not list((federation.directory / "spool").iterdir())
    return check_models(federation.directory, manifest, delta_of(SETTINGS.seed, 0, first), delta)


def test_a_slow_edge_delays_nobody(tmp_path: Path) -> None:
    federation = Federation(tmp_path / "run", SETTINGS, device=with_a_slow_edge)
    finish(federation)
    assert federation.world.now < 10.0, "it needs 10 s for one training"


def test_an_edge_whose_updates_never_count_is_named_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = SETTINGS.model_copy(update={"rounds": 60, "max_staleness": 2})
    federation = Federation(tmp_path / "run", settings, device=with_a_slow_edge)
    with caplog.at_level(logging.WARNING):
        finish(federation)
    (line,) = (one for one in caplog.messages if "too old" in one)
    assert line == (
        "the last 3 updates of edges 3 were all too old to count (stale: 3 versions, at most 2 count "
        "(--max-staleness)): what only they have is not learned; raise --max-staleness, or --buffer for fewer versions"
    )


@pytest.mark.parametrize("first", [0, *(pytest.param(one, marks=pytest.mark.long) for one in range(1, 4))])
def test_killed_at_any_event_and_resumed_it_makes_the_models_of_its_journal(
    tmp_path: Path, first: int
) -> None:
    whole = Federation(tmp_path / "whole", SETTINGS, device=with_a_slow_edge)
    finish(whole)
    for cut in range(first, whole.world.events, 20):
        federation = Federation(tmp_path / str(cut), SETTINGS, device=with_a_slow_edge)
        for events in (cut, 30):
            federation.run(events)
            if not federation.aggregator.state.ended:
                federation.restart_aggregator()
        finish(federation)


def test_buffers_are_means_of_what_edges_ended_with_and_their_versions_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Protocol, 5.20: also if the aggregator is killed, and reads the versions that edges began from."""
    manifest = Manifest(
        arrays=(ArraySpec(name="v", shape=(VALUES - 6,), role="buffer"), ArraySpec(name="w", shape=(6,)))
    )
    monkeypatch.setattr(virtual_federation, "MANIFEST", manifest)
    settings = SETTINGS.model_copy(update={"rounds": 12})

    def device(client: str) -> Device:
        return Device(250.0, Link(0.05, 1.25e6, 1.25e6)) if client == "3" else UNIFORM

    whole = Federation(tmp_path / "whole", settings, device=device)
    averages = finish(whole, manifest)
    oldest = max(update.staleness for average in averages for update in average.contributors)
    assert oldest >= 3, "older than the versions that a run keeps in any case"
    for cut in range(50, whole.world.events, 100):
        federation = Federation(tmp_path / str(cut), settings, device=device)
        federation.run(cut)
        if not federation.aggregator.state.ended:
            federation.restart_aggregator()
        finish(federation, manifest)
