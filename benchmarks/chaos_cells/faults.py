"""The faults: how each strikes, how it is mended, and what shows that it was noticed."""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from chaos_cells.stage import VICTIM, Stage

SLOW_LINK: Final = 200_000
"""Bytes a second: 256 KiB, one chunk, take 1.3 s."""
DELAYED: Final = 0.2
HANG: Final = 12.0
"""Seconds. Mosquitto 2.0 gives an edge up one and a half times its keepalive (2 s) after the last byte, and looks every
five; what the edge's kernel still sends takes a second."""

Noticed = Callable[[Stage, float], float | None]
"""When it was first seen that somebody knows of a fault that struck at the time given."""


@dataclass(frozen=True, slots=True)
class Fault:
    """``mend`` comes ``lasts`` seconds after ``strike``; null: never.

    ``noticed`` is null where nothing is to be noticed: not one edge may be taken for lost then.
    ``quick``: the phase in which ``--quick`` makes it.
    """

    name: str
    strike: Callable[[Stage], None]
    quick: str
    mend: Callable[[Stage], None] | None = None
    lasts: float = 0.5
    noticed: Noticed | None = None
    persistence: bool = False
    for_good: bool = False
    """The edge does not come back."""
    stops_aggregator: bool = False
    hold_others: bool = False
    """The other edges' transfers last until the victim is back, so that it comes back into the same round."""


def _edge_is_lost(stage: Stage, since: float) -> float | None:
    found = [at for at, _ in stage.watch.events("EdgeLost", client=VICTIM) if at >= since]
    return found[0] if found else None


def _edge_is_lost_or_back(stage: Stage, since: float) -> float | None:
    back = [at for at, _ in stage.watch.events("Registered", client=VICTIM) if at >= since]
    lost = _edge_is_lost(stage, since)
    return min((at for at in (lost, *back) if at is not None), default=None)


def _will_is_seen(stage: Stage, since: float) -> float | None:
    return stage.watch.first("fl/aggregator", since, state="offline")


def _loss_is_logged(stage: Stage, since: float) -> float | None:
    return stage.watch.first_said("aggregator", " connection to the broker: ", since)


def _take_down(stage: Stage) -> None:
    """As if its device had no power any more: what its kernel still had to send is lost, too."""
    stage.kill(stage.victim)
    stage.proxies["victim"].cut()


def _delay(stage: Stage, share: float) -> None:
    for proxy in stage.proxies.values():
        proxy.delay(share)


FAULTS: Final = (
    Fault(
        "edge-kill",
        strike=_take_down,
        noticed=_edge_is_lost,
        for_good=True,
        quick="uploading",
    ),
    Fault(
        "edge-restart",
        strike=lambda stage: stage.kill(stage.victim),
        mend=lambda stage: stage.restart_victim(),
        hold_others=True,
        noticed=_edge_is_lost_or_back,
        quick="downloading",
    ),
    Fault(
        "edge-hang",
        strike=lambda stage: stage.signal_victim(signal.SIGSTOP),
        mend=lambda stage: stage.signal_victim(signal.SIGCONT),
        lasts=HANG,
        noticed=_edge_is_lost,
        quick="uploading",
    ),
    Fault(
        "aggregator-kill",
        strike=lambda stage: stage.kill(stage.aggregator),
        mend=lambda stage: stage.resume(),
        stops_aggregator=True,
        noticed=_will_is_seen,
        quick="uploading",
    ),
    Fault(
        "broker-kill",
        strike=lambda stage: stage.broker.kill(),
        mend=lambda stage: stage.broker.start(),
        noticed=_loss_is_logged,
        quick="downloading",
    ),
    Fault(
        "broker-kill-persistent",
        strike=lambda stage: stage.broker.kill(),
        mend=lambda stage: stage.broker.start(),
        noticed=_loss_is_logged,
        persistence=True,
        quick="uploading",
    ),
    Fault(
        "connection-cut",
        strike=lambda stage: stage.proxies["victim"].cut(),
        mend=lambda stage: stage.proxies["victim"].restore(),
        hold_others=True,
        lasts=1.0,
        noticed=_edge_is_lost,
        quick="uploading",
    ),
    Fault(
        "packets-delayed",
        strike=lambda stage: _delay(stage, DELAYED),
        mend=lambda stage: _delay(stage, 0.0),
        lasts=60.0,
        quick="downloading",
    ),
    Fault(
        "slow-link",
        strike=lambda stage: stage.proxies["victim"].limit(SLOW_LINK),
        mend=lambda stage: stage.proxies["victim"].limit(None),
        lasts=6.0,
        quick="uploading",
    ),
)
