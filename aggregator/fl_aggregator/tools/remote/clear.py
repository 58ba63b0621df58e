"""Clears what is retained under a prefix: what a run has left, presences of edges that are gone, and anything else.

A broker cannot list its retained topics: it sends their messages to subscribers. So `retained_topics`
receives them all, models too, and keeps the topics.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from fl_aggregator.monitoring.views.home_assistant import is_ours
from fl_aggregator.tools.remote.observer import Observer
from fl_aggregator.tools.remote.remote_run import RemoteRun
from fl_shared.cli.broker_access import BrokerAccess
from fl_shared.errors import RunFailed, UserError
from fl_shared.protocol import topics as t
from fl_shared.protocol.channels import CHANNELS
from fl_shared.protocol.home_assistant import discovery_topic
from fl_shared.protocol.limits import ANSWER_WAIT, BIRTH_WAIT, STATUS_WAIT
from fl_shared.system.invocation import aggregator_command
from fl_shared.system.text import names_text

QUIET: Final = 1.0
"""Seconds without a message after which no further one is retained."""
MAX_PASSES: Final = 5
"""How often it looks again for what is left: a broker may have delivered only a part."""


@dataclass(frozen=True, slots=True)
class Retained:
    """The retained topics under a prefix, sorted."""

    prefix: str
    topics: tuple[str, ...]

    @property
    def presences(self) -> dict[str, str]:
        """The edges whose presence is retained, by its topic: an edge that is online publishes its own again."""
        parsed = ((name, CHANNELS.parse(self.prefix, name)) for name in self.topics)
        return {name: topic.client for name, topic in parsed if isinstance(topic, t.PresenceTopic)}

    def lines(self) -> list[str]:
        """How many there are of each kind, and the names of those that are none of the protocol's."""
        counts: Counter[str] = Counter()
        others = []
        for name in self.topics:
            topic = CHANNELS.parse(self.prefix, name)
            if topic is None:
                others.append(name)
            else:
                counts[f"{self.prefix}/{topic.PATTERN.replace('{', '<').replace('}', '>')}"] += 1
        lines = [f"{count:7,} {pattern}" for pattern, count in counts.items()]
        if others:
            lines.append(f"{len(others):7,} of other programs: {names_text(others, 5)}")
        return lines


def check_not_online(access: BrokerAccess) -> None:
    """Raises ``UserError`` if an aggregator is alive under the prefix: it needs what it has retained.

    Raises ``RunFailed`` if the broker does not answer.
    """
    with Observer(access) as observer:
        observer.wait_until_subscribed()
        observer.wait_for(lambda: observer.born is not None and not observer.is_online, BIRTH_WAIT)
        if not observer.is_online:
            return
        # The broker may have lost the will: only a status that comes now shows that the aggregator is alive.
        observer.wait_for(lambda: observer.live_at is not None or not observer.is_online, STATUS_WAIT)
        if observer.is_online and observer.live_at is not None and observer.born is not None:
            raise UserError(
                f"run {observer.born.run} is online {observer.where} and needs what is retained: stop it first, with "
                f"{aggregator_command('stop')}"
            )


def retained_topics(access: BrokerAccess) -> Retained:
    """All that is retained under the prefix, as far as the account may read it. Raises ``RunFailed``, ``UserError``."""
    found: set[str] = set()
    # QoS 0: of a burst at QoS 1, brokers drop what exceeds their queue.
    with RemoteRun(access, [(f"{access.prefix}/#", 0)]) as run:
        quiet_since = started = time.monotonic()
        while (now := time.monotonic()) < quiet_since + QUIET or not run.subscribed:
            if not run.subscribed and now > started + ANSWER_WAIT:
                raise run.no_answer()
            received = run.receive(QUIET)
            if received is None:
                continue
            if received.retain and received.payload:
                found.add(received.topic)
                quiet_since = time.monotonic()
    return Retained(access.prefix, tuple(sorted(found)))


def home_assistant_topic(access: BrokerAccess, discovery_prefix: str) -> str | None:
    """The topic on which a run under the prefix is still announced to Home Assistant; null if none is.

    Null, too, if the account may not read it, or the message there is not ours.
    """
    topic = discovery_topic(discovery_prefix, access.prefix)
    try:
        with RemoteRun(access, [(topic, 1)]) as run:
            deadline = time.monotonic() + ANSWER_WAIT
            while (now := time.monotonic()) < deadline:
                received = run.receive(QUIET)
                if received is not None:
                    return topic if is_ours(received.payload, access.prefix) else None
                if run.subscribed and time.monotonic() - now >= QUIET:
                    break
    except UserError:  # the broker refuses the subscription
        pass
    return None


def clear(access: BrokerAccess, topics: Collection[str]) -> Retained:
    """Clears ``topics``, and what it finds on the way.

    Returns what is retained then: presences of edges that are online. Raises ``RunFailed`` if others stay.
    """
    left: Sequence[str] = sorted(topics)
    for _ in range(MAX_PASSES):
        _clear(access, left)
        found = retained_topics(access)
        left = sorted(set(found.topics) - found.presences.keys())
        if not left:
            return found
    raise RunFailed(
        f"{len(left)} topics are still retained: {names_text(left, 5)}; may this account write to them, and does "
        "anybody publish them again?"
    )


def _clear(access: BrokerAccess, topics: Sequence[str]) -> None:
    """The end of the connection waits until the broker has acknowledged all."""
    with RemoteRun(access, (), max_queued=len(topics) + 1) as run:
        for topic in topics:
            run.publish(topic, b"", retain=True)
