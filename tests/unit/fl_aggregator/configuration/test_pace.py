"""``--pace``: its fields, with their ranges."""

from __future__ import annotations

import pytest

from fl_aggregator.configuration.pace import Pace, parse_pace
from fl_aggregator.configuration.settings import parse_settings
from fl_shared.errors import UserError


def test_fields_that_are_not_given_have_defaults() -> None:
    assert parse_pace("fixed") is None
    assert parse_pace("auto") == Pace()
    assert parse_pace("auto:factor=3,window=2") == Pace(factor=3.0, window=2)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("slow", "--pace 'slow': expected fixed, or auto with any of its fields"),
        ("fixed:factor=2", "--pace 'fixed:factor=2': expected fixed, or auto with any of its fields"),
        ("auto:", "--pace 'auto:': expected NAME or NAME:FIELD=VALUE"),
        ("auto:speed=2", "--pace auto: field 'speed' is unknown; it has: quantile, factor, window, shortest"),
        ("auto:quantile=1", "--pace auto: quantile=1: input should be less than or equal to 0.99"),
        ("auto:quantile=0.4", "--pace auto: quantile=0.4: input should be greater than or equal to 0.5"),
        ("auto:factor=1", "--pace auto: factor=1: input should be greater than or equal to 1.1"),
        ("auto:factor=nan", "--pace auto: factor=nan: input should be"),
        ("auto:window=0", "--pace auto: window=0: input should be greater than or equal to 1"),
        ("auto:window=1.5", "--pace auto: window=1.5: input should be a valid integer"),
        ("auto:shortest=0", "--pace auto: shortest=0: input should be greater than 0"),
    ],
)
def test_other_values_are_refused_with_their_range(text: str, said: str) -> None:
    with pytest.raises(UserError) as refused:
        parse_settings(pace=text)
    assert said in str(refused.value)
