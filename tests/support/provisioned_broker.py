"""A real Mosquitto with the files that ``fl-aggregator provision`` has made, and plain clients that speak TLS to it."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.reasoncodes import ReasonCode

from fl_aggregator.provision import kits
from fl_aggregator.provision.accounts import Place
from fl_aggregator.provision.kits import Provision
from fl_shared.kit import Kit, Role
from fl_shared.mosquitto import LOOPBACK, find_mosquitto, free_port, is_running

WAIT = 10.0
NOT_AUTHORISED = 0x87


def provisioned(
    out: Path, wanted: Sequence[tuple[str, tuple[Role, ...]]], *, passwords: bool = False, prefix: str = "fl"
) -> Provision:
    """Accounts for a broker on this machine."""
    place = Place(
        hosts=(LOOPBACK, "localhost"),
        port=free_port(),
        prefix=prefix,
        passwords=passwords,
        days=30,
        broker_dir=None,
    )
    return kits.begin(out, place, wanted, force=False)[0]


def kit_of(made: Provision, name: str) -> Kit:
    account = made.register.find(name)
    assert account is not None
    return Kit.read(made.out / account.kit_file)


class Broker:
    """Runs while its ``with`` block does. ``extra``: further lines for its ACL, as one may want for a witness."""

    def __init__(self, made: Provision, *, extra_acl: str = "") -> None:
        self._files = made.broker
        self._log = made.out / "mosquitto.log"
        self._extra = extra_acl
        self._process: subprocess.Popen[bytes] | None = None

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def start(self) -> None:
        conf = (self._files / "mosquitto.conf").read_text()
        if os.geteuid() == 0:
            conf += "user root\n"  # it would become another user, who may not read the files
        file = self._files / "test.conf"
        file.write_text(conf)
        self._add_to_acl()
        with self._log.open("wb") as output:
            self._process = subprocess.Popen(
                [find_mosquitto(), "-c", str(file)], stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
        deadline = time.monotonic() + WAIT
        while not is_running(self._log):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise AssertionError(f"mosquitto does not start:\n{self.log()}")
            time.sleep(0.01)

    def reload(self) -> None:
        """SIGHUP, as an operator sends it."""
        assert self._process is not None
        self._add_to_acl()
        seen = self.log().count("Reloading config")
        self._process.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + WAIT
        while self.log().count("Reloading config") == seen:
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.01)
        assert self._process.poll() is None, self.log()

    def restart(self) -> None:
        self.stop()
        self.start()

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(5.0)
            self._process.kill()
            self._process.wait()
            self._process = None

    def _add_to_acl(self) -> None:
        acl = self._files / "acl"
        if self._extra and self._extra not in acl.read_text():
            acl.write_text(acl.read_text() + self._extra)

    def __enter__(self) -> Broker:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class Refused(Exception):
    """The broker does not let it in."""


def cut(client: paho.Client) -> None:
    """Ends its connection, and its thread, without a goodbye."""
    client.loop_stop()
    connection = client.socket()
    assert isinstance(connection, socket.socket)
    connection.shutdown(socket.SHUT_RDWR)
    connection.close()


class Client:
    """A plain MQTT 5 client with a kit; see `connected`."""

    def __init__(self, kit: Kit, *, will: str | None = None) -> None:
        self._connack: queue.SimpleQueue[ReasonCode | str] = queue.SimpleQueue()
        self._acks: dict[int, ReasonCode] = {}
        self._acked = threading.Condition()
        self.heard: queue.SimpleQueue[tuple[str, bytes]] = queue.SimpleQueue()
        self._client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        self._client.tls_set_context(kit.ssl_context())
        if kit.user is not None:
            self._client.username_pw_set(kit.user, kit.password)
        if will is not None:
            self._client.will_set(will, b"gone", 1)
        self._client.on_connect = lambda _c, _u, _f, code, _p: self._connack.put(code)
        self._client.on_disconnect = lambda _c, _u, _f, code, _p: self._connack.put(f"disconnected: {code}")
        self._client.on_publish = lambda _c, _u, mid, code, _p: self._ack(mid, code)
        self._client.on_subscribe = lambda _c, _u, mid, codes, _p: self._ack(mid, codes[0])
        self._client.on_message = lambda _c, _u, message: self.heard.put(
            (message.topic, bytes(message.payload))
        )
        _, _, where = kit.broker.partition("://")
        host, _, port = where.rpartition(":")
        try:
            # OSError: the handshake fails. TLS 1.3 tells a client of its certificate's refusal only afterwards.
            self._client.connect(host, int(port), keepalive=10)
            self._client.loop_start()
            code = self._connack.get(timeout=WAIT)
        except (OSError, queue.Empty) as error:
            self.close()
            raise Refused(repr(error)) from None
        if isinstance(code, str) or code.is_failure:
            self.close()
            raise Refused(str(code))

    def _ack(self, mid: int, code: ReasonCode) -> None:
        with self._acked:
            self._acks[mid] = code
            self._acked.notify_all()

    def _wait(self, mid: int | None) -> int:
        assert mid is not None
        with self._acked:
            assert self._acked.wait_for(lambda: mid in self._acks, WAIT), "the broker does not answer"
            value: int = self._acks.pop(mid).value
            return value

    def publish(self, topic: str, payload: bytes = b"x", *, retain: bool = False) -> int:
        """The reason code of the broker's answer."""
        return self._wait(self._client.publish(topic, payload, qos=1, retain=retain).mid)

    def send(self, topic: str, payload: bytes) -> None:
        """Without waiting for an answer."""
        self._client.publish(topic, payload, qos=0)

    def subscribe(self, name: str) -> int:
        """The reason code of the broker's answer; Mosquitto's ACL files speak of messages, not of filters."""
        return self._wait(self._client.subscribe(name, 1)[1])

    def until(self, topic: str) -> set[str]:
        """The topics heard until there is something on ``topic``."""
        seen: set[str] = set()
        while True:
            name, _ = self.heard.get(timeout=WAIT)
            if name == topic:
                return seen
            seen.add(name)

    def die(self) -> None:
        """Without a goodbye, so that the broker publishes its will."""
        cut(self._client)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@contextlib.contextmanager
def connected(kit: Kit, *, will: str | None = None) -> Iterator[Client]:
    """A `Client` while the block runs. Raises ``Refused``."""
    client = Client(kit, will=will)
    try:
        yield client
    finally:
        client.close()
