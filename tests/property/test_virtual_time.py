"""A whole federation in virtual time, whose programs die and whose links fail at any event.

`test_round` and `test_session` check each machine alone. Here both meet, with messages that are lost, doubled and late.
"""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Collection
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from fl_aggregator.configuration.settings import Settings
from fl_aggregator.monitoring.views.round_record import read_records
from fl_aggregator.round.phases import Failed, Finished
from fl_aggregator.server.resume import replay_journal
from fl_mqtt.simulation.virtual.devices import Device
from fl_mqtt.simulation.virtual.network import Hop, Link, NoFaults
from tests.support.virtual_federation import VALUES, Federation, delta_of

RUNS = int(os.environ.get("FL_HYPOTHESIS_RUNS", "10"))
"""Examples of the state machine; more find more."""
EDGES = st.sampled_from(("0", "1", "2", "3"))


class Faults:
    """Loses, doubles and delays a share of the messages."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)
        self.share = self._rng.choice((0.0, 0.05, 0.2))

    def delays(self, _hop: Hop, /) -> Collection[float]:
        if self._rng.random() >= self.share:
            return (0.0,)
        return self._rng.choice(((), (0.0, 1.0), (2.0,)))


class FederationMachine(RuleBasedStateMachine):
    """Four edges; three of them are selected for each round, of which two are enough."""

    @initialize(seed=st.integers(0, 999), over_select=st.integers(0, 1), grace=st.sampled_from((0.0, 5.0)))
    def begin(self, seed: int, over_select: int, grace: float) -> None:
        self.directory = tempfile.TemporaryDirectory(prefix="fl-virtual-")
        rng = random.Random(seed)
        devices = {name: Device(rng.choice((1000.0, 200.0)), Link(0.05, 1e6, 1e6)) for name in "0123"}
        self.federation = Federation(
            Path(self.directory.name) / "run",
            Settings(
                task=f"synthetic-{VALUES}", clients=4, per_round=3, over_select=over_select, quorum=2, rounds=3,
                holdout=0.0, deadline=60.0, grace=grace, seed=seed,
            ),
            device=devices.__getitem__,
            faults=Faults(seed),
        )  # fmt: skip

    @property
    def going(self) -> bool:
        """Whether the run goes on."""
        return not self.federation.aggregator.state.ended

    @rule(events=st.integers(1, 60))
    def pass_events(self, events: int) -> None:
        self.federation.run(events)

    @precondition(lambda self: self.going)
    @rule()
    def restart_aggregator(self) -> None:
        self.federation.restart_aggregator()

    @rule(client=EDGES)
    def kill(self, client: str) -> None:
        edge = self.federation.edges[client]
        edge.kill()
        self.federation.world.after(3.0, edge.connect)

    @rule(client=EDGES)
    def disconnect(self, client: str) -> None:
        edge = self.federation.edges[client]
        edge.disconnect()
        self.federation.world.after(3.0, edge.connect)

    def teardown(self) -> None:
        if not hasattr(self, "federation"):
            return
        try:
            self._check_end()
        finally:
            self.federation.close()
            self.directory.cleanup()

    def _check_end(self) -> None:
        federation = self.federation
        federation.network.faults = NoFaults()
        federation.run(100_000)
        state, path = federation.aggregator.state, federation.directory
        assert isinstance(state.phase, Finished | Failed), state.phase
        record = federation.record
        assert replay_journal(path, record).state == state, "the journal leads to the state"
        records = list(read_records(federation.history()))
        assert [line.round for line in records] == list(range(1, len(records) + 1)), "one line for each round"
        weights = delta_of(record.settings.seed, 0, "")
        for line in records:
            assert not set(line.participants) & set(line.missing), line
            if line.outcome == "committed":
                assert {*line.participants, *line.missing} == set(line.cohort), line
                assert len(line.participants) >= 2
                deltas = [delta_of(record.settings.seed, line.round, name) for name in line.participants]
                weights = (weights + np.mean(np.stack(deltas).astype(np.float64), axis=0)).astype(np.float32)
        if state.model is not None:
            np.testing.assert_allclose(federation.newest_weights(), weights, atol=1e-5)


def test_every_run_ends_with_the_mean_of_those_it_names() -> None:
    run_state_machine_as_test(
        FederationMachine,
        settings=settings(
            max_examples=RUNS, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
