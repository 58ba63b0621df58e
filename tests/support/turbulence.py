"""A network in virtual time that loses, doubles and delays messages, as a seed says."""

from __future__ import annotations

import random
from collections.abc import Collection

from fl_mqtt.simulation.virtual.network import Hop
from fl_shared.protocol import topics as t


class Turbulence:
    """Loses, doubles and delays messages while it is ``active``; nothing comes over the links in ``cut``."""

    def __init__(self, rng: random.Random) -> None:
        self.active = True
        self.cut: set[str] = set()
        self._rng = rng
        self._lost, self._doubled, self._late = (rng.choice((0.0, 0.02, 0.1)) for _ in range(3))

    def delays(self, hop: Hop, /) -> Collection[float]:
        if hop.client in self.cut:
            return ()
        if not self.active:
            return (0.0,)
        chance = self._rng.random()
        if (chance := chance - self._lost) < 0:
            return ()
        if isinstance(hop.topic, t.RepliesTopic):
            return (0.0,)  # a broker keeps the order of a topic, on which edges rely
        if (chance := chance - self._doubled) < 0:
            return (0.0, 5 * self._rng.random())
        if chance - self._late < 0:
            return (10 * self._rng.random(),)
        return (0.0,)
