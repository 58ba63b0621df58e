"""The strategies and their parts, by name or as ``package.module:Class``, with the values of their fields.

A strategy may be an object of another package, too: ``package.module:OBJECT``, a `Strategy`, which takes no fields.

A specification is ``NAME``, ``NAME:FIELD=VALUE,…`` or the same with ``package.module:Class`` for the name. A new part
is a frozen dataclass whose fields are its parameters, and a line in `PARTS`, or an entry point of another package.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Mapping
from importlib import import_module
from typing import Any, Final

from fl_aggregator.aggregation.strategies.compatibility import check, check_takes_sum, options_of
from fl_aggregator.aggregation.strategies.correction_limits import refusal_of
from fl_aggregator.aggregation.strategies.parts import (
    CoordinateCombination,
    GramCombination,
    Strategy,
    WeightedSum,
    values_of,
)
from fl_aggregator.aggregation.strategies.presets import PRESETS, Preset
from fl_aggregator.aggregation.strategies.sums import Mean
from fl_aggregator.configuration.checks import check_places
from fl_aggregator.configuration.privacy import plan_of
from fl_aggregator.configuration.regions import Sums
from fl_aggregator.configuration.settings import Settings
from fl_aggregator.privacy.ledger import NOTHING_EARLIER, Earlier
from fl_shared.cli.specification import make, split
from fl_shared.errors import UserError
from fl_shared.system.entry_points import entry_points, search_current_directory
from fl_shared.tensors.encodings import registry as encodings

_HERE: Final = "fl_aggregator.aggregation.strategies"
PARTS: Final[Mapping[str, Mapping[str, str]]] = {
    "combine": {
        "mean": f"{_HERE}.sums:Mean",
        "normalized": f"{_HERE}.sums:Normalized",
        "fair": f"{_HERE}.sums:Fair",
        "sum": f"{_HERE}.sums:Sum",
        "median": f"{_HERE}.coordinates:Median",
        "trimmed-mean": f"{_HERE}.coordinates:TrimmedMean",
        "krum": f"{_HERE}.distances:Krum",
        "bulyan": f"{_HERE}.distances:Bulyan",
        "geometric-median": f"{_HERE}.distances:GeometricMedian",
        "centered-clip": f"{_HERE}.distances:CenteredClip",
    },
    "server-optimizer": {
        "sgd": f"{_HERE}.optimizers:Sgd",
        "adam": f"{_HERE}.optimizers:Adam",
        "yogi": f"{_HERE}.optimizers:Yogi",
        "adagrad": f"{_HERE}.optimizers:Adagrad",
        "extrapolation": f"{_HERE}.optimizers:Extrapolation",
        "accumulate": f"{_HERE}.optimizers:Accumulate",
    },
    "transform": {"clip": f"{_HERE}.transforms:Clip"},
    "correct": {"prox": f"{_HERE}.corrections:Prox", "scaffold": f"{_HERE}.corrections:Scaffold"},
}
"""The classes of our own parts by name, for each kind of part, which is named as its option."""
GROUPS: Final = {
    "combine": "fl_mqtt.combinations",
    "server-optimizer": "fl_mqtt.server_optimizers",
    "transform": "fl_mqtt.transforms",
    "correct": "fl_mqtt.server_corrections",
}
"""The groups of entry points with parts of other packages."""
_METHODS: Final = {
    "combine": (),
    "server-optimizer": ("wants_norms", "state", "step"),
    "transform": ("wants_norms", "factor"),
    "correct": ("name", "sections", "state", "absorb"),
}


def names(kind: str) -> tuple[str, ...]:
    """Returns the names of all parts of a kind, in alphabetical order."""
    return tuple(sorted({*PARTS[kind], *(point.name for point in entry_points(GROUPS[kind]))}))


def part_class(kind: str, name: str) -> type[Any]:
    """Returns the class of a part. Raises ``UserError`` for an unknown name, and if it cannot be imported."""
    _check_no_field(kind, name, names(kind))
    target = PARTS[kind].get(name)
    if target is None and ":" in name and kind != "correct":  # edges find their half of that by its name
        target = name
    if target is None:
        found = [point for point in entry_points(GROUPS[kind]) if point.name == name]
        if not found:
            other = "" if kind == "correct" else ", or package.module:Class"
            raise UserError(f"--{kind} {name!r}: expected one of {', '.join(names(kind))}{other}")
        target = found[0].value
    found_class = _imported(kind, name, target)
    if not (isinstance(found_class, type) and dataclasses.is_dataclass(found_class)):
        raise UserError(f"--{kind} {name!r}: is no dataclass, expected one whose fields are its parameters")
    return found_class


def _imported(option: str, name: str, target: str) -> Any:
    """Returns what ``package.module:attribute`` is, also in the current directory. Raises ``UserError``."""
    module, _, attribute = target.partition(":")
    if ":" in name:
        search_current_directory()
    try:
        return getattr(import_module(module), attribute)
    except Exception as error:  # its code is somebody's, and may raise anything
        said = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(f"--{option} {name!r}: cannot be imported: {said}") from None


def _check_no_field(option: str, name: str, known: Collection[str]) -> None:
    """Raises ``UserError`` for ``krum:bad``, which is no module, but lacks a value."""
    part, _, field = name.partition(":")
    if field and part in known:
        raise UserError(f"--{option} {name!r}: field {field!r} has no value: expected {part}:{field}=…")


def _strategy_object(name: str, fields: Mapping[str, str]) -> Strategy:
    """Returns the strategy that ``package.module:OBJECT`` is, its parts checked. Raises ``UserError``."""
    _check_no_field("strategy", name, PRESETS)
    found = _imported("strategy", name, name)
    if not isinstance(found, Strategy):
        raise UserError(
            f"--strategy {name!r}: is no Strategy(…) (see fl_aggregator.aggregation.strategies.parts)"
        )
    if fields:
        raise UserError(
            f"--strategy {name!r}: is an object, which takes no fields, but {next(iter(fields))} is given"
        )
    parts = (("combine", found.combine), ("server-optimizer", found.optimize), ("correct", found.correct))
    for kind, part in (*parts, *(("transform", one) for one in found.transforms)):
        if part is None:
            continue
        if not dataclasses.is_dataclass(part):
            raise UserError(
                f"--strategy {name!r}: its {kind} is no dataclass, expected one whose fields are its parameters"
            )
        _check_kind("strategy", name, kind, part)
        make("strategy", name, type(part), values_of(part))  # its numbers are checked as those of others are
    if found.correct is not None and not _specification("correct", found.correct):
        raise UserError(
            f"--strategy {name!r}: its correction has no name, by which edges find their half of it"
        )
    return found


def load(settings: Settings) -> Strategy:
    """Returns the strategy of a run. Raises ``UserError`` that names the option, and what was expected."""
    if len(settings.correct) > 1:
        given = " ".join(f"--correct {text}" for text in settings.correct)
        raise UserError(f"{given}: expected one of them: corrections cannot be combined")
    of_strategy = _parts_of(settings)
    added = tuple([named_part("transform", text) for text in settings.transform])
    combine, optimize, correct = of_strategy.combine, of_strategy.optimize, of_strategy.correct
    transforms = of_strategy.transforms + added
    strategy = Strategy(combine, optimize, transforms, correct)
    check(strategy, settings)
    if (
        settings.dp is not None and combine == Mean()
    ):  # by examples, what an edge contributes would not be bounded
        return Strategy(Mean(equal=True), optimize, transforms, correct)
    return strategy


def resolved(settings: Settings) -> Settings:
    """Returns the settings with the correction of their strategy in ``correct``, which edges must be able to do.

    They say as well how regional aggregators add up, or what needs each update (``sums``), and how much noise a private
    run adds (``privacy``). Raises ``UserError`` if updates are masked or get noise, and the strategy needs more than
    their sum, and if not even one version is within the budget.
    """
    strategy = load(settings)
    if settings.masked:
        apart = "and masked ones cannot be told apart"
        check_takes_sum(
            strategy, settings, "--masked", apart, "weighs updates otherwise than by their examples"
        )
    if settings.dp is not None:
        check_takes_sum(
            strategy, settings, "--dp", "and only their sum gets noise", "does not weigh edges equally"
        )
        settings = planned(settings)
    sums = Sums(
        combine=_specification("combine", strategy.combine),
        transforms=tuple([_specification("transform", one) for one in strategy.transforms]),
        norms=strategy.wants_norms,
        needs_each=_needs_each(strategy, settings),
    )
    settings = settings.model_copy(update={"sums": sums})
    if strategy.correct is None or settings.correct:
        return settings
    if ":" in split("strategy", settings.strategy)[0]:
        return settings.model_copy(update={"correct": (_specification("correct", strategy.correct),)})
    _, preset, fields = _preset(settings)
    assert preset.correct is not None
    known = fields_of(part_class("correct", preset.correct))
    own = ",".join(f"{name}={value}" for name, value in fields.items() if name in known)
    return settings.model_copy(update={"correct": (preset.correct + (own and f":{own}"),)})


def planned(settings: Settings, earlier: Earlier = NOTHING_EARLIER) -> Settings:
    """Returns the settings of a private run with its plan. Raises ``UserError`` if there is none.

    ``earlier``: what earlier runs with the same ledger have told.
    """
    try:
        private = settings.model_copy(update={"privacy": plan_of(settings, earlier)})
        check_places(private)
    except ValueError as error:
        name, _, rest = str(error).partition(": ")
        raise UserError(f"--{name.replace('_', '-')}: {rest}") from None
    return private


def _needs_each(strategy: Strategy, settings: Settings) -> str:
    """Returns the option that needs each update, so that no sums of updates can be taken; empty if none does."""
    combine, correct = options_of(settings)
    count = len(strategy.transforms) - len(settings.transform)
    of_strategy, own = strategy.transforms[:count], strategy.transforms[count:]
    causes = (
        (f"--strategy {settings.strategy}", not all(_specification("transform", one) for one in of_strategy)),
        (combine, strategy.needs_all_updates or not _specification("combine", strategy.combine)),
        (correct, strategy.correct is not None and bool(strategy.correct.sections)),
        *(
            (f"--transform {text}", not _specification("transform", one))
            for text, one in zip(settings.transform, own, strict=True)
        ),
        (f"--similarity {settings.similarity}", settings.similarity > 0),
        (f"--mode {settings.mode}", settings.mode == "async"),
        (f"--serve {settings.serve}", settings.versions_served > 1),
        ("--keep-local", bool(settings.keep_local)),
        (f"--encoding {settings.encoding}", encodings.get(settings.encoding).feedback),
        ("--personalize", settings.personalize > 0),
        ("--masked", settings.masked),
        ("--dp", settings.dp is not None),
    )
    return next((option for option, applies in causes if applies), "")


def _specification(kind: str, part: Any) -> str:
    """Returns the part's name and its fields; empty if no text is read as this part, as of a class without a name."""
    points = {point.name: point.value for point in entry_points(GROUPS[kind])}
    target = f"{type(part).__module__}:{type(part).__qualname__}"
    name = next((name for name, value in {**points, **PARTS[kind]}.items() if value == target), None)
    if name is None:
        return ""
    fields = ",".join(
        f"{field}={str(value).lower() if isinstance(value, bool) else value}"
        for field, value in values_of(part).items()
        if value is not None
    )
    text = f"{name}:{fields}" if fields else name
    try:
        return text if named_part(kind, text) == part else ""
    except UserError:
        return ""


