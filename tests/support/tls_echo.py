"""Sends messages of many sizes from one TLS connection to another.

It is a program, since a process has only one kind of client. ``python -m tests.support.tls_echo URL CA
CERTIFICATE KEY TLS-VERSION SIZE…`` prints ``all came``.
"""

from __future__ import annotations

import os
import ssl
import sys
from pathlib import Path

from paho.mqtt.client import Client

from fl_shared.mqtt.address import BrokerAddress
from fl_shared.mqtt.events import Connected, ConnectionSettings, Received, Subscribed
from fl_shared.mqtt.network import Network
from fl_shared.mqtt.paho.compatibility import STOCK_ENV, client_class
from fl_shared.mqtt.paho.fast_client import FastClient
from fl_shared.security.tls import Tls
from tests.support.connection_harness import ConnectionHarness


def main(url: str, ca: str, certificate: str, key: str, version: str, *sizes: str) -> None:
    assert client_class() is (Client if os.environ[STOCK_ENV] else FastClient)
    tls = Tls.read(Path(ca), Path(certificate), Path(key)).context()
    tls.minimum_version = tls.maximum_version = ssl.TLSVersion[version]
    settings = ConnectionSettings(BrokerAddress.parse(url), tls=tls, max_queued_bytes=2**28)
    with Network() as network:
        one, other = ConnectionHarness(network, settings), ConnectionHarness(network, settings)
        one.next(Connected)
        other.next(Connected)
        one.connection.subscribe([("sizes", 1)])
        one.next(Subscribed)
        payloads = [os.urandom(int(size)) for size in sizes] + [bytes([n]) * n for n in range(200)]
        for payload in payloads:
            assert other.connection.publish("sizes", payload)
        for payload in payloads:
            assert bytes(one.next(Received).payload) == payload
        network.check()
    print("all came")  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])
