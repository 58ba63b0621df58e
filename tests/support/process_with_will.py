"""A process whose connection has a will: ``python -m tests.support.process_with_will URL``.

It runs until it is killed.
"""

from __future__ import annotations

import sys

from fl_shared.mqtt.address import BrokerAddress
from fl_shared.mqtt.events import ConnectionSettings, Will
from fl_shared.mqtt.network import Network


def main(url: str) -> None:
    settings = ConnectionSettings(BrokerAddress.parse(url), will=Will("wills/process", b"gone"))
    network = Network()
    network.connect(settings, lambda _: None).wait_connected(10)
    print("connected", flush=True)  # noqa: T201
    sys.stdin.read()


if __name__ == "__main__":
    main(sys.argv[1])
