"""The table of channels: for each topic, which messages are sent there, by whom, to whom, and how.

Everything that depends on the topic or the kind of a message comes from its row: the encoding, the largest size, who
subscribes, the rights of accounts, the rate limit, whether it is signed or sealed, and what the documents say.
Code that needs the table takes a `Channels`. `CHANNELS` is the protocol's, and is checked when this module is imported.

A new message takes a model in `kinds`, its name in `messages`, an entry in a row here (for a new topic also a type in
`topics`), and a ``case`` in ``translate`` of the program that receives it. The tests name each document that lacks it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import KW_ONLY, dataclass
from typing import Final, Literal

from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from fl_shared.protocol.limits import MAX_JSON, MAX_NAMES, MAX_REQUEST

Side = Literal["aggregator", "edge", "operator", "asker", "watcher", "bridge"]
Format = Literal["json", "msgpack", "picture", "digit"]
"""``picture``: an image file, or JSON with ``pixels`` (protocol, 7.1). ``digit``: 1 or 0, as brokers write it (4.12).
Neither is a message with a kind."""
WITHOUT_KIND: Final = ("picture", "digit")
Limit = Literal["registration", "presence", "other"]
"""Which rate limit of its client a message counts towards (protocol, 8.8)."""

EVERY_ROLE: Final[tuple[m.ClientRole, ...]] = ("train", "predict", "evaluate")


@dataclass(frozen=True, slots=True)
class Channel:
    """A row of the table.

    Each kind of message is in ``kinds`` of one row; other rows on which it is sent, too, have it in ``repeats``.
    """

    topic: type[t.Topic]
    kinds: tuple[type[m.Message], ...]
    sender: Side
    receivers: tuple[Side, ...]
    _: KW_ONLY
    repeats: tuple[type[m.Message], ...] = ()
    encoding: Format = "json"
    largest: int = MAX_JSON
    """Bytes of a payload, before it is sealed."""
    retained: bool = False
    qos: int = 1
    """Of subscriptions."""
    published_qos: int = 1
    """0 for what nobody misses."""
    limit: Limit | None = None
    roles: tuple[m.ClientRole, ...] = EVERY_ROLE
    """Only edges with one of these roles send or read here."""
    answers: tuple[type[m.Reply], ...] = ()
    """What the aggregator may reply to a message."""
    note: str = ""
    """A sentence for the AsyncAPI description, in Markdown."""

    @property
    def messages(self) -> tuple[type[m.Message], ...]:
        """All kinds that may be sent here."""
        return self.kinds + self.repeats

    @property
    def signed(self) -> bool:
        """Whether an aggregator with a kit signs it: all its JSON (protocol, 9.2); digests guard the rest (9.8)."""
        return self.sender == "aggregator" and self.encoding == "json"

    @property
    def sealable(self) -> bool:
        """Whether it may be sealed (protocol, 9.10): it is for the aggregator alone, which alone can open it."""
        return self.receivers == ("aggregator",)

    @property
    def bulk(self) -> bool:
        """Whether it carries tensors.

        The aggregator receives such messages on a connection of their own; edges subscribe to those that they need.
        """
        return self.encoding == "msgpack"

    @property
    def names_sender(self) -> bool:
        """Whether the topic says which edge has sent a message: accounts may not use it without its last level."""
        return self.sender == "edge" and "client" in t.fields_of(self.topic)

    @property
    def names_asker(self) -> bool:
        """Whether the last level of the topic is an asker's name (its account's, where there are accounts)."""
        return "asker" in t.fields_of(self.topic)

    def reads(self, side: Side) -> bool:
        """Whether this side reads here. The aggregator repairs its retained messages, so it reads those, too."""
        return side in self.receivers or (side == self.sender == "aggregator" and self.retained)

    def writes(self, side: Side) -> bool:
        """Whether this side writes here. Aggregators, and edges that are asked, clear what others have retained."""
        asked = side == "edge" and self.sender == "asker"
        return side == self.sender or (side in self.receivers and (side == "aggregator" or asked))


class Channels:
    """A table of channels, with its lookups. Raises ``ValueError``, which names every mistake in the table."""

    def __init__(
        self, rows: Iterable[Channel], kinds: Iterable[type[m.Message]], topics: Iterable[type[t.Topic]]
    ) -> None:
        """``kinds`` and ``topics``: all that exist. Each must be in the table."""
        self.rows = tuple(rows)
        self.kinds = tuple(dict.fromkeys(kind for row in self.rows for kind in row.kinds))
        self._by_topic = {row.topic: row for row in self.rows}
        self._by_kind = {kind: row for row in self.rows for kind in row.kinds}
        self.parse = t.Parser(self._by_topic).parse
        if problems := [*_wrong_kinds(self, set(kinds)), *_wrong_rows(self, set(topics))]:
            raise ValueError("channels: " + "; ".join(problems))

    def of(self, topic: t.Topic) -> Channel:
        """The row of a topic."""
        return self._by_topic[type(topic)]

    def carrying(self, kind: type[m.Message]) -> Channel:
        """The row that has ``kind`` in ``kinds``. Raises ``LookupError``."""
        row = self._by_kind.get(kind)
        if row is None:
            raise LookupError(f"{kind.__name__}: no channel carries it")
        return row

    def between(self, sender: Side, receiver: Side) -> tuple[Channel, ...]:
        """The rows on which ``sender`` sends to ``receiver``."""
        return tuple(row for row in self.rows if row.sender == sender and receiver in row.receivers)

    def filters(self, prefix: str, rows: Iterable[Channel], client: str = "+") -> list[tuple[str, int]]:
        """Topic filters of ``rows``, each with its QoS: of one client, or of all.

        Rows that name no client and are all that is below one level share a filter.
        """
        chosen = tuple(rows)
        found: dict[str, int] = {}
        for row in chosen:
            level = t.first_level(row.topic)
            siblings = [each for each in self.rows if t.first_level(each.topic) == level]
            together = (
                len(siblings) > 1 and set(siblings) <= set(chosen) and not any(map(_of_client, siblings))
            )
            if together or (client == "+" and t.is_optional(row.topic)):
                found[f"{prefix}/{level}/#"] = row.qos
            else:
                found[t.filter_of(prefix, row.topic, client)] = row.qos
        return list(found.items())


def _of_client(row: Channel) -> bool:
    return "client" in t.fields_of(row.topic)


def kind_of(model: type[m.Message]) -> str:
    """``kind`` of a message on the wire."""
    return str(model.model_fields["kind"].default)


def _wrong_kinds(table: Channels, declared: set[type[m.Message]]) -> Iterable[str]:
    homes = [kind for row in table.rows for kind in row.kinds]
    for kind in sorted({*declared, *homes}, key=lambda each: each.__name__):
        if homes.count(kind) != 1 or kind not in declared:
            yield f"{kind.__name__}: in kinds of {homes.count(kind)} rows, expected one (and repeats in others)"
        if [kind_of(other) for other in homes].count(kind_of(kind)) > 1 and homes.count(kind) == 1:
            yield f"{kind.__name__}: another message has the kind {kind_of(kind)!r}, too"
        answered = any(kind in row.answers for row in table.rows)
        if issubclass(kind, m.Reply) != answered:
            yield f"{kind.__name__}: expected in answers of a row if it is a Reply, and only then"


def _wrong_rows(table: Channels, declared: set[type[t.Topic]]) -> Iterable[str]:
    topics = [row.topic for row in table.rows]
    for topic in sorted({*declared, *topics}, key=lambda each: each.__name__):
        if topics.count(topic) != 1 or topic not in declared:
            yield f"{topic.__name__}: {topics.count(topic)} rows, expected one"
    for row in table.rows:
        name = row.topic.__name__
        if bool(row.messages) == (row.encoding in WITHOUT_KIND):
            yield f"{name}: {len(row.messages)} kinds, encoding {row.encoding}"
        if (row.limit is not None) != (row.sender == "edge" and "aggregator" in row.receivers):
            yield f"{name}: limit {row.limit}, expected one for what edges send to the aggregator, and only for that"
        for kind in row.repeats:
            home = table._by_kind.get(kind)
            if home is None or home is row or home.encoding != row.encoding:
                yield f"{name}: repeats {kind.__name__}, expected it in kinds of another row of this encoding"


def declared_kinds() -> set[type[m.Message]]:
    """All message models with a kind, whether or not `messages` exports them."""

    def below(base: type[m.Message]) -> set[type[m.Message]]:
        return {base}.union(*map(below, base.__subclasses__()))

    return {each for each in below(m.Message) if isinstance(each.model_fields["kind"].default, str)}


def declared_topics() -> set[type[t.Topic]]:
    """All types in `topics`."""
    return {each for each in vars(t).values() if isinstance(each, type) and issubclass(each, t.Topic)} - {
        t.Topic
    }


_OPEN: Final = "Retained while the round is open; an empty message means that it is no longer."
_BARE: Final = "The topic without the client is only for brokers without accounts."
_ALL: Final[tuple[Side, ...]] = ("edge", "watcher")

ROWS: Final = (
    Channel(t.AggregatorTopic, (m.AggregatorPresence,), "aggregator", _ALL, retained=True,
            note="Its birth, and the will of its control connection."),
    Channel(t.StatusTopic, (m.Status,), "aggregator", ("watcher",), retained=True,
            note="On change, at most twice a second, and every 5 s."),
    Channel(t.HistoryTopic, (m.History,), "aggregator", ("watcher",), retained=True, largest=MAX_NAMES,
            note="After each round."),
    Channel(t.ControlTopic, (m.Stop, m.Pause, m.Resume), "operator", ("aggregator",),
            note="Repeated until it is answered, `stop` until the status says `interrupted`."),
    Channel(t.AnswersTopic, (m.CommandAnswer,), "aggregator", ("operator",),
            note="The Response Topic of a command."),
    Channel(t.RegisterTopic, (m.Registration,), "edge", ("aggregator",), limit="registration",
            answers=(m.Admitted, m.Refused, m.Limited), note=f"Repeated until it is answered. {_BARE}"),
    # At QoS 0 a broker delivers all of ten thousand retained births, at QoS 1 about a thousand.
    Channel(t.PresenceTopic, (m.ClientPresence,), "edge", ("aggregator", "edge", "watcher"), retained=True, qos=0,
            limit="presence", note="Its birth and its will. A subscription to the presence of all edges is at QoS 0."),
    Channel(t.WorkTopic, (), "aggregator", ("edge",), repeats=(m.Selected,), retained=True, roles=("train",),
            note=f"For a cohort of more than 256 edges. {_OPEN}"),
    Channel(t.UnmaskTopic, (m.Closing, m.Reveal), "aggregator", ("edge",), retained=True, roles=("train",),
            largest=MAX_NAMES, note="While the sum of a masked round is closed and opened; an empty message ends it."),
    Channel(t.LogRequestTopic, (m.LogRequest,), "operator", ("edge",),
            note="Repeated as long as lines are wanted. Edges ignore a retained one."),
    Channel(t.LogTopic, (m.LogLines,), "edge", ("operator",), qos=0, published_qos=0,
            note="Only after a request, and until it has run out."),
    Channel(t.RepliesTopic, (m.Admitted, m.Refused, m.Grant, m.Accepted, m.Rejected, m.Limited), "aggregator",
            ("edge",), note="Only an answer here means that a message has arrived."),
    Channel(t.SelectedTopic, (m.Selected,), "aggregator", _ALL, retained=True, roles=("train",),
            note=f"For a cohort of at most 256 edges. {_OPEN}"),
    Channel(t.MissingTopic, (m.Missing,), "aggregator", ("watcher",), retained=True, largest=MAX_NAMES, note=_OPEN),
    Channel(t.EdgesTopic, (m.Edges,), "aggregator", ("watcher",), retained=True, largest=MAX_NAMES,
            note="While the round is open; the last closed one stays."),
    Channel(t.ResultTopic, (m.Result,), "aggregator", _ALL, retained=True, roles=("train",), largest=MAX_NAMES,
            note="The last eight stay."),
    Channel(t.ModelTopic, (m.ModelAnnouncement,), "aggregator", _ALL, retained=True),
    Channel(t.ManifestTopic, (m.ModelManifest,), "aggregator", ("edge",), encoding="msgpack", largest=m.MAX_PACKET,
            retained=True, note="An empty message means that it is superseded."),
    Channel(t.ChunkTopic, (m.ModelChunk,), "aggregator", ("edge",), encoding="msgpack", largest=m.MAX_PACKET,
            retained=True, note="Edges subscribe to at most eight at a time, receive them, unsubscribe, and continue."),
    Channel(t.UpdatesTopic, (m.Update, m.Offer, m.UpdateChunk, m.TrainingFailed, m.Delayed, m.Agreed, m.Opened,
            m.Declined), "edge", ("aggregator",),
            encoding="msgpack", largest=m.MAX_PACKET, limit="other", roles=("train",),
            answers=(m.Grant, m.Accepted, m.Rejected, m.Limited),
            note=f"The edge keeps an update, and repeats it, until it is answered. {_BARE}"),
    # Who trains may be asked about its holdout.
    Channel(t.EvaluationsTopic, (m.Evaluation,), "edge", ("aggregator",), limit="other",
            roles=("train", "evaluate"), answers=(m.Limited,)),
    Channel(t.PredictTopic, (), "asker", ("edge",), encoding="picture", largest=MAX_REQUEST, roles=("predict",),
            note="Without the client, any one edge answers: they share `$share/predictors/`, or with kits "
                 "a group that only they know."),
    Channel(t.PredictionsTopic, (m.Prediction,), "edge", ("asker",), roles=("predict",),
            note="For requests without a Response Topic."),
    Channel(t.BrokerTopic, (), "bridge", ("aggregator", "edge", "watcher"), encoding="digit", largest=1, retained=True,
            note="`1` while the bridge is connected, else `0` (its will). Only where brokers are bridged."),
)  # fmt: skip
"""In the order of ``docs/protocol.md``, section 2."""

CHANNELS: Final = Channels(ROWS, declared_kinds(), declared_topics())
