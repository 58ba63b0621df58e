"""Every topic of the protocol as a value. No other module contains topics as text.

``build(prefix, topic)`` gives the text. `Parser.parse` gives the value, or ``None`` for a topic that is not
ours, also because its client id or number is not in our form. So no parsed field can contain a wildcard, a
slash or a NUL.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, Final

MAX_SLASHES: Final = 7
"""The most slashes in a topic that hosted brokers allow (AWS IoT Core): our own three and the prefix's."""
_OWN_SLASHES: Final = 3
MAX_RESPONSE_SLASHES: Final = 32
MAX_RESPONSE_TOPIC_BYTES: Final = 1024
"""Bytes of the longest response topic; a broker disconnects a client that publishes to a longer one."""

MAX_KEPT_TOPICS: Final = 256
"""Topics that are kept, as texts and parsed. Those of a round never come again, so more would only take memory."""
MAX_KEPT_CHARACTERS: Final = 256
"""Characters of a topic that is kept parsed: anyone can send a thousand topics of 64 kB."""

CLIENT_PATTERN: Final = "[A-Za-z0-9_-]{1,64}"
NUMBER: Final = "0|[1-9][0-9]{0,15}"
FIELDS: Final = {
    "client": CLIENT_PATTERN,
    "round": NUMBER,
    "digest12": "[0-9a-f]{12}",
    "index": NUMBER,
    "asker": CLIENT_PATTERN,
    "broker": CLIENT_PATTERN,
}
"""The variable levels of topics, and their forms (regular expressions)."""


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic. ``PATTERN`` has the levels below the prefix, with the fields in braces.

    If the last field is ``None``, its level is left out.
    """

    PATTERN: ClassVar[str]


@dataclass(frozen=True, slots=True)
class AggregatorTopic(Topic):
    """``fl/aggregator``: birth and will of the aggregator."""

    PATTERN: ClassVar[str] = "aggregator"


@dataclass(frozen=True, slots=True)
class StatusTopic(Topic):
    """``fl/status``: the state of the run."""

    PATTERN: ClassVar[str] = "status"


OPERATOR: Final = "operator"
"""The account that may write to ``fl/control``, if the broker has accounts."""


@dataclass(frozen=True, slots=True)
class HistoryTopic(Topic):
    """``fl/history``: the closed rounds, for plots."""

    PATTERN: ClassVar[str] = "history"


@dataclass(frozen=True, slots=True)
class ControlTopic(Topic):
    """``fl/control``: the operator's commands."""

    PATTERN: ClassVar[str] = "control"


@dataclass(frozen=True, slots=True)
class AnswersTopic(Topic):
    """``fl/answers/<asker>``: the aggregator's answers to one who has sent a command."""

    PATTERN: ClassVar[str] = "answers/{asker}"
    asker: str


@dataclass(frozen=True, slots=True)
class RegisterTopic(Topic):
    """``fl/register/<client>``: registrations; without accounts also ``fl/register``."""

    PATTERN: ClassVar[str] = "register/{client}"
    client: str | None = None


@dataclass(frozen=True, slots=True)
class PresenceTopic(Topic):
    """``fl/clients/<client>/presence``: birth and will of an edge."""

    PATTERN: ClassVar[str] = "clients/{client}/presence"
    client: str


@dataclass(frozen=True, slots=True)
class WorkTopic(Topic):
    """``fl/clients/<client>/work``: ``selected`` for one edge of a large cohort."""

    PATTERN: ClassVar[str] = "clients/{client}/work"
    client: str


@dataclass(frozen=True, slots=True)
class UnmaskTopic(Topic):
    """``fl/clients/<client>/unmask``: what a member of a masked round is asked for after it has closed."""

    PATTERN: ClassVar[str] = "clients/{client}/unmask"
    client: str


@dataclass(frozen=True, slots=True)
class LogRequestTopic(Topic):
    """``fl/clients/<client>/log-request``: the operator asks for an edge's log."""

    PATTERN: ClassVar[str] = "clients/{client}/log-request"
    client: str


@dataclass(frozen=True, slots=True)
class LogTopic(Topic):
    """``fl/clients/<client>/log``: lines of an edge's log, while the operator asks for them."""

    PATTERN: ClassVar[str] = "clients/{client}/log"
    client: str


