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
from fl_aggregator.aggregation.strategies.corrections import Scaffold
from fl_aggregator.aggregation.strategies.optimizers import Sgd
from fl_aggregator.aggregation.strategies.parts import (
    LAST_CHANGE,
    Contribution,
    CoordinateCombination,
    GramCombination,
    Strategy,
    WeightedSum,
)
from fl_aggregator.aggregation.strategies.sums import Mean
from fl_aggregator.aggregation.validation import CheckedSection
from fl_aggregator.configuration.settings import Settings
from fl_aggregator.round.events import UpdateMetadata
from fl_shared.tensors.encodings.float32 import FLOAT32
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
_TAKEN: Final = {LAST_CHANGE, *Scaffold().state()}
"""Vectors of our combinations and corrections, with which any optimizer should go together."""
_BUFFERS: Final = slice(21, 26)
Round = Mapping[str, tuple[UpdateMetadata, Vector]]
"""The updates of a round by client."""


def check(part: Any) -> None:
    """Tries a part of any kind on small rounds, with a buffer in the model.

    Raises ``AssertionError``, which names the part and what it does not keep:

    - it is a frozen dataclass whose values pass their own check, and no number of it may be NaN;
    - it works with its least number of updates, and with more; with updates of zeros, and with equal ones;
    - its model and its state are finite, and the same to the last bit in any order, and each time;
    - it changes neither itself nor what it is given, but for what it may change (`parts`);
    - buffers stay within the range of what the edges sent; only a combination changes them;
    - a correction changes its own state, and not the model;
    - its state, written and read again, leads to the same next version;
    - a transform's factor is from 0 to 1; a weight of a sum is above 0 and at most `max_weight`, up to as many examples
      as a run allows;
    - what is asked of its kind is there, and no vector of its state has the name of another part's.
    """
    name = type(part).__name__
    _check_fields(part, name)
    strategy = _strategy_with(part, name)
    clash = strategy.state_clash or next((one for one in strategy.optimize.state() if one in _TAKEN), None)
    assert clash is None, f"{name}: state() names {clash!r}, which is a vector of another part"
    fields = dataclasses.asdict(part)  # a copy
    least = strategy.min_updates
    assert isinstance(least, int), f"{name}: min_updates() is {least!r}, expected a number"
    assert least >= 1, f"{name}: min_updates() is {least}, expected at least 1"
    for count in (least, least + 1, max(least + 4, 9)):
        for kind in ("any", "zero", "equal"):
            _check_rounds(part, strategy, name, [_round(count, kind, n) for n in range(VERSIONS)])
    assert dataclasses.asdict(part) == fields, f"{name}: changes its own fields"


def _check_fields(part: Any, name: str) -> None:
    assert dataclasses.is_dataclass(part), f"{name}: is no dataclass"
    assert not isinstance(part, type), f"{name}: is a class, expected an object: {name}(…)"
    frozen = getattr(type(part), "__dataclass_params__").frozen  # noqa: B009  it is not declared
    assert frozen, f"{name}: is not frozen: @dataclass(frozen=True)"
    adapter: TypeAdapter[Any] = TypeAdapter(type(part))
    values = {field.name: getattr(part, field.name) for field in dataclasses.fields(part)}
    try:
        adapter.validate_python(values)
    except ValidationError as error:
        raise AssertionError(f"{name}: its own values are not valid: {error}") from None
    for field, value in values.items():
        if isinstance(value, float):
            try:
                adapter.validate_python({**values, field: math.nan})
            except ValidationError:
                continue
            raise AssertionError(f"{name}: {field} may be NaN, expected a range: Annotated[float, Field(…)]")


def _strategy_with(part: Any, name: str) -> Strategy:
    if isinstance(part, WeightedSum | GramCombination | CoordinateCombination):
        return Strategy(part, Sgd())
    if hasattr(part, "step") and hasattr(part, "state"):
        _check_wants_norms(part, name)
        return Strategy(Mean(), part)
    if hasattr(part, "absorb") and hasattr(part, "sections"):
        return Strategy(Mean(), Sgd(), correct=part)
    known = "combination, server optimizer, transform or correction"
    assert hasattr(part, "factor"), f"{name}: is no {known} (see parts)"
    _check_wants_norms(part, name)
    return Strategy(Mean(), Sgd(), (part,))


def _check_wants_norms(part: Any, name: str) -> None:
    assert hasattr(part, "wants_norms"), f"{name}: has no wants_norms: wants_norms: ClassVar[bool] = False"


