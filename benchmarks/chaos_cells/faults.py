"""The faults: how each is injected and repaired, and what shows that a program has noticed it."""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from chaos_cells.stage import VICTIM, Stage
from tests.support import programs

SLOW_LINK: Final = 200_000
"""Bytes per second on a slow link: a chunk of 256 KiB takes 1.3 s."""
DELAYED: Final = 0.2
LONG_KEEPALIVE: Final = "60"
"""Seconds. A fault that is noticed long before them is noticed by its connection, on however slow a machine."""
HANG: Final = 12.0
"""Seconds for which an edge hangs, long enough for the broker to notice.

Mosquitto 2.0 drops a client 1.5 times its keepalive (2 s) after its last byte, and checks every 5 s. The
edge's kernel still sends for a second.
"""

Noticed = Callable[[Stage, float], float | None]
"""When a program was first seen to know of a fault that was injected at a given time; null if none was."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault. ``strike`` injects it, and ``mend`` repairs it ``lasts`` seconds later; null: never.

    ``noticed`` is null if there is nothing to notice: then no edge may be taken for lost. ``quick``: the
    phase in which ``--quick`` injects it. ``persistence``: whether the broker saves its state.
    """

    name: str
    strike: Callable[[Stage], None]
    quick: str
    mend: Callable[[Stage], None] | None = None
    lasts: float = 0.5
    noticed: Noticed | None = None
    persistence: bool = False
    keepalive: str = programs.KEEPALIVE
    for_good: bool = False
    """Whether the edge never returns."""
    stops_aggregator: bool = False
    hold_others: bool = False
    """Whether the other edges' transfers last until the victim is back, in the same round."""


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
    """Kills the victim like a power failure: the data that its kernel had not sent yet are lost, too."""
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
        keepalive=LONG_KEEPALIVE,
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
