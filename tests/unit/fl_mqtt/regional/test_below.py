"""A region asks its edges for what the run above asks for."""

from __future__ import annotations

from fl_aggregator.aggregation.regional_sum import strategy_of
from fl_aggregator.aggregation.strategies.registry import resolved
from fl_aggregator.aggregation.strategies.sums import Sum
from fl_aggregator.configuration.regions import regional_sums
from fl_aggregator.configuration.survey import Survey, survey_settings
from fl_mqtt.regional.below import RegionOptions, settings_of


def test_a_region_surveys_its_edges() -> None:
    above = resolved(
        survey_settings(
            Survey(least=6, ranges={"age": (0.0, 120.0)}),
            task="tabular",
            task_option={"target": "price"},
            clients=20,
        )
    )
    options = RegionOptions(
        name="north", edges=8, clients=8, per_round=8, quorum=6, grace=1.0, wait=60.0, durability="process",
        require_sealed=False,
    )  # fmt: skip
    below = settings_of(options, above.task_spec, above.partition_at(0), regional_sums(above), "fl/north")
    assert below.task_spec == above.task_spec
    assert below.scale_bits == above.scale_bits
    assert strategy_of(below).combine == Sum()
