"""Summaries of rounds that have ended: participants, missing edges and reasons, metrics. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final, Literal

from fl_aggregator.round.events import Tallies, UpdateMetadata
from fl_aggregator.round.phases import (
    REJECTED,
    Aggregating,
    Agreeing,
    Buffering,
    Collecting,
    Phase,
    Ticket,
    agreeing_of,
    unmasking_of,
)
from fl_aggregator.round.roster import Client
from fl_aggregator.round.state import Run, Summary
from fl_shared.protocol.messages import (
    EDGES_METRICS,
    LOSS,
    MAX_DECLARED_METRICS,
    MAX_METRIC_NAME,
    MAX_METRICS,
    PACE_METRICS,
    ModelReference,
)
from fl_shared.system.reasons import reasons_text
from fl_shared.system.text import names_text, natural_order

MAX_TRAINING_METRICS: Final = MAX_METRICS - MAX_DECLARED_METRICS - 4 - len(EDGES_METRICS)
"""Metrics of training in a summary. The two of the staleness or of the pace are added, and those of the evaluation: the
declared ones, loss and examples; and those over the edges."""


def missing_reasons(state: Run, phase: Collecting, now: float) -> dict[str, str]:
    """Returns the selected edges that did not contribute, and why."""
    missing: dict[str, str] = {}
    for name in phase.cohort:
        client = state.roster.get(name)
        if name in phase.updates:
            continue
        if name in phase.dropped:
            missing[name] = phase.dropped[name]
        elif client is None:
            missing[name] = "offline: for 0.0 s"
        elif client.revoked or client.lost_at is not None:
            missing[name] = _offline_text(client, now)
        elif len(phase.updates) >= phase.target:
            missing[name] = "surplus: the round already had all the updates it needed"
        else:
            missing[name] = deadline_reason(phase, now)
        if client is not None and client.region_text is not None:
            missing[name] = f"{client.region_text}: {missing[name]}"
    return missing


def deadline_reason(phase: Collecting, now: float) -> str:
    """Says why an edge that is online is missing."""
    return f"deadline: no update within {now - phase.opened:.0f} s"


def summary_of(
    state: Run,
    phase: Collecting,
    closed: float,
    now: float,
    *,
    reason: str | None = None,
    model: ModelReference | None = None,
    missing: Mapping[str, str] | None = None,
    tallies: Tallies | None = None,
) -> Summary:
    """Returns the summary of a round that has ended: committed if it has a model, otherwise abandoned.

    ``closed`` is when it stopped collecting, ``now`` when it ended; both are run time in seconds. ``tallies``: of a
    masked round.
    """
    updates = [phase.updates[name] for name in sorted(phase.updates)]
    # One that began from an older version says nothing about the base.
    edges = edges_values(
        state, [(update.client, update.before) for update in updates if not update.staleness]
    )
    outcome: Literal["committed", "abandoned"] = "abandoned" if model is None else "committed"
    is_buffer = state.settings.mode == "async" and phase.base is not None
    ages = [update.staleness for update in updates] if is_buffer and model is not None else []
    examples = sum(update.examples for update in updates)
    if state.settings.hides_edges:  # also of the first weights, one edge's: no numbers are shown
        edges, examples = {}, 0 if tallies is None else tallies.examples
    in_masks = _masked_seconds(state.phase, now)
    return Summary(
        round=phase.round,
        outcome=outcome,
        reason=reason,
        model=model,
        cohort=phase.cohort,
        participants=tuple(update.client for update in updates) if model is not None else (),
        missing=missing_reasons(state, phase, now) if missing is None else missing,
        examples=examples if model is not None else 0,
        metrics={
            **(_tally_means(state, tallies) if state.settings.hides_edges else _mean_metrics(updates)),
            **staleness_metrics(ages),
            **pace_metrics(state, phase),
            **edges_metrics(state, edges),
        },
        declared=state.declared or (),
        first_served=None if model is None else state.settings.first_served(model.version),
        seconds={
            "selecting": round(phase.opened - phase.since, 6),
            "buffering" if is_buffer else "collecting": round(closed - phase.opened, 6),
            **in_masks,
            "aggregating": round(now - closed - sum(in_masks.values()), 6),
        },
        edges=edges,
        masked=phase.masking is not None,
        secret=phase.secret,
        privacy=state.privacy,
        encoding=phase.encoding,
        edges_version=phase.base.version if edges and phase.base is not None else None,
    )


def _masked_seconds(phase: Phase, now: float) -> dict[str, float]:
    """Returns what the members of a masked round took to sign what is summed, and to unmask it; empty without masks."""
    agreeing, unmasking = agreeing_of(phase), unmasking_of(phase)
    if agreeing is None:
        return {}
    if unmasking is None:
        return {"agreeing": round(now - agreeing.closed, 6)}
    unmasked = phase.unmasked if isinstance(phase, Aggregating) and phase.unmasked is not None else now
    return {
        "agreeing": round(unmasking.since - agreeing.closed, 6),
        "unmasking": round(unmasked - unmasking.since, 6),
    }


def _tally_means(state: Run, tallies: Tallies | None) -> dict[str, float]:
    """Returns the means over all examples of a masked round, under the names of those of a round without masks."""
    if tallies is None:
        return {}
    means = {"train_loss": tallies.train_loss} if tallies.examples else {}
    for when in ("before", "after"):
        means |= {f"{when}_{name}": value for name, value in holdout_means(state, tallies, when).items()}
    return means


def holdout_means(state: Run, tallies: Tallies, when: str = "before") -> dict[str, float]:
    """Returns loss and primary metric over all holdouts of a masked round, before or after training; empty without."""
    if not tallies.holdout:
        return {}
    primary = getattr(tallies, f"{when}_primary")
    return {state.primary.name: primary, LOSS.name: getattr(tallies, f"{when}_loss")}


def staleness_metrics(ages: list[int]) -> dict[str, float]:
    """Returns how many versions had been made since the bases of a version's updates; empty in a run of rounds."""
    if not ages:
        return {}
    return {"staleness_mean": sum(ages) / len(ages), "staleness_max": float(max(ages))}


