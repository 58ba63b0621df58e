"""Runs with differential privacy: their options, what these must keep, and the plan that follows from them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import BaseModel, Field

from fl_aggregator.configuration.masking import colluders_of, fewest_members, least_of
from fl_aggregator.configuration.option import Option
from fl_aggregator.configuration.values import readable_by
from fl_aggregator.privacy.bounded_mean import has_room
from fl_aggregator.privacy.ledger import NOTHING_EARLIER, Earlier
from fl_aggregator.privacy.plan import MAX_BANDS, Mechanism, PrivacyPlan, make_plan
from fl_aggregator.privacy.subsampled import LEAST_DELTA, LEAST_NOISE
from fl_shared.cli.headings import PRIVACY
from fl_shared.errors import UserError
from fl_shared.privacy.clipping import private_scale_bits
from fl_shared.privacy.distributed_noise import noise_of_edge
from fl_shared.protocol import messages as m
from fl_shared.system.text import names_text
from fl_shared.tensors.encodings.float32 import FLOAT32
from fl_shared.tensors.manifest import Manifest

if TYPE_CHECKING:
    from fl_aggregator.configuration.settings import Settings

ADAPTIVE: Final = "adaptive"
FIRST_CLIP: Final = 1.0
"""The clip with which an adaptive one begins, by default."""
DP_ONLY: Final = (
    "dp_epsilon", "dp_noise", "dp_delta", "dp_clip", "dp_apart", "dp_times", "dp_bands", "dp_ledger", "dp_accuracy",
    "dp_insecure_seed",
)  # fmt: skip
"""The settings that have a meaning with ``--dp`` only; null or false in others."""
MOST_DELTA: Final = 1e-5
MOST_SECRET_DELTA: Final = 0.1
"""With secret cohorts, whose ε is not in closed form."""
MOST_BANDS: Final = 32
"""The most versions whose noise is correlated: `MAX_BANDS` are as good, and each costs noise and time."""
MOST_CORRELATED: Final = 10_000
"""The most versions of a run whose noise is correlated: its coefficients are looked for at the start."""


def parse_clip(text: str) -> tuple[float, bool]:
    """Returns the clip, or the first one, and whether it is adaptive. Raises ``ValueError``."""
    kind, separator, number = text.partition(":")
    adaptive = kind == ADAPTIVE
    expected = "expected a number above 0 such as 0.5, or adaptive, or adaptive:FIRST"
    if adaptive and not separator:
        return FIRST_CLIP, True
    try:
        clip = float(number if adaptive else text)
    except ValueError:
        raise ValueError(expected) from None
    if not 1e-6 <= clip <= 1e6:
        raise ValueError(f"{expected}, from 1e-6 to 1e6")
    return clip, adaptive


def parse_whole(text: str) -> int | None:
    """Returns the number, or null for ``auto``. Raises ``ValueError``."""
    if text == "auto":
        return None
    if not (text.isascii() and text.isdecimal() and 1 <= int(text) <= 1_000_000):
        raise ValueError("expected auto, or a number from 1 to 1000000")
    return int(text)


class PrivacyOptions(BaseModel):
    """The options of runs with differential privacy."""

    # fmt: off
    dp: Annotated[Mechanism | None, Option(PRIVACY, "Add noise to each version, so that it says little about any one "
        "edge: central, by the aggregator; distributed, by the edges, in masked rounds.", default="no noise")] = None
    dp_epsilon: Annotated[float | None, Field(gt=0, le=100), Option(PRIVACY, "Budget: ε of the whole run for "
        "each edge. Without --dp-noise, the noise that --rounds need.", default="none")] = None
    dp_noise: Annotated[float | None, Field(ge=1e-9, le=1e4), Option(PRIVACY, "Noise multiplier: standard deviation of "
        "the noise of one version, in units of --dp-clip.", default="that of --dp-epsilon")] = None
    dp_delta: Annotated[float | None, Field(gt=0, lt=1), Option(PRIVACY, "Probability with which ε may not hold.",
        default="10^-5, or --clients^-1.1 if that is less")] = None
    dp_clip: Annotated[Annotated[str, readable_by(parse_clip)] | None, Option(PRIVACY, "Greatest L2 norm of an update; "
        "longer ones are shortened. A run without --dp shows the median norm of its updates with --similarity. "
        "adaptive: it begins with FIRST (1.0), and follows their median.",
        default="none: required with --dp", metavar="NORM|adaptive[:FIRST]")] = None
    dp_against: Annotated[Literal["wire", "models"], Option(PRIVACY, "Who must not learn about an edge: who sees "
        "all models and who took part (wire), or only what is published (models): cohorts are secret, and an edge is "
        "in one with probability --per-round ÷ --clients.")] = "wire"
    dp_apart: Annotated[Annotated[str, readable_by(parse_whole)] | None, Option(PRIVACY, "An edge contributes to at "
        "most one of N versions in a row.", default="0.8 × --clients ÷ edges of a round", metavar="N|auto")] = None
    dp_times: Annotated[int | None, Field(ge=1, le=1_000_000), Option(PRIVACY, "Versions that an edge contributes to, "
        "at most.", default="as many as --dp-apart and the budget allow", metavar="N")] = None
    dp_bands: Annotated[Annotated[str, readable_by(parse_whole)] | None, Option(PRIVACY, "Versions whose noise is "
        "correlated, so that part of it cancels; 1: none.", default=f"{MAX_BANDS}, or 1 where it is of no use",
        metavar="N|auto")] = None
    dp_ledger: Annotated[str | None, Option(PRIVACY, "File with the versions of all runs that share a budget, and who "
        "is in them: what earlier runs have spent counts.", default="each run has a budget of its own",
        metavar="FILE")] = None
    dp_accuracy: Annotated[bool, Option(PRIVACY, "Measure versions on the edges' holdouts: "
        "tell the mean of the primary metric, which is from 0 to 1, with noise.")] = False
    dp_insecure_seed: Annotated[int | None, Field(ge=0, lt=2**53), Option(PRIVACY, "Noise from a known seed, for "
        "tests: such a run is not private.", default="none", metavar="N")] = None
    # fmt: on


def apart_of(settings: Settings) -> int:
    """Returns the releases in a row to at most one of which an edge contributes."""
    if settings.has_secret_cohorts:
        return 1
    given = None if settings.dp_apart is None else parse_whole(settings.dp_apart)
    selected = settings.per_round + settings.over_select
    return max(1, math.floor(0.8 * settings.clients / selected)) if given is None else given


def bands_of(settings: Settings) -> int:
    """Returns the releases whose noise is correlated: 1 where that would not help, or cannot be."""
    given = None if settings.dp_bands is None else parse_whole(settings.dp_bands)
    if given is not None:
        return given
    independent = (
        settings.dp != "central"
        or settings.has_secret_cohorts
        or settings.rounds > MOST_CORRELATED
        or _clip(settings)[1]
    )
    return 1 if independent else min(MAX_BANDS, settings.rounds)


def noise_places(settings: Settings, bits: int) -> int:
    """Returns the binary places of the sum of a private run in so many bits.

    Raises ``ValueError`` if they leave the noise, or the part of it that one edge adds, too little room.
    """
    plan = settings.privacy
    assert plan is not None, "it is resolved"
    noise, part = plan.model_noise, 1.0
    if plan.mechanism == "distributed":
        # Cohorts differ in size: their sums have at least plan.least updates, and the least is per_round at most.
        noise = noise_of_edge(plan.noise, plan.least, plan.colluders) * math.sqrt(settings.slots)
        part = noise_of_edge(plan.noise, settings.per_round, plan.colluders) / noise
    try:
        return private_scale_bits(plan.clip, noise, settings.slots, bits, part, plan.room)
    except ValueError as error:
        raise ValueError(f"fold_{error} (--fold-bits, --dp-noise, --per-round)") from None


def has_room_for_noise(settings: Settings, bits: int) -> bool:
    """Whether the sum of a private run fits into so many bits."""
    try:
        noise_places(settings, bits)
    except ValueError:
        return False
    return True


def delta_of(settings: Settings) -> float:
    """Returns δ."""
    given: float | None = settings.dp_delta
    return min(MOST_DELTA, settings.clients**-1.1) if given is None else given


def _clip(settings: Settings) -> tuple[float, bool]:
    assert settings.dp_clip is not None, "it is required with --dp"
    return parse_clip(settings.dp_clip)


def plan_of(settings: Settings, earlier: Earlier = NOTHING_EARLIER) -> PrivacyPlan | None:
    """Returns the plan that follows from the settings; null without ``--dp``. Raises ``ValueError``.

    ``earlier``: what earlier runs with the same ledger have told.
    """
    if settings.dp is None:
        return None
    clip, adaptive = _clip(settings)
    is_distributed = settings.dp == "distributed"
    plan = make_plan(
        mechanism=settings.dp,
        against=settings.dp_against,
        clip=clip,
        adaptive=adaptive,
        noise=settings.dp_noise,
        delta=delta_of(settings),
        epsilon=settings.dp_epsilon,
        apart=apart_of(settings),
        times=settings.dp_times,
        bands=bands_of(settings),
        releases=settings.rounds,
        insecure=settings.dp_insecure_seed is not None,
        least=least_of(settings, fewest_members(settings)) if is_distributed else 0,
        colluders=colluders_of(settings) if is_distributed else 0,
        accuracy=settings.dp_accuracy,
        expected=settings.per_round,
        rate=settings.per_round / settings.clients if settings.has_secret_cohorts else 1.0,
        earlier=earlier,
    )
    if (adaptive or plan.accuracy) and not has_room(plan.mean_deviation):
        option = "dp_accuracy" if plan.accuracy else "dp_clip"
        raise ValueError(
            f"{option}: with --dp-noise {plan.noise:.3g} and {plan.expected} edges in a round the mean has no room for "
            "its noise; expected less noise, or fewer edges"
        )
    return plan


def round_privacy(settings: Settings, clip: float | None) -> m.RoundPrivacy | None:
    """Returns what the edges of a round are told of its clip and noise; null without differential privacy.

    ``clip``: null if it does not change.
    """
    plan = settings.privacy
    if plan is None:
        return None
    return m.RoundPrivacy(
        mechanism=plan.mechanism, clip=clip or plan.clip, noise=plan.noise, accuracy=plan.accuracy
    )


def check_private(settings: Settings) -> None:
    """Raises ``ValueError`` for settings that no private run can keep, and for those that only private runs have."""
    if settings.dp is None:
        for name in DP_ONLY:
            if getattr(settings, name) not in (None, False):
                raise ValueError(f"{name}: has a meaning with --dp only")
        if settings.dp_against != "wire":
            raise ValueError("dp_against: has a meaning with --dp only")
        return
    if settings.dp_clip is None:
        raise ValueError(
            "dp: needs --dp-clip NORM, the greatest L2 norm of an update; a run without --dp and with --similarity 1 "
            "shows the median norm of its updates in its report, which is a good choice"
        )
    if settings.dp_epsilon is None and settings.dp_noise is None:
        raise ValueError("dp: needs --dp-epsilon, the budget of an edge, or --dp-noise, the noise multiplier")
    if settings.dp == "distributed" and not settings.masked:
        raise ValueError(
            "dp: distributed needs --masked: the noise of one edge hides its sum with others only"
        )
    if settings.has_secret_cohorts:
        _check_secret(settings)
    _check_together(settings)


def _check_secret(settings: Settings) -> None:
    """Raises ``ValueError`` for settings that would tell who is in a cohort, or make that depend on earlier ones."""
    refused: dict[str, tuple[Any, str]] = {
        "--masked": (
            settings.masked,
            "members of a masked round know each other, so cohorts are no secret: --dp-against wire",
        ),
        f"--dp-bands {settings.dp_bands}": (
            bands_of(settings) > 1,
            "correlated noise is accounted for who takes part in which version",
        ),
        f"--dp-apart {settings.dp_apart}": (settings.dp_apart, "each edge is in each cohort by chance"),
        f"--dp-times {settings.dp_times}": (settings.dp_times, "each edge is in each cohort by chance"),
        f"--over-select {settings.over_select}": (settings.over_select, "all drawn edges count"),
        f"--pace {settings.pace}": (settings.parsed_pace, "deadlines would follow who takes part"),
    }
    if settings.dp_noise is not None and settings.dp_noise < LEAST_NOISE:
        raise ValueError(
            f"dp_noise: {settings.dp_noise:g}, expected at least {LEAST_NOISE:g} with --dp-against models"
        )
    if settings.dp_delta is not None and not LEAST_DELTA <= settings.dp_delta <= MOST_SECRET_DELTA:
        raise ValueError(
            f"dp_delta: {settings.dp_delta:g}, expected {LEAST_DELTA:g} to {MOST_SECRET_DELTA:g} with "
            "--dp-against models"
        )
    for option, (applies, why) in refused.items():
        if applies:
            raise ValueError(f"dp_against: models does not go with {option}: {why}")


def check_account(settings: Settings, *, has_kit: bool) -> None:
    """Raises ``UserError`` if cohorts are to be secret at a broker where everybody may read all messages."""
    if settings.has_secret_cohorts and not has_kit:
        raise UserError(
            "--dp-against models: needs --kit: without accounts, everybody at the broker reads who takes part; "
            "fl-aggregator provision makes kits, and --dp-against wire needs none"
        )


def check_manifest(settings: Settings, manifest: Manifest) -> None:
    """Raises ``UserError`` if the model of a private run has buffers: they are averaged, and cannot be clipped."""
    buffers = [array.name for array in manifest.arrays if array.role == "buffer"]
    if settings.dp is not None and buffers:
        raise UserError(
            f"--dp: the task {settings.task!r} shares {len(buffers)} buffers ({names_text(buffers, 3)}), which cannot "
            "be clipped: keep them on the edges (--keep-local batchnorm), or use a model without them, such as one "
            "with GroupNorm"
        )


def _check_together(settings: Settings) -> None:
    adaptive, bands = _clip(settings)[1], bands_of(settings)
    is_distributed = settings.dp == "distributed"
    refused: dict[str, Any] = {
        "--mode async": settings.mode == "async"
        and "an edge's contributions to a version are not bounded yet",
        "--masked": settings.masked
        and settings.dp == "central"
        and "the aggregator cannot clip what it cannot see",
        f"--encoding {settings.encoding}": settings.encoding != FLOAT32.name
        and "noise hides more than an encoding saves",
        f"--similarity {settings.similarity}": settings.similarity
        and "inner products of updates would be published without noise",
        f"--personalize {settings.personalize}": settings.personalize
        and "each edge would say how good its own model is",
        f"--transform {', '.join(settings.transform)}": settings.transform
        and "--dp-clip is what scales updates",
        f"--target {settings.target}": settings.target
        and settings.holdout
        and "edges would measure it on their holdouts, without noise; with --holdout 0, those with --role evaluate do",
        f"--dp-ledger {settings.dp_ledger}": settings.dp_ledger is not None
        and settings.dp_insecure_seed is not None
        and "noise from a known seed spends more than any budget",
        f"--dp-bands {bands}": bands > 1
        and (
            (adaptive and "correlated noise has one scale, and --dp-clip is adaptive")
            or (
                is_distributed
                and "edges keep no noise, with which that of later versions could be correlated"
            )
        ),
        f"--dp-clip {settings.dp_clip}": is_distributed
        and adaptive
        and "each edge's part of the noise has one scale",
        "--dp-accuracy": settings.dp_accuracy
        and is_distributed
        and "only the aggregator can add the noise of the mean",
        f"--dp-insecure-seed {settings.dp_insecure_seed}": is_distributed
        and settings.dp_insecure_seed is not None
        and "each edge makes its noise from random numbers of its own",
    }
    for option, why in refused.items():
        if why:
            raise ValueError(f"dp: {settings.dp} does not go with {option}: {why}")
    if settings.dp_accuracy and settings.holdout == 0:
        raise ValueError("dp_accuracy: needs --holdout of more than 0, on which edges measure it")
    if bands > MOST_BANDS:
        raise ValueError(f"dp_bands: {bands}, expected at most {MOST_BANDS}: more gain nothing")
    if bands > settings.rounds:
        raise ValueError(f"dp_bands: {bands} must not exceed --rounds ({settings.rounds})")
    if bands > 1 and settings.rounds > MOST_CORRELATED:
        raise ValueError(
            f"dp_bands: {bands} versions are correlated in runs of at most {MOST_CORRELATED} versions, "
            f"but --rounds is {settings.rounds}"
        )
