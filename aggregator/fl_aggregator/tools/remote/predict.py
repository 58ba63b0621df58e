"""Asks the edges for a prediction, as any MQTT client may: without the aggregator's account or state."""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from dataclasses import dataclass
from typing import Final

from fl_aggregator.tools.remote.remote_run import RemoteRun
from fl_shared.cli.broker_access import BrokerAccess
from fl_shared.errors import RunFailed, UserError
from fl_shared.mqtt.events import CONNECT_TIMEOUT, Received
from fl_shared.protocol import codec
from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from fl_shared.protocol.limits import MAX_REQUEST
from fl_shared.system.text import one_line, version_text

RETRY_INTERVAL: Final = 5.0
"""Seconds until an unanswered request is repeated: it may be lost with the edge that received it."""
REQUEST_EXPIRY: Final = 30
NOT_TRAINED: Final = ", which this run has not trained yet"
"""What is said of version 0: those are the weights with which a run begins."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request for a prediction. ``payload``: the bytes of a picture file, or JSON.

    ``client``: the edge to ask, null for any edge.
    """

    payload: bytes
    prefix: str
    client: str | None = None


def request_prediction(broker: BrokerAccess, request: Request, timeout: float) -> m.Prediction:
    """Sends the request until an answer arrives, which may contain an ``error``. Further answers are ignored.

    A bridge of MQTT 3.1.1 drops the Response Topic, so an answer to this very request on ``fl/predictions`` counts,
    too.

    Raises ``RunFailed`` if none arrives within ``timeout`` seconds, and ``UserError`` for a payload that is
    empty or too large.
    """
    if not request.payload or len(request.payload) > MAX_REQUEST:
        raise UserError(f"the request has {len(request.payload)} bytes, expected 1 to {MAX_REQUEST}")
    answers = _answer_topic(broker)
    reply_to = t.build(request.prefix, answers)
    correlation = secrets.token_bytes(8)
    filters = [(t.build(request.prefix, topic), 1) for topic in (answers, t.PredictionsTopic())]
    deadline = time.monotonic() + timeout
    ask_at = 0.0
    with RemoteRun(broker, filters, timeout=min(timeout, CONNECT_TIMEOUT)) as run:
        while (now := time.monotonic()) < deadline:
            if not run.subscribed:
                ask_at = 0.0
            elif now >= ask_at:
                run.publish(
                    t.build(request.prefix, t.PredictTopic(request.client)),
                    request.payload,
                    response_topic=reply_to,
                    correlation_data=correlation,
                    expiry=REQUEST_EXPIRY,
                )
                ask_at = now + RETRY_INTERVAL
            received = run.receive((min(deadline, ask_at) if run.subscribed else deadline) - now)
            if received is None:
                continue
            if received.correlation_data == correlation:
                return _answer(answers, received)
            if received.topic != reply_to and (answer := _public_answer(received, request)) is not None:
                return answer
    if request.client is None and not run.shared_subscriptions:
        raise RunFailed(
            f"no answer within {timeout:.0f} s: {broker.address} announces that it has no shared subscriptions, which "
            "deliver a request to any one edge: name the edge (--client ID)"
        )
    who = "an edge with the role predict" if request.client is None else f"edge {request.client!r}"
    raise RunFailed(
        f"no answer within {timeout:.0f} s: is {who} online under the prefix {request.prefix!r}, with a model, and may "
        f"this account write to {t.build(request.prefix, t.PredictTopic(request.client))} and read {reply_to}?"
    )


def _answer_topic(broker: BrokerAccess) -> t.PredictionsTopic:
    """The topic of our account, since it may read no other (protocol, 7.2); without one, a random topic."""
    account = broker.kit.name if broker.kit is not None else broker.address.user
    return t.PredictionsTopic(account if account and t.valid_client(account) else secrets.token_hex(8))


def _answer(topic: t.PredictionsTopic, received: Received) -> m.Prediction:
    try:
        answer = codec.decode(topic, received.payload)
    except codec.DecodeError as error:
        raise RunFailed(f"received an answer that cannot be decoded: {error}") from None
    assert isinstance(answer, m.Prediction)
    return answer


def _public_answer(received: Received, request: Request) -> m.Prediction | None:
    """The answer to this request on ``fl/predictions``, where those of others come, too; null if it is another."""
    try:
        answer = codec.decode(t.PredictionsTopic(), received.payload)
    except codec.DecodeError:
        return None
    assert isinstance(answer, m.Prediction)
    return answer if answer.sha256 == hashlib.sha256(request.payload).hexdigest() else None


def prediction_line(prediction: m.Prediction) -> str:
    """An answer as one line for a person."""
    if prediction.error is not None:
        return f"edge {prediction.client} could not answer: {prediction.error}"
    served = version_text(prediction.first_version, prediction.version)
    share = "a part" if prediction.personal_part else "all"
    of_its_own = f", {share} of it its own" if prediction.personal else ""
    untrained = NOT_TRAINED if prediction.version == 0 else ""
    source = f"by edge {prediction.client} with {served} of the model{untrained}{of_its_own}"
    return f"prediction: {_output_text(prediction)}, {source}"


def _output_text(prediction: m.Prediction) -> str:
    output = dict(prediction.output or {})
    parts = []
    if prediction.label is not None:
        probability = (prediction.probabilities or {}).get(prediction.label)
        parts.append(prediction.label + ("" if probability is None else f" ({probability:.1%})"))
    unit = f" {output['unit']}" if output.get("unit") else ""
    match output:
        case {"value": int() | float() as value}:
            parts.append(f"{value:.6g}{unit}")
            del output["value"]
        case {"values": [*values]} if all(isinstance(value, int | float) for value in values):
            parts.append(", ".join(f"{value:.6g}" for value in values) + unit)
            del output["values"]
        case _:
            unit = ""
    if unit:
        del output["unit"]
    parts += [
        f"{name} {json.dumps(value, ensure_ascii=False)}" for name, value in output.items() if value != ""
    ]
    return one_line("; ".join(parts))
