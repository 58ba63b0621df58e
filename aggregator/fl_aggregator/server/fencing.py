"""Lets only one aggregator run under a prefix (protocol, 8.3 and 8.12).

A check before the first message cannot do that: two may pass it at the same moment, and one that stood still (its
machine slept, say) passed it long ago. So an aggregator listens to the others for as long as it runs. One of two that
are alive ends, and both find the same one, since `AggregatorPresence.outranks` orders them all. An aggregator that has
lost its connection, or has stood still for so long that another may have taken over, first finds out whether it may
go on.

A retained birth may be an old one that the broker restored, and clocks differ: only a message that the broker had not
stored proves that its sender is alive.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from pathlib import Path
from typing import Final

from fl_aggregator.aggregation.worker import JobDone
from fl_aggregator.messaging.connections import RIVAL_TOPICS, Connections
from fl_aggregator.messaging.inbox import (
    MAX_CONTROL_BYTES,
    MAX_QUEUED_ITEMS,
    AdmittedMessage,
    ConnectionName,
    Inbox,
    InboxItem,
    StopRequest,
    size_of,
)
from fl_aggregator.messaging.publisher import STATUS_INTERVAL
from fl_shared.cli.broker_access import BrokerAccess
from fl_shared.errors import RunFailed, UserError
from fl_shared.mqtt import events as mqtt
from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from fl_shared.protocol.envelope import EnvelopeSource
from fl_shared.protocol.limits import ANSWER_WAIT, BIRTH_WAIT, STATUS_WAIT
from fl_shared.security.verified import decode_verified
from fl_shared.system.flood_control import Capacity, Interval

LOG: Final = logging.getLogger(__name__)

STALL_LIMIT: Final = STATUS_WAIT - STATUS_INTERVAL
"""Seconds for which the loop may stand still without a new confirmation.

Another aggregator takes over when it has heard no status for `STATUS_WAIT`, and ours may have been due at once.
"""
SETTLE_TIME: Final = 0.5
"""Seconds after the birth of a resumed run in which it only listens.

A copy of its directory may have been resumed at the same moment, and both could commit the open round.
"""

Rival = m.AggregatorPresence | m.Status
Arrival = tuple[ConnectionName, InboxItem]

NOTICE_INTERVAL: Final = 10.0
"""Seconds between two log lines about another aggregator that should end."""


class Superseded(UserError):
    """Another aggregator goes on under this prefix, so this one must end. ``run`` is the other one's."""

    def __init__(self, rival: m.AggregatorPresence, place: str) -> None:
        super().__init__(
            f"another aggregator has taken over {place}: run {rival.run}, incarnation {rival.incarnation}; "
            "this one ends, and publishes nothing more"
        )
        self.run = rival.run

    def with_advice(self, directory: Path, run: str) -> UserError:
        """Returns the error with what to do; ``directory`` has ``run``, which has ended."""
        if self.run == run:
            return UserError(f"{self}; the run goes on there, and {directory} stays as it is now")
        return UserError(f"{self}; when that run has ended, continue with --resume {directory}")


