"""What the aggregator can see of updates, as watchers are told (protocol, 8.4)."""

from __future__ import annotations

from typing import Any

import pytest

from fl_aggregator.configuration.settings import Settings
from fl_aggregator.monitoring.views.status import status_message
from fl_aggregator.monitoring.views.visibility import NOT_CERTIFIED, masked_line, visible_text
from fl_aggregator.round.state import new_run
from fl_aggregator.storage.run_directory import new_record
from fl_shared.protocol import messages as m
from fl_shared.protocol.envelope import EnvelopeSource

SCOPE = EnvelopeSource(run="3f9a1c0b7e22", incarnation=1)


def settings(**more: Any) -> Settings:
    return Settings(**{"task": "digits", "clients": 40, "per_round": 20, "masked": True} | more)


@pytest.mark.parametrize(
    ("options", "least"),
    [
        ({}, 10),
        ({"quorum": 6}, 6),
        ({"masked_min": 3, "quorum": 1}, 4),
        ({"masked_min": 15}, 15),
        ({"masked_colluders": 10, "quorum": 1}, 12),
    ],
)
def test_8_4_a_status_says_how_many_updates_are_in_a_sum_at_least(
    options: dict[str, Any], least: int
) -> None:
    record = new_record(settings(**options))
    status = status_message(new_run(record.settings), SCOPE, 0.0, record=record)
    assert status.masked == m.MaskedSums(least=least, certified=False)
    record.certified = True
    assert status_message(new_run(record.settings), SCOPE, 0.0, record=record).masked == m.MaskedSums(
        least=least, certified=True
    )


def test_a_plain_run_says_that_each_update_is_seen() -> None:
    record = new_record(settings(masked=False))
    assert status_message(new_run(record.settings), SCOPE, 0.0, record=record).masked is None
    assert visible_text(None) == "each update"


def test_without_kits_the_keys_are_not_certified() -> None:
    assert visible_text(m.MaskedSums(least=5, certified=True)) == "only sums of at least 5 updates"
    said = masked_line(m.MaskedSums(least=5, certified=False))
    assert said == f"updates are masked: the aggregator sees only sums of at least 5 updates; {NOT_CERTIFIED}"
