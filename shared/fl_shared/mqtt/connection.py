"""A connection that outlives its TCP connections: each is a `Link`, and a new one follows when it ends.

Nothing is carried over from one link to the next. The user of a `Connection` subscribes and publishes again
on every `Connected`; messages that were queued or unacknowledged when a link ended are discarded.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from fl_shared.errors import BrokerRefused, BrokerUnreachable, MessageTooLarge
from fl_shared.mqtt.address import BrokerAddress
from fl_shared.mqtt.diagnosis import NO_ROOM, diagnose, diagnose_no_answer
from fl_shared.mqtt.event_loop import NetworkThread
from fl_shared.mqtt.events import (
    MAX_FILTERS,
    Connected,
    ConnectionEvent,
    ConnectionSettings,
    ConnectRefused,
    Lost,
    check_filter,
    check_qos,
)
from fl_shared.mqtt.outbox import Outgoing, Payload, Publish, Subscribe, Unsubscribe
from fl_shared.mqtt.refused_publishes import RefusedPublishes
from fl_shared.system.backoff import backoff


class Link(Protocol):
    """One attempt to connect and, if it succeeds, one TCP connection.

    It ends with a call of `Connection.link_ended` or `Connection.link_ended_unanswered`.
    """

    @property
    def receiving_at(self) -> float | None:
        """When the last bytes of a packet came that is not complete yet (monotonic clock); null if not known."""

    def open(self) -> None:
        """Opens the byte stream. Blocks, so it runs on an opener's thread.

        Raises `OSError`, or `UnicodeError` if the host name is not valid.
        """

    def start(self) -> None:
        """Sends CONNECT and handles what the socket receives. Runs on the network thread, after `open`."""

    def put(self, item: Outgoing, size: int = 0) -> bool:
        """Queues a packet of ``size`` bytes; may be called from any thread once the link is up.

        Returns False if the link has ended. Raises `QueueFull`.
        """

    def finish(self) -> None:
        """Sends DISCONNECT, so that the will is not sent, once the queue is sent and acknowledged."""

    def abort(self, reason: str, *, send_disconnect: bool = False) -> None:
        """Ends the link at once; ``send_disconnect``: with a DISCONNECT, if the socket accepts it."""


class Connection:
    """A connection to a broker, made by `Network.connect`. Public methods may be called from any thread."""

    def __init__(
        self,
        thread: NetworkThread,
        settings: ConnectionSettings,
        handler: Callable[[ConnectionEvent], None],
        new_link: Callable[[Connection], Link],
        reached_addresses: set[BrokerAddress],
        forget: Callable[[Connection], None],
    ) -> None:
        """``reached_addresses``: addresses whose broker has accepted us, shared by the connections of a program.

        ``forget`` is called when it is closed.
        """
        self.settings = settings
        self.refused_publishes = RefusedPublishes(settings)
        self.client_id = settings.mqtt_client_id or "fl" + secrets.token_hex(10)
        self._thread = thread
        self._handler = handler
        self._new_link = new_link
        self._reached_addresses = reached_addresses
        self._forget = forget
        self._state = threading.Condition()
        self._limits: Connected | None = None
        self._refusal: ConnectRefused | None = None
        self._reason = "no answer yet"
        self._active_link: Link | None = None
        self._closed = threading.Event()
        # Only the network thread uses these.
        self._link: Link | None = None
        self._started = False
        self._closing = False
        self._timer: asyncio.TimerHandle | None = None
        self._failures = 0
        self._retries = 0
        self._up_since = 0.0

    @property
    def limits(self) -> Connected | None:
        """The limits that the broker announced, or None while not connected."""
        return self._limits

    @property
    def receiving_at(self) -> float | None:
        """When the last bytes came of a large packet that is still coming (monotonic clock); null if none is."""
        link = self._active_link
        return None if link is None else link.receiving_at

    def publish(
        self,
        topic: str,
        payload: Payload,
        *,
        qos: int = 1,
        retain: bool = False,
        response_topic: str | None = None,
        correlation_data: bytes | None = None,
        expiry: int | None = None,
    ) -> bool:
        """Queues a message. Returns False, and drops it, while there is no connection.

        True does not promise that the message arrives. ``expiry``: seconds after which the broker drops it.
        Raises `QueueFull`, `MessageTooLarge` (the broker announced a smaller limit), or `ValueError` if the
        topic or QoS is not valid.
        """
        item = Publish(topic, payload, qos, retain, response_topic, correlation_data, expiry)
        size = item.checked_size()
        link, limits = self._active_link, self._limits
        if link is None or limits is None:
            return False
        if size > limits.maximum_packet_size:
            raise MessageTooLarge(topic, size, limits.maximum_packet_size)
        return link.put(item, size)

    def subscribe(
        self,
        filters: Sequence[tuple[str, int]],
        *,
        no_local: bool = False,
        retain_as_published: bool = False,
    ) -> bool:
        """Subscribes to each ``(filter, qos)``; a `Subscribed` event answers every eight of them.

        ``no_local``: the broker does not send back our own messages. ``retain_as_published``: messages have the retain
        flag of their sender; otherwise only one that was stored has it. Returns False if there is no connection.
        Raises `QueueFull`, and `ValueError` if a filter or QoS is not valid.
        """
        for name, qos in filters:
            check_filter(name)
            check_qos(qos)
        return self._put_all(
            [
                Subscribe(tuple(filters[i : i + MAX_FILTERS]), no_local, retain_as_published)
                for i in _batch_starts(filters)
            ]
        )

    def unsubscribe(self, filters: Sequence[str]) -> bool:
        """Ends the subscriptions to ``filters``. Messages that are already on their way still arrive.

        Returns False if there is no connection. Raises `QueueFull`, and `ValueError` if a filter is not
        valid.
        """
        for name in filters:
            check_filter(name)
        return self._put_all(
            [Unsubscribe(tuple(filters[i : i + MAX_FILTERS])) for i in _batch_starts(filters)]
        )

    def wait_connected(self, timeout: float, *, first_attempt_only: bool = False) -> Connected:
        """Waits until connected, at most ``timeout`` seconds.

        ``first_attempt_only``: only until the first attempt has failed. Raises `BrokerRefused`,
        `BrokerUnreachable`, or the first error on the network thread.
        """
        with self._state:
            self._state.wait_for(
                lambda: (
                    self._limits
                    or self._refusal
                    or self._closed.is_set()
                    or (first_attempt_only and self._failures)
                ),
                timeout,
            )
            limits, refusal, reason = self._limits, self._refusal, self._reason
            failed = first_attempt_only and self._failures > 0
        self._thread.check()
        if limits is not None:
            return limits
        if refusal is not None:
            raise BrokerRefused(refusal.reason)
        suffix = "" if failed else f" within {timeout:g} s"
        raise BrokerUnreachable(f"no connection to {self.settings.address}{suffix}: {reason}")

    def close(self, *, graceful: bool = True, timeout: float = 5.0) -> None:
        """Ends the connection; no event follows.

        A graceful close first sends the queue and waits for the acknowledgements, at most ``timeout``
        seconds; the broker does not send the will. Otherwise the socket is closed as if the program had died.
        Waits for the end, unless it is called on the network thread.
        """
        if self._thread.post(lambda: self.begin_close(graceful, timeout)) and not self._thread.is_current:
            self.wait_closed(timeout + 1.0)

    def wait_closed(self, timeout: float) -> bool:
        """Waits at most ``timeout`` seconds for the end of the connection; returns whether it has ended."""
        return self._closed.wait(timeout)

    # --- from here on: the network thread -----------------------------------------------------------------

    def attempt(self) -> None:
        """Starts an attempt to connect: opens a new link on an opener's thread."""
        self._timer = None
        if self._closing:
            return
        link = self._link = self._new_link(self)
        self._started = False
        self._thread.run_blocking(lambda: self._open(link))

    def link_up(self, link: Link, limits: Connected) -> None:
        """Records that the broker has accepted ``link``, and tells the handler the broker's limits."""
        self._cancel_timer()
        self._failures = 0
        self._reached_addresses.add(self.settings.address)
        self._up_since = time.monotonic()
        with self._state:
            self._limits, self._active_link = limits, link
            self._state.notify_all()
        self.emit(limits)

    def link_ended(
        self, link: Link, reason: str, refusal: ConnectRefused | None = None, *, is_permanent: bool = False
    ) -> None:
        """Records the end of ``link``; tells the handler, and tries again unless the broker refused.

        ``is_permanent``: another attempt would end the same way. If no broker at this address has accepted
        this program yet, that counts as a refusal; in a running program, a person may still correct the
        cause.
        """
        if self._link is not link:
            return
        if is_permanent and self.settings.address not in self._reached_addresses:
            refusal = ConnectRefused(reason, None)
        self._link = None
        self._cancel_timer()
        was_up = self._active_link is link
        with self._state:
            self._limits = self._active_link = None
            self._reason, self._refusal = reason, refusal
            self._failures += not was_up
            self._state.notify_all()
        if self._closing:
            self._end()
        elif refusal is not None:
            self.emit(refusal)
        else:
            # Do not hurry to reconnect to a broker that accepts us only to disconnect us at once.
            if was_up and time.monotonic() - self._up_since > self.settings.retry_cap:
                self._retries = 0
            jitter = random.random()  # noqa: S311 - spreads load # nosec B311
            delay = backoff(self._retries, self.settings.retry_first, self.settings.retry_cap, jitter)
            self._retries += 1
            self._timer = self._thread.call_later(delay, self.attempt)
            self.emit(Lost(reason, self._failures))

    def link_ended_unanswered(self, link: Link) -> None:
        """Records the end of ``link`` before the broker answered CONNECT; first finds out why."""
        if self.settings.address in self._reached_addresses:
            self.link_ended(
                link, f"{self.settings.address} closed the connection without an answer: {NO_ROOM}"
            )
            return

        def ask() -> None:
            diagnosis = diagnose_no_answer(self.settings)
            self._thread.post(
                lambda: self.link_ended(link, diagnosis.reason, is_permanent=diagnosis.is_permanent)
            )

        self._thread.run_blocking(ask)

    def emit(self, event: ConnectionEvent) -> None:
        """Passes ``event`` to the handler, unless the connection is being closed."""
        if self._closing:
            return
        try:
            self._handler(event)
        except Exception as error:
            self._thread.fail(error)

    def begin_close(self, graceful: bool, timeout: float) -> None:
        """Starts `close` on the network thread; `wait_closed` waits for the end."""
        self._cancel_timer()
        link, active_link = self._link, self._active_link
        with self._state:
            self._closing = True
            self._limits = self._active_link = None
            self._reason = "the connection is closed"
        if link is None:
            self._end()
        elif graceful and active_link is link:
            link.finish()
            if self._link is link:
                self._timer = self._thread.call_later(
                    timeout, lambda: link.abort(self._reason, send_disconnect=True)
                )
        elif self._started:
            link.abort(self._reason)
        else:
            self._link = None  # an opener has it; `_opened` will end it
            self._end()

    def _opened(self, link: Link) -> None:
        if self._link is not link:
            link.abort("closed")
            return
        self._started = True
        timeout = self.settings.connect_timeout
        reason = (
            f"{self.settings.address} accepted the connection but did not answer within {timeout:g} s: "
            "is an MQTT broker listening there, or one that speaks only MQTT 3.1.1?"
        )
        self._timer = self._thread.call_later(timeout, lambda: link.abort(reason))
        link.start()

    def _open(self, link: Link) -> None:
        """Opens ``link``; runs on an opener's thread."""
        try:
            link.open()
        except (OSError, UnicodeError) as error:
            diagnosis = diagnose(error, self.settings)
            self._thread.post(
                lambda: self.link_ended(link, diagnosis.reason, is_permanent=diagnosis.is_permanent)
            )
        except Exception as error:
            self._thread.fail(error)
            self._thread.post(lambda: self.link_ended(link, "an error in this program"))
        else:
            self._thread.post(lambda: self._opened(link))

    def _put_all(self, items: Sequence[Outgoing]) -> bool:
        link = self._active_link
        return link is not None and all(link.put(item) for item in items)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _end(self) -> None:
        self._closed.set()
        self._forget(self)
        with self._state:
            self._state.notify_all()


def _batch_starts(filters: Sequence[object]) -> range:
    return range(0, len(filters), MAX_FILTERS)
