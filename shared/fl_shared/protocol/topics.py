"""Every topic of the protocol as a value. No other module spells a topic.

``build(prefix, topic)`` gives the text, ``parse(prefix, text)`` the value, or ``None`` for what is not ours. A
client id or a number that does not have our form is not ours either: nothing that parses can hold a wildcard,
a slash or a NUL.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

CLIENT: Final = r"[A-Za-z0-9_-]{1,64}"
_CLIENT_ID: Final = re.compile(CLIENT)
MAX_SLASHES: Final = 7
"""Hosted brokers allow no more in a topic (AWS IoT Core); ours have three, and the prefix its own."""
_OWN_SLASHES: Final = 3
MAX_ANSWER_SLASHES: Final = 32
MAX_ANSWER_BYTES: Final = 1024
"""Of a response topic; brokers end the connection of who publishes to one that is too long or too deep."""


@dataclass(frozen=True, slots=True)
class AggregatorTopic:
    """``fl/aggregator``: birth and will of the aggregator."""


@dataclass(frozen=True, slots=True)
class StatusTopic:
    """``fl/status``"""


OPERATOR: Final = "operator"
"""The account that may write to ``fl/control``, where there are accounts."""


@dataclass(frozen=True, slots=True)
class HistoryTopic:
    """``fl/history``"""


@dataclass(frozen=True, slots=True)
class ControlTopic:
    """``fl/control``: what the operator has to say to the run."""


@dataclass(frozen=True, slots=True)
class RegisterTopic:
    """``fl/register/<client>``, or the bare ``fl/register``."""

    client: str | None = None


@dataclass(frozen=True, slots=True)
class PresenceTopic:
    """``fl/clients/<client>/presence``"""

    client: str


@dataclass(frozen=True, slots=True)
class WorkTopic:
    """``fl/clients/<client>/work``: ``selected`` for one edge of a large cohort."""

    client: str


@dataclass(frozen=True, slots=True)
class RepliesTopic:
    """``fl/replies/<client>``"""

    client: str


@dataclass(frozen=True, slots=True)
class SelectedTopic:
    """``fl/round/<n>/selected``"""

    round: int


@dataclass(frozen=True, slots=True)
class MissingTopic:
    """``fl/round/<n>/missing``"""

    round: int


@dataclass(frozen=True, slots=True)
class EdgesTopic:
    """``fl/round/<n>/edges``"""

    round: int


@dataclass(frozen=True, slots=True)
class ResultTopic:
    """``fl/round/<n>/result``"""

    round: int


@dataclass(frozen=True, slots=True)
class ModelTopic:
    """``fl/model``: which version is the newest."""


@dataclass(frozen=True, slots=True)
class ManifestTopic:
    """``fl/model/<digest12>/manifest``"""

    digest12: str


@dataclass(frozen=True, slots=True)
class ChunkTopic:
    """``fl/model/<digest12>/<i>``"""

    digest12: str
    index: int


@dataclass(frozen=True, slots=True)
class UpdatesTopic:
    """``fl/updates/<client>``, or the bare ``fl/updates``."""

    client: str | None = None


@dataclass(frozen=True, slots=True)
class EvaluationsTopic:
    """``fl/evaluations/<client>``"""

    client: str


@dataclass(frozen=True, slots=True)
class PredictTopic:
    """``fl/predict``, or ``fl/predict/<client>`` to ask one edge."""

    client: str | None = None


@dataclass(frozen=True, slots=True)
class PredictionsTopic:
    """``fl/predictions``, or ``fl/predictions/<asker>``."""

    asker: str | None = None


Topic = (
    AggregatorTopic
    | StatusTopic
    | HistoryTopic
    | ControlTopic
    | RegisterTopic
    | PresenceTopic
    | WorkTopic
    | RepliesTopic
    | SelectedTopic
    | MissingTopic
    | EdgesTopic
    | ResultTopic
    | ModelTopic
    | ManifestTopic
    | ChunkTopic
    | UpdatesTopic
    | EvaluationsTopic
    | PredictTopic
    | PredictionsTopic
)

ALL_REGISTRATIONS: Final = "register/#"
ALL_PRESENCE: Final = "clients/+/presence"
ALL_UPDATES: Final = "updates/#"
ALL_EVALUATIONS: Final = "evaluations/+"
ALL_SELECTED: Final = "round/+/selected"
ALL_RESULTS: Final = "round/+/result"
ALL_EDGES: Final = "round/+/edges"
ALL_ROUNDS: Final = "round/#"
ALL_MODELS: Final = "model/#"
ALL_WORK: Final = "clients/+/work"
ALL_TRIALS: Final = "doctor/#"
"""Where ``fl-aggregator doctor`` tries what a broker can; no message of the protocol is ever there."""


def valid_client(text: str) -> bool:
    """Whether ``text`` can name a client: 1 to 64 of ``A-Z a-z 0-9 _ -``."""
    return _CLIENT_ID.fullmatch(text) is not None


def valid_prefix(text: str) -> bool:
    """Whether ``text`` can stand before our topics: no wildcard, ``$`` or empty level, and few enough slashes."""
    levels = text.split("/")
    return (
        len(text.encode()) <= 256
        and len(levels) - 1 + _OWN_SLASHES <= MAX_SLASHES
        and all(re.fullmatch(r"[^+#$\s\x00-\x1f]+", level) for level in levels)
    )


def build(prefix: str, topic: Topic) -> str:
    """The topic's text under ``prefix``."""
    return f"{prefix}/{_below_prefix(topic)}"


