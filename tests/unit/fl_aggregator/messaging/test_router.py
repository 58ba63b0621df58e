"""What a message costs before it is known whether anybody wants it, and who pays for it."""

from __future__ import annotations

import json
from typing import Any, cast

import pytest

from fl_aggregator.messaging.connections import Connections
from fl_aggregator.messaging.ended_sessions import SESSION_OVERLAP
from fl_aggregator.messaging.inbox import AdmittedMessage, Inbox
from fl_aggregator.messaging.rate_limiter import RateLimiter
from fl_aggregator.messaging.reader import Inbound
from fl_aggregator.messaging.rejections import Rejections
from fl_aggregator.messaging.router import Router
from fl_aggregator.messaging.unsealing import Unsealer
from fl_aggregator.round import effects as do
from fl_aggregator.round import events as on
from fl_aggregator.round.machine import step
from fl_aggregator.round.state import Run
from fl_shared.cli.broker_access import BrokerAccess
from fl_shared.mqtt import events as mqtt
from fl_shared.mqtt.address import BrokerAddress
from fl_shared.mqtt.network import Network
from fl_shared.protocol import codec
from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from fl_shared.protocol.envelope import EnvelopeSource
from fl_shared.tensors.manifest import ArraySpec, Manifest
from tests.support import builders
from tests.support.recording_connections import RecordingNetwork
from tests.support.round_playbook import Playbook

MANIFEST = Manifest(arrays=tuple(ArraySpec(name=f"a{n:05d}", shape=(1,)) for n in range(500)))


def run(*, weights: bool) -> Playbook:
    """Three edges; round 0 waits for the first weights or, with ``weights``, round 1 for updates."""
    playbook = Playbook(auto=weights, clients=3, per_round=2).play("start")
    for name in "012":
        playbook.play(f"join {name} session=s{name}", f"load {name} session=s{name}")
    if weights:
        playbook.play(f"send {playbook.cohort[0]}")
        assert playbook.round == 1
    return playbook


class Setup:
    """A router before a run in a given state."""

    def __init__(self, playbook: Playbook) -> None:
        self.playbook = playbook
        self.rejections = Rejections()
        self.limiter = RateLimiter("fl", 3, 100, lambda: self.state.roster, lambda: 0.0)
        scope = EnvelopeSource("r", 1)
        network = cast(Network, RecordingNetwork())
        access = BrokerAccess(BrokerAddress.parse("mqtt://localhost"))
        connections = Connections(network, access, playbook.state.settings, scope, Inbox(self.limiter.admit))
        unsealer = Unsealer(None, required=False)
        self.router = Router(connections, self.rejections, unsealer, scope, self.limiter)

    @property
    def state(self) -> Run:
        return self.playbook.state

    def read(self, client: str, message: m.Message | bytes, *, bare: bool = False) -> Inbound:
        topic = t.UpdatesTopic(None if bare else client)
        payload = message if isinstance(message, bytes) else codec.encode(message)
        received = mqtt.Received(t.build("fl", topic), payload, retain=False, qos=1)
        return self.router.read(AdmittedMessage(topic, received), self.state, self.playbook.now)

    def first_weights(self, client: str) -> m.Offer:
        """An offer that describes every array, as only first weights do."""
        section = builders.section(bytes(4 * MANIFEST.values), MANIFEST, "weights", MANIFEST.arrays)
        whole = builders.update(section, client=client, session=f"s{client}", round=0, base=None)
        return builders.offer_of(whole, 1024)

    def reply(self, inbound: Inbound) -> str:
        """What the machine answers."""
        assert inbound.event is not None
        [effect] = step(self.state, inbound.event)[1][-1:]
        return str(effect)


def test_arrays_are_taken_from_who_was_asked_for_first_weights() -> None:
    setup = Setup(run(weights=False))
    [asked] = setup.playbook.cohort
    for bare in (False, True):
        inbound = setup.read(asked, setup.first_weights(asked), bare=bare)
        assert isinstance(inbound.event, on.UpdateOffered)
        assert isinstance(inbound.event.payload, m.Offer)


def test_arrays_of_anybody_else_are_not_even_read() -> None:
    """It is told why, as if they had been."""
    setup = Setup(run(weights=False))
    other = next(name for name in "012" if name not in setup.playbook.cohort)
    inbound = setup.read(other, setup.first_weights(other))
    assert isinstance(inbound.event, on.UpdateOffered)
    assert inbound.event.payload is None, "it was not decoded"
    assert "not-selected" in setup.reply(inbound)


def test_first_weights_that_come_late_are_answered_as_late() -> None:
    setup = Setup(run(weights=True))
    author = next(iter(setup.state.closed_rounds[-1].accepted))
    other = next(name for name in "012" if name != author)
    assert "not-selected" in setup.reply(setup.read(other, setup.first_weights(other)))
    assert "surplus" in setup.reply(setup.read(author, setup.first_weights(author)))


def test_arrays_in_a_later_round_make_an_update_malformed() -> None:
    setup = Setup(run(weights=True))
    selected = setup.playbook.cohort[0]
    offer = setup.first_weights(selected).model_copy(update={"round": 1, "base": "0" * 64})
    inbound = setup.read(selected, offer)
    assert isinstance(inbound.event, on.UpdateInvalid)
    assert inbound.event.reason == "malformed"
    assert "100" in inbound.event.detail


