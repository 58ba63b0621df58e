"""Checks a part of a strategy in a test of its author: ``check(Lion())``."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from pydantic import TypeAdapter, ValidationError
from safetensors.numpy import load, save

from fl_aggregator.aggregation.combining import Combiner, State, first_state
from fl_aggregator.aggregation.strategies.checked_parts.combinations import CheckedSum, CheckedTransform
from fl_aggregator.aggregation.strategies.checked_parts.kinds import checked_part
from fl_aggregator.aggregation.strategies.checked_parts.optimizers import CheckedCorrection, CheckedOptimizer
from fl_aggregator.aggregation.strategies.checked_parts.part import CheckedPart, said_by
from fl_aggregator.aggregation.strategies.correction_limits import refusal_of
from fl_aggregator.aggregation.strategies.corrections import Scaffold
from fl_aggregator.aggregation.strategies.optimizers import Accumulate, Adam, Sgd
from fl_aggregator.aggregation.strategies.parts import LAST_CHANGE, Contribution, Strategy, values_of
from fl_aggregator.aggregation.strategies.sums import Mean
from fl_aggregator.aggregation.validation import CheckedSection
from fl_aggregator.configuration.settings import Settings
from fl_aggregator.round.events import UpdateMetadata
from fl_shared.tensors.encodings.float32 import FLOAT32
from fl_shared.tensors.fixed_point import LEAST_PLACES, scale_bits_of
from fl_shared.tensors.manifest import Vector, magnitude, manifest_of

VERSIONS: Final = 3
"""Rounds that a part is tried for."""
_MANIFEST: Final = manifest_of(
    {
        "a": np.zeros((7, 3), np.float32),
        "b.running_var": np.zeros(5, np.float32),
        "c": np.zeros(40, np.float32),
    },
    ["b.running_var"],
)
_SETTINGS: Final = Settings()
_OF_CORRECTIONS: Final = frozenset(Scaffold().state())
"""Vectors of our corrections, with which any optimizer should go together."""
_OF_OPTIMIZERS: Final = frozenset({*Sgd(momentum=0.9).state(), *Adam().state(), *Accumulate().state()})
"""Vectors of our optimizers, with which any correction should go together."""
_BUFFERS: Final = slice(21, 26)
Round = Mapping[str, tuple[UpdateMetadata, Vector]]
"""The updates of a round by client."""


def check(part: Any) -> None:
    """Tries a part of any kind on small rounds, with a buffer in the model.

    Raises ``AssertionError``, which names the part and what it does not keep:

    - it is a frozen dataclass whose values pass their own check, and no number of it may be NaN;
    - it works with its least number of updates, and with more; with updates of zeros, and with equal ones; with edges
      that have no loss; and beside other parts, which may want norms and keep vectors;
    - its model and its state are finite, and the same to the last bit in any order, and each time;
    - an optimizer, a correction and a combination by coordinate make the same of a coordinate in a block of any size;
    - it changes neither itself nor what it is given, but for what it may change (`parts`);
    - it uses norms only if it wants them;
    - buffers stay within the range of what the edges sent; only a combination changes them;
    - a correction changes its own state, and not the model; edges can be told its fields, and its sections can travel;
    - its state, written and read again, leads to the same next version;
    - a transform's factor is from 0 to 1; a weight of a sum is above 0 and at most `max_weight`, up to as many examples
      as a run allows, which leaves enough binary places; its divisor is above 0 and finite;
    - what a method returns has the type and the shape that `parts` asks for, and none raises;
    - what is asked of its kind is there, and no vector of its state has the name of another part's.
    """
    name = part.__name__ if isinstance(part, type) else type(part).__name__
    try:
        _check(part, name)
    except Exception as error:  # what the part does to a round may end in anything
        if found := _assertion_in(error):
            raise found from found.__cause__
        raise AssertionError(
            f"{name}: a round with it ends in {said_by(error)}, expected a version"
        ) from error


def _assertion_in(error: BaseException | None) -> AssertionError | None:
    """Returns what a check has raised; the round may have named it otherwise on its way."""
    while error is not None and not isinstance(error, AssertionError):
        error = error.__cause__
    return error


def _check(part: Any, name: str) -> None:
    _check_fields(part, name)
    checked = checked_part(part, _SETTINGS.max_examples)
    strategy = _strategy_with(checked)
    _check_state_names(strategy, checked, name)
    if isinstance(checked, CheckedCorrection):
        _check_correction(part, name)
    if isinstance(checked, CheckedSum):
        _check_places(checked, name)
    fields = dataclasses.asdict(part)  # a copy
    least = strategy.min_updates
    for count in (least, least + 1, max(least + 4, 9)):
        for kind in ("any", "zero", "equal"):
            _check_rounds(checked, strategy, name, [_round(count, kind, n) for n in range(VERSIONS)])
    assert dataclasses.asdict(part) == fields, f"{name}: changes its own fields, expected that they stay"


def _check_fields(part: Any, name: str) -> None:
    assert dataclasses.is_dataclass(part), (
        f"{name}: is no dataclass, expected one whose fields are its parameters"
    )
    assert not isinstance(part, type), f"{name}: is a class, expected an object: {name}(…)"
    frozen = getattr(type(part), "__dataclass_params__").frozen  # noqa: B009  it is not declared
    assert frozen, f"{name}: is not frozen, expected @dataclass(frozen=True)"
    values = values_of(part)
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(type(part))
        adapter.validate_python(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(one) for one in first["loc"])
        raise AssertionError(
            f"{name}: {where} is {first['input']!r}, which is not valid, expected a value of its type: {first['msg']}"
        ) from None
    except Exception as error:  # a type that pydantic does not know, or a name that it does not find
        said = said_by(error)
        raise AssertionError(
            f"{name}: its fields cannot be checked, expected types of pydantic: {said}"
        ) from error
    for field in values:
        assert not _takes(adapter, values, field, math.nan), (
            f"{name}: {field} may be NaN, expected a range: Annotated[float, Field(…)]"
        )
    for field, option in getattr(part, "from_training", {}).items():
        assert field in values, f"{name}: from_training has {field!r}, expected one of its fields"
        assert option in Settings.model_fields, (
            f"{name}: from_training has {option!r}, expected an option of a run"
        )


def _takes(adapter: TypeAdapter[Any], values: Mapping[str, Any], field: str, value: Any) -> bool:
    """Whether a field may have this value, and keeps it."""
    try:
        found = getattr(adapter.validate_python({**values, field: value}), field)
    except ValidationError:
        return False
    return repr(found) == repr(value)


def _strategy_with(part: CheckedPart) -> Strategy:
    made: Any = part
    if isinstance(part, CheckedOptimizer):
        return Strategy(Mean(), made)
    if isinstance(part, CheckedCorrection):
        return Strategy(Mean(), Sgd(), correct=made)
    if isinstance(part, CheckedTransform):
        return Strategy(Mean(), Sgd(), (made,))
    return Strategy(made, Sgd())


def _check_state_names(strategy: Strategy, part: CheckedPart, name: str) -> None:
    taken = _OF_OPTIMIZERS if isinstance(part, CheckedCorrection) else _OF_CORRECTIONS
    own = part.state() if isinstance(part, CheckedOptimizer | CheckedCorrection) else {}
    clash = strategy.state_clash or next((one for one in own if one in {LAST_CHANGE, *taken}), None)
    assert clash is None, (
        f"{name}: state() names {clash!r}, which is a vector of another part, expected another name"
    )


def _check_correction(part: Any, name: str) -> None:
    refusal = refusal_of(part)
    assert refusal is None, f"{name}: {refusal}"
    values = values_of(part)
    adapter: TypeAdapter[Any] = TypeAdapter(type(part))
    for field in values:
        for value in (None, "text"):
            assert not _takes(adapter, values, field, value), (
                f"{name}: {field} may be {value!r}, expected a number: edges are told the fields"
            )


def _check_places(part: CheckedSum, name: str) -> None:
    most = part.max_weight(_SETTINGS.max_examples)
    product = most * _SETTINGS.max_delta * _SETTINGS.slots
    places = (
        scale_bits_of(most, _SETTINGS.max_delta, _SETTINGS.slots, _SETTINGS.fold_width)
        if 0 < product < math.inf
        else -math.inf
    )
    assert places >= LEAST_PLACES, (
        f"{name}: max_weight() is {most}, which leaves {places} binary places for the exact fold, "
        f"expected at least {LEAST_PLACES}"
    )


def _check_rounds(part: CheckedPart, strategy: Strategy, name: str, rounds: Sequence[Round]) -> None:
    base = _base()
    state: State = first_state(strategy, len(base))
    for number, updates in enumerate(rounds, 1):
        _check_contributions(part, strategy, updates)
        given = _copy(updates), base.copy(), {key: vector.copy() for key, vector in state.items()}
        weights, next_state = _next(strategy, number, base, state, updates, list(updates))
        for order in (list(reversed(list(updates))), sorted(updates, key=lambda client: client[::-1])):
            again = _next(strategy, number, base, state, updates, order)
            same = _bits(*again) == _bits(weights, next_state)
            assert same, (
                f"{name}: another order of updates, or another call, gives other bits, expected the same"
            )
        assert _bits(given[1], given[2]) == _bits(base, state), (
            f"{name}: changes the base or the last state, expected that they stay"
        )
        unchanged = all(np.array_equal(given[0][client], updates[client][1]) for client in updates)
        assert unchanged, f"{name}: changes the updates that it is given, expected that they stay"
        for key, vector in {"model": weights, **next_state}.items():
            assert np.isfinite(vector).all(), (
                f"{name}: {key} is not finite in version {number}, expected finite values"
            )
        _check_buffers(part, name, base, weights, number, updates)
        base = weights
        state = load(save(dict(next_state))) if next_state else next_state
        assert _bits(base, state) == _bits(weights, next_state), (
            f"{name}: its state does not survive a file, expected the same bits"
        )


def _check_buffers(
    part: CheckedPart, name: str, base: Vector, weights: Vector, number: int, updates: Round
) -> None:
    sent = np.stack([base[_BUFFERS] + delta[_BUFFERS] for _, delta in updates.values()])
    slack = 1e-4 * max(1.0, float(np.abs(sent).max()))
    inside = (weights[_BUFFERS] >= sent.min(0) - slack) & (weights[_BUFFERS] <= sent.max(0) + slack)
    assert inside.all(), f"{name}: buffers leave the range of what the edges sent, expected a mean of them"
    if isinstance(part, CheckedOptimizer | CheckedCorrection | CheckedTransform):
        where = slice(None) if isinstance(part, CheckedCorrection) else _BUFFERS
        plain, _ = _next(Strategy(Mean(), Sgd()), number, base, {}, updates, list(updates))
        what = "the model" if where == slice(None) else "buffers, which only a combination may average"
        assert np.array_equal(plain[where], weights[where]), (
            f"{name}: changes {what}, expected that it does not"
        )


def _check_contributions(part: CheckedPart, strategy: Strategy, updates: Round) -> None:
    """Tries updates with few examples and as many as may be, one step, without a loss, with a large one; any norm."""
    if not isinstance(part, CheckedSum | CheckedTransform):
        return
    method = part.weight if isinstance(part, CheckedSum) else part.factor
    for update, delta in updates.values():
        length = float(np.linalg.norm(np.delete(delta, _BUFFERS))) if strategy.wants_norms else None
        loss = update.before.get("loss")
        one = Contribution(update.client, update.examples, update.steps, loss, length)
        changes: tuple[dict[str, Any], ...] = (
            {},
            {"examples": 1},
            *({"examples": _SETTINGS.max_examples, "steps": steps} for steps in (0, 1, update.steps)),
            *({"loss": loss} for loss in (None, 0.0, 1e9)),
            *({"norm": norm} for norm in (0.0, 1e9) if strategy.wants_norms),
        )
        for change in changes:
            method(dataclasses.replace(one, **change))


def _next(
    strategy: Strategy, number: int, base: Vector, state: State, updates: Round, order: Sequence[str]
) -> tuple[Vector, dict[str, Vector]]:
    settings = Settings(clients=len(updates), per_round=len(updates))
    combiner = Combiner(strategy, _MANIFEST, settings)
    sections = () if strategy.correct is None else strategy.correct.sections
    for client in order:
        update, delta = updates[client]
        section = CheckedSection(delta, magnitude(delta))
        combiner.add(update, delta, section.magnitude, dict.fromkeys(sections, section))
    total = sum(update.examples for update, _ in updates.values())
    heard = (total * (number - 1), total * number)
    return combiner.next_model(number, base, state, lambda client: updates[client][1], heard)


def _base() -> Vector:
    base = np.random.default_rng(0).normal(size=_MANIFEST.values).astype(np.float32)
    base[_BUFFERS] = 2.0
    return base


def _round(count: int, kind: str, number: int) -> Round:
    """Updates of ``count`` edges: any ones, of zeros, or all equal. Edge 0 is much longer than the others.

    Without a loss: the last of several.
    """
    found = {}
    for index in range(count):
        chance = np.random.default_rng((number, 0 if kind == "equal" else index))
        delta = chance.normal(size=_MANIFEST.values).astype(np.float32) * np.float32(0.1)
        delta[_BUFFERS] = chance.random(_BUFFERS.stop - _BUFFERS.start) - 0.5
        if kind == "zero":
            delta[:] = 0
        elif kind == "any" and index == 0:
            delta *= np.float32(30)
            delta[_BUFFERS] /= np.float32(30)
        loss = None if index and index == count - 1 else 0.5 + index
        found[str(index)] = _metadata(str(index), number, 10 + 7 * index, 3 + index, loss), delta
    return found


def _metadata(client: str, number: int, examples: int, steps: int, loss: float | None) -> UpdateMetadata:
    return UpdateMetadata(
        client=client,
        session="s",
        round=number,
        base="0" * 64,
        digest="0" * 64,
        manifest=_MANIFEST.digest,
        examples=examples,
        steps=steps,
        size=FLOAT32.size(_MANIFEST.values),
        before={} if loss is None else {"loss": loss},
    )


def _copy(updates: Round) -> dict[str, Vector]:
    return {client: delta.copy() for client, (_, delta) in updates.items()}


def _bits(weights: Vector, state: State) -> dict[str, bytes]:
    return {"": weights.tobytes(), **{name: vector.tobytes() for name, vector in state.items()}}
