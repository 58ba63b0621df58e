"""What does not go together: the parts of a strategy with each other, and with the other options of a run."""

from __future__ import annotations

import math
from typing import Final

from fl_aggregator.aggregation.strategies.optimizers import Accumulate, Extrapolation
from fl_aggregator.aggregation.strategies.parts import (
    Correction,
    GramCombination,
    SelectiveCombination,
    Strategy,
    WeightedSum,
    values_of,
)
from fl_aggregator.aggregation.strategies.sums import Fair, Mean, Normalized, Sum
from fl_aggregator.configuration.settings import Settings
from fl_shared.errors import UserError
from fl_shared.tensors.fixed_point import LEAST_PLACES, scale_bits_of

MOST_COMPARED: Final = 5000
"""Updates of which all pairs are compared: their inner products take 200 MB, and as much again several times."""


def check(strategy: Strategy, settings: Settings) -> None:
    """Raises ``UserError`` for what does not go together; it names both options."""
    option, correct = options_of(settings)
    if strategy.correct is not None:
        _check_correction(strategy.correct, strategy, option, correct, settings)
    if isinstance(strategy.combine, Normalized) and settings.epochs is None:
        raise UserError(
            f"{option}: needs --epochs: an edge that says more steps than epochs × examples is refused"
        )
    if settings.survey is None:
        _check_trains(strategy, option, settings)
    _check_count(strategy, option, settings)
    if clash := strategy.state_clash:
        raise UserError(
            f"{optimizer_of(settings)}: keeps a vector {clash!r}, and so does another part "
            f"({option}, {correct}): expected another name"
        )
    if isinstance(strategy.optimize, Extrapolation) and not settings.masked:
        _check_extrapolation(strategy, option, settings)
    bad = getattr(strategy.combine, "bad", 0)
    if 2 * bad >= settings.per_round:
        size = "--buffer" if settings.mode == "async" else "--per-round"
        raise UserError(f"{option}: bad={bad} is not less than half of {size} ({settings.per_round})")
    keep = getattr(strategy.combine, "keep", None) or 0
    if keep > max(1, settings.effective_quorum - bad):
        size = "--buffer" if settings.mode == "async" else "--quorum"
        raise UserError(
            f"{option}: keep={keep} of the {settings.effective_quorum} updates of {size} may leave some of the "
            f"bad={bad} in: expected at most {settings.effective_quorum - bad}"
        )
    if (
        isinstance(strategy.combine, WeightedSum) and settings.dp is None
    ):  # a private run has the places of its noise
        _check_places(strategy.combine, option, settings)
    if strategy.needs_all_updates and settings.durability == "memory":
        raise UserError(
            f"{option}: needs updates on the disk until a round closes, but --durability is memory"
        )
    if isinstance(strategy.combine, Fair):
        _check_fair(strategy.combine, option, settings)


def check_takes_sum(strategy: Strategy, settings: Settings, option: str, apart: str, weighs: str) -> None:
    """Raises ``UserError`` unless the strategy takes the mean or the sum of the changes of weights, and nothing else.

    ``apart`` says why no single update can be had, ``weighs`` how a combination differs from that.
    """
    combine, correct = options_of(settings)
    sums = (Mean(), Sum()) if settings.dp is None else (Mean(equal=True),)
    causes = (
        (combine, strategy.needs_all_updates, f"needs each update, {apart}"),
        (correct, strategy.correct is not None and bool(strategy.correct.sections), "sends a second vector"),
        (combine, strategy.combine not in sums, weighs),
        (
            f"--transform {', '.join(settings.transform)}",
            bool(strategy.transforms),
            f"scales each update, {apart}",
        ),
        (
            optimizer_of(settings),
            strategy.wants_norms,
            f"needs the norm of each update, {apart}",
        ),
    )
    for other, applies, why in causes:
        if applies:
            raise UserError(f"{option}: does not go with {other}: it {why}")


def options_of(settings: Settings) -> tuple[str, str]:
    """Returns the options that say how updates are combined, and what edges add to their gradients."""
    of_strategy = f"--strategy {settings.strategy}"
    combine = of_strategy if settings.combine is None else f"--combine {settings.combine}"
    return combine, f"--correct {settings.correct[0]}" if settings.correct else of_strategy


def optimizer_of(settings: Settings) -> str:
    """Returns the option that says which optimizer there is."""
    optimize = settings.server_optimizer
    return f"--strategy {settings.strategy}" if optimize is None else f"--server-optimizer {optimize}"


