"""Strategies are found by name."""

from __future__ import annotations

import pytest

from fl_aggregator.aggregation.strategies import registry
from fl_aggregator.aggregation.strategies.fedavg import FedAvg
from fl_shared.errors import UserError


def test_a_strategy_is_loaded_by_its_name() -> None:
    assert isinstance(registry.load("fedavg"), FedAvg)


def test_an_unknown_strategy_is_the_users_mistake() -> None:
    with pytest.raises(UserError, match="--strategy 'krum': expected one of fedavg"):
        registry.load("krum")
