"""What is said of differential privacy: to the edges of a round, and to who watches a run."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from fl_shared.protocol.kinds.base import ClientId, Count, Fragment, Number

Mechanism = Literal["central", "distributed"]
Adversary = Literal["wire", "models"]
Positive = Annotated[float, Field(gt=0, le=1e12)]
Epsilon = Annotated[float, Field(ge=0)]


class RoundPrivacy(Fragment):
    """How the updates of a round are clipped, and the noise of their sum.

    ``mechanism``: who adds the noise: the aggregator (``central``), or each edge a part of it (``distributed``).
    ``clip``: the greatest L2 norm of an update. ``noise``: the standard deviation of the noise in units of ``clip``; of
    distributed noise, what a sum of the least updates has without the parts of its colluders (protocol, 11.5).
    ``accuracy``: each update says the primary metric of the base on the edge's holdout, and nothing else.
    """

    mechanism: Mechanism
    clip: Positive
    noise: Positive
    accuracy: bool = False


class PrivacyStatus(Fragment):
    """What a run has told about an edge, at most, against ``against``: (ε, δ), and the budget; null without one.

    ``insecure``: see `PrivacySpent`.
    """

    epsilon: Epsilon
    delta: Number
    budget: Epsilon | None
    against: Adversary
    insecure: bool = False


class PrivacySpent(Fragment):
    """What the versions so far have told about an edge, at most.

    ``unit``, ``relation``: neighbouring runs differ in what one edge contributes, which is replaced by nothing.
    ``trusted``: who must add the noise for this to be true. ``clip``, ``noise``: of the newest version, as in
    `RoundPrivacy`. ``sensitivity``: how much the edge ``spent_by`` counts, in units of ``clip``; ``mu`` is that divided
    by ``noise`` (Gaussian differential privacy). With distributed noise, which differs from release to release, the
    square of ``mu`` is the sum of 1 / noise². With a ledger it has earlier runs in it. ``advantage``: how much better
    than by a coin it can be told whether the edge took part with its data. ``releases``: versions made from updates,
    and sums that were opened for none. ``insecure``: the noise follows from a seed that is known, so that nothing is
    private. ``wire_epsilon``: with secret cohorts, what ``epsilon`` is at most against who sees who took part;
    ``sensitivity`` and ``mu`` are of an edge that was in all releases then.
    """

    mechanism: Mechanism
    against: Adversary
    unit: Literal["edge"] = "edge"
    relation: Literal["zero-out"] = "zero-out"
    trusted: Annotated[str, Field(max_length=64)]
    clip: Positive
    noise: Positive
    sensitivity: Epsilon
    mu: Epsilon
    epsilon: Epsilon
    delta: Number
    advantage: Annotated[float, Field(ge=0, le=1)]
    budget: Epsilon | None = None
    releases: Count
    spent_by: ClientId | None = None
    insecure: bool = False
    wire_epsilon: Epsilon | None = None

    @property
    def status(self) -> PrivacyStatus:
        """What the run's status says of it."""
        return PrivacyStatus(
            epsilon=self.epsilon,
            delta=self.delta,
            budget=self.budget,
            against=self.against,
            insecure=self.insecure,
        )
