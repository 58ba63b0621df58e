"""PURE: which edges may be in the next release of a private run, and what the releases so far have told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from fl_aggregator.privacy.accounting import spent
from fl_aggregator.privacy.plan import PrivacyPlan
from fl_shared.protocol.messages import PrivacySpent


@dataclass(frozen=True, kw_only=True)
class Releases:
    """The releases of a run. ``taken``: by client, the versions that it has contributed to, ascending."""

    made: int = 0
    taken: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def with_release(self, version: int, clients: tuple[str, ...]) -> Releases:
        """Returns them with one more, made from the updates of ``clients``."""
        charged = {name: (*self.taken.get(name, ()), version) for name in clients}
        return Releases(
            made=version, taken={**self.taken, **charged}
        )  # not `replace`: what is known has changed

    def used_up(self, plan: PrivacyPlan) -> frozenset[str]:
        """Returns the clients that have contributed as often as they may."""
        return frozenset(name for name, versions in self.taken.items() if len(versions) >= plan.times)

    def excluded(self, plan: PrivacyPlan) -> frozenset[str]:
        """Returns the clients that may not contribute to the next release; ``plan``: always that of the run."""
        if not self._known:
            since = self.made + 1 - plan.apart
            found = {name for name, versions in self.taken.items() if versions[-1] > since}
            self._known.append(frozenset(found) | self.used_up(plan))
        return self._known[0]

    @cached_property
    def _known(self) -> list[frozenset[str]]:
        return []


TRUSTED = {"central": "aggregator", "distributed": "edges"}
"""Who must add the noise."""


def spent_by(plan: PrivacyPlan, releases: Releases) -> PrivacySpent:
    """Returns what the releases have told about an edge, at most."""
    most = spent(plan, releases.taken, releases.made)
    return PrivacySpent(
        mechanism=plan.mechanism,
        against=plan.against,
        trusted=TRUSTED[plan.mechanism],
        clip=plan.clip,
        noise=plan.noise,
        sensitivity=most.sensitivity,
        mu=most.mu,
        epsilon=most.epsilon,
        delta=plan.delta,
        advantage=most.advantage,
        budget=plan.epsilon,
        releases=releases.made,
        spent_by=most.client,
        insecure=plan.insecure,
    )
