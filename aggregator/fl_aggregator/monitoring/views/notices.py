"""Log lines about a run: which edges it waits for and for how much longer, and which came and left."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Iterable
from typing import Final

from fl_aggregator.configuration.settings import Settings
from fl_aggregator.monitoring.views import privacy, status
from fl_aggregator.round import effects as do
from fl_aggregator.round import events as on
from fl_aggregator.round import looking
from fl_aggregator.round.phases import Buffering, Collecting, Evaluating, Selecting
from fl_aggregator.round.roster import default_partition
from fl_aggregator.round.state import Run, Summary
from fl_aggregator.round.summary import declined_trainers
from fl_shared.protocol import messages as m
from fl_shared.system.backoff import backoff
from fl_shared.system.reasons import reasons_text
from fl_shared.system.text import names_text, natural_order
from fl_shared.tensors.manifest import Manifest

FIRST_NOTICE_DELAY: Final = 3.0
"""Seconds of waiting before the first line. Each pause between two lines is twice as long as the last one."""
MAX_NOTICE_INTERVAL: Final = 60.0
MIN_NOTICE_INTERVAL: Final = 3.0
"""Seconds between two lines, at least, if the number of ready edges has changed."""
MAX_NAMED_IN_NOTICE: Final = 10
MAX_REFUSED: Final = 100
STALE_IN_A_ROW: Final = 3
"""Updates of an edge that were too stale, one after the other, of which a line warns."""


class WaitingNotices:
    """Decides when a line about waiting is due, and remembers the last one. Times are run time in seconds."""

    def __init__(self) -> None:
        self._waiting_since: float | None = None
        self._logged_at = 0.0
        self._repeats = 0
        self._logged_progress: tuple[int, int] | None = None
        self._refused: dict[str, str] = {}
        self._declined: dict[str, str] = {}
        self._declined_logged_at = -math.inf
        self._declined_due = self._waiting_due = math.inf

    @property
    def due(self) -> float:
        """When one of the next two has a line, if nothing happens; ∞ for never."""
        return min(self._declined_due, self._waiting_due)

    def observe_declined(self, state: Run, now: float) -> str | None:
        """Must be called after every step. Returns a line when all edges that have registered to train have declined.

        It returns another one when there are more of them, but not within `MIN_NOTICE_INTERVAL`.
        """
        self._declined_due = math.inf
        if not isinstance(state.phase, Selecting) or state.roster.count(lambda one: one.trains):
            return None
        declined = declined_trainers(state)
        if declined == self._declined:
            return None
        if now < self._declined_logged_at + MIN_NOTICE_INTERVAL:
            self._declined_due = self._declined_logged_at + MIN_NOTICE_INTERVAL
            return None
        self._declined, self._declined_logged_at = declined, now
        if not declined:
            return None
        have, need = status.progress(state)
        return (
            f"all edges that have registered decline: {reasons_text(declined)}; waiting for "
            f"{need - have} that have the task and its data; {status.seconds_left(state, now):.0f} s left (--wait)"
        )

    def observe(self, state: Run, effects: Iterable[do.Effect], now: float) -> str | None:
        """Must be called after every step. Returns a line for a person if one is due, else null."""
        for effect in effects:
            if isinstance(effect, do.SendReply) and len(self._refused) < MAX_REFUSED:
                if isinstance(effect.body, do.Refuse):
                    self._refused[effect.client] = effect.body.detail or effect.body.reason
                elif isinstance(effect.body, do.Admit):
                    self._refused.pop(effect.client, None)
        have, need = status.progress(state)
        if not isinstance(state.phase, Selecting) or have >= need or looking.is_held(state, now):
            self._waiting_since, self._waiting_due = None, math.inf
            return None
        if self._waiting_since is None:
            self._waiting_since, self._logged_at, self._repeats, self._logged_progress = now, now, 0, None
        pause = backoff(self._repeats, FIRST_NOTICE_DELAY, MAX_NOTICE_INTERVAL)
        changed = self._logged_progress is not None and self._logged_progress != (have, need)
        self._waiting_due = self._logged_at + (min(MIN_NOTICE_INTERVAL, pause) if changed else pause)
        if now < self._waiting_due:
            return None
        if not changed:
            self._repeats += 1
        self._logged_at, self._logged_progress = now, (have, need)
        self._waiting_due = now + backoff(self._repeats, FIRST_NOTICE_DELAY, MAX_NOTICE_INTERVAL)
        seconds = status.seconds_left(state, now)
        time_left = "" if seconds is None else f"; {seconds:.0f} s left (--wait)"
        return f"waiting for edges: {waiting_text(state)}{time_left}" + (
            f"; {refused}" if (refused := self.refused_text) else ""
        )

    @property
    def refused_text(self) -> str:
        """The edges that were refused and not admitted since, with the reasons. Empty if there are none."""
        return f"refused: {reasons_text(self._refused)}" if self._refused else ""


def waiting_text(state: Run) -> str:
    """How many edges are ready and which are not, or which still evaluate. Empty in other phases."""
    if isinstance(state.phase, Evaluating):
        evaluators = natural_order({name for evaluation in state.evaluations for name in evaluation.awaited})
        return f"for the evaluation by {names_text(evaluators)}" if evaluators else ""
    if not isinstance(state.phase, Selecting):
        return ""
    have, need = status.progress(state)
    trainers = {name: client for name, client in state.roster.clients.items() if client.trains}
    ready = {name for name, client in trainers.items() if client.present and client.examples}
    not_ready = [name for name, client in trainers.items() if client.present and name not in ready]
    loading = natural_order(name for name in not_ready if trainers[name].partition is not None)
    unassigned = natural_order(name for name in not_ready if trainers[name].partition is None)
    lost = natural_order(name for name, client in trainers.items() if not client.present)
    phrases = [f"{have} of {need} ready"]
    if loading:
        phrases.append(f"loading: {names_text(loading)}")
    if unassigned:
        phrases.append(f"get their data when the run starts: {names_text(unassigned)}")
    if lost:
        phrases.append(f"offline: {names_text(lost)}")
    absent, ids = _never_registered(state)
    if absent and not state.begun:
        phrases.append(f"missing: {ids or f'{absent} more'}")
    if declined := declined_trainers(state):
        phrases.append(f"do not take part: {reasons_text(declined)}")
    return "; ".join(phrases)


def absence_text(state: Run) -> str:
    """Says how many of the ``--clients`` training edges have never registered, or do not take part. Empty if all do."""
    count = state.settings.clients
    declined = declined_trainers(state)
    if state.roster.count(lambda one: one.trains) >= count:
        return ""
    absent, ids = _never_registered(state)
    phrases = []
    if absent:
        has = "has" if absent == 1 else "have"
        phrases.append(
            f"{absent} of {count} edges (--clients) {has} never registered" + (f": {ids}" if ids else "")
        )
    if declined:
        do_not = "does not" if len(declined) == 1 else "do not"
        phrases.append(
            f"{len(declined)} of {count} edges (--clients) {do_not} take part: {reasons_text(declined)}"
        )
    return "; ".join(phrases)


def _never_registered(state: Run) -> tuple[int, str]:
    """Returns how many edges of the run are not known, and their ids, if those that are known are numbered."""
    count = state.settings.clients
    known = {name for name, client in state.roster.clients.items() if "train" in client.roles}
    absent = count - len(known)
    if absent <= 0:
        return 0, ""
    if not known or any(default_partition(name, count) is None for name in known):
        return absent, ""
    return absent, _ranges(number for number in range(count) if str(number) not in known)


def _ranges(numbers: Iterable[int]) -> str:
    """Ascending numbers as text (``0, 3-7, 9``), and how many more follow the first few ranges."""
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    texts = [
        str(first) if first == last else f"{first}-{last}" for first, last in ranges[:MAX_NAMED_IN_NOTICE]
    ]
    more = sum(last - first + 1 for first, last in ranges[MAX_NAMED_IN_NOTICE:])
    return ", ".join(texts) + (f" and {more} more" if more else "")


LOG: Final = logging.getLogger(__name__)


def log_presence(event: on.Event, before: Run, state: Run) -> None:
    """Logs that an edge has connected, is ready or is offline.

    ``before``, ``state``: the states before and after ``event``. Metrics that differ from the run's are named only when
    the edge has loaded its data, not each time it connects.
    """
    if (
        isinstance(event, on.Registered)
        and state.declared is not None
        and event.metrics not in (None, state.declared)
        and ((known := before.roster.get(event.client)) is None or known.examples is None)
    ):
        LOG.warning(
            "edge %s: its task declares the metrics %s; this run has those of its first edge: %s",
            event.client,
            m.metrics_text(event.metrics or ()),
            m.metrics_text(state.declared),
        )
    if isinstance(event, on.Registered) and event.fresh and event.client in before.counted:
        LOG.warning(
            "edge %s has lost what it kept for the correction: it counts as a new edge in its next training, and a "
            "remainder of what it had stays in the mean",
            event.client,
        )
    if isinstance(event, on.Registered):
        _log_other_environment(event.client, before.environments, state.environments)
        _log_local_part(event, before)
    match event:
        case on.Registered(client=client) if (registered := state.roster.get(client)) and registered.unable:
            LOG.warning("edge %s does not take part: %s", client, registered.unable)
        case on.Registered(client=client, examples=None, roles=roles):
            LOG.debug("edge %s is connected, to %s", client, ", ".join(roles))
        case on.Registered(client=client, examples=examples):
            LOG.debug("edge %s is ready, with %d examples", client, examples)
        case on.EdgeLost(client=client, session=session):
            client_state = state.roster.get(client)
            if client_state is not None and client_state.session == session and not client_state.present:
                region = "" if client_state.region_text is None else f" ({client_state.region_text})"
                consequence = _round_consequence(client, state)
                LOG.info("edge %s%s is offline%s%s", client, region, client_state.left_text, consequence)
        case on.KitsRevoked(clients=clients) if clients:
            LOG.warning(
                "the kits of edges %s were revoked: they count as lost",
                names_text(natural_order(clients), MAX_NAMED_IN_NOTICE),
            )
        case on.BridgeLost(broker=broker):
            LOG.warning(
                "the bridge of broker %s is lost: edges %s count as offline until they register again",
                broker,
                names_text(natural_order(before.roster.behind(broker)), MAX_NAMED_IN_NOTICE),
            )


def _log_other_environment(
    client: str, before: tuple[m.Environment, ...], after: tuple[m.Environment, ...]
) -> None:
    """Says once of each that an edge computes with other software, or on another platform, than the first edge."""
    if len(after) == len(before) or not before:
        return
    computes = after[-1].computes
    if computes not in {one.computes for one in before}:
        LOG.warning(
            "edge %s computes with %s, the first edge with %s: their updates may differ in the last bits, so a run "
            "with the same seed may end in another model",
            client,
            computes,
            before[0].computes,
        )


def _log_local_part(event: on.Registered, before: Run) -> None:
    """Says once of each list of arrays that edges keep them."""
    if event.local_part and all(
        client.local_part != event.local_part for client in before.roster.clients.values()
    ):
        LOG.info("edge %s keeps arrays of its model that are not shared: %s", event.client, event.local_part)


def log_noise(settings: Settings, manifest: Manifest) -> None:
    """Logs how much the noise of a private run is, now that the arrays of its model are known."""
    if (plan := settings.privacy) is None:
        return
    if settings.survey is not None:
        LOG.info("%s", privacy.survey_noise_line(plan, settings.survey, manifest, settings.per_round))
        return
    values = manifest.values
    teaches = privacy.length_of(plan, values, settings.per_round).teaches
    level = logging.INFO if teaches == "something" else logging.WARNING
    LOG.log(level, "%s", privacy.noise_line(plan, values, settings.per_round))


def log_single_class(summary: Summary) -> None:
    """Warns if a version assigns all examples of the test split to one class, though they are of several."""
    matrix = summary.confusion
    if matrix is None or summary.model is None or sum(map(any, matrix.counts)) < 2:
        return
    predicted = [
        label
        for label, column in zip(matrix.labels, zip(*matrix.counts, strict=True), strict=True)
        if any(column)
    ]
    if len(predicted) == 1:
        LOG.warning(
            "version %d predicts the class %r for all test examples: training may have diverged; try a smaller --lr",
            summary.model.version,
            predicted[0],
        )


class StaleNotices:
    """Warns of edges in an asynchronous run whose updates never count, as they are too stale."""

    def __init__(self) -> None:
        self._round = 0
        self._refused: Counter[str] = Counter()
        """How many tickets of an edge have ended so since its last update that counted."""

    def log(self, summary: Summary) -> None:
        """Logs, once of each edge, that this round has ended the last of `STALE_IN_A_ROW` tickets that were stale."""
        if summary.round <= self._round:  # the result is published again, with an evaluation
            return
        self._round = summary.round
        for name in summary.participants:
            self._refused.pop(name, None)
        stale = {name: why for name, why in summary.missing.items() if why.startswith("stale: ")}
        self._refused.update(list(stale))
        named = natural_order(name for name in stale if self._refused[name] == STALE_IN_A_ROW)
        if named:
            LOG.warning(
                "the last %d updates of edges %s were all too old to count (%s): what only they have is not learned; "
                "raise --max-staleness, or --buffer for fewer versions",
                STALE_IN_A_ROW,
                names_text(named, MAX_NAMED_IN_NOTICE),
                stale[named[0]],
            )


def _round_consequence(client: str, state: Run) -> str:
    """The end of a sentence: what the open round does about the loss of an edge that it waits for."""
    phase = state.phase
    if isinstance(phase, Buffering) and client in phase.tickets:
        return ": another edge will work in its place; its update counts if it returns"
    if not isinstance(phase, Collecting) or client not in phase.awaited:
        return ""
    grace = state.settings.grace
    condition = f" unless it returns within {grace:g} s (--grace)" if grace else ""
    return f": round {phase.round} will replace it or continue without it{condition}"
