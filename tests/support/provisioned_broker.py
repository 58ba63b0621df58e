"""A real Mosquitto with the files that ``fl-aggregator provision`` makes."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

from fl_aggregator.tools.provision import kits
from fl_aggregator.tools.provision.accounts import BrokerLocation
from fl_aggregator.tools.provision.kits import Provision
from fl_shared.security.kit import AccountRole, Kit
from fl_shared.system.mosquitto import LOOPBACK, find_mosquitto, is_running
from tests.support.ports import free_port
from tests.support.wait import wait_until

WAIT = 10.0


def provisioned(
    out: Path,
    wanted: Sequence[tuple[str, tuple[AccountRole, ...]]],
    *,
    passwords: bool = False,
    prefix: str = "fl",
) -> Provision:
    """Accounts for a broker on this machine."""
    place = BrokerLocation(
        hosts=(LOOPBACK, "localhost"),
        port=free_port(),
        prefix=prefix,
        passwords=passwords,
        days=30,
        broker_dir=None,
    )
    return kits.create_provision(out, place, wanted, force=False)[0]


def kit_of(made: Provision, name: str) -> Kit:
    account = made.register.find(name)
    assert account is not None
    return Kit.read(made.out / account.kit_file)


class ProvisionedBroker:
    """A broker that runs during its ``with`` block. ``extra``: further ACL lines, such as an observer's.

    ``bridged``: the name of the broker, if it is bridged; it listens on ``port``.
    """

    def __init__(self, made: Provision, *, extra_acl: str = "", bridged: str = "", port: int = 0) -> None:
        self._files = made.broker_directory
        if bridged:
            self._files = self._files.with_name(f"{self._files.name}-{bridged}")
        self._listener = (
            f"listener {made.register.place.port}",
            f"listener {port or made.register.place.port}",
        )
        self._log = self._files / "mosquitto.log"
        self._extra = extra_acl
        self._process: subprocess.Popen[bytes] | None = None

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def start(self) -> None:
        conf = (self._files / "mosquitto.conf").read_text().replace(*self._listener)
        if os.geteuid() == 0:
            conf += "user root\n"  # it would switch to another user, who cannot read the files
        file = self._files / "test.conf"
        file.write_text(conf)
        self._add_to_acl()
        with self._log.open("wb") as output:
            self._process = subprocess.Popen(
                [find_mosquitto(), "-c", str(file)], stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
        process = self._process
        try:
            wait_until(lambda: process.poll() is not None or is_running(self._log), WAIT, "mosquitto starts")
            assert process.poll() is None, "mosquitto has ended"
        except AssertionError as error:
            self.stop()
            raise AssertionError(f"{error}:\n{self.log()}") from None

    def reload(self) -> None:
        """Sends SIGHUP, as an operator does, so that the broker reads its files again."""
        assert self._process is not None
        self._add_to_acl()
        seen = self.log().count("Reloading config")
        self._process.send_signal(signal.SIGHUP)
        wait_until(lambda: self.log().count("Reloading config") > seen, WAIT, "the broker reloads")
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

    def __enter__(self) -> ProvisionedBroker:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
