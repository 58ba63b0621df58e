"""Fault tests: an MQTT client that watches a run and strikes at the moment that a test waits for."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from fl_aggregator.checkpoint import sha256
from fl_shared import codec, mqtt
from fl_shared import messages as m
from fl_shared import topics as t
from tests.support import programs
from tests.support.broker import Mosquitto

M = TypeVar("M", bound=m.Message)
TASK = "synthetic-3000000"
"""12 MB: offered and sent in chunks, and large enough that a transfer can be caught in the middle."""


def settings(rounds: int) -> tuple[str, ...]:
    """Of a run of three edges, all of which are selected in every round: so its model is always the same."""
    return (
        "--task", TASK, "--clients", "3", "--per-round", "3", "--rounds", str(rounds), "--quorum", "3",
        "--grace", "30", "--wait", "30", "--holdout", "0",
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Heard:
    """``message`` is null where a retained message was cleared, and for what is no message of ours."""

    at: float
    topic: t.Topic
    message: m.Message | None
    retained: bool


class Watch:
    """Hears all below ``fl`` while its ``with`` block runs, over as many connections as it takes."""

    def __init__(self, broker: Mosquitto) -> None:
        self._broker = broker
        self._heard: list[Heard] = []
        self._traps: list[tuple[Callable[[Heard], bool], Callable[[], None], threading.Event]] = []
        self._ready = threading.Event()
        self._network = mqtt.Network("watch")

    def all(self, kind: type[M], **wanted: Any) -> list[M]:
        """The messages of that kind so far, with these members."""
        return [h.message for h in list(self._heard) if _is(h, kind, wanted)]  # type: ignore[misc]

    def times(self, kind: type[M], **wanted: Any) -> list[float]:
        return [h.at for h in list(self._heard) if _is(h, kind, wanted)]

    def until(self, kind: type[M], timeout: float = 30.0, **wanted: Any) -> M:
        """The first of those messages, as soon as there is one."""
        found: list[M] = programs.until(
            lambda: self.all(kind, **wanted), timeout, f"a {kind.__name__} with {wanted}"
        )
        return found[0]

    def until_after(self, moment: float, kind: type[M], timeout: float = 30.0, **wanted: Any) -> None:
        """Until such a message has come since ``moment`` (of the monotonic clock)."""
        programs.until(
            lambda: any(at > moment for at in self.times(kind, **wanted)),
            timeout,
            f"a {kind.__name__} with {wanted} since then",
        )

    def until_heard(self, condition: Callable[[m.Message | None], bool], timeout: float = 30.0) -> float:
        """When the first message came of which that is true."""
        found: list[Heard] = programs.until(
            lambda: [heard for heard in list(self._heard) if condition(heard.message)], timeout, "a message"
        )
        return found[0].at

    def strike(self, action: Callable[[], None], kind: type[M], **wanted: Any) -> threading.Event:
        """Has ``action`` done the moment that such a message comes; the event is set when that is done.

        It holds up this client, so that it knows of nothing that comes later.
        """
        return self.strike_when(action, lambda heard: _is(heard, kind, wanted))

    def strike_when(self, action: Callable[[], None], condition: Callable[[Heard], bool]) -> threading.Event:
        done = threading.Event()
        self._traps.append((condition, action, done))
        return done

    def _take(self, event: mqtt.Event) -> None:
        match event:
            case mqtt.Connected():
                assert self._connection is not None
                self._connection.subscribe([("fl/#", 1)])
            case mqtt.Subscribed():
                self._ready.set()
            case mqtt.Received(topic=name, payload=payload, retain=retained):
                topic = t.parse("fl", name)
                if topic is None:
                    return
                try:
                    message = codec.decode(topic, payload) if payload else None
                except codec.DecodeError:
                    message = None
                self._hear(Heard(time.monotonic(), topic, message, retained))
            case _:
                pass

    def _hear(self, heard: Heard) -> None:
        self._heard.append(heard)
        for trap in list(self._traps):
            condition, action, done = trap
            if condition(heard):
                self._traps.remove(trap)
                action()
                done.set()

    def __enter__(self) -> Self:
        settings = mqtt.ConnectionSettings(
            self._broker.address, keepalive=30, retry_cap=0.2, max_queued_bytes=2**30
        )
        self._connection: mqtt.Connection | None = None
        held: list[mqtt.Event] = []
        self._connection = self._network.connect(
            settings, lambda event: self._take(event) if self._connection else held.append(event)
        )
        self._connection.wait_connected(10)
        for event in held:
            self._take(event)
        assert self._ready.wait(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._network.close(graceful=False, timeout=2.0)
        if kind is None:
            self._network.check()


def _is(heard: Heard, kind: type[m.Message], wanted: dict[str, Any]) -> bool:
    message = heard.message
    return isinstance(message, kind) and all(getattr(message, k) == v for k, v in wanted.items())


def workers(edge: programs.Program) -> list[int]:
    """The processes that train for an edge or a fleet."""
    return programs.descendants(edge.pid)


def freeze(*pids: int) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)


def thaw(*pids: int) -> None:
    for pid in pids:
        if programs.alive([pid]):
            os.kill(pid, signal.SIGCONT)


def kill(edge: programs.Program) -> None:
    """SIGKILL, and it is waited for. A worker that was frozen may notice that it is alone."""
    below = workers(edge)
    edge.send(signal.SIGKILL)
    edge.wait(10)
    thaw(*below)
    programs.until(lambda: not programs.alive(below), 10, "the workers of a killed edge end")


def trainings(*edges: programs.Program) -> dict[int, int]:
    """How often each round was trained for, by all of these processes together."""
    rounds = [int(n) for edge in edges for n in re.findall(r"round (\d+): trained in", edge.err)]
    return {number: rounds.count(number) for number in sorted(set(rounds))}


def model_sha256(directory: Path) -> str:
    return sha256(directory / "run" / "model.safetensors")


class Hold:
    """Edges whose workers stand still from the moment that round ``number`` opens, so that they train for ever.

    They have to fetch the model first, which leaves time to strike.
    """

    def __init__(self, watch: Watch, edges: Iterable[programs.Program], number: int) -> None:
        self._pids: list[int] = []
        watch.strike(
            lambda: self._pids.extend(pid for edge in edges for pid in workers(edge)),
            m.Selected,
            round=number - 1,
        )
        self._held = watch.strike(lambda: freeze(*self._pids), m.Selected, round=number)

    def wait(self) -> None:
        assert self._held.wait(40), "the round was not opened"

    def release(self) -> None:
        thaw(*self._pids)