def filter_of(prefix: str, pattern: str) -> str:
    """The subscription filter for one of the ``ALL_…`` patterns."""
    return f"{prefix}/{pattern}"


def trial(prefix: str, doctor: str, leaf: str) -> str:
    """A topic of ``doctor`` (a random name) alone, or a filter of them: ``leaf`` may be ``+`` or ``#``."""
    return f"{prefix}/doctor/{doctor}/{leaf}"


PREDICTORS: Final = "predictors"
"""The share group of predictors that have no kit."""
GROUP: Final = "[A-Za-z0-9_-]{1,64}"
"""What a share group may be called here."""


def shared_predict_filter(prefix: str, group: str = PREDICTORS) -> str:
    """One of all predictors of ``group`` gets a request: a shared subscription (MQTT 5, §4.8.2).

    Brokers deal requests to whoever is in the group, also to those who may not read them: a name that nobody else
    knows keeps them out.
    """
    return f"$share/{group}/{build(prefix, PredictTopic())}"


def _below_prefix(topic: Topic) -> str:
    match topic:
        case AggregatorTopic():
            return "aggregator"
        case StatusTopic():
            return "status"
        case HistoryTopic():
            return "history"
        case ControlTopic():
            return "control"
        case RegisterTopic(client):
            return "register" if client is None else f"register/{client}"
        case PresenceTopic(client):
            return f"clients/{client}/presence"
        case WorkTopic(client):
            return f"clients/{client}/work"
        case RepliesTopic(client):
            return f"replies/{client}"
        case SelectedTopic(number):
            return f"round/{number}/selected"
        case MissingTopic(number):
            return f"round/{number}/missing"
        case EdgesTopic(number):
            return f"round/{number}/edges"
        case ResultTopic(number):
            return f"round/{number}/result"
        case ModelTopic():
            return "model"
        case ManifestTopic(digest12):
            return f"model/{digest12}/manifest"
        case ChunkTopic(digest12, index):
            return f"model/{digest12}/{index}"
        case UpdatesTopic(client):
            return "updates" if client is None else f"updates/{client}"
        case EvaluationsTopic(client):
            return f"evaluations/{client}"
        case PredictTopic(client):
            return "predict" if client is None else f"predict/{client}"
        case PredictionsTopic(asker):
            return "predictions" if asker is None else f"predictions/{asker}"


def parse(prefix: str, text: str) -> Topic | None:
    """The topic that ``text`` spells under ``prefix``, or ``None``."""
    if not text.startswith(prefix + "/"):
        return None
    match text[len(prefix) + 1 :].split("/"):
        case ["aggregator"]:
            return AggregatorTopic()
        case ["status"]:
            return StatusTopic()
        case ["history"]:
            return HistoryTopic()
        case ["control"]:
            return ControlTopic()
        case ["model"]:
            return ModelTopic()
        case ["register"]:
            return RegisterTopic()
        case ["updates"]:
            return UpdatesTopic()
        case ["predict"]:
            return PredictTopic()
        case ["predictions"]:
            return PredictionsTopic()
        case ["predictions", asker] if valid_client(asker):
            return PredictionsTopic(asker)
        case ["register", client] if valid_client(client):
            return RegisterTopic(client)
        case ["updates", client] if valid_client(client):
            return UpdatesTopic(client)
        case ["evaluations", client] if valid_client(client):
            return EvaluationsTopic(client)
        case ["predict", client] if valid_client(client):
            return PredictTopic(client)
        case ["replies", client] if valid_client(client):
            return RepliesTopic(client)
        case ["clients", client, "presence"] if valid_client(client):
            return PresenceTopic(client)
        case ["clients", client, "work"] if valid_client(client):
            return WorkTopic(client)
        case ["round", number, leaf] if (n := _number(number)) is not None:
            return _round_topic(n, leaf)
        case ["model", digest12, leaf] if re.fullmatch("[0-9a-f]{12}", digest12):
            if leaf == "manifest":
                return ManifestTopic(digest12)
            index = _number(leaf)
            return None if index is None else ChunkTopic(digest12, index)
        case _:
            return None


def _round_topic(number: int, leaf: str) -> Topic | None:
    match leaf:
        case "selected":
            return SelectedTopic(number)
        case "missing":
            return MissingTopic(number)
        case "edges":
            return EdgesTopic(number)
        case "result":
            return ResultTopic(number)
        case _:
            return None


def _number(text: str) -> int | None:
    return int(text) if re.fullmatch("0|[1-9][0-9]{0,15}", text) else None


def answerable(prefix: str, response_topic: str) -> bool:
    """Whether an edge may write an answer to ``response_topic``.

    Under our prefix only ``predictions/…``: otherwise an asker could make an edge write its own presence. No
    wildcards, no ``$`` topics, no NUL.
    """
    if not response_topic or response_topic.startswith("$") or not response_topic.isprintable():
        return False
    if any(c in response_topic for c in "+#") or response_topic.count("/") > MAX_ANSWER_SLASHES:
        return False
    if len(response_topic.encode()) > MAX_ANSWER_BYTES:
        return False
    if response_topic == prefix or response_topic.startswith(prefix + "/"):
        return response_topic[len(prefix) + 1 :].split("/")[0] == "predictions"
    return True
