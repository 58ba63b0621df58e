"""Programs that use their kits at a broker that is not trusted, and an account that reads and writes every topic.

The account ``forger`` can do what Mosquitto's operator can (protocol, section 9).
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from fl_aggregator.tools.provision.kits import Provision
from tests.support.client import FENCE, Client, Endpoint
from tests.support.programs import KEEPALIVE, Program, history
from tests.support.provisioned_broker import ProvisionedBroker, kit_of

VALUES = 5000
TASK = f"synthetic-{VALUES}"
FORGER = "\nuser forger\ntopic readwrite #\n"
ALL = "fl/#"


class Site:
    """A broker with accounts, and programs that use their kits."""

    def __init__(self, directory: Path, made: Provision, broker: ProvisionedBroker) -> None:
        self.directory, self.made, self.broker = directory, made, broker
        self._stack = contextlib.ExitStack()

    def kit(self, name: str) -> str:
        account = self.made.register.find(name)
        assert account is not None
        return str(self.made.out / account.kit_file)

    def program(self, name: str, command: str, *arguments: str) -> Program:
        keepalive = ("--keepalive", KEEPALIVE)
        return self._stack.enter_context(Program(self.directory / name, command, *arguments, *keepalive))

    def edge(self, name: str, *arguments: str, task: str = TASK) -> Program:
        state = str(self.directory / f"state-{name}")
        common = ("--kit", self.kit(name), "--task", task, "--state-dir", state)
        return self.program(f"edge-{name}", "fl-edge", *common, *arguments)

    def aggregator(self, name: str, *arguments: str, task: str = TASK, rounds: int = 3) -> Program:
        options = ["--kit", self.kit("aggregator"), "--task", task, "--clients", "2", "--per-round", "2"]
        options += ["--rounds", str(rounds), "--epochs", "1", "--holdout", "0", "--grace", "0"]
        options += ["--run-dir", str(self.directory / name / "run")]
        return self.program(name, "fl-aggregator", "start", *options, *arguments)

    def forger(self, topics: str = ALL) -> Client:
        """Its client. A run without end has more messages than a test can read on a slow machine: name some topics."""
        client = self._stack.enter_context(Client(Endpoint.of(kit_of(self.made, "forger"))))
        assert client.subscribe(topics) < 0x80
        return client

    def close(self) -> None:
        self._stack.close()


def heard(client: Client) -> list[tuple[str, bytes]]:
    """All that was published so far, and has not been asked for before."""
    client.catch_up()
    return [(one.topic, one.payload) for one in client.take_all() if not one.topic.startswith(FENCE)]


def rounds(site: Site, name: str) -> list[dict[str, Any]]:
    return history(site.directory / name)


def undisturbed(site: Site, name: str, count: int) -> None:
    """All rounds of that run ended with both edges' updates."""
    lines = rounds(site, name)
    assert [line["outcome"] for line in lines] == ["committed"] * count
    assert all(line["participants"] == ["0", "1"] and not line["missing"] for line in lines)
