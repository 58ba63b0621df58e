"""The settings of asynchronous runs: what follows from what, and what does not go together."""

from __future__ import annotations

from typing import Any

import pytest

from fl_aggregator.aggregation.strategies import registry
from fl_aggregator.configuration.settings import Settings, parse_settings
from fl_aggregator.configuration.staleness import parse_staleness
from fl_shared.errors import UserError


def test_the_buffer_is_half_of_the_edges_at_work() -> None:
    tested = parse_settings(mode="async", clients=30)
    assert (tested.concurrency, tested.buffer, tested.per_round, tested.effective_quorum) == (20, 10, 10, 10)
    assert (tested.staleness, tested.max_staleness, tested.abilities) == ("polynomial:0.5", 10, ("tickets",))
    assert parse_settings(mode="async", clients=5).buffer == 3
    assert (tested.evaluate_every, parse_settings().evaluate_every) == (None, 1)
    assert parse_settings(mode="async", evaluate_every=1).evaluate_every == 1
    assert Settings.model_validate(tested.model_dump()) == tested, "as run.json has it"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"per_round": 4}, "--per-round: has no meaning with --mode async: say --buffer and --concurrency"),
        ({"quorum": 4}, "--quorum: has no meaning with --mode async: say --buffer and --concurrency"),
        (
            {"over_select": 2},
            "--over-select: has no meaning with --mode async: say --buffer and --concurrency",
        ),
        ({"pace": "auto"}, "--pace: auto is about rounds, but --mode is async, which has none"),
        ({"buffer": 21}, "--buffer: 21 must not exceed --clients (20): an edge contributes at most once"),
        ({"concurrency": 21}, "--concurrency: 21 must not exceed --clients (20)"),
        ({"staleness": "poly"}, "--staleness 'poly': expected constant, polynomial:A"),
        ({"mode": "sync", "buffer": 3}, "--buffer: has a meaning with --mode async only, but --mode is sync"),
        ({"mode": "sync", "max_staleness": 3}, "--max-staleness: has a meaning with --mode async only"),
        ({"strategy": "scaffold"}, "scaffold: compares edges that train from the same version"),
        ({"strategy": "median", "buffer": 2}, "needs 3 updates, but --buffer is 2: raise --buffer"),
        ({"strategy": "krum:bad=1", "buffer": 4}, "needs 5 updates, but --buffer is 4: raise --buffer"),
    ],
)
def test_what_does_not_go_together_is_refused_naming_both_options(given: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as refused:
        registry.load(parse_settings(**{"mode": "async"} | given))
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("text", "factors"),
    [
        ("constant", [1, 1, 1]),
        ("polynomial:0.5", [1, 2**-0.5, 101**-0.5]),
        ("polynomial:1", [1, 0.5, 1 / 101]),
        ("hinge:10,4", [1, 1, 1 / 961]),
        ("hinge:1,0", [1, 0.5, 1 / 101]),
        ("polynomial:100", [1, 2**-30, 2**-30]),
    ],
)
def test_staleness_lowers_the_weight(text: str, factors: list[float]) -> None:
    found = [parse_staleness(text)(versions) for versions in (0, 1, 100)]
    assert found == pytest.approx(factors, abs=2**-30)
    assert all(0 < one <= 1 for one in found)


@pytest.mark.parametrize(
    "text", ["", "constant:1", "polynomial", "polynomial:0", "polynomial:nan", "hinge:1", "hinge:1,-1"]
)
def test_other_functions_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected constant, polynomial:A"):
        parse_staleness(text)
