"""How is the run? Asked by people, and by what watches over a container or a service."""

from __future__ import annotations

import queue
import time

from fl_aggregator.tools.remote.observer import CONNECT_TIMEOUT, Lookout, age
from fl_shared.cli.broker_access import BrokerOptions
from fl_shared.errors import ProgramError, RunFailed
from fl_shared.mqtt import events as mqtt
from fl_shared.mqtt.network import Network
from fl_shared.protocol import messages as m
from fl_shared.protocol.limits import BIRTH_WAIT, FRESH, LIVE_WAIT


def check(broker: BrokerOptions, timeout: float) -> str:
    """How the run under the prefix is, in one line, if it is online and has said so within 15 s.

    Clocks differ between machines: a status that seems older, or of the future, is believed when the next one comes.
    Raises ``RunFailed`` for whatever else is the case, at the latest after ``timeout`` seconds (and 6 to connect).
    """
    inbox: queue.SimpleQueue[mqtt.Event] = queue.SimpleQueue()
    try:
        reach = broker.reach()
        with Network("fl-status") as network:
            connection = network.connect(reach.connection(), inbox.put)
            connection.wait_connected(min(timeout, CONNECT_TIMEOUT), once=True)
            where = f"under the prefix {reach.prefix!r} at {reach.address}"
            return _look(Lookout(connection, inbox, reach.prefix, reach.kit), where, timeout)
    except ProgramError as error:
        # A mistake of whoever asks, too: 2 would say nothing to Docker, which knows healthy (0) and unhealthy (1).
        raise RunFailed(str(error)) from None


def _look(run: Lookout, where: str, timeout: float) -> str:
    deadline = time.monotonic() + timeout
    retained: float | None = None
    while (now := time.monotonic()) < deadline:
        if run.answered and retained is None:
            retained = now + BIRTH_WAIT
            deadline = min(deadline, now + LIVE_WAIT)
        if (status := _believed(run)) is not None:
            if status.phase in m.OVER:
                raise RunFailed(f"run {status.run} has ended: {status.phase}")
            return line(status)
        waiting = retained is None or now < retained
        if not waiting and (run.born is None or run.born.state == "offline"):
            break
        run.hear((retained if waiting and retained is not None else deadline) - now)
    raise RunFailed(_why_not(run, where))


def _believed(run: Lookout) -> m.Status | None:
    """The status of the run that is online, if it is of now."""
    born, status = run.born, run.status
    if born is None or born.state == "offline" or status is None:
        return None
    if (status.run, status.epoch) != (born.run, born.epoch):
        return None
    return status if run.is_live or abs(age(status)) < FRESH else None


def _why_not(run: Lookout, where: str) -> str:
    born, status = run.born, run.status
    if not run.answered:
        return "the broker does not answer"
    if born is None:
        return f"no run is online {where}"
    if born.state == "offline":
        return f"no run is online {where}; the last one, {born.run}, is offline"
    online = f"run {born.run} is online {where}, but"
    if status is None or status.run != born.run:
        return f"{online} has published no status"
    if status.epoch != born.epoch:
        return f"{online} has published no status since it was resumed"
    return f"{online} its last status is from {status.written}: is its aggregator still running?"


def line(status: m.Status) -> str:
    """The run for a person."""
    what = "updates" if status.phase in ("collecting", "aggregating") else "edges"
    parts = [
        f"run {status.run}: {status.phase}" + ("" if status.round is None else f" in round {status.round}"),
        f"{status.have} of {status.need} {what}",
        "no version yet" if status.version is None else f"version {status.version} of {status.rounds}",
    ]
    if status.paused is not None:
        parts.append(f"paused: {status.paused}")
    return f"{', '.join(parts)} ({status.written})"
