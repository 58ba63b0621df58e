"""The first connection, made as an aggregator makes it, and whether a run is online already."""

from __future__ import annotations

import queue
import time
from dataclasses import dataclass
from typing import Final

from fl_aggregator.tools.doctor.findings import Finding
from fl_aggregator.tools.remote.observer import CONNECT_TIMEOUT, Lookout, age
from fl_shared.cli.broker_access import BrokerReach
from fl_shared.errors import UserError
from fl_shared.mqtt import events as mqtt
from fl_shared.mqtt.network import Network
from fl_shared.protocol import messages as m
from fl_shared.protocol.limits import LIVE_WAIT

ANSWER_WAIT: Final = 5.0
BIRTH_WAIT: Final = 0.5
MAX_SKEW: Final = 2.0


@dataclass(frozen=True, slots=True)
class RunStatus:
    """``connection``: how connecting went. ``run``: what is online. ``is_online``: its topics are to be left alone."""

    connection: Finding
    run: Finding
    is_online: bool


def look(reach: BrokerReach) -> RunStatus:
    """Raises ``BrokerUnreachable`` or ``BrokerRefused``, with the reason, if it cannot connect."""
    inbox: queue.SimpleQueue[mqtt.Event] = queue.SimpleQueue()
    with Network("fl-doctor") as network:
        begun = time.monotonic()
        connection = network.connect(reach.connection(), inbox.put)
        connection.wait_connected(CONNECT_TIMEOUT, once=True)
        seconds = time.monotonic() - begun
        found = _connected(reach, seconds)
        lookout = Lookout(connection, inbox, reach.prefix, reach.kit)
        try:
            _watch(lookout)
        except UserError as error:
            return RunStatus(found, Finding("run", "untested", str(error), essential=False), is_online=False)
    born = lookout.born
    is_online = born is not None and born.state == "online"
    return RunStatus(found, _run(lookout), is_online)


def _connected(reach: BrokerReach, seconds: float) -> Finding:
    address = reach.address
    measured = {"seconds": round(seconds, 4), "encrypted": address.is_encrypted}
    account = "no account"
    if address.user is not None:
        account = f"as user {address.user}"
    elif reach.kit is not None:
        account = f"with the certificate of {reach.kit.name}"
    elif reach.tls is not None:
        account = "TLS"
    detail = f"MQTT 5 over {address.scheme}, {account}, after {seconds * 1000:.0f} ms"
    if not address.is_encrypted and address.user is not None:
        return Finding(
            "connection",
            "limited",
            detail,
            "the password is sent unencrypted",
            "a TLS listener: docs/operations.md",
            measured=measured,
        )
    return Finding("connection", "ok", detail, measured=measured)


def _watch(lookout: Lookout) -> None:
    """Until it is known whether a run is online, and if one is, until it has said something."""
    deadline = time.monotonic() + ANSWER_WAIT
    answered = False
    waiting_for_status = False
    while (now := time.monotonic()) < deadline:
        lookout.hear(deadline - now)
        if lookout.answered and not answered:
            answered = True
            deadline = time.monotonic() + BIRTH_WAIT
        if lookout.born is not None and lookout.born.state == "online" and not waiting_for_status:
            waiting_for_status = True
            deadline = time.monotonic() + LIVE_WAIT
        if lookout.is_live and waiting_for_status:
            return


def _run(lookout: Lookout) -> Finding:
    born, status = lookout.born, lookout.status
    if born is None or born.state == "offline":
        return Finding("run", "ok", "none is online")
    if status is None or not lookout.is_live or status.run != born.run:
        return Finding(
            "run",
            "limited",
            f"{born.run} is marked online but publishes nothing",
            f"the next aggregator waits {LIVE_WAIT:g} s, then takes over",
        )
    return _clock(status)


def _clock(status: m.Status) -> Finding:
    """A live status was written a moment ago, by the aggregator's clock."""
    skew = age(status)
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
