"""Checks the first connection, made as an aggregator makes it, and whether a run is online already."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

from fl_aggregator.tools.doctor.findings import Finding
from fl_aggregator.tools.remote.observer import Observer, status_age
from fl_shared.cli.broker_access import BrokerAccess
from fl_shared.errors import UserError
from fl_shared.protocol import messages as m
from fl_shared.protocol.limits import ANSWER_WAIT, BIRTH_WAIT, STATUS_WAIT

MAX_SKEW: Final = 2.0


@dataclass(frozen=True, slots=True)
class RunStatus:
    """The findings about the connection and about the run.

    ``is_online``: a run is online, and checks must not use its topics.
    """

    connection: Finding
    run: Finding
    is_online: bool


def check_online(access: BrokerAccess) -> RunStatus:
    """Connects to the broker, and looks for a run that is online.

    Raises ``BrokerUnreachable`` or ``BrokerRefused``, with the reason, if it cannot connect.
    """
    started = time.monotonic()
    with Observer(access) as run:
        finding = _connection_finding(access, time.monotonic() - started)
        try:
            _wait(run)
        except UserError as error:
            return RunStatus(
                finding, Finding("run", "untested", str(error), essential=False), is_online=False
            )
        return RunStatus(finding, _run_finding(run), run.is_online)


def _connection_finding(access: BrokerAccess, seconds: float) -> Finding:
    address = access.address
    measured = {"seconds": round(seconds, 4), "encrypted": address.is_encrypted}
    account = "no account"
    if address.user is not None:
        account = f"as user {address.user}"
    elif access.kit is not None:
        account = f"with the certificate of {access.kit.name}"
    elif access.tls is not None:
        account = "TLS"
    detail = f"MQTT 5 over {address.scheme}, {account}, after {seconds * 1000:.0f} ms"
    if not address.is_encrypted and address.user is not None:
        return Finding(
            "connection",
            "limited",
            detail,
            "the password is sent unencrypted",
            "a TLS listener: see the page 'Connections' of the documentation",
            measured=measured,
        )
    return Finding("connection", "ok", detail, measured=measured)


def _wait(run: Observer) -> None:
    """Waits until it is known whether a run is online, and if one is, for a status that is not retained."""
    if run.wait_for(lambda: run.subscribed, ANSWER_WAIT) and run.wait_for(lambda: run.is_online, BIRTH_WAIT):
        run.wait_for(lambda: run.live_at is not None, STATUS_WAIT)


def _run_finding(run: Observer) -> Finding:
    presence, status = run.born, run.status
    if presence is None or presence.state == "offline":
        return Finding("run", "ok", "none is online")
    if status is None or run.live_at is None or status.run != presence.run:
        return Finding(
            "run",
            "limited",
            f"{presence.run} is marked online but publishes nothing",
            f"the next aggregator waits {STATUS_WAIT:g} s, then takes over",
        )
    return _clock_finding(status)


def _clock_finding(status: m.Status) -> Finding:
    """Compares clocks: a status that is not retained was written a moment ago by the aggregator's clock."""
    skew = status_age(status)
    measured = {"run": status.run, "clock_skew_seconds": round(skew, 3)}
    side = "behind" if skew > 0 else "ahead"
    detail = f"{status.run} is online ({status.phase}); its clock is {abs(skew):.1f} s {side}"
    if abs(skew) <= MAX_SKEW:
        return Finding("run", "ok", detail, measured=measured)
    return Finding(
        "run",
        "limited",
        detail,
        "deadlines are not affected, but times in logs and the dates of certificates are",
        "synchronize the clocks with NTP",
        measured=measured,
    )
