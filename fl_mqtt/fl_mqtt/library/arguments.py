"""Keyword arguments as the options of the programs, and errors that name them as a Python program does."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from fl_aggregator.configuration.settings import Settings, parse_settings
from fl_edge.cli import command as fl_edge
from fl_shared.cli.broker_access import DEFAULT_PREFIX, BrokerOptions
from fl_shared.errors import ProgramError
from fl_shared.mqtt.address import BrokerAddress

OF_BROKER: Final = tuple(name for name in BrokerOptions.__dataclass_fields__ if name != "broker")
"""The arguments, besides ``broker``, that say how to reach the broker."""
_FILES: Final = ("ca", "cert", "key", "kit", "keys")
_OPTIONS: Final = {
    name.replace("_", "-"): name
    for name in (
        *Settings.model_fields,
        *BrokerOptions.__dataclass_fields__,
        *(option.opts[-1].removeprefix("--").replace("-", "_") for option in fl_edge.params),
        "run_dir",
        "init",
        "attack",
    )
}


def settings_of(values: dict[str, Any], broker: str | None) -> tuple[Settings, BrokerOptions]:
    """Returns the settings of a run and the way to its broker, from keyword arguments.

    Raises ``UserError`` for a value that is wrong, and ``TypeError`` for a name.
    """
    check_names(values, (*Settings.model_fields, *OF_BROKER))
    options = broker_options(broker, values)
    of_run = {name: value for name, value in values.items() if name not in OF_BROKER}
    if isinstance(of_task := of_run.get("task_option"), dict):
        of_run["task_option"] = {name: str(value) for name, value in of_task.items()}
    return parse_settings(**of_run, prefix=options.prefix or DEFAULT_PREFIX), options


def check_names(values: Collection[str], known: Collection[str]) -> None:
    """Raises ``TypeError`` for the first name that is not ``known``, as Python does."""
    for name in values:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f". Did you mean {near[0]!r}?" if near else ""
            raise TypeError(f"got an unexpected keyword argument {name!r}{hint}")


def broker_options(broker: str | None, values: dict[str, Any]) -> BrokerOptions:
    """The way to the broker at this URL, with the arguments of `OF_BROKER` among ``values``."""
    address = None if broker is None else BrokerAddress.parse(broker)
    given: dict[str, Any] = {name: values[name] for name in OF_BROKER if values.get(name) is not None}
    return BrokerOptions(address, **given | {name: Path(given[name]) for name in _FILES if name in given})


@contextmanager
def python_names() -> Iterator[None]:
    """Makes errors name arguments as Python does: ``per_round`` instead of ``--per-round``."""
    try:
        yield
    except ProgramError as error:
        error.args = (in_python(str(error)),)
        raise


def in_python(text: str) -> str:
    """Returns ``text`` with the names of arguments instead of those of options."""
    text = re.sub(r"^--resume\b", "resume", text)  # elsewhere it is part of a command
    return re.sub(r"(?<![\w-])--([a-z][a-z-]*)", lambda found: _OPTIONS.get(found[1], found[0]), text)
