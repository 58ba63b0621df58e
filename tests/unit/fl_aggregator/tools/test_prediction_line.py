"""The line about an answer says whose it is, and of which model."""

from __future__ import annotations

from typing import Any

import pytest

from fl_aggregator.tools.remote.predict import prediction_line
from fl_shared.protocol import messages as m


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"version": 3}, "prediction: 7, by edge e with version 3 of the model"),
        (
            {"version": 0},
            "prediction: 7, by edge e with version 0 of the model, which this run has not trained yet",
        ),
        (
            {"version": 3, "first_version": 2},
            "prediction: 7, by edge e with the mean of versions 2–3 of the model",
        ),
        (
            {"version": 3, "personal": True},
            "prediction: 7, by edge e with version 3 of the model, all of it its own",
        ),
        (
            {"version": 3, "personal": True, "personal_part": True},
            "prediction: 7, by edge e with version 3 of the model, a part of it its own",
        ),
    ],
)
def test_an_answer_names_its_model(given: dict[str, Any], line: str) -> None:
    scope: dict[str, Any] = {"run": "0" * 12, "incarnation": 1, "seq": 1}
    assert prediction_line(m.Prediction(**scope, client="e", sha256="0" * 64, label="7", **given)) == line
