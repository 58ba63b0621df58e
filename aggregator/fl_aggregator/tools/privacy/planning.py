"""The noise that a private run would need: independent, correlated, and with cohorts that are secret."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from fl_aggregator.configuration.privacy import plan_of
from fl_aggregator.configuration.settings import parse_settings
from fl_aggregator.monitoring.views.privacy import OF_EXAMPLES, SEES, WOULD_HELP, often_text, times_text
from fl_aggregator.privacy.noise_length import NoiseLength, effective_noise, most_values, noise_length
from fl_aggregator.privacy.plan import MAX_BANDS, PrivacyPlan
from fl_aggregator.privacy.subsampled import noise_for
from fl_shared.errors import UserError

INDEPENDENT, CORRELATED, SECRET = "independent noise", "correlated noise", "secret cohorts"
LEARNT: Final = {"nothing": "nothing can be learnt", "little": "little can be learnt", "something": ""}


@dataclass(frozen=True, slots=True)
class Way:
    """A way to be private. ``noise``: the noise multiplier; ``effective``: that of independent noise that does as much.

    ``missing``: why neither is known; null if they are. ``length``: null if the model's size is not known.
    ``most_values``: with so many shared parameters nothing can be learnt any more.
    """

    name: str
    against: str
    noise: float | None = None
    effective: float | None = None
    length: NoiseLength | None = None
    most_values: int | None = None
    deviation: float | None = None
    missing: str | None = None


@dataclass(frozen=True, slots=True)
class Plans:
    """The ways beside each other, for the same edges and the same ε. ``values``: shared parameters, null if unknown."""

    clients: int
    per_round: int
    plan: PrivacyPlan
    values: int | None
    ways: tuple[Way, ...]

    def fields(self) -> dict[str, Any]:
        """The plans as an object for JSON."""
        plan = self.plan
        return {
            "clients": self.clients,
            "per_round": self.per_round,
            "rounds": plan.releases,
            "epsilon": plan.epsilon,
            "delta": plan.delta,
            "apart": plan.apart,
            "times": plan.times,
            "shared_parameters": self.values,
            "ways": {way.name: _way_fields(way) for way in self.ways},
        }

    def lines(self) -> Iterator[str]:
        """The plans as lines for a person."""
        plan = self.plan
        yield (
            f"{self.clients:,} edges, {self.per_round:,} a round, {plan.releases:,} versions: ε = {plan.epsilon:g} at "
            f"δ = {plan.delta:.3g}"
        )
        yield often_text(plan, "versions")
        for way in self.ways:
            yield ""
            yield f"{way.name}: against whoever {SEES[way.against]}"
            if way.missing is not None:
                yield f"  {way.missing}"
                continue
            assert way.noise is not None
            assert way.effective is not None
            same = way.effective == way.noise
            yield f"  noise multiplier {way.noise:.3g}" + (
                "" if same else f", which moves the model as far as independent noise of {way.effective:.3g}"
            )
            if way.deviation is not None:
                yield f"  each parameter of a version gets noise of standard deviation {way.deviation:.3g}"
            if way.length is not None:
                yield from _length_lines(way.length, plan.releases)
            else:
                yield f"  nothing can be learnt with {way.most_values:,} shared parameters or more"


def _length_lines(length: NoiseLength, releases: int) -> Iterator[str]:
    verdict = LEARNT[length.teaches]
    yield (
        f"  the noise of a version is {times_text(length.release)} times as long as the longest possible mean update, "
        f"that of all {releases:,} together {times_text(length.run)} times"
    )
    if verdict:
        yield f"  {verdict}: {WOULD_HELP}" + (f"; {OF_EXAMPLES}" if length.teaches == "nothing" else "")


def _way_fields(way: Way) -> dict[str, Any]:
    length = way.length
    return {
        "against": way.against,
        "noise": way.noise,
        "effective_noise": way.effective,
        "noise_per_update": None if length is None else length.release,
        "noise_per_run": None if length is None else length.run,
        "learns": None if length is None else length.teaches,
        "nothing_from": way.most_values,
        "deviation": way.deviation,
        "missing": way.missing,
    }


def plans(
    *,
    clients: int,
    per_round: int,
    rounds: int,
    epsilon: float,
    delta: float | None,
    shared_parameters: int | None,
    clip: float | None,
    apart: int | None,
    times: int | None,
) -> Plans:
    """Returns the ways to keep the budget. Raises ``UserError`` that names the option."""

    def planned(bands: int) -> PrivacyPlan:
        settings = parse_settings(
            task="digits",
            clients=clients,
            per_round=per_round,
            rounds=rounds,
            dp="central",
            dp_epsilon=epsilon,
            dp_delta=delta,
            dp_clip=str(clip or 1.0),
            dp_apart=None if apart is None else str(apart),
            dp_times=times,
            dp_bands=str(bands),
        )
        plan = plan_of(settings)
        assert plan is not None
        return plan

    def way(name: str, against: str, noise: float, effective: float) -> Way:
        return Way(
            name,
            against,
            noise,
            effective,
            None
            if shared_parameters is None
            else noise_length(effective, shared_parameters, per_round, rounds),
            most_values(effective, per_round, rounds),
            None if clip is None else effective * clip / per_round,
        )

    independent = planned(1)
    correlated = planned(min(MAX_BANDS, rounds))
    ways = [way(INDEPENDENT, "wire", independent.noise, independent.noise)]
    if correlated.bands > 1:
        ways.append(way(CORRELATED, "wire", correlated.noise, effective_noise(correlated)))
    else:
        missing = "does not help, as an edge may be in each version: it needs edges that rest (--apart)"
        ways.append(Way(CORRELATED, "wire", missing=missing))
    try:
        secret = noise_for(epsilon, independent.delta, per_round / clients, rounds)
        ways.append(way(SECRET, "models", secret, secret))
    except UserError as error:
        ways.append(Way(SECRET, "models", missing=str(error)))
    return Plans(clients, per_round, independent, shared_parameters, tuple(ways))
