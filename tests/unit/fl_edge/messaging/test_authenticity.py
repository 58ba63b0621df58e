"""What an edge with a kit believes (protocol, 9.3 to 9.7): its own part, and together with its session."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fl_edge.messaging.authenticity import MAX_RUNS, MAX_TOPICS, MessageAuthenticator
from fl_edge.messaging.connection import EdgeConnected
from fl_edge.messaging.model_store import ModelStore
from fl_edge.runtime.edge import Edge
from fl_edge.runtime.masked_member import MaskedMember
from fl_edge.runtime.notices import ConnectionNotices
from fl_edge.runtime.router import Router
from fl_edge.session import events
from fl_edge.session.machine import step
from fl_edge.session.state import Identity, Membership, Session
from fl_edge.storage.run_keys_file import RunKeysFile
from fl_shared.mqtt import events as mqtt
from fl_shared.protocol import codec
from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from fl_shared.protocol.channels import CHANNELS
from fl_shared.security.signatures import Signer, Verifier
from tests.support.samples import MESSAGES

KEY = bytes(range(32))
SIGNER = Signer(KEY)
OTHER = Signer(bytes(range(1, 33)))
VERIFIER = Verifier(Ed25519PrivateKey.from_private_bytes(KEY).public_key().public_bytes_raw())
SELECTED = cast(m.Selected, MESSAGES["selected"][1])
RESULT = cast(m.Result, MESSAGES["result"][1])


def member(run: str = "a", incarnation: int = 1) -> Membership:
    return Membership(run, incarnation, "digits", None)


def said(run: str = "a", incarnation: int = 1, seq: int = 1) -> m.Selected:
    return SELECTED.model_copy(update={"run": run, "incarnation": incarnation, "seq": seq})


# --- old or not -------------------------------------------------------------------------------------------


def test_on_one_topic_nothing_goes_back() -> None:
    """Clause 9.7: twice is a duplicate, later is new, and each topic counts for itself."""
    trust = MessageAuthenticator(VERIFIER)
    for seq, old in ((5, False), (5, False), (7, False), (6, True), (5, True), (7, False), (8, False)):
        assert (trust.staleness("fl/x", said(seq=seq), member()) is not None) is old, seq
    assert trust.staleness("fl/y", said(seq=2), member()) is None, "it lay there before"
    assert trust.staleness("fl/x", said(incarnation=2, seq=1), member(incarnation=2)) is None, (
        "a new start begins anew"
    )


def test_an_incarnation_that_is_over_says_nothing_more() -> None:
    """Clause 9.6."""
    trust = MessageAuthenticator(VERIFIER)
    assert trust.staleness("fl/x", said(incarnation=1), None) is None, "nothing is known yet"
    assert trust.staleness("fl/x", said(incarnation=2), member(incarnation=1)) is None, "it may be the next"
    assert trust.staleness("fl/x", said(incarnation=1), member(incarnation=2)) is not None
    assert trust.staleness("fl/x", said(incarnation=2), member(incarnation=2)) is None
    assert trust.staleness("fl/x", said(incarnation=3), member(incarnation=2)) is None


def test_a_run_that_was_left_comes_back_only_with_a_new_start() -> None:
    """Clause 9.6."""
    trust = MessageAuthenticator(VERIFIER)
    assert trust.staleness("fl/x", said("a", 3), member("a", 3)) is None
    assert trust.staleness("fl/x", said("b", 1), member("b", 1)) is None
    for incarnation in (1, 2, 3):
        why = trust.staleness("fl/x", said("a", incarnation), member("b", 1))
        assert why == f"incarnation: {incarnation} of run a, expected more than 3"
    assert trust.staleness("fl/x", said("a", 4), member("b", 1)) is None
    assert trust.staleness("fl/x", said("c", 1), member("b", 1)) is None, (
        "nobody obeys it, but it may admit us"
    )


def test_births_are_never_old() -> None:
    """Clause 9.6: an edge registers for one, and nothing more."""
    trust = MessageAuthenticator(VERIFIER)
    birth = m.AggregatorPresence(state="online", session="s", run="a", incarnation=1)
    assert trust.staleness("fl/aggregator", birth, member("a", 9)) is None


def test_what_is_remembered_is_bounded() -> None:
    trust = MessageAuthenticator(VERIFIER)
    for number in range(MAX_RUNS + 50):
        trust.staleness("fl/x", said(f"r{number}"), member(f"r{number}"))
    for number in range(MAX_TOPICS + 50):
        trust.staleness(f"fl/{number}", said("z"), member("z"))
    assert len(trust._latest_incarnations) == MAX_RUNS
    assert len(trust._seqs) == MAX_TOPICS


# --- with a session ---------------------------------------------------------------------------------------


class EdgeUnderTest:
    """An edge with its reception, and what its session has been told. No broker: what comes is put in by hand."""

    def __init__(self, *, kit: bool = True) -> None:
        identity = Identity("7", "device", ("train",), ("digits",))
        trust = MessageAuthenticator(VERIFIER) if kit else None
        member = MaskedMember("7", RunKeysFile(Path(), "7"))
        self.edge = Edge(Session(identity), Path("kept"), member, _never, _never, trust)
        self.told: list[events.Event] = []
        notices = ConnectionNotices([self.edge], "mqtt://x", None, 0.0)
        self.reception = Router(
            "fl",
            ModelStore(lambda _: None, lambda *_: None, lambda _: None),
            notices,
            self._tell,
            lambda: None,
        )
        self.edge.connection = _Wire()  # type: ignore[assignment]
        self.connect("session-1")

    def connect(self, session: str) -> None:
        self.reception.on_connection_event(self.edge, EdgeConnected(session, 2**20), 0.0)

    def _tell(self, edge: Edge, event: events.Event) -> None:
        self.told.append(event)
        edge.state, _ = step(edge.state, event)

    def put(self, topic: t.Topic | str, payload: bytes, *, retain: bool = False) -> bool:
        """Whether the session was told."""
        before = len(self.told)
        text = topic if isinstance(topic, str) else t.build("fl", topic)
        self.reception.on_connection_event(self.edge, mqtt.Received(text, payload, retain, 1), 1.0)
        return len(self.told) > before

    def say(self, topic: t.Topic, message: m.Message, signer: Signer | None = SIGNER) -> bool:
        return self.put(topic, self.bytes(topic, message, signer))

    def bytes(self, topic: t.Topic, message: m.Message, signer: Signer | None = SIGNER) -> bytes:
        payload = codec.encode(message)
        return payload if signer is None else signer.sign(t.build("fl", topic), payload)

    @property
    def run(self) -> tuple[str, int] | None:
        state = self.edge.state
        assert isinstance(state, Session)
        return None if state.membership is None else (state.membership.run, state.membership.incarnation)


def _never(_: object) -> Any:
    raise AssertionError("nothing is connected here")


class _Wire:
    """Of a connection that nothing is sent over: only what the aggregator says is tried here."""

    is_connected = False

    def subscribe(self) -> None: ...

    def subscribe_to_presence(self) -> None: ...


def admitted(run: str = "a", incarnation: int = 1, session: str = "session-1", seq: int = 1) -> m.Admitted:
    return m.Admitted(
        run=run, incarnation=incarnation, seq=seq, client="7", session=session, task="digits", partition=None
    )


def birth(run: str, incarnation: int = 1) -> m.AggregatorPresence:
    return m.AggregatorPresence(
        state="online", session=f"of-{run}-{incarnation}", run=run, incarnation=incarnation
    )


def gone(run: str) -> m.AggregatorPresence:
    return birth(run).model_copy(update={"state": "offline"})


REPLIES: t.Topic = t.RepliesTopic("7")
BORN: t.Topic = t.AggregatorTopic()
FROM_THE_AGGREGATOR = [
    name
    for name, (topic, _) in MESSAGES.items()
    if CHANNELS.of(topic) in CHANNELS.between("aggregator", "edge") and not CHANNELS.of(topic).bulk
]


@pytest.mark.parametrize("name", FROM_THE_AGGREGATOR)
def test_each_kind_has_to_be_signed_and_is_then_told_to_the_session(name: str) -> None:
    """Clauses 9.2 and 9.3. Without a kit a signature says nothing."""
    topic, message = MESSAGES[name]
    if isinstance(topic, t.RepliesTopic):
        topic, message = REPLIES, message.model_copy(update={"client": "7"})
    tested = EdgeUnderTest()
    assert not tested.say(topic, message, None)
    assert not tested.say(topic, message, OTHER)
    assert not tested.put(topic, tested.bytes(t.StatusTopic(), message))
    assert tested.say(topic, message)
    for signer in (None, OTHER, SIGNER):
        assert EdgeUnderTest(kit=False).say(topic, message, signer)


def test_nobody_can_clear_a_round_unsigned() -> None:
    """Clause 9.4."""
    for kit in (True, False):
        tested = EdgeUnderTest(kit=kit)
        assert tested.put(t.SelectedTopic(3), b"") is not kit
        assert tested.put(t.WorkTopic("7"), b"") is not kit
        assert tested.put(t.PresenceTopic("7"), b""), "it is its own, and it says again that it is there"


def test_an_admission_of_another_session_admits_nobody() -> None:
    """Clause 9.5: a recorded one names the connection that it was for."""
    tested = EdgeUnderTest()
    recorded = tested.bytes(REPLIES, admitted())
    assert tested.put(REPLIES, recorded)
    assert tested.run == ("a", 1)
    tested = EdgeUnderTest()
    tested.connect("session-2")
    tested.put(REPLIES, recorded)
    assert tested.run is None
    tested.say(REPLIES, admitted(session="session-2"))
    assert tested.run == ("a", 1)


def test_a_recorded_run_does_not_take_an_edge_back() -> None:
    """Clause 9.6, with the birth and the admission of this very session."""
    tested = EdgeUnderTest()
    of_a = [(BORN, tested.bytes(BORN, birth("a"))), (REPLIES, tested.bytes(REPLIES, admitted("a")))]
    for topic, payload in of_a:
        tested.put(topic, payload)
    assert tested.run == ("a", 1)
    tested.say(BORN, gone("a"))
    tested.say(BORN, birth("b"))
    tested.say(REPLIES, admitted("b"))
    assert tested.run == ("b", 1)
    for topic, payload in of_a:
        tested.put(topic, payload)
    assert tested.run == ("b", 1)
    tested.say(BORN, gone("b"))
    tested.say(BORN, birth("a", 2))
    tested.say(REPLIES, admitted("a", 2))
    assert tested.run == ("a", 2), "it was taken up again"


def test_a_recorded_incarnation_is_not_obeyed() -> None:
    """Clause 9.6."""
    tested = EdgeUnderTest()
    topic = t.SelectedTopic(3)
    old: Any = SELECTED.model_copy(update={"run": "a", "incarnation": 1, "round": 3})
    tested.say(REPLIES, admitted("a", 1))
    assert tested.say(topic, old)
    tested.say(REPLIES, admitted("a", 2))
    assert not tested.say(topic, old)
    assert not tested.say(REPLIES, admitted("a", 1, seq=99))
    assert tested.say(topic, old.model_copy(update={"incarnation": 2}))


def test_what_is_signed_for_one_topic_is_nothing_on_another() -> None:
    """Clause 9.1: the result of round 3 ends no other, and the selection of another edge is not ours."""
    tested = EdgeUnderTest()
    tested.say(REPLIES, admitted())
    result = RESULT.model_copy(update={"run": "a", "incarnation": 1, "round": 3})
    assert not tested.put(t.ResultTopic(4), tested.bytes(t.ResultTopic(3), result))
    assert tested.put(t.ResultTopic(3), tested.bytes(t.ResultTopic(3), result))
    work = SELECTED.model_copy(update={"run": "a", "incarnation": 1})
    assert not tested.put(t.WorkTopic("7"), tested.bytes(t.WorkTopic("8"), work))
    assert not tested.put(t.WorkTopic("7"), tested.bytes(t.SelectedTopic(work.round), work))


def test_what_is_refused_is_said_and_not_for_ever(caplog: pytest.LogCaptureFixture) -> None:
    """Clause 9.3: the first time, and at powers of ten."""
    tested = EdgeUnderTest()
    for _ in range(25):
        tested.say(t.SelectedTopic(3), SELECTED, None)
    lines = [record.getMessage() for record in caplog.records if "sig: missing" in record.getMessage()]
    assert [line.split(": ")[0] for line in lines] == [
        "dropped a message (1 so far)",
        "dropped a message (10 so far)",
    ]


def test_an_edge_that_has_stopped_takes_no_harm() -> None:
    tested = EdgeUnderTest()
    tested.edge.state, _ = step(tested.edge.state, events.StopRequested(1.0))
    tested.say(t.SelectedTopic(3), replace_run(SELECTED))
    assert not isinstance(tested.edge.state, Session)


def replace_run(message: m.Selected) -> m.Selected:
    return message.model_copy(update={"run": "a", "incarnation": 1})
