"""Keyword arguments become settings, and errors name them as Python does."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from fl_mqtt.library.arguments import in_python, python_names, settings_of
from fl_shared.errors import UserError


def test_settings_and_the_broker_are_told_apart() -> None:
    settings, options = settings_of(
        {"clients": 3, "task_option": {"hidden": 8}, "prefix": "plant7/fl", "ca": "ca.pem", "password": None},
        "mqtts://me@host",
    )
    assert (settings.clients, settings.per_round, settings.task_option) == (3, 3, {"hidden": "8"})
    assert settings.prefix == options.prefix == "plant7/fl"
    assert (str(options.broker), options.ca, options.password) == (
        "mqtts://me@host:8883",
        Path("ca.pem"),
        None,
    )


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"clients": 0}, "clients 0: input should be greater than or equal to 1"),
        ({"clients": 3, "per_round": 9}, "per_round: 9 must not exceed clients (3)"),
        ({"task_option": 3}, "task_option 3: input should be a valid dictionary"),
        ({"broker": "nowhere://x"}, "nowhere://x"),
    ],
)
def test_a_wrong_value_is_named_without_dashes(values: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=re.escape(said)) as error, python_names():
        settings_of(values, values.pop("broker", None))
    assert "--" not in str(error.value)


def test_a_wrong_name_is_what_python_makes_of_it() -> None:
    with pytest.raises(TypeError, match=r"unexpected keyword argument 'rouds'. Did you mean 'rounds'\?"):
        settings_of({"rouds": 3}, None)


def test_only_options_that_have_an_argument_are_renamed() -> None:
    said = in_python("--run-dir x: --seal needs --kit; pip install --upgrade y; go on with z --resume x")
    assert said == "run_dir x: seal needs kit; pip install --upgrade y; go on with z --resume x"