def pace_metrics(state: Run, phase: Collecting) -> dict[str, float]:
    """Returns the seconds and the extra edges that a round was opened with; empty if they do not change."""
    if state.settings.parsed_pace is None or phase.base is None:
        return {}
    values = (round(phase.deadline - phase.opened, 3), float(phase.selection_size - phase.target))
    return dict(zip(PACE_METRICS, values, strict=True))


def too_few_updates_detail(phase: Collecting) -> str:
    """Says how many updates a round has, and why one was rejected, if any was."""
    count = f"only {len(phase.updates)} of {phase.quorum} updates"
    rejected = {name: reason for name, reason in phase.dropped.items() if reason.startswith(REJECTED)}
    if not rejected:
        return f"{count} arrived"
    first = natural_order(rejected)[0]
    why = rejected[first].removeprefix(REJECTED)
    diverged = any("not-finite" in reason or "--max-delta" in reason for reason in rejected.values())
    hint = "; training may have diverged: try a smaller --lr" if diverged else ""
    return f"{count} were accepted; rejected: {len(rejected)}, of edge {first}: {why}{hint}"


def not_arrived_text(summary: Summary) -> str:
    """Says why updates did not arrive; empty if all did. Why some were rejected, `too_few_updates_detail` says."""
    absent = {name: why for name, why in summary.missing.items() if not why.startswith(REJECTED)}
    return f"; missing: {reasons_text(absent)}" if absent else ""


def away_reason(state: Run, client: str, ticket: Ticket, now: float) -> str:
    """Says why an edge that has a ticket is not at work."""
    known = state.roster.get(client)
    if known is not None and known.present:
        return f"deadline: no update within {now - ticket.issued:.0f} s"
    return "offline" if known is None else _offline_text(known, now)


def _offline_text(client: Client, now: float) -> str:
    """Says why a client that is not there is missing: since when, or why it does not come back."""
    if client.revoked:
        return f"offline: {client.unable}"
    seconds = 0.0 if client.lost_at is None else now - client.lost_at
    return f"offline: for {seconds:.1f} s{client.left_text}"


def _dropped(phase: Buffering) -> list[str]:
    return [f"{name} ({reason})" for name, reason in sorted(phase.dropped.items())]


def stuck_buffer_detail(state: Run, phase: Buffering, now: float) -> str:
    """Says why an asynchronous run has failed: how long no update has come, and what became of the edges."""
    reasons = _dropped(phase)
    reasons += [f"{name} ({away_reason(state, name, one, now)})" for name, one in sorted(phase.away.items())]
    waiting = f": {names_text(reasons, 5)}" if reasons else ""
    return (
        f"no update came for {now - phase.since:.0f} s (--wait {state.settings.wait:g}), with {len(phase.updates)} of "
        f"{state.settings.per_round} in the buffer of round {phase.round}, "
        f"and {len(phase.tickets)} edges at work{waiting}"
    )


def failed_edges_detail(state: Run, phase: Buffering) -> str:
    """Says why a buffer is abandoned that only edges could fill which have failed in its round."""
    reasons = _dropped(phase)
    return (
        f"{len(phase.updates)} of {state.settings.per_round} updates are in the buffer, and all others failed: "
        f"{names_text(reasons, 5)}; a smaller --buffer needs fewer edges"
    )


