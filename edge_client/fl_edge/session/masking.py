"""PURE: when an edge takes part in a masked round, and the plan of the round as it sees it (protocol, section 10).

An aggregator cannot talk an edge out of what `Trust` asks for: the edge holds nothing against its words but these
checks, and the signature that it gives to one set of updates in a round.
"""

from __future__ import annotations

from dataclasses import dataclass

from fl_edge.session.policy import RequiredMasking, policy_problem
from fl_shared.masking.plan import Member, Plan, plan_of
from fl_shared.masking.run_keys import BadRunKeys, RunKeys, check_keys, parse_keys
from fl_shared.privacy.distributed_noise import check_deviation, noise_of_edge
from fl_shared.protocol import messages as m


@dataclass(frozen=True, slots=True)
class Trust:
    """What an edge trusts. ``enrolment``: the key that certifies members, 32 bytes; null without a kit.

    ``required``: null if it takes part in any round.
    """

    enrolment: bytes | None = None
    required: RequiredMasking | None = None


@dataclass(frozen=True, slots=True)
class MaskedRun:
    """What an edge has of a run whose updates are masked. ``keys``: its public ones, as its registration has them.

    ``made``: the round of the newest update that this process has masked, and the body of that (hex).
    """

    run: str
    keys: str
    made: tuple[int, str] | None = None

    def body(self, number: int) -> str | None:
        """The body of the edge's update of a round; null if this process does not know it."""
        return self.made[1] if self.made is not None and self.made[0] == number else None


class UnacceptablePlan(ValueError):
    """The edge takes no part in a round of this plan; ``reason`` is for the aggregator."""

    def __init__(self, reason: m.DeclineReason, detail: str) -> None:
        super().__init__(detail)
        self.reason: m.DeclineReason = reason


def checked_plan(
    selected: m.Selected,
    partition: m.Partition,
    manifest: str,
    values: int,
    client: str,
    keys: RunKeys,
    trust: Trust,
    now: float,
) -> Plan:
    """Returns the plan of a masked round for ``client``, which has these ``keys`` of the run.

    ``partition``: the one that it trains on. ``manifest``: the digest of the model's; ``values``: how many it has.
    ``now``: seconds since 1970. Raises `UnacceptablePlan` if a promise of masked sums does not hold for it.
    """
    if problem := policy_problem(selected, trust.required):
        raise UnacceptablePlan("policy", problem)
    if selected.masked is None:
        raise UnacceptablePlan("wrong-plan", f"round {selected.round} is not masked")
    try:
        plan = plan_of(selected, partition, manifest, values)
        if selected.privacy is not None:
            check_deviation(noise_deviation(selected.privacy, plan, selected.fold.scale_bits))
        for member in selected.masked.members:
            check_keys(parse_keys(member.keys), selected.run, member.client, trust.enrolment, now)
    except BadRunKeys as error:
        raise UnacceptablePlan("policy", f"the keys of a member are not certified: {error}") from None
    except ValueError as error:
        raise UnacceptablePlan("wrong-plan", f"the masked round contradicts itself: {error}") from None
    own = keys.public
    if Member(client, own.mask, own.agree) not in plan.members:
        raise UnacceptablePlan(
            "not-a-member", f"the keys of edge {client} in round {selected.round} are not its own"
        )
    return plan


def noise_deviation(privacy: m.RoundPrivacy, plan: Plan, scale_bits: int) -> float:
    """Returns the standard deviation of the noise that each edge of a masked round adds, in units of the grid.

    Raises ``ValueError`` if the edges are not the ones to add it.
    """
    if privacy.mechanism != "distributed":
        raise ValueError(
            f"privacy: {privacy.mechanism!r}, but nobody can clip a masked update except its edge"
        )
    return noise_of_edge(privacy.noise, plan.least, plan.colluders) * privacy.clip * 2.0**scale_bits
