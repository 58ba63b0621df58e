"""The devices of edges: how fast they are, on which link, and when they are there.

Each edge draws its own from the SHA-256 of its name: who joins or leaves changes nobody else's.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from fl_mqtt.simulation.virtual.network import Hop, Link
from fl_mqtt.simulation.virtual.specification import Daily, Named, Specification, Spread

FORWARD: Final = 1 / 3
"""The work of an evaluation beside that of a training, for each example: a backward pass costs two forward passes."""
TEST_SECONDS: Final = 1.0
"""An evaluation on the test split takes that long, however large it is: it is no edge's work."""
DAY: Final = 86_400.0
"""Seconds."""


@dataclass(frozen=True, slots=True)
class Device:
    """``speed``: examples a second in training. ``drop``: the probability that it dies in a training."""

    speed: float
    link: Link
    drop: float = 0.0

    def training_seconds(self, examples: int, holdout: int, epochs: int) -> float:
        """Returns how long a training takes, with the evaluations on the holdout before and after it."""
        return (examples * epochs + 2 * holdout * FORWARD) / self.speed

    def evaluation_seconds(self, examples: int | None) -> float:
        """Returns how long an evaluation of ``examples`` takes; null: of the test split."""
        return TEST_SECONDS if examples is None else examples * FORWARD / self.speed


DATA_CENTRE: Final = Device(math.inf, Link(0.0, math.inf, math.inf))
"""Of the edge that only evaluates: it stands beside the aggregator."""


class Devices:
    """The devices of a run, as ``specification`` says; ``seed`` is the run's, if that has none."""

    def __init__(self, specification: Specification, seed: int) -> None:
        self._specification = specification
        self._file = specification.file
        self._named = {row.client: row for row in self._file.device}
        self._seed = seed if self._file.seed is None else self._file.seed

    def _random(self, *names: object) -> random.Random:
        text = "\0".join(map(str, (self._seed, *names)))
        return random.Random(hashlib.sha256(text.encode()).digest())  # no secret  # noqa: S311  # nosec B311

    def device(self, client: str) -> Device:
        """Returns the device of an edge."""
        file, rng = self._file, self._random("device", client)
        speed = _drawn(file.speed, rng)
        is_slow = rng.random()
        if file.speed.slow is not None and is_slow < file.speed.slow.share:
            speed /= file.speed.slow.factor
        down, up = _drawn(file.down, rng), _drawn(file.up, rng)
        speed, down, up = self._specification.capacity.get(client, (speed, down, up))
        own = self._named.get(client, Named(client=client))
        latency = file.link.latency if own.latency is None else own.latency
        drop = file.availability.drop if own.drop is None else own.drop
        return Device(own.speed or speed, Link(latency, own.down or down, own.up or up), drop)

    def presence(self, client: str) -> Iterator[tuple[float, bool]]:
        """Yields when an edge comes (true) and goes, in virtual seconds: its state at 0, then each change of it."""
        traced = self._specification.presence.get(client)
        if traced is not None:
            return _traced(traced)
        availability = self._file.availability
        if availability.on is None:
            return iter([(0.0, True)])
        return _drawn_presence(
            availability.on, availability.off, availability.daily, self._random("presence", client)
        )

    def dies_at(self, client: str, round_number: int) -> float | None:
        """Returns the share of its training after which an edge dies in a round; null if it does not."""
        rng = self._random("drop", client, round_number)
        return rng.random() if rng.random() < self.device(client).drop else None

    def losses(self, incarnation: int) -> Losses:
        """Returns what the links lose."""
        return Losses(self._file.link.loss, self._random("loss", incarnation))


class Losses:
    """Loses a ``share`` of the messages. See `network.Faults`."""

    def __init__(self, share: float, rng: random.Random) -> None:
        self._share = share
        self._rng = rng

    def delays(self, _hop: Hop, /) -> Collection[float]:
        """One copy in time, or none."""
        return () if self._share and self._rng.random() < self._share else (0.0,)


def _drawn(spread: Spread, rng: random.Random) -> float:
    return spread.median * math.exp(spread.sigma * rng.gauss(0.0, 1.0))


def _traced(rows: Sequence[tuple[float, bool]]) -> Iterator[tuple[float, bool]]:
    """Repeats a trace. The second of its last row is second 0 of the next period: a row at 0 counts then, if any."""
    period, at_end = rows[-1]
    if rows[0][0] > 0:
        rows = ((0.0, at_end), *rows)
    changes = [rows[0], *(row for before, row in pairwise(rows[:-1]) if row[1] != before[1])]
    yield from changes
    repeated = changes if changes[0][1] != changes[-1][1] else changes[1:]
    start = 0.0
    while repeated:
        start += period
        for second, is_there in repeated:
            yield start + second, is_there


def _drawn_presence(
    mean_on: float, mean_off: float, daily: Daily, rng: random.Random
) -> Iterator[tuple[float, bool]]:
    at, is_on = 0.0, rng.random() < mean_on / (mean_on + mean_off)
    while True:
        yield at, is_on
        factor = 1.0 + daily.amplitude * math.cos(2 * math.pi * (at / DAY - daily.peak / 24))
        at += rng.expovariate(1.0 / (mean_on * factor if is_on else mean_off / factor))
        is_on = not is_on