@dataclass(frozen=True, slots=True)
class RepliesTopic(Topic):
    """``fl/replies/<client>``: answers to one edge."""

    PATTERN: ClassVar[str] = "replies/{client}"
    client: str


@dataclass(frozen=True, slots=True)
class SelectedTopic(Topic):
    """``fl/round/<n>/selected``: the opening of a round."""

    PATTERN: ClassVar[str] = "round/{round}/selected"
    round: int


@dataclass(frozen=True, slots=True)
class MissingTopic(Topic):
    """``fl/round/<n>/missing``: the clients that an open round waits for."""

    PATTERN: ClassVar[str] = "round/{round}/missing"
    round: int


@dataclass(frozen=True, slots=True)
class EdgesTopic(Topic):
    """``fl/round/<n>/edges``: the state of every edge."""

    PATTERN: ClassVar[str] = "round/{round}/edges"
    round: int


@dataclass(frozen=True, slots=True)
class ResultTopic(Topic):
    """``fl/round/<n>/result``: the result of a round."""

    PATTERN: ClassVar[str] = "round/{round}/result"
    round: int


@dataclass(frozen=True, slots=True)
class ModelTopic(Topic):
    """``fl/model``: which version is the newest."""

    PATTERN: ClassVar[str] = "model"


@dataclass(frozen=True, slots=True)
class ManifestTopic(Topic):
    """``fl/model/<digest12>/manifest``: how a model is cut into chunks."""

    PATTERN: ClassVar[str] = "model/{digest12}/manifest"
    digest12: str


@dataclass(frozen=True, slots=True)
class ChunkTopic(Topic):
    """``fl/model/<digest12>/<i>``: one chunk of a model."""

    PATTERN: ClassVar[str] = "model/{digest12}/{index}"
    digest12: str
    index: int


@dataclass(frozen=True, slots=True)
class UpdatesTopic(Topic):
    """``fl/updates/<client>``: updates; without accounts also ``fl/updates``."""

    PATTERN: ClassVar[str] = "updates/{client}"
    client: str | None = None


@dataclass(frozen=True, slots=True)
class EvaluationsTopic(Topic):
    """``fl/evaluations/<client>``: results of evaluations."""

    PATTERN: ClassVar[str] = "evaluations/{client}"
    client: str


@dataclass(frozen=True, slots=True)
class PredictTopic(Topic):
    """``fl/predict``: prediction requests; ``fl/predict/<client>`` asks one edge."""

    PATTERN: ClassVar[str] = "predict/{client}"
    client: str | None = None


@dataclass(frozen=True, slots=True)
class PredictionsTopic(Topic):
    """``fl/predictions``: answers to requests without a Response Topic; also ``fl/predictions/<asker>``."""

    PATTERN: ClassVar[str] = "predictions/{asker}"
    asker: str | None = None


@dataclass(frozen=True, slots=True)
class BrokerTopic(Topic):
    """``fl/brokers/<broker>``: whether the bridge of a broker to the aggregator's is connected."""

    PATTERN: ClassVar[str] = "brokers/{broker}"
    broker: str


def valid_client(text: str) -> bool:
    """Whether ``text`` is a valid client id: 1 to 64 of ``A-Z a-z 0-9 _ -``."""
    return re.fullmatch(CLIENT_PATTERN, text) is not None


def valid_prefix(text: str) -> bool:
    """Whether ``text`` is a valid prefix: no wildcard, ``$`` or empty level, and few enough slashes."""
    levels = text.split("/")
    return (
        len(text.encode()) <= 256
        and len(levels) - 1 + _OWN_SLASHES <= MAX_SLASHES
        and all(re.fullmatch(r"[^+#$\s\x00-\x1f]+", level) for level in levels)
    )


@lru_cache(MAX_KEPT_TOPICS)
def build(prefix: str, topic: Topic) -> str:
    """The topic's text under ``prefix``."""
    values = {name: getattr(topic, name) for name in fields_of(type(topic))}
    pattern = topic.PATTERN.rpartition("/")[0] if None in values.values() else topic.PATTERN
    return f"{prefix}/{pattern.format_map(values)}"


