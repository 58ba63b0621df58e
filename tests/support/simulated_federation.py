"""A federation as an observer sees it: a test publishes what it wants, valid or not."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

from tests.support.broker import Mosquitto
from tests.support.client import Client
from tests.support.received import Received

RUN = "3f9a1c0b7e22"


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def edge(state: str, **more: Any) -> dict[str, Any]:
    unknown = dict.fromkeys(("reason", "examples", "seconds", "bytes", "primary", "loss"))
    return {"state": state, **unknown, **more}


ACCURACY = {"name": "accuracy", "higher_is_better": True, "unit": "%", "minimum": 0, "maximum": 1}


class SimulatedFederation:
    """A federation that publishes under ``prefix`` during its ``with`` block."""

    def __init__(self, broker: Mosquitto, prefix: str) -> None:
        self.prefix = prefix
        self._seq = 0
        self._client = Client(broker.endpoint)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def publish(
        self, topic: str, payload: bytes | dict[str, Any], *, retain: bool = True, **more: Any
    ) -> None:
        content = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        self._client.send(f"{self.prefix}/{topic}", content, retain=retain, **more)

    def scope(self, kind: str, **more: Any) -> dict[str, Any]:
        self._seq += 1
        return {"v": 2, "kind": kind, "run": RUN, "incarnation": 1, "seq": self._seq, **more}

    def birth(self, state: str = "online") -> None:
        self.publish(
            "aggregator",
            {"v": 2, "kind": "aggregator", "state": state, "session": "a1", "run": RUN, "incarnation": 1},
        )

    def status(self, *, retain: bool = True, **more: Any) -> None:
        usual = {
            "written": now(), "task": "digits", "phase": "collecting", "round": 3, "version": 2, "rounds": 10,
            "have": 1, "need": 2, "present": 3, "seconds_left": 60.0, "missing": [],
            "metrics": {"accuracy": 0.75, "loss": 0.5}, "primary": ACCURACY, "split": "test",
            "paused": None, "held": False,
        }  # fmt: skip
        self.publish("status", self.scope("status", **(usual | more)), retain=retain)

    def history(
        self,
        accuracy: list[float | None],
        *,
        similarity: dict[str, Any] | None = None,
        **more: list[float | None],
    ) -> None:
        """Publishes a history with one round for each entry; None is an abandoned round. ``more``: columns."""
        versions: list[int | None] = []
        for value in accuracy:
            versions.append(None if value is None else 1 + sum(one is not None for one in versions))
        rounds = len(accuracy)
        columns = {
            "round": list(range(1, rounds + 1)), "version": versions,
            "metrics": {
                "accuracy": accuracy, "loss": [None if one is None else 1 - one for one in accuracy],
                "train_loss": [None] * rounds,
            },
            "split": [None if one is None else "test" for one in accuracy],
            "seconds": [2.0] * rounds, "participants": [2] * rounds, "cohort": [2] * rounds,
            "bytes_up": [1000] * rounds, "bytes_down": [500] * rounds, **more,
        }  # fmt: skip
        self.publish(
            "history",
            self.scope(
                "history",
                task="digits",
                rounds=10,
                started=now(),
                metrics=[ACCURACY],
                columns=columns,
                similarity=similarity,
            ),
        )

    def edges(
        self, edges: dict[str, dict[str, Any]], number: int = 3, phase: str = "collecting", **more: Any
    ) -> None:
        self.publish(
            f"round/{number}/edges", self.scope("edges", round=number, phase=phase, edges=edges, **more)
        )

    def presence(self, client: str, state: str = "online", session: str = "s1") -> None:
        self.publish(
            f"clients/{client}/presence",
            {"v": 2, "kind": "presence", "client": client, "state": state, "session": session},
        )

    def result(self, number: int, missing: dict[str, str] | None = None, **more: Any) -> None:
        usual = {
            "round": number, "outcome": "committed", "reason": None, "version": number, "digest": "0" * 64,
            "participants": ["1", "2"], "missing": missing or {}, "examples": 9, "metrics": {"accuracy": 0.5},
            "primary": ACCURACY, "split": "test",
            "bytes_up": 1, "bytes_down": 1, "seconds": 2.5,
        }  # fmt: skip
        self.publish(f"round/{number}/result", self.scope("result", **(usual | more)))

    def usual(self) -> None:
        """Publishes a run in its third round, with three edges."""
        self.birth()
        self.status()
        self.history([0.25, 0.75])
        self.edges({"1": edge("in", primary=0.75), "2": edge("training"), "3": edge("present")})

    def requests(self) -> None:
        """Subscribes to requests for predictions; from now on `request` returns them."""
        assert self._client.subscribe(f"{self.prefix}/predict") < 0x80

    def request(self, *, empty: bool = False) -> Received:
        """Returns the next request; one that is empty asks for an example."""
        while bool((received := self._client.take()).payload) == empty:
            pass
        return received

    def answer(self, request: Received, **more: Any) -> None:
        usual = {
            "client": "7", "sha256": "ab" * 32, "version": 2, "label": "7", "probabilities": {"1": 0.25, "7": 0.75},
            "error": None,
        }  # fmt: skip
        assert request.response_topic is not None
        topic = request.response_topic.removeprefix(f"{self.prefix}/")
        self.publish(
            topic, self.scope("prediction", **(usual | more)), retain=False, correlation=request.correlation
        )
