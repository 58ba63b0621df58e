"""What observers are told of ten thousand edges is complete, or short."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from fl_aggregator.monitoring.views.edge_states import open_round_views
from fl_aggregator.monitoring.views.notices import waiting_text
from fl_aggregator.monitoring.views.status import MAX_STATUS_BYTES, missing_message, status_message
from fl_aggregator.round.phases import Collecting
from fl_aggregator.round.state import Run
from fl_shared.protocol import codec
from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from fl_shared.protocol.envelope import EnvelopeSource
from fl_shared.protocol.limits import MAX_JSON, MAX_NAMES
from tests.support.large_runs import collecting, waiting

SCOPE = EnvelopeSource(run="3f9a1c0b7e22", incarnation=1)


@pytest.fixture(scope="module")
def state() -> Run:
    return collecting(10_000, 1000)


def test_the_status_is_as_short_as_any(state: Run) -> None:
    status = status_message(state, SCOPE, 12.0)
    assert len(codec.encode(status)) <= MAX_STATUS_BYTES
    assert (status.have, status.need, status.present, len(status.missing)) == (0, 1000, 10_000, 10)


def test_all_that_are_awaited_are_named(state: Run) -> None:
    missing = missing_message(state, SCOPE, 12.0)
    assert missing is not None
    assert isinstance(state.phase, Collecting)
    assert set(missing.clients) == set(state.phase.cohort)
    assert len(codec.encode(missing)) <= MAX_JSON


def test_the_states_of_all_edges_fit_into_one_message(state: Run) -> None:
    edges = open_round_views(state, (), {})
    assert Counter(view.state for view in edges.values()) == {"training": 1000, "present": 9000}
    message = m.Edges(**SCOPE.envelope(), round=4, phase="collecting", edges=edges)
    assert len(payload := codec.encode(message)) <= MAX_NAMES / 4
    assert codec.decode(t.EdgesTopic(4), payload) == message


def test_a_line_of_the_log_names_a_few(state: Run) -> None:
    absent = replace(waiting(10_000, 1000), roster=state.roster.mark_all_unconfirmed(1.0))
    assert waiting_text(absent) == "0 of 500 ready; offline: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 9990 more"
