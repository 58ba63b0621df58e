"""Asks the federation for a prediction, as any MQTT client may: no account of the aggregator's, no shared state."""

from __future__ import annotations

import queue
import secrets
import time
from dataclasses import dataclass
from typing import Final

from fl_shared.cli.broker_access import BrokerReach
from fl_shared.errors import RunFailed, UserError
from fl_shared.mqtt import events as mqtt
from fl_shared.mqtt.connection import Connection
from fl_shared.mqtt.network import Network
from fl_shared.protocol import codec
from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from fl_shared.protocol.limits import MAX_REQUEST

CONNECT_TIMEOUT: Final = 10.0
ASK_AGAIN_AFTER: Final = 5.0
"""A request may be lost with the edge that took it."""
EXPIRY: Final = 30


@dataclass(frozen=True, slots=True)
class Request:
    """What to ask about (a picture file's bytes, or JSON), under which prefix, of whom (null: of anyone)."""

    payload: bytes
    prefix: str
    client: str | None = None


def ask(broker: BrokerReach, request: Request, timeout: float) -> m.Prediction:
    """The answer, which may be an ``error``. Raises ``RunFailed`` if none comes within ``timeout`` seconds."""
    if not request.payload or len(request.payload) > MAX_REQUEST:
        raise UserError(f"the request has {len(request.payload)} bytes, expected 1 to {MAX_REQUEST}")
    inbox: queue.SimpleQueue[mqtt.Event] = queue.SimpleQueue()
    with Network("fl-predict") as network:
        connection = network.connect(broker.connection(), inbox.put)
        connection.wait_connected(min(timeout, CONNECT_TIMEOUT), once=True)
        return _exchange(connection, inbox, request, timeout)


def _exchange(
    connection: Connection, inbox: queue.SimpleQueue[mqtt.Event], request: Request, timeout: float
) -> m.Prediction:
    answers = t.PredictionsTopic(secrets.token_hex(8))
    correlation = secrets.token_bytes(8)
    deadline = time.monotonic() + timeout
    ask_at = float("inf")
    while (now := time.monotonic()) < deadline:
        if now >= ask_at:
            connection.publish(
                t.build(request.prefix, t.PredictTopic(request.client)),
                request.payload,
                response_topic=t.build(request.prefix, answers),
                correlation=correlation,
                expiry=EXPIRY,
            )
            ask_at = now + ASK_AGAIN_AFTER
        try:
            event = inbox.get(timeout=max(0.01, min(deadline, ask_at) - now))
        except queue.Empty:
            continue
        match event:
            case mqtt.Connected():
                connection.subscribe([(t.build(request.prefix, answers), 1)])
            case mqtt.Subscribed(refused=()):
                ask_at = 0.0
            case mqtt.Subscribed(refused=refused):
                raise UserError(
                    f"the broker does not allow this account to read {', '.join(refused)}: check its rights"
                )
            case mqtt.Refused(reason=reason):
                raise UserError(reason)
            case mqtt.Received(correlation=echoed) if echoed == correlation:
                try:
                    answer = codec.decode(answers, event.payload)
                except codec.DecodeError as error:
                    raise RunFailed(f"received an answer that cannot be decoded: {error}") from None
                assert isinstance(answer, m.Prediction)
                return answer
            case _:
                pass
    who = "an edge with the role predict" if request.client is None else f"edge {request.client!r}"
    raise RunFailed(
        f"no answer within {timeout:.0f} s: is {who} online under the prefix {request.prefix!r}, with a model?"
    )


def one_line(prediction: m.Prediction) -> str:
    """The answer for a person."""
    if prediction.error is not None:
        return f"edge {prediction.client} could not answer: {prediction.error}"
    probabilities = prediction.probabilities or {}
    sure = probabilities.get(prediction.label or "", 0.0)
    return (
        f"prediction: {prediction.label or ''} ({sure:.1%}), by edge {prediction.client} "
        f"with version {prediction.version} of the model"
    )