def _preset(settings: Settings) -> tuple[str, Preset, dict[str, str]]:
    """Returns the name of the strategy, its parts, and the values of fields."""
    name, fields = split("strategy", settings.strategy)
    if name not in PRESETS:
        raise UserError(
            f"--strategy {name!r}: expected one of {', '.join(sorted(PRESETS))}, or package.module:OBJECT"
        )
    return name, PRESETS[name], fields


def describe(strategy: Strategy) -> dict[str, Any]:
    """Returns the parts of a strategy with the values of all their fields, for ``run.json``."""

    def of(part: Any) -> dict[str, Any]:
        return {"part": f"{type(part).__module__}:{type(part).__qualname__}", **dataclasses.asdict(part)}

    return {
        "combine": of(strategy.combine),
        "server-optimizer": of(strategy.optimize),
        "transform": [of(part) for part in strategy.transforms],
        "correct": None if strategy.correct is None else of(strategy.correct),
    }


def changes_of(before: Mapping[str, Any], strategy: Strategy) -> list[str]:
    """Returns what has changed since ``before``, which `describe` made and JSON kept: ``server-optimizer lr``, …."""
    now = json.loads(json.dumps(describe(strategy)))
    changes = []
    for kind, part in now.items():
        was = before.get(kind)
        if isinstance(part, dict) and isinstance(was, dict) and part["part"] == was.get("part"):
            changes += [
                f"{kind} {name} was {was.get(name)}, and is {part.get(name)}"
                for name in sorted(part.keys() | was.keys())
                if part.get(name) != was.get(name)
            ]
        elif part != was:
            changes.append(f"{kind} was {was}, and is {part}")
    return changes


