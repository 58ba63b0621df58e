"""PURE: which edges may be in the next release of a private run, and what the releases so far have told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from fl_aggregator.configuration.masking import Masking
from fl_aggregator.privacy.accounting import spent
from fl_aggregator.privacy.plan import PrivacyPlan
from fl_shared.privacy.distributed_noise import noise_of_sum
from fl_shared.protocol.messages import PrivacySpent


@dataclass(frozen=True, kw_only=True)
class Releases:
    """The releases of a run, numbered from 1. ``noises``: the noise multiplier of each.

    ``taken``: by client, the releases that it has contributed to, ascending. ``clip``: of the next one, ``made_with``:
    of the newest one; null if it does not change.
    """

    noises: tuple[float, ...] = ()
    taken: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    clip: float | None = None
    made_with: float | None = None

    def clip_of(self, plan: PrivacyPlan | None) -> float | None:
        """Returns the clip of the next release; null if it does not change."""
        return self.clip or plan.clip if plan is not None and plan.adaptive else None

    @property
    def made(self) -> int:
        """How many there are."""
        return len(self.noises)

    def with_release(
        self,
        clients: tuple[str, ...],
        noise: float,
        clip: float | None = None,
        next_clip: float | None = None,
    ) -> Releases:
        """Returns them with one more, made from the updates of ``clients``."""
        charged = {name: (*self.taken.get(name, ()), self.made + 1) for name in clients}
        # Not `replace`: what is known has changed.
        return Releases(
            noises=(*self.noises, noise), taken={**self.taken, **charged}, clip=next_clip, made_with=clip
        )

    def used_up(self, plan: PrivacyPlan) -> frozenset[str]:
        """Returns the clients that have contributed as often as they may; ``plan``: always that of the run."""
        if not plan.is_limited:
            return frozenset()
        if "used up" not in self._known:
            clients = self.taken.keys() | plan.limits.keys()
            self._known["used up"] = frozenset(
                name for name in clients if len(self.taken.get(name, ())) >= plan.times_of(name)
            )
        return self._known["used up"]

    def excluded(self, plan: PrivacyPlan) -> frozenset[str]:
        """Returns the clients that may not contribute to the next release; ``plan``: always that of the run."""
        if "excluded" not in self._known:
            since = self.made + 1 - plan.apart
            found = {name for name, versions in self.taken.items() if versions[-1] > since}
            self._known["excluded"] = frozenset(found) | self.used_up(plan)
        return self._known["excluded"]

    # What is known of these releases is found out once: observers ask again and again.
    @cached_property
    def _known(self) -> dict[str, frozenset[str]]:
        return {}

    @cached_property
    def _spent(self) -> list[PrivacySpent]:
        return []


def noise_of_release(plan: PrivacyPlan, masking: Masking | None, updates: int) -> float:
    """Returns the noise multiplier of the sum of so many updates; ``masking``: of the round, null without masks."""
    if plan.mechanism == "central" or masking is None:
        return plan.noise
    return noise_of_sum(plan.noise, masking.least, masking.colluders, updates)


def trusted_by(plan: PrivacyPlan) -> str:
    """Says who must add noise for the promise to hold."""
    if plan.mechanism == "central":
        return "aggregator"
    return f"all edges of a sum but {plan.colluders} (at least {plan.least - plan.colluders})"


def spent_by(plan: PrivacyPlan, releases: Releases) -> PrivacySpent:
    """Returns what the releases have told about an edge, at most; ``plan``: always that of the run."""
    if not releases._spent:
        releases._spent.append(_spent(plan, releases))
    return releases._spent[0]


def _spent(plan: PrivacyPlan, releases: Releases) -> PrivacySpent:
    most = spent(plan, releases.taken, releases.noises)
    return PrivacySpent(
        mechanism=plan.mechanism,
        against=plan.against,
        trusted=trusted_by(plan),
        clip=releases.made_with or plan.clip,
        noise=releases.noises[-1] if releases.noises else plan.noise,
        sensitivity=most.sensitivity,
        mu=most.mu,
        epsilon=most.epsilon,
        delta=plan.delta,
        advantage=most.advantage,
        budget=plan.epsilon,
        releases=releases.made,
        spent_by=most.client,
        insecure=plan.insecure,
        wire_epsilon=most.on_wire,
    )
