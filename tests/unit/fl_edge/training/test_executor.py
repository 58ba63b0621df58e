"""What an edge trains with, if the run leaves it to the task."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from fl_edge.tasks.task import TrainingDefaults
from fl_edge.training.executor import training_settings
from fl_shared.protocol.messages import TrainingSettings
from tests.support.builders import training_request

DEFAULTS = TrainingDefaults(epochs=3, batch_size=8, lr=0.5, momentum=0.0)


def test_the_run_decides_and_the_task_fills_in() -> None:
    given = training_settings(training_request(lr=0.1, lr_factor=0.5), DEFAULTS)
    assert given == TrainingSettings(epochs=2, batch_size=32, lr=0.05, momentum=0.9, seed=0)
    open_ones = training_request(epochs=None, batch_size=None, lr=None, momentum=None, lr_factor=0.5, seed=4)
    assert training_settings(open_ones, DEFAULTS) == TrainingSettings(
        epochs=3, batch_size=8, lr=0.25, momentum=0.0, seed=4
    )


def test_a_learning_rate_that_vanishes_is_an_error() -> None:
    with pytest.raises(ValidationError, match="lr"):
        training_settings(training_request(lr=1e-300, lr_factor=1e-300), DEFAULTS)
