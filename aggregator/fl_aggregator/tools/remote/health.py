"""Checks whether a run is healthy, for people and for health checks of containers and services."""

from __future__ import annotations

import time

from fl_aggregator.tools.remote.observer import Observer, status_age
from fl_shared.cli.broker_access import BrokerOptions
from fl_shared.errors import ProgramError, RunFailed
from fl_shared.mqtt.events import CONNECT_TIMEOUT
from fl_shared.protocol import messages as m
from fl_shared.protocol.limits import BIRTH_WAIT, MAX_STATUS_AGE, STATUS_WAIT


def check(broker: BrokerOptions, timeout: float) -> None:
    """Returns if the run under the prefix is online and has published a status within the last 15 s.

    Clocks differ between machines: if the status seems to be older, or to be from the future, the next one
    counts. Raises ``RunFailed`` in all other cases, at the latest after ``timeout`` seconds (and 6 to
    connect).
    """
    try:
        with Observer(broker.access(), timeout=min(timeout, CONNECT_TIMEOUT)) as run:
            _wait_for_status(run, timeout)
    except ProgramError as error:
        # A user's mistake also exits with 1: Docker knows only healthy (0) and unhealthy (1).
        raise RunFailed(str(error)) from None


def _wait_for_status(observer: Observer, timeout: float) -> None:
    deadline = time.monotonic() + timeout
    if observer.wait_for(lambda: observer.subscribed, timeout):
        observer.wait_for(lambda: _current_status(observer) is not None, BIRTH_WAIT)
        left = min(STATUS_WAIT, deadline - time.monotonic())
        observer.wait_for(lambda: not observer.is_online or _current_status(observer) is not None, left)
    status = _current_status(observer)
    if status is None:
        raise RunFailed(_failure_reason(observer))
    if status.phase in m.FINAL_PHASES:
        raise RunFailed(f"run {status.run} has ended: {status.phase}")


def _current_status(observer: Observer) -> m.Status | None:
    """The status of the run that is online, if it is recent; else null."""
    presence, status = observer.born, observer.status
    if presence is None or not observer.is_online or status is None:
        return None
    if (status.run, status.incarnation) != (presence.run, presence.incarnation):
        return None
    return status if observer.live_at is not None or abs(status_age(status)) < MAX_STATUS_AGE else None


def _failure_reason(observer: Observer) -> str:
    presence, status = observer.born, observer.status
    if not observer.subscribed:
        return "the broker does not answer"
    if presence is None or presence.state == "offline":
        return observer.absence_text
    online = f"run {presence.run} is online {observer.where}, but"
    if status is None or status.run != presence.run:
        return f"{online} has published no status"
    if status.incarnation != presence.incarnation:
        return f"{online} has published no status since it was resumed"
    return f"{online} its last status is from {status.written}: is its aggregator still running?"