def fields_of(kind: type[Any]) -> dict[str, Any]:
    """Returns the fields of a part's class with their defaults; ``…`` for a field that must be given."""
    defaults = {field.name: field.default for field in dataclasses.fields(kind)}
    return {name: "…" if value is dataclasses.MISSING else value for name, value in defaults.items()}


def _parts_of(settings: Settings) -> Strategy:
    """Returns the parts that ``--strategy`` names, or what replaces them.

    A field of the preset belongs to the first of its parts that has it. The correction comes before the optimizer.
    """
    name, fields = split("strategy", settings.strategy)
    given = _strategy_object(name, fields) if ":" in name else None
    preset = Preset("", "") if given is not None else _preset(settings)[1]
    texts = {"combine": preset.combine, "correct": preset.correct, "server-optimizer": preset.optimize}
    replaced = {
        "combine": settings.combine,
        "correct": settings.correct[0] if settings.correct else None,
        "server-optimizer": settings.server_optimizer,
    }
    chosen: dict[str, tuple[type[Any], dict[str, str]]] = {}
    for kind, text in texts.items():
        if text is not None:
            part, values = split(kind, text)
            chosen[kind] = part_class(kind, part), values
    for field, value in fields.items():
        owner = next((kind for kind, (part, _) in chosen.items() if field in fields_of(part)), None)
        if owner is None:
            has = ", ".join(known for part, _ in chosen.values() for known in fields_of(part))
            raise UserError(f"--strategy {name}: field {field!r} is unknown; it has: {has}")
        other = replaced[owner]
        # The correction of a preset is in the settings of a run that has begun, with its fields.
        if other is not None and split(owner, other)[1].get(field) != value:
            raise UserError(
                f"--strategy {settings.strategy}: {field}={value} has no effect, as --{owner} {other} takes the place "
                f"of the part that has it: say it there, or not at all"
            )
        chosen[owner][1][field] = value
    made = {
        kind: make("strategy", name, part, _with_training("strategy", name, part, values, settings))
        for kind, (part, values) in chosen.items()
        if replaced[kind] is None
    }
    if given is not None:
        made = {"combine": given.combine, "server-optimizer": given.optimize, "correct": given.correct}
    made |= {kind: named_part(kind, text, settings) for kind, text in replaced.items() if text is not None}
    transforms = tuple([named_part("transform", text) for text in preset.transforms])
    return Strategy(
        made["combine"],
        made["server-optimizer"],
        transforms if given is None else given.transforms,
        made.get("correct"),
    )


