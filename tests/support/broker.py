"""A real Mosquitto for a test, with its default limits, that can be killed and started again."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from fl_shared.mqtt.address import BrokerAddress
from fl_shared.system.mosquitto import (
    LOOPBACK,
    Listener,
    accepts_connect,
    configuration,
    find_mosquitto,
    is_running,
)
from tests.support.client import Endpoint
from tests.support.ports import free_port
from tests.support.wait import wait_until

START_TIMEOUT = 10.0
PLUGIN = "mosquitto_dynamic_security.so"
PLUGINS = ("usr/lib", "usr/lib/*-linux-gnu", "usr/lib64", "usr/local/lib", "opt/homebrew/lib")
"""Directories where packages put Mosquitto's plug-ins."""


class Mosquitto:
    """A Mosquitto that can be restarted on the same port. ``extra``: further lines of its configuration."""

    def __init__(self, directory: Path, *, extra: Sequence[str] = (), allow_anonymous: bool = True) -> None:
        self._program = find_mosquitto()
        self._directory = directory
        self._extra = list(extra)
        self._allow_anonymous = allow_anonymous
        if os.geteuid() == 0:
            # As root, Mosquitto would switch to another user, who cannot read the test's files.
            self._extra.append("user root")
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0
        for _ in range(5):
            self.port = free_port()
            try:
                self.start()
                return
            except AssertionError:
                if "already in use" not in self.log():
                    raise
        raise AssertionError(f"five free ports were taken by others before mosquitto could:\n{self.log()}")

    @property
    def url(self) -> str:
        return f"mqtt://{LOOPBACK}:{self.port}"

    @property
    def address(self) -> BrokerAddress:
        return BrokerAddress(LOOPBACK, self.port)

    @property
    def endpoint(self) -> Endpoint:
        """The endpoint for a test client without an account."""
        return Endpoint(self.port)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def log(self) -> str:
        return (self._directory / "mosquitto.log").read_text(errors="replace")

    def start(self) -> None:
        assert self._process is None
        file, log = self._directory / "mosquitto.conf", self._directory / "mosquitto.log"
        file.write_text(
            configuration(
                [Listener(self.port, LOOPBACK)],
                allow_anonymous=self._allow_anonymous,
                max_packet_size=None,
                extra=self._extra,
            )
        )
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [self._program, "-c", str(file)], stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
        process = self._process
        try:
            wait_until(
                lambda: (
                    process.poll() is not None or (is_running(log) and accepts_connect(LOOPBACK, self.port))
                ),
                START_TIMEOUT,
                "mosquitto starts",
            )
            assert process.poll() is None, "mosquitto has ended"
        except AssertionError as error:
            self.kill()
            raise AssertionError(f"{error}:\n{self.log()}") from None

    def kill(self) -> None:
        """Kills the broker with SIGKILL: it loses its state, and does not disconnect its clients properly."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        """Stops the broker with SIGTERM: it sends its clients a DISCONNECT."""
        if self._process is not None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(5.0)
            self.kill()

    def restart(self) -> None:
        self.stop()
        self.start()

    def freeze(self) -> None:
        """Freezes the broker with SIGSTOP: connections stay, but nothing answers, as if a cable were cut."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)


def refused_subscriptions(directory: Path, user: str, password: str, filters: Sequence[str]) -> list[str]:
    """Lines of a configuration with one account, which may do everything but subscribe to ``filters``.

    Mosquitto 2.0 answers every SUBSCRIBE with success, whatever its ACL file says, and only its plug-in for dynamic
    security refuses one.
    """
    plugin = next((file for place in PLUGINS for file in Path("/").glob(f"{place}/{PLUGIN}")), None)
    if plugin is None:
        pytest.skip(f"{PLUGIN}: not installed")
    salt = b"twelve bytes"
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, 1)
    access = ("publishClientSend", "publishClientReceive", "subscribe", "unsubscribe")
    account = {
        "username": user,
        "salt": base64.b64encode(salt).decode(),
        "password": base64.b64encode(digest).decode(),
        "iterations": 1,
        "roles": [{"rolename": "limited"}],
    }
    denied = [{"acltype": "subscribeLiteral", "topic": name, "allow": False} for name in filters]
    rights = {
        "defaultACLAccess": dict.fromkeys(access, True),
        "clients": [account],
        "roles": [{"rolename": "limited", "acls": denied}],
    }
    file = directory / "dynamic-security.json"
    file.write_text(json.dumps(rights))
    return [f"plugin {plugin}", f"plugin_opt_config_file {file}"]
