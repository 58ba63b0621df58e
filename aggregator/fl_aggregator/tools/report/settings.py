"""The settings of a run as its report lists and compares them, under the names of options."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, Final

from fl_aggregator.aggregation.strategies.registry import GROUPS, PARTS
from fl_aggregator.configuration.settings import Settings, options_of_run
from fl_aggregator.tools.report.reading import RunReport
from fl_shared.cli.broker_access import BrokerOptions
from fl_shared.system.entry_points import entry_points

_OF_BROKER: Final = {field.name for field in dataclasses.fields(BrokerOptions)}
_OF_OTHER_COMMANDS: Final = {
    "survey": {"least": "least", "ranges": "range", "cells": "cells"},
    "region": {"name": "name", "edges": "edges"},
}
"""The members of internal settings that are options of ``survey`` and ``relay``, with the options' names."""


def settings_of(run: RunReport) -> dict[str, Any]:
    """The options of a run, the parts of its strategy, and the versions of the packages that it depends on."""
    return {
        **{name: value for name, value in run.settings.items() if not _is_internal(name)},
        **strategy_parts(run),
        **_options_of_other_commands(run),
        **_simulation_options(run),
        **_initial_weights(run),
        **{f"version of {name}": number for name, number in _object(run.record.get("versions")).items()},
    }


def setting_text(name: str, value: Any) -> str:
    """A setting as text: strings unchanged, other values as JSON; for null what it means, or a dash, as for nothing."""
    if value in (None, {}, [], ""):
        return getattr(options_of_run().get(name), "default", None) or "–"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def strategy_parts(run: RunReport) -> dict[str, str]:
    """The parts of a run's strategy by the options that they take the place of: ``sgd: lr 0.1, momentum 0.9``.

    They have all their fields, also those that no option says. Empty if ``run.json`` does not have them.
    """
    recorded = _object(run.record.get("strategy_parts"))
    return {kind.replace("-", "_"): _parts_text(kind, recorded[kind]) for kind in PARTS if kind in recorded}


def _is_internal(name: str) -> bool:
    """Whether a setting is no option, but follows from options. Settings of other versions are taken for options."""
    return name in Settings.model_fields and name not in options_of_run() and name not in _OF_BROKER


def _parts_text(kind: str, recorded: Any) -> str:
    parts = recorded if isinstance(recorded, list) else [] if recorded is None else [recorded]
    return "; ".join(_part_text(kind, part) for part in parts)


def _part_text(kind: str, recorded: Any) -> str:
    part = _object(recorded)
    target = part.get("part")
    if not isinstance(target, str):
        return _value_text(recorded)
    names = {point.value: point.name for point in entry_points(GROUPS[kind])}
    names |= {value: name for name, value in PARTS[kind].items()}
    fields = ", ".join(f"{name} {_value_text(value)}" for name, value in part.items() if name != "part")
    return names.get(target, target) + (fields and f": {fields}")


def _value_text(value: Any) -> str:
    """A value of a field: different values have different texts."""
    if value is None:
        return "–"
    if isinstance(value, str):
        return value
    if isinstance(value, float) and float(short := f"{value:g}") == value:
        return short
    return json.dumps(value, ensure_ascii=False)


def _options_of_other_commands(run: RunReport) -> dict[str, Any]:
    return {
        option: members[name]
        for setting, options in _OF_OTHER_COMMANDS.items()
        for members in (_object(run.settings.get(setting)),)
        for name, option in options.items()
        if name in members
    }


def _simulation_options(run: RunReport) -> dict[str, Any]:
    """What only ``simulate`` has, as far as it was given."""
    fleet = _object(run.record.get("fleet"))
    given = {
        **_object(fleet.get("options")),
        "attack": _object(fleet.get("attack")).get("specification"),
        "heterogeneity": _object(fleet.get("virtual")).get("heterogeneity"),
    }
    return {name: value for name, value in given.items() if value is not None}


def _initial_weights(run: RunReport) -> dict[str, Any]:
    """The digest of the weights that were given (``--init``); empty if none were."""
    digest = _object(run.record.get("first_weights")).get("digest")
    found = digest or _object(run.record.get("plain_weights")).get("sha256")
    return {"init": found} if found else {}


def _object(value: Any) -> Mapping[str, Any]:
    """The value if it is an object of JSON, else an empty one."""
    return value if isinstance(value, dict) else {}