def _with_training(
    option: str, name: str, part: type[Any], fields: Mapping[str, str], settings: Settings
) -> dict[str, str]:
    """Returns the values of fields with those that are options of the run. Raises ``UserError`` if one is missing."""
    found = dict(fields)
    for field, training in getattr(part, "from_training", {}).items():
        if field in found:
            continue
        value = getattr(settings, training)
        if value is None:
            raise UserError(
                f"--{option} {name}: needs --{training}, the edges' (or {name}:{field}=…); without it, it is the task's"
            )
        found[field] = str(value)
    return found


def named_part(kind: str, text: str, settings: Settings | None = None) -> Any:
    """Returns the part of this kind that a specification means. Raises ``UserError``.

    ``settings``: of the run, for fields that are its options; without them, all of those must be in the specification.
    """
    name, fields = split(kind, text)
    part = part_class(kind, name)
    if settings is not None:
        fields = _with_training(kind, name, part, fields, settings)
    made = make(kind, name, part, fields)
    _check_kind(kind, name, kind, made)
    if kind == "correct" and made.name != name:
        raise UserError(f"--correct {name!r}: its class names it {made.name!r}, expected the same name")
    return made


def _check_kind(option: str, name: str, kind: str, part: Any) -> None:
    """Raises ``UserError`` if the part lacks what its kind has, or is a correction that edges cannot be told."""
    is_combination = isinstance(part, WeightedSum | GramCombination | CoordinateCombination)
    lacks = [method for method in _METHODS[kind] if not hasattr(part, method)]
    if lacks or (kind == "combine" and not is_combination):
        without = f", as it has no {' and no '.join(lacks)}" if lacks else ""
        what = "is" if option == kind else f"its {kind} is"
        raise UserError(
            f"--{option} {name!r}: {what} no part of this kind{without} "
            "(see fl_aggregator.aggregation.strategies.parts)"
        )
    if kind == "correct" and (refusal := refusal_of(part)) is not None:
        raise UserError(f"--{option} {name!r}: {'' if option == kind else 'its correction: '}{refusal}")