def _check_trains(strategy: Strategy, option: str, settings: Settings) -> None:
    """Raises ``UserError`` for parts that add up what edges count, and train no model."""
    if isinstance(strategy.combine, Sum):
        raise UserError(
            f"{option}: adds changes up without a mean, for surveys (fl-aggregator survey): expected --combine mean"
        )
    if isinstance(strategy.optimize, Accumulate):
        raise UserError(
            f"{optimizer_of(settings)}: never changes the model, for surveys (fl-aggregator survey): expected another"
        )


def _check_count(strategy: Strategy, option: str, settings: Settings) -> None:
    """Raises ``UserError`` if a version may have too few updates for the combination, or too many to compare."""
    least, is_async = strategy.min_updates, settings.mode == "async"
    size, smallest = ("--buffer", settings.per_round) if is_async else ("--quorum", settings.effective_quorum)
    if smallest < least:
        others = {"--per-round": settings.per_round, "--clients": settings.clients}
        too_small = [name for name, value in others.items() if value < least and not is_async]
        raise UserError(
            f"{option}: needs {least} updates, but {size} is {smallest}: "
            f"raise {' and '.join([size, *too_small])} to {least} or more"
        )
    compares = isinstance(strategy.combine, GramCombination | SelectiveCombination)
    if compares and settings.per_round > MOST_COMPARED:
        size = "--buffer" if is_async else "--per-round"
        raise UserError(
            f"{option}: compares all pairs of updates, but {size} is {settings.per_round}: "
            f"expected at most {MOST_COMPARED}"
        )


def _check_fair(combine: Fair, option: str, settings: Settings) -> None:
    if combine.q and settings.holdout == 0:
        raise UserError(f"{option}: needs the edges' loss on their holdout, but --holdout is 0")
    if combine.min_loss >= combine.max_loss:
        raise UserError(
            f"{option}: min_loss={combine.min_loss:g} is not below max_loss={combine.max_loss:g}, "
            "so that all losses would count the same"
        )
    if settings.lr_decay != 1:
        raise UserError(
            f"{option}: takes one learning rate of the edges for all versions, "
            f"so it does not go together with --lr-decay {settings.lr_decay:g}"
        )


def _check_places(combine: WeightedSum, option: str, settings: Settings) -> None:
    """Raises ``UserError`` if updates may weigh so much that the fold of the parameters has too few binary places."""
    heaviest = combine.max_weight(settings.max_examples)
    product = heaviest * settings.max_delta * settings.slots
    if 0 < product < math.inf:
        places = scale_bits_of(heaviest, settings.max_delta, settings.slots, settings.fold_width)
        if places >= LEAST_PLACES:
            return
        found = f"{places} binary places for the exact fold, expected at least {LEAST_PLACES}"
    else:
        found = "no binary places for the exact fold"
    own = ", ".join(f"{name}={value}" for name, value in values_of(combine).items()) or "no fields"
    raise UserError(
        f"{option}: an update may weigh {heaviest:.3g} ({own}), which with --max-delta {settings.max_delta:g} and "
        f"{settings.slots} updates leaves {found}: choose values that make it less"
    )


def _check_extrapolation(strategy: Strategy, option: str, settings: Settings) -> None:
    """Raises ``UserError`` unless the norms of which FedExP takes its rate are of what the mean is made of."""
    name = optimizer_of(settings)
    if strategy.combine != Mean(equal=True):
        raise UserError(
            f"{name}: takes its rate from the norms of all updates, each counted the same, so it does not go together "
            f"with {option}: expected --combine mean:equal=true"
        )
    if settings.mode == "async":
        raise UserError(
            f"{name}: takes its rate from the norms of updates that count the same, "
            "so it does not go together with --mode async, where stale ones count less"
        )


def _check_correction(
    correct: Correction, strategy: Strategy, option: str, name: str, settings: Settings
) -> None:
    if isinstance(strategy.combine, Normalized):
        raise UserError(
            f"{option}: counts plain local steps, so it does not go together with {name}, which changes them"
        )
    if correct.sections and settings.mode == "async":
        raise UserError(
            f"{name}: compares edges that train from the same version, so it does not go together with --mode async"
        )
    if correct.sections and strategy.combine != Mean():
        raise UserError(
            f"{name}: needs the mean of what edges keep, weighted by examples, so it does not go together with {option}"
        )
