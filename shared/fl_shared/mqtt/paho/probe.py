"""A connection that shows every answer of the broker: for testing what a broker can do, not for a run.

It shows what `fl_shared.mqtt.connection.Connection` hides for good reasons: all that CONNACK announces, the
reason code of each PUBACK, and the remaining expiry of a message. A subscriber can hold back its PUBACKs,
like a slow one. A `Probe` is one TCP connection and its thread; it never reconnects, and every wait has a
deadline.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, Self

from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.exception import MQTTException
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from fl_shared.mqtt.events import ConnectionSettings
from fl_shared.mqtt.paho import property_reader  # noqa: F401  replaces functions of paho
from fl_shared.mqtt.paho.options import configure_client, connect_properties, publish_properties
from fl_shared.mqtt.paho.probe_results import ConnackProperties, ProbeFailed, ReceivedMessage
from fl_shared.mqtt.stream import open_stream

_LOOP_TIMEOUT: Final = 0.2
"""Seconds of one turn of the loop, after which it checks whether it should end."""
_DISCONNECT_TIMEOUT: Final = 1.0


class Probe:
    """Connects to a broker when it is made. Raises `ProbeFailed` or `OSError`.

    ``timeout``: seconds for each answer. ``manual_acks``: no message is acknowledged until `acknowledge_all`.
    ``window``: how many of our QoS 1 messages may be unacknowledged, if the broker's Receive Maximum allows
    as many.
    """

    def __init__(
        self,
        settings: ConnectionSettings,
        *,
        timeout: float = 5.0,
        window: int = 20,
        manual_acks: bool = False,
    ) -> None:
        self._wait = timeout
        self._changed = threading.Condition()
        self._received: list[ReceivedMessage] = []
        self._unacknowledged: list[ReceivedMessage] | None = [] if manual_acks else None
        self._codes: dict[int, tuple[int, ...]] = {}
        self._connack: ConnackProperties | None = None
        self._failure: ProbeFailed | None = None
        self._stop = threading.Event()
        client = self._client = _new_client(settings, manual_acks)
        client.max_inflight_messages_set(window)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        client.on_publish = self._on_publish
        client.on_subscribe = self._on_subscribe
        address = settings.address
        client.connect(
            address.host,
            address.port,
            settings.keepalive,
            clean_start=True,
            properties=connect_properties(settings),
        )
        self._thread = threading.Thread(target=self._run, name="fl-probe", daemon=True)
        self._thread.start()
        try:
            self._wait_until(lambda: self._connack is not None, "CONNECT", timeout)
        except BaseException:
            self.abort()
            raise

    @property
    def connack(self) -> ConnackProperties:
        """What the broker announced in CONNACK."""
        assert self._connack is not None
        return self._connack

    def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int = 1,
        retain: bool = False,
        response_topic: str | None = None,
        correlation_data: bytes | None = None,
        expiry: int | None = None,
    ) -> int:
        """Sends a message without waiting; returns the packet's id, for `wait_acknowledged`."""
        properties = publish_properties(response_topic, correlation_data, expiry)
        return self._client.publish(topic, payload, qos, retain, properties).mid

    def wait_acknowledged(self, mids: Sequence[int], timeout: float | None = None) -> list[int]:
        """Waits for the PUBACKs of ``mids`` and returns their reason codes in order. Raises `ProbeFailed`."""
        self._wait_until(lambda: all(mid in self._codes for mid in mids), "PUBLISH", timeout)
        with self._changed:
            return [self._codes.pop(mid)[0] for mid in mids]

    def publish_and_wait(
        self, topic: str, payload: bytes, *, retain: bool = False, expiry: int | None = None
    ) -> int:
        """Publishes at QoS 1 and returns the reason code of the PUBACK. Raises `ProbeFailed`."""
        return self.wait_acknowledged([self.publish(topic, payload, retain=retain, expiry=expiry)])[0]

    def subscribe(self, filters: Sequence[str], *, qos: int = 1, no_local: bool = False) -> tuple[int, ...]:
        """Sends one SUBSCRIBE packet and returns the reason codes of the SUBACK. Raises `ProbeFailed`.

        ``no_local``: the broker does not send back this connection's own messages, and keeps their retain
        flag.
        """
        options = SubscribeOptions(qos, noLocal=no_local, retainAsPublished=no_local)
        _, mid = self._client.subscribe([(name, options) for name in filters])
        if mid is None:
            raise ProbeFailed("the connection is closed")
        self._wait_until(lambda: mid in self._codes, "SUBSCRIBE", None)
        with self._changed:
            return self._codes.pop(mid)

    def receive(self, count: int, timeout: float) -> list[ReceivedMessage]:
        """Waits up to ``timeout`` seconds for ``count`` messages; returns all that came since the last call.

        Raises `ProbeFailed` if the connection has ended before that.
        """
        with contextlib.suppress(_NoAnswer):
            self._wait_until(lambda: len(self._received) >= count, "", timeout)
        with self._changed:
            messages, self._received = self._received, []
        return messages

    def hold_acks(self) -> None:
        """Sends no PUBACKs from now on; only for a probe that was made with ``holds_acks``."""
        with self._changed:
            self._unacknowledged = []

    def acknowledge_all(self) -> None:
        """Sends the PUBACKs that were held back, and from now on one for each message that comes."""
        with self._changed:
            unacknowledged, self._unacknowledged = self._unacknowledged, None
        for message in unacknowledged or ():
            self._client.ack(message.mid, message.qos)

    def abort(self) -> float:
        """Ends the connection without a DISCONNECT, like a crash; returns the time (`time.monotonic`)."""
        self._stop.set()
        self._thread.join(_LOOP_TIMEOUT * 10)
        aborted_at = time.monotonic()
        # paho's only public way to close the socket without a DISCONNECT: it prepares another connection.
        self._client.connect_async("localhost")
        return aborted_at

    def close(self) -> None:
        """Ends the connection with a DISCONNECT."""
        with self._changed:
            open_ = self._failure is None
        if open_:
            self._client.disconnect()
            with contextlib.suppress(ProbeFailed):
                self._wait_until(lambda: False, "DISCONNECT", _DISCONNECT_TIMEOUT)
        self.abort()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _wait_until(self, condition: Callable[[], bool], packet_name: str, timeout: float | None) -> None:
        timeout = self._wait if timeout is None else timeout
        with self._changed:
            self._changed.wait_for(lambda: condition() or self._failure is not None, timeout)
            if condition():
                return
            if self._failure is not None:
                raise self._failure
        raise _NoAnswer(f"no answer to {packet_name} within {timeout:g} s")

    # --- the probe's thread ---------------------------------------------------------------------------------

    def _run(self) -> None:
        code = MQTTErrorCode.MQTT_ERR_SUCCESS
        reason = "an error in this program"
        try:
            while code == MQTTErrorCode.MQTT_ERR_SUCCESS and not self._stop.is_set():
                code = self._client.loop(_LOOP_TIMEOUT)
            reason = "the connection was closed"
        except (OSError, ValueError, MQTTException) as error:
            reason = str(error)
        finally:
            self._end(reason, None)

    def _end(self, reason: str, code: int | None) -> None:
        with self._changed:
            self._failure = self._failure or ProbeFailed(reason, code)
            self._changed.notify_all()

    def _on_connect(
        self,
        _client: Client,
        _data: Any,
        _flags: ConnectFlags,
        code: ReasonCode,
        properties: Properties | None,
    ) -> None:
        if code.is_failure:
            self._end(f"the broker refused the connection: {code} (0x{code.value:02x})", code.value)
            return
        connack = ConnackProperties(
            maximum_packet_size=getattr(properties, "MaximumPacketSize", None),
            receive_maximum=getattr(properties, "ReceiveMaximum", None),
            maximum_qos=getattr(properties, "MaximumQoS", None),
            topic_alias_maximum=getattr(properties, "TopicAliasMaximum", None),
            server_keep_alive=getattr(properties, "ServerKeepAlive", None),
            retain_available=bool(getattr(properties, "RetainAvailable", 1)),
            wildcards_available=bool(getattr(properties, "WildcardSubscriptionAvailable", 1)),
            shared_available=bool(getattr(properties, "SharedSubscriptionAvailable", 1)),
        )
        with self._changed:
            self._connack = connack
            self._changed.notify_all()

    def _on_disconnect(
        self, _client: Client, _data: Any, flags: DisconnectFlags, code: ReasonCode, _given: Properties | None
    ) -> None:
        if flags.is_disconnect_packet_from_server:
            self._end(f"the broker closed the connection: {code} (0x{code.value:02x})", code.value)
        else:
            self._end("the broker closed the connection without giving a reason", None)

    def _on_message(self, client: Client, _data: Any, message: MQTTMessage) -> None:
        properties = message.properties
        received = ReceivedMessage(
            message.topic,
            bytes(message.payload),
            message.qos,
            message.retain,
            message.mid,
            time.monotonic(),
            getattr(properties, "ResponseTopic", None),
            getattr(properties, "CorrelationData", None),
            getattr(properties, "MessageExpiryInterval", None),
        )
        with self._changed:
            self._received.append(received)
            unacknowledged = self._unacknowledged
            if unacknowledged is not None:
                unacknowledged.append(received)
            self._changed.notify_all()
        if unacknowledged is None:
            client.ack(received.mid, received.qos)  # no effect if paho acknowledges by itself

    def _on_publish(
        self, _client: Client, _data: Any, mid: int, code: ReasonCode, _given: Properties
    ) -> None:
        self._store_codes(mid, (code.value,))

    def _on_subscribe(
        self, _client: Client, _data: Any, mid: int, codes: list[ReasonCode], _given: Properties
    ) -> None:
        self._store_codes(mid, tuple(code.value for code in codes))

    def _store_codes(self, mid: int, codes: tuple[int, ...]) -> None:
        with self._changed:
            self._codes[mid] = codes
            self._changed.notify_all()


class _NoAnswer(ProbeFailed):
    """The connection still exists, but the broker did not answer in time."""


class _Client(Client):
    """A client with our streams: paho's own WebSocket takes seconds where ours takes a millisecond."""

    settings: ConnectionSettings

    def _create_socket(self) -> Any:
        return open_stream(self.settings.address, self.settings.tls, self.settings.connect_timeout)


def _new_client(settings: ConnectionSettings, manual_acks: bool) -> Client:
    client = _Client(
        CallbackAPIVersion.VERSION2,
        client_id=settings.mqtt_client_id or "",
        protocol=MQTTProtocolVersion.MQTTv5,
        reconnect_on_failure=False,
        manual_ack=manual_acks,
    )
    client.settings = settings
    configure_client(client, settings)
    # With this callback, paho never writes on the caller's thread while ours does.
    client.on_socket_register_write = lambda *_: None
    return client