def filter_of(prefix: str, kind: type[Topic], client: str = "+") -> str:
    """The subscription filter for all topics of this kind, or for those of one client."""
    return f"{prefix}/{kind.PATTERN.format_map(dict.fromkeys(FIELDS, '+') | {'client': client})}"


def trials(prefix: str) -> str:
    """The filter of the topics of ``fl-aggregator doctor``'s tests, where the protocol has no messages."""
    return f"{prefix}/doctor/#"


def doctor_topic(prefix: str, doctor: str, last_level: str) -> str:
    """A topic of one ``doctor`` (a random name), or a filter if ``last_level`` is ``+`` or ``#``."""
    return f"{prefix}/doctor/{doctor}/{last_level}"


DEFAULT_PREDICT_GROUP: Final = "predictors"
"""The share group of predictors that have no kit."""
GROUP_PATTERN: Final = "[A-Za-z0-9_-]{1,64}"
"""The form of a share group's name (a regular expression)."""


def shared_predict_filter(prefix: str, group: str = DEFAULT_PREDICT_GROUP) -> str:
    """The filter with which one of all predictors of ``group`` gets each request.

    It is a shared subscription (MQTT 5, §4.8.2). Brokers also choose members of the group that may not read
    the requests: a group name that only predictors know keeps those clients out.
    """
    return f"$share/{group}/{build(prefix, PredictTopic())}"


def fields_of(kind: type[Topic]) -> tuple[str, ...]:
    """The names of the variable levels of a kind of topic."""
    return tuple(field.name for field in dataclasses.fields(kind))


def is_optional(kind: type[Topic]) -> bool:
    """Whether the last level of a kind of topic may be left out."""
    return any(field.default is None for field in dataclasses.fields(kind))


class Parser:
    """Parses the topics of ``kinds``."""

    def __init__(self, kinds: Iterable[type[Topic]]) -> None:
        self._by_first_level: dict[str, list[tuple[re.Pattern[str], type[Topic]]]] = {}
        for kind in kinds:
            patterns = self._by_first_level.setdefault(first_level(kind), [])
            patterns.append((re.compile(_expression(kind)), kind))
        self._kept = lru_cache(MAX_KEPT_TOPICS)(self._parse)

    def parse(self, prefix: str, text: str) -> Topic | None:
        """The topic in ``text``, which must begin with ``prefix``, or ``None`` if it is not ours."""
        return self._kept(prefix, text) if len(text) <= MAX_KEPT_CHARACTERS else self._parse(prefix, text)

    def _parse(self, prefix: str, text: str) -> Topic | None:
        if not text.startswith(prefix + "/"):
            return None
        below = text[len(prefix) + 1 :]
        for pattern, kind in self._by_first_level.get(below.partition("/")[0], ()):
            if (found := pattern.fullmatch(below)) is not None:
                return kind(**{name: _value(name, given) for name, given in found.groupdict().items()})
        return None


def first_level(kind: type[Topic]) -> str:
    """The first level of a kind of topic, below the prefix."""
    return kind.PATTERN.partition("/")[0]


def _expression(kind: type[Topic]) -> str:
    levels, _, last = kind.PATTERN.rpartition("/")
    pattern = f"{levels}(?:/{last})?" if is_optional(kind) else kind.PATTERN
    return re.sub(r"\{(\w+)\}", lambda found: f"(?P<{found[1]}>{FIELDS[found[1]]})", pattern)


def _value(name: str, given: str | None) -> Any:
    return given if given is None or FIELDS[name] != NUMBER else int(given)


def is_response_topic_allowed(prefix: str, response_topic: str) -> bool:
    """Whether an edge may publish an answer to ``response_topic``.

    Under our prefix, only ``predictions/…`` is allowed: otherwise an asker could make an edge overwrite its
    own presence. Wildcards, ``$`` topics and NUL are not allowed.
    """
    if not response_topic or response_topic.startswith("$") or not response_topic.isprintable():
        return False
    if any(c in response_topic for c in "+#") or response_topic.count("/") > MAX_RESPONSE_SLASHES:
        return False
    if len(response_topic.encode()) > MAX_RESPONSE_TOPIC_BYTES:
        return False
    if response_topic == prefix or response_topic.startswith(prefix + "/"):
        return response_topic[len(prefix) + 1 :].split("/")[0] == "predictions"
    return True