def _check_rounds(part: Any, strategy: Strategy, name: str, rounds: Sequence[Round]) -> None:
    base = _base()
    state: State = first_state(strategy, len(base))
    for number, updates in enumerate(rounds, 1):
        _check_contributions(part, strategy, name, updates)
        given = _copy(updates), base.copy(), {key: vector.copy() for key, vector in state.items()}
        weights, next_state = _next(strategy, number, base, state, updates, list(updates))
        for order in (list(reversed(list(updates))), sorted(updates, key=lambda client: client[::-1])):
            again = _next(strategy, number, base, state, updates, order)
            same = _bits(*again) == _bits(weights, next_state)
            assert same, f"{name}: another order of updates, or another call, gives other bits"
        assert _bits(given[1], given[2]) == _bits(base, state), f"{name}: changes the base or the last state"
        unchanged = all(np.array_equal(given[0][client], updates[client][1]) for client in updates)
        assert unchanged, f"{name}: changes the updates that it is given"
        for key, vector in {"model": weights, **next_state}.items():
            assert np.isfinite(vector).all(), f"{name}: {key} is not finite in version {number}"
        assert set(next_state) == set(strategy.state), f"{name}: state() names other vectors than it keeps"
        _check_buffers(part, strategy, name, base, weights, number, updates)
        base = weights
        state = load(save(dict(next_state))) if next_state else next_state
        assert _bits(base, state) == _bits(weights, next_state), f"{name}: its state does not survive a file"


def _check_buffers(
    part: Any,
    strategy: Strategy,
    name: str,
    base: Vector,
    weights: Vector,
    number: int,
    updates: Round,
) -> None:
    sent = np.stack([base[_BUFFERS] + delta[_BUFFERS] for _, delta in updates.values()])
    slack = 1e-4 * max(1.0, float(np.abs(sent).max()))
    inside = (weights[_BUFFERS] >= sent.min(0) - slack) & (weights[_BUFFERS] <= sent.max(0) + slack)
    assert inside.all(), f"{name}: buffers leave the range of what the edges sent"
    if part is not strategy.combine:
        where = slice(None) if part is strategy.correct else _BUFFERS
        plain, _ = _next(Strategy(Mean(), Sgd()), number, base, {}, updates, list(updates))
        what = "the model" if part is strategy.correct else "buffers, which only a combination may average"
        assert np.array_equal(plain[where], weights[where]), f"{name}: changes {what}"


def _check_contributions(part: Any, strategy: Strategy, name: str, updates: Round) -> None:
    for update, delta in updates.values():
        length = float(np.linalg.norm(np.delete(delta, _BUFFERS)))
        one = Contribution(update.client, update.examples, update.steps, update.before["loss"], length)
        if part in strategy.transforms:
            factor = part.factor(one)
            assert 0 <= factor <= 1, f"{name}: factor() is {factor}, expected 0 to 1"
        if isinstance(part, WeightedSum):
            _check_weights(part, name, one)


def _check_weights(part: WeightedSum, name: str, update: Contribution) -> None:
    """Tries an update with few examples and with as many as may be, with one step, without a loss, with a large one."""
    examples = Settings().max_examples
    most = part.max_weight(examples)
    assert 0 < most < math.inf, f"{name}: max_weight() is {most}, expected above 0 and finite"
    changes: tuple[dict[str, Any], ...] = (
        {},
        {"examples": 1},
        *({"examples": examples, "steps": steps} for steps in (0, 1, update.steps)),
        *({"loss": loss} for loss in (None, 0.0, 1e9)),
    )
    for change in changes:
        weight = part.weight(dataclasses.replace(update, **change))
        assert 0 < weight <= most, (
            f"{name}: weight() is {weight} for {change or update}, expected above 0 and at most {most}"
        )


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
    """Updates of ``count`` edges: any ones, of zeros, or all equal. Edge 0 is much longer than the others."""
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
        found[str(index)] = _metadata(str(index), number, 10 + 7 * index, 3 + index, 0.5 + index), delta
    return found


def _metadata(client: str, number: int, examples: int, steps: int, loss: float) -> UpdateMetadata:
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
        before={"loss": loss},
    )


def _copy(updates: Round) -> dict[str, Vector]:
    return {client: delta.copy() for client, (_, delta) in updates.items()}


def _bits(weights: Vector, state: State) -> dict[str, bytes]:
    return {"": weights.tobytes(), **{name: vector.tobytes() for name, vector in state.items()}}