@pytest.mark.parametrize(
    "payload", [b"?", codec.encode(builders.update(builders.section(b"1234", "0" * 64)))]
)
def test_the_time_of_decoding_is_charged_to_its_sender(
    monkeypatch: pytest.MonkeyPatch, payload: bytes
) -> None:
    setup = Setup(run(weights=True))
    times = iter([10.0, 10.0, 13.0])
    monkeypatch.setattr("fl_aggregator.messaging.router.time.thread_time", lambda: next(times))
    bad, good = (mqtt.Received(f"fl/updates/{name}", b"?", False, 1) for name in "21")
    assert setup.limiter.admit(bad) is not None
    setup.read("2", payload)
    assert setup.limiter.admit(bad) is None
    assert setup.limiter.admit(good) is not None
    setup.router.record_throttled(setup.state)
    assert setup.rejections.total["2"]["too-much-work"] == 1


def test_what_any_message_may_contain_fits() -> None:
    """An update with every section and metric that it may have has fewer maps and arrays than are allowed."""
    sections = tuple(builders.section(b"", "0" * 64, f"s{number}") for number in range(16))
    numbers: Any = {f"m{number}": 1.0 for number in range(m.MAX_METRICS)}
    metrics = m.UpdateMetrics(before=numbers, after=numbers, train=numbers)
    whole = builders.update(*sections, metrics=metrics)
    limit = codec.MAX_CONTAINERS_WITHOUT_ARRAYS
    assert codec.decode(t.UpdatesTopic("7"), codec.encode(whole), max_containers=limit) == whole


def test_what_a_bridge_says() -> None:
    """Clause 4.12."""
    setup = Setup(run(weights=True))
    setup.playbook.play("load 1 via=B")

    def hear(broker: str, payload: bytes) -> on.Event | None:
        topic = t.BrokerTopic(broker)
        received = mqtt.Received(t.build("fl", topic), payload, retain=True, qos=1)
        return setup.router.read(AdmittedMessage(topic, received), setup.state, 5.0).event

    assert hear("B", b"0") == on.BridgeLost(now=5.0, broker="B")
    assert [hear("B", b"1"), hear("C", b"0"), hear("B", b""), hear("B", b"down")] == [None] * 4
    assert setup.rejections.total == {"(unknown)": {"malformed": 1}}


def test_a_will_that_overtakes_a_registration_counts_all_the_same() -> None:
    """Both registrations of an edge waited in the broker's queue when it died; its will did not wait."""
    setup = Setup(run(weights=True))

    def hear(topic: t.Topic, message: m.Message) -> on.Event | None:
        received = mqtt.Received(t.build("fl", topic), codec.encode(message), retain=False, qos=1)
        return setup.router.read(AdmittedMessage(topic, received), setup.state, setup.playbook.now).event

    for client in ("0", "newcomer"):
        gone = m.ClientPresence(client=client, state="offline", session="late", reason="it was stopped")
        lost = hear(t.PresenceTopic(client), gone)
        assert isinstance(lost, on.EdgeLost)
        assert lost.reason == gone.reason
        assert step(setup.state, lost) == (setup.state, ()), "nothing for the journal"
        late = builders.registration(client, session="late")
        assert hear(t.RegisterTopic(client), late) is None
        other = builders.registration(client, session="other")
        assert isinstance(hear(t.RegisterTopic(client), other), on.Registered)
        setup.playbook.now += SESSION_OVERLAP
        assert isinstance(hear(t.RegisterTopic(client), late), on.Registered), "it is online after all"


def test_an_edge_of_another_version_takes_no_part_until_it_is_gone() -> None:
    """Clause 4.6; what it is and can do is not known, so its id is free for whoever replaces it."""
    setup = Setup(run(weights=True))

    def hear(topic: t.Topic, **members: object) -> str:
        payload = json.dumps({"v": 1, "session": "old", **members}).encode()
        received = mqtt.Received(t.build("fl", topic), payload, retain=False, qos=1)
        event = setup.router.read(AdmittedMessage(topic, received), setup.state, setup.playbook.now).event
        if event is None:
            return "dropped"
        setup.playbook.state, effects = step(setup.state, event)
        return " ".join(
            e.body.reason for e in effects if isinstance(e, do.SendReply) and isinstance(e.body, do.Refuse)
        )

    def entry(client: str) -> tuple[bool, bool, bool]:
        found = setup.state.roster[client]
        return (
            found.unable is not None,
            found.present,
            setup.state.roster.is_in_use(client, setup.playbook.now),
        )

    assert hear(t.RegisterTopic("9")) == hear(t.RegisterTopic("9")) == "wrong-version"
    assert entry("9") == (True, True, False)
    assert hear(t.RegisterTopic("0")) == "id-in-use"
    assert hear(t.RegisterTopic("0"), session="s0") == "", "of another client, which knows the session"
    assert entry("0") == (False, True, True)
    assert hear(t.PresenceTopic("9"), state="online") == "dropped"
    assert hear(t.PresenceTopic("9"), state="offline", session="earlier") == ""
    assert entry("9") == (True, True, False)
    assert hear(t.PresenceTopic("9"), state="offline") == ""
    assert entry("9") == (True, False, False)
    assert hear(t.RegisterTopic("9"), session="/") == hear(t.UpdatesTopic("9")) == "dropped"