class Fence:
    """Finds out whether this aggregator is the only one. Belongs to the loop's thread, which it blocks while it waits.

    What arrives meanwhile, and is no answer, is kept for `get`.
    """

    def __init__(
        self,
        connections: Connections,
        inbox: Inbox,
        scope: EnvelopeSource,
        prefix: str,
        access: BrokerAccess,
    ) -> None:
        self._connections = connections
        self._inbox = inbox
        self._scope = scope
        self._prefix = prefix
        self._place = f"under the prefix {prefix!r} at {access.address}"
        self._answer_wait = max(ANSWER_WAIT, 2.0 * access.keepalive)
        self._verifier = None if access.kit is None else access.kit.verifier()
        self._held: deque[Arrival] = deque()
        self._room = Capacity(MAX_CONTROL_BYTES, MAX_QUEUED_ITEMS)
        self._notices = Interval(NOTICE_INTERVAL)
        self._checked_at = self._may_sleep_until = time.time()
        self._is_doubted = False
        self.is_unsure = False
        """Whether it has stood still and does not know yet whether it may go on: only `lets_through` what tells it."""
        self._postponed: deque[Arrival] = deque()
        self._birth_topic = connections.topic(t.AggregatorTopic())

    # --- before the first message ---------------------------------------------------------------------------

    def wait_until_free(self) -> None:
        """Waits until no other aggregator is alive under the prefix, and numbers and dates this start.

        Both its incarnation and its time are above those of every aggregator that was heard. If a birth is retained,
        it waits up to 6 s for its sender. Raises ``UserError`` if another aggregator is alive, and ``RunFailed`` if a
        stop is requested in the meantime.
        """
        self._scope.started = time.time_ns() // 1_000_000
        silent: m.AggregatorPresence | None = None
        deadline = time.monotonic() + ANSWER_WAIT
        while (remaining := deadline - time.monotonic()) > 0:
            arrived = self._inbox.get(remaining)
            if arrived is None:
                break
            match arrived[1]:
                case mqtt.Subscribed(refused=()):
                    deadline = min(deadline, time.monotonic() + BIRTH_WAIT)
                case mqtt.Subscribed() as answer:
                    check_subscribed(self._connections, answer)
                case mqtt.Connected():
                    self._connections.subscribe_to_rivals()
                case mqtt.ConnectRefused(reason=reason):
                    raise UserError(reason)
                case StopRequest(reason=reason):
                    raise RunFailed(reason)
                case AdmittedMessage(received=received):
                    rival = self._rival_in(received)
                    if isinstance(rival, m.AggregatorPresence):
                        self._begin_after(rival)
                    if rival is None or _is_offline(rival):
                        continue
                    if not received.retain:
                        advice = "" if rival.run == self._scope.run else ", or give this one another --prefix"
                        raise UserError(f"run {rival.run} is online {self._place}: stop it{advice}")
                    if isinstance(rival, m.AggregatorPresence) and silent is None:
                        silent = rival
                        deadline = self._wait_for(rival)
                case JobDone() as order:  # of the run above, which a region takes at once
                    self._hold(arrived[0], order, self._held)
                case _:
                    pass
        if silent is not None:
            self._replace(silent)

    def _begin_after(self, rival: m.AggregatorPresence) -> None:
        scope = self._scope
        scope.started = min(max(scope.started, rival.started + 1), m.MAX_COUNT)
        if rival.run == scope.run:
            scope.incarnation = min(max(scope.incarnation, rival.incarnation + 1), m.MAX_COUNT)

    def settle(self) -> None:
        """Listens for `SETTLE_TIME` after the birth, before a resumed run does anything. Raises `Superseded`."""
        deadline = time.monotonic() + ANSWER_WAIT
        settling = False
        while (remaining := deadline - time.monotonic()) > 0:
            if self._connections.may_publish and not settling:
                settling = True
                deadline = time.monotonic() + SETTLE_TIME
                continue
            arrived = self._inbox.get(remaining)
            if arrived is None:
                continue
            name, item = arrived
            match item:
                case mqtt.Connected() if name == "updates":
                    self._connections.subscribe_to_updates()  # the birth waits for this
                case AdmittedMessage(topic=topic, received=received) if isinstance(topic, RIVAL_TOPICS):
                    self.hear(received)
                case _:
                    self._hold(name, item, self._held)
                    if isinstance(item, StopRequest | mqtt.ConnectRefused) or _is_loss_of_control(name, item):
                        return

    # --- while the run goes on ------------------------------------------------------------------------------

    def check(self) -> None:
        """Confirms this aggregator again if the loop has stood still, or if somebody has declared it offline.

        The loop calls it before it handles an item. The time is the wall clock's: no other clock counts the time in
        which a machine sleeps. A false alarm costs a round trip to the broker. Raises `Superseded`.
        """
        before, self._checked_at = max(self._checked_at, self._may_sleep_until), time.time()
        has_stalled = self._checked_at - before > STALL_LIMIT and not self._connections.awaits_updates
        self.is_unsure |= (
            has_stalled  # without a session, until the next one: the network may have noticed first
        )
        has_to_ask = has_stalled and self._connections.may_publish
        if (has_to_ask or self._is_doubted) and self.confirm() and self._is_doubted:
            self._connections.repair(self._birth_topic)
        self._is_doubted = False
        self._checked_at = time.time()

    def lets_through(self, name: ConnectionName, item: InboxItem) -> bool:
        """Whether the loop may handle ``item`` now. If not, `get` returns it again when this aggregator may go on."""
        is_message = isinstance(item, AdmittedMessage) and not isinstance(item.topic, RIVAL_TOPICS)
        if not self.is_unsure or not (is_message or isinstance(item, JobDone)):
            return True
        self._hold(name, item, self._postponed)
        return False

    def confirm(self) -> bool:
        """Finds out whether another aggregator has taken over, before anything more is published.

        Waits up to 6 s for one whose birth is retained and outranks ours. Returns whether this one may go on; it may
        not if the connection is lost meanwhile. Raises `Superseded`.
        """
        session = self._connections.withhold()
        self._connections.subscribe_to_rivals()
        silent: m.AggregatorPresence | None = None
        answered = False
        deadline = time.monotonic() + self._answer_wait
        while (remaining := deadline - time.monotonic()) > 0:
            arrived = self._inbox.get(remaining)
            if arrived is None:
                break
            name, item = arrived
            match item:
                case mqtt.Subscribed(refused=()) if name == "control" and not answered:
                    answered = True
                    if silent is None:
                        deadline = min(deadline, time.monotonic() + BIRTH_WAIT)
                case AdmittedMessage(topic=topic, received=received) if isinstance(topic, RIVAL_TOPICS):
                    if not received.retain:
                        alive = self.hear(received)
                        if silent is not None and isinstance(alive, m.Status) and _same_start(alive, silent):
                            raise Superseded(silent, self._place)
                    elif isinstance(topic, t.AggregatorTopic):
                        rival = self._rival_in(received)
                        if rival is None or not self._is_outranked_by(rival):
                            answered = True
                            break  # the broker keeps our own presence, or nobody's that could go on
                        if silent is None:
                            assert isinstance(rival, m.AggregatorPresence)
                            silent = rival
                            deadline = self._wait_for(rival)
                case _:
                    self._hold(name, item, self._held)
                    if _is_loss_of_control(name, item):
                        return False
        if not answered:
            return False
        if silent is not None:
            self._replace(silent)
        self._connections.permit(session)
        self.is_unsure = False
        self._held.extendleft(reversed(self._postponed))
        self._postponed.clear()
        return True

    def hear(self, received: mqtt.Received) -> Rival | None:
        """Reads a message on one of `RIVAL_TOPICS`; returns what another aggregator that is alive has sent.

        Raises `Superseded` if that one is alive and outranks ours. Otherwise it and its edges are sent our birth, so
        that it ends and they come to us.
        """
        if received.retain:
            return None
        match decode_verified(self._prefix, received, self._verifier):
            case m.AggregatorPresence(state="offline") as presence:
                if self._connections.is_own(presence):
                    # An old will of ours, or another one has taken over: `check` finds out.
                    self._is_doubted = True
                    self._connections.withhold()
                return None
            case m.AggregatorPresence() as rival if not self._connections.is_own(rival):
                if self._is_outranked_by(rival):
                    raise Superseded(rival, self._place)
                self._connections.replace_aggregator(rival)
            case m.Status() as rival if not _same_start(rival, self._scope):
                pass
            case _:
                return None
        self._connections.repair(received.topic)
        self._connections.repair(self._birth_topic)
        if self._notices.is_due(time.monotonic()):
            LOG.warning("run %s is online %s, too: it should end now", rival.run, self._place)
        return rival

    def get(self, timeout: float) -> Arrival | None:
        """Returns the next item: first those kept here, then as `Inbox.get`. A status is due after ``timeout``."""
        if not self._held:
            self._may_sleep_until = self._checked_at + timeout
            return self._inbox.get(timeout)
        name, item = self._held.popleft()
        if isinstance(item, AdmittedMessage):
            self._room.release(size_of(item))
        return name, item

    # --- helpers --------------------------------------------------------------------------------------------

    def _hold(self, name: ConnectionName, item: InboxItem, held: deque[Arrival]) -> None:
        if not isinstance(item, AdmittedMessage) or self._room.take(size_of(item)):
            held.append((name, item))

    def _rival_in(self, received: mqtt.Received) -> Rival | None:
        match decode_verified(self._prefix, received, self._verifier):
            case m.AggregatorPresence() as presence if not self._connections.is_own(presence):
                return presence
            case m.Status() as status if not _same_start(status, self._scope):
                return status
            case _:
                return None

    def _is_outranked_by(self, rival: Rival) -> bool:
        own = self._connections.presence("online")
        return isinstance(rival, m.AggregatorPresence) and rival.state == "online" and rival.outranks(own)

    def _wait_for(self, rival: m.AggregatorPresence) -> float:
        LOG.info(
            "run %s was online here; checking whether it is still running (%.0f s)", rival.run, STATUS_WAIT
        )
        return time.monotonic() + STATUS_WAIT

    def _replace(self, silent: m.AggregatorPresence) -> None:
        LOG.info("run %s does not respond; taking over", silent.run)
        self._connections.replace_aggregator(silent)


def check_subscribed(connections: Connections, answer: mqtt.Subscribed) -> None:
    """Raises ``UserError`` if the broker has refused a subscription."""
    if answer.refused:
        raise UserError(
            f"the broker does not allow the aggregator to read {answer.refusals_text}: "
            f"check the rights of {connections.account}"
        )


def _is_offline(rival: Rival) -> bool:
    return isinstance(rival, m.AggregatorPresence) and rival.state == "offline"


def _is_loss_of_control(name: ConnectionName, item: InboxItem) -> bool:
    return name == "control" and isinstance(item, mqtt.Lost)


def _same_start(one: m.Status | EnvelopeSource, other: m.AggregatorPresence | EnvelopeSource) -> bool:
    return (one.run, one.incarnation) == (other.run, other.incarnation)