def _mean_metrics(updates: list[UpdateMetadata]) -> dict[str, float]:
    """Returns the means of the edges' metrics, weighted by examples.

    ``before`` is about the base on the edges' holdouts. Edges choose the names and the values, so what does
    not fit into a message is left out.
    """
    means: dict[str, float] = {}
    for group in ("before", "after", "train"):
        for name, mean in weighted_means([(u.examples, getattr(u, group)) for u in updates]).items():
            key = f"{group}_{name}"
            if len(key) <= MAX_METRIC_NAME and len(means) < MAX_TRAINING_METRICS:
                means[key] = mean
    return means


def weighted_means(reports: list[tuple[int, Mapping[str, float]]]) -> dict[str, float]:
    """Returns the mean of each metric, by name, over the reports that have it.

    A report is its number of examples, which is its weight, and its metrics. A mean that is not finite is left out.
    """
    means: dict[str, float] = {}
    for name in sorted({name for _, metrics in reports for name in metrics}):
        reported = [(examples, metrics[name]) for examples, metrics in reports if name in metrics]
        mean = sum(e * value for e, value in reported) / sum(e for e, _ in reported)
        if math.isfinite(mean):
            means[name] = mean
    return means


def edges_values(state: Run, reports: list[tuple[str, Mapping[str, float]]]) -> dict[str, float]:
    """Returns the primary metric by client, of the reports that have a possible value."""
    primary = state.primary
    return {
        client: metrics[primary.name]
        for client, metrics in reports
        if primary.name in metrics and primary.contains(metrics[primary.name])
    }


def edges_metrics(state: Run, edges: Mapping[str, float]) -> dict[str, float]:
    """Returns the mean of the edges' values, in which each counts the same, the 10th percentile, and the worst one.

    Of ten edges, nine have a value that is no worse than the percentile (interpolated linearly). Empty without edges.
    """
    if not edges:
        return {}
    ranked = sorted(edges.values(), reverse=not state.primary.higher_is_better)
    place = 0.1 * (len(ranked) - 1)
    below, above = ranked[math.floor(place)], ranked[math.ceil(place)]
    # Halved, since the sum or the difference of two floats may be larger than a float can be.
    p10 = 2 * (below / 2 + (place % 1) * (above / 2 - below / 2))
    mean = 2 * sum(value / (2 * len(ranked)) for value in ranked)
    return dict(zip(EDGES_METRICS, (mean, p10, ranked[0]), strict=True))


def not_ready_detail(state: Run, ready: int, minimum: int) -> str:
    """Says why a region cannot open a round: how many edges are ready."""
    offline = natural_order(n for n, one in state.roster.clients.items() if one.trains and not one.present)
    missing = f"; offline: {names_text(offline)}" if offline else ""
    return f"{ready} of at least {minimum} edges of the region were ready{missing}"


def declined_trainers(state: Run) -> dict[str, str]:
    """Returns the edges that would train but do not take part, and why."""
    clients = state.roster.clients.items()
    return {n: one.unable for n, one in clients if "train" in one.roles and one.unable is not None}


def all_decline(state: Run) -> bool:
    """Whether as many edges as the run expects are here and none of them takes part, so that nobody is awaited."""
    here = state.roster.count(lambda one: one.declines and one.present)
    return here >= state.settings.expected_edges and not state.roster.count(lambda one: one.trains)


def too_few_edges_detail(state: Run, eligible: tuple[str, ...], minimum: int) -> str:
    """Says why no round can be opened: how many edges are ready, and which are not."""
    settings = state.settings
    trainers = {name: client for name, client in state.roster.clients.items() if client.trains}
    assigned = {client.partition for client in trainers.values()}
    declined = declined_trainers(state)
    if all_decline(state):
        return f"all {len(declined)} edges decline: {reasons_text(declined)}"
    free = [] if declined else [str(p) for p in range(settings.clients) if p not in assigned]
    groups = {
        "offline": natural_order(name for name, client in trainers.items() if not client.present),
        "not ready": natural_order(
            n for n, client in trainers.items() if client.present and n not in eligible
        ),
        "no edge for partition": free,
    }
    details = "".join(f"; {label}: {names_text(names)}" for label, names in groups.items() if names)
    details += f"; do not take part: {reasons_text(declined)}" if declined else ""
    return (
        f"{len(eligible)} of at least {minimum} edges were ready after {settings.wait:g} s (--wait){details}"
    )


def declined_text(phase: Agreeing) -> str:
    """Says which members declined, and why, after a colon; empty if none did."""
    declined = [f"{name} ({reason})" for name, reason in sorted(phase.declined.items())]
    return f": {names_text(declined, 5)}" if declined else ""
