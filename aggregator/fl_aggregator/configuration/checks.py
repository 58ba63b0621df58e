"""What settings must keep together. Messages begin with the setting that `settings.parse_settings` names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fl_shared.protocol import messages as m
from fl_shared.tensors.fixed_point import LEAST_PLACES

if TYPE_CHECKING:
    from fl_aggregator.configuration.settings import Settings

MIN_COMPARED: Final = 3
"""Updates with which somebody can be unlike the others."""
ASYNC_ONLY: Final = ("buffer", "concurrency", "staleness", "max_staleness")
"""The settings that have a meaning in an asynchronous run only; null in others."""


def check_mode(settings: Settings) -> None:
    """Raises ``ValueError`` for settings of the other mode, and for those that no asynchronous run can keep."""
    if settings.mode == "sync":
        for name in ASYNC_ONLY:
            if getattr(settings, name) is not None:
                raise ValueError(f"{name}: has a meaning with --mode async only, but --mode is sync")
        return
    assert settings.buffer is not None
    assert settings.concurrency is not None
    for name in ("quorum", "over_select", "edges_per_round"):
        if getattr(settings, name):
            raise ValueError(not_in_async(name))
    if settings.parsed_pace is not None:
        raise ValueError(
            f"pace: {settings.pace} is about rounds, but --mode is async, which has none: expected --pace fixed"
        )
    if settings.buffer > settings.clients:
        raise ValueError(
            f"buffer: {settings.buffer} must not exceed --clients ({settings.clients}): "
            "an edge contributes at most once to a version"
        )
    if settings.concurrency > settings.clients:
        raise ValueError(
            f"concurrency: {settings.concurrency} must not exceed --clients ({settings.clients})"
        )


def check_bounds(settings: Settings) -> None:
    """Raises ``ValueError`` for settings that exceed each other, or need each other."""
    if settings.per_round > settings.clients:
        raise ValueError(f"per_round: {settings.per_round} must not exceed --clients ({settings.clients})")
    if settings.quorum is not None and settings.quorum > settings.per_round:
        raise ValueError(f"quorum: {settings.quorum} must not exceed --per-round ({settings.per_round})")
    if settings.per_round + settings.over_select > settings.clients:
        raise ValueError(
            f"over_select: {settings.per_round} + {settings.over_select} must not exceed --clients ({settings.clients})"
        )
    if settings.slots < settings.per_round + settings.over_select:
        raise ValueError(
            f"edges_per_round: {settings.edges_per_round} is less than --per-round + --over-select "
            f"({settings.per_round + settings.over_select})"
        )
    if settings.train_examples is not None and settings.train_examples < settings.clients:
        raise ValueError(
            f"train_examples: {settings.train_examples} cannot be split among {settings.clients} clients"
        )
    if settings.max_clients is not None and settings.max_clients < settings.clients:
        raise ValueError(
            f"max_clients: {settings.max_clients} must not be less than --clients ({settings.clients})"
        )
    if settings.dp is None:  # otherwise they follow from the plan
        check_places(settings)
    if settings.similarity and settings.per_round < MIN_COMPARED:
        size = "--buffer" if settings.mode == "async" else "--per-round"
        all_edges = settings.clients < MIN_COMPARED
        few = f"--clients is {settings.clients}" if all_edges else f"{size} is {settings.per_round}"
        raise ValueError(
            f"similarity: {settings.similarity} compares at least {MIN_COMPARED} updates, but {few}"
        )
    if settings.similarity > settings.rounds:
        raise ValueError(
            f"similarity: {settings.similarity} compares the updates of every {settings.similarity} versions, "
            f"but --rounds is {settings.rounds}"
        )
    if settings.similarity and settings.durability == "memory":
        raise ValueError(
            f"similarity: {settings.similarity} needs updates on the disk until a round closes, "
            "but --durability is memory"
        )
    if len(settings.task_spec) > m.MAX_TASK_SPEC:
        more = "--keep-local" if settings.survey is None else "--range"
        raise ValueError(
            f"task_option: with {more}, {len(settings.task_spec)} characters in a message, "
            f"expected at most {m.MAX_TASK_SPEC}"
        )
    if settings.keep_local and settings.target is not None and not settings.holdout:
        raise ValueError(
            f"target: {settings.target} is measured on the edges' holdouts with --keep-local, but --holdout is 0"
        )
    if (settings.lr or 1.0) * settings.lr_decay**settings.rounds == 0:
        raise ValueError(
            f"lr_decay: {settings.lr_decay:g} makes the learning rate 0 before version {settings.rounds}, "
            "expected a larger factor"
        )


def check_places(settings: Settings) -> None:
    """Raises ``ValueError`` if the exact fold has too few binary places, or too many."""
    if settings.privacy is not None:
        _ = settings.scale_bits  # raises ValueError
        return
    if settings.scale_bits < LEAST_PLACES:
        wider = "" if settings.fold_width == 64 else ", or say --fold-bits 64"
        raise ValueError(
            f"max_delta: max_examples × max_delta × (per_round + over_select) leaves {settings.scale_bits} "
            f"binary places for the exact fold, expected at least {LEAST_PLACES}: lower one of them{wider}"
        )
    if settings.scale_bits > 62:
        raise ValueError(
            f"max_delta: {settings.max_delta:g} × max_examples × (per_round + over_select) is at most 0.5, "
            "expected more: raise one of them"
        )


def not_in_async(name: str) -> str:
    """Says that a setting belongs to rounds."""
    return f"{name}: has no meaning with --mode async: say --buffer and --concurrency instead"
