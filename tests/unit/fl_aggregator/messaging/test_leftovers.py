"""An aggregator blames nobody for what an earlier run left, or for its own messages that the broker returns."""

from __future__ import annotations

from fl_aggregator.configuration.settings import Settings
from fl_aggregator.messaging.connections import Connections
from fl_aggregator.messaging.inbox import AdmittedMessage, Inbox
from fl_aggregator.messaging.leftovers import MAX_WAIT, QUIET, Leftovers
from fl_shared.cli.broker_access import BrokerAccess
from fl_shared.mqtt.address import BrokerAddress
from fl_shared.protocol import codec
from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from fl_shared.protocol.channels import CHANNELS
from fl_shared.protocol.envelope import EnvelopeSource
from tests.support.recording_connections import RecordingNetwork
from tests.support.samples import MESSAGES

OURS = EnvelopeSource("ab" * 6, 2)


def birth(run: str, incarnation: int, state: m.PresenceState) -> bytes:
    return codec.encode(m.AggregatorPresence(state=state, session="s", run=run, incarnation=incarnation))


def leftovers() -> Leftovers:
    found = Leftovers("fl", OURS, CHANNELS)
    found.session_begun(0.0)
    return found


def test_what_an_earlier_run_left_is_one_line() -> None:
    found = leftovers()
    assert found.pop_summary(100.0) is None
    found.session_begun(100.0)
    old = codec.encode(m.Missing(run="cd" * 6, incarnation=1, seq=1, round=7, clients={}))
    assert found.take("fl/round/7/missing", old, 100.1)
    assert found.take("fl/aggregator", birth(OURS.run, 1, "offline"), 100.2)
    assert found.pop_summary(100.3) is None, "more may come"
    said = f"cleared or replaced 2 retained messages of run {'cd' * 6}, {OURS.run}"
    assert found.pop_summary(100.3 + QUIET) == said
    assert found.pop_summary(200.0) is None


def test_our_own_will_is_left_after_a_lost_connection() -> None:
    assert leftovers().take("fl/aggregator", birth(OURS.run, 2, "offline"), 0.1)


def test_our_own_message_from_before_the_subscription_is_no_strangers() -> None:
    """The control connection waits for the one for updates before it subscribes, and publishes meanwhile."""
    found, status = leftovers(), codec.encode(m.Missing(**OURS.envelope(), round=1, clients={}))
    assert not found.take("fl/round/1/missing", status, 0.1)
    found.published("fl/round/1/missing", status)
    assert found.take("fl/round/1/missing", status, 0.1)
    assert found.pop_summary(100.0) is None
    assert not found.take("fl/round/1/missing", status, 0.1 + QUIET)


def test_what_somebody_publishes_meanwhile_is_not() -> None:
    found, other = leftovers(), birth("cd" * 6, 1, "offline")
    assert not found.take("fl/aggregator", b"junk", 0.1)
    assert not found.take("fl/elsewhere/x", other, 0.1)
    assert not found.take("fl/aggregator", birth(OURS.run, 2, "online"), 0.1), "only a forger says so"
    assert found.take("fl/aggregator", other, 0.1)
    assert not found.take("fl/aggregator", other, 0.2), "the broker retains one message of a topic"
    assert not found.take("fl/round/7/missing", other, 0.1 + QUIET + 0.1)
    found.edge_registered()
    assert not found.take("fl/round/6/missing", other, 0.2), "an edge has answered our birth meanwhile"
    found.session_begun(0.0)
    for second in range(int(MAX_WAIT) + 3):
        message = codec.encode(m.Missing(run="cd" * 6, incarnation=1, seq=1, round=second, clients={}))
        taken = found.take(f"fl/round/{second}/missing", message, float(second))
        assert taken is (second < MAX_WAIT), second


def test_what_is_subscribed_to_again_comes_once_more_though_edges_have_registered() -> None:
    """So it is after the aggregator has stood still and asked who else is there."""
    found, status = leftovers(), birth(OURS.run, 1, "offline")
    assert found.take("fl/aggregator", status, 0.1)
    found.edge_registered()
    for now in (1.0, 20.0):
        found.subscribed_again(["fl/aggregator"], now)
        assert not found.take("fl/model", status, now)
        assert found.take("fl/aggregator", status, now + 0.1)
        assert not found.take("fl/aggregator", status, now + 0.2), "the broker retains one message of a topic"
    assert found.pop_summary(100.0) == f"cleared or replaced 1 retained message of run {OURS.run}", "once"
    found.subscribed_again(["fl/aggregator"], 40.0)
    assert not found.take("fl/aggregator", status, 40.0 + MAX_WAIT)
    found.subscribed_again(["fl/aggregator"], 50.0)
    found.session_begun(50.0)
    found.edge_registered()
    assert not found.take("fl/aggregator", status, 50.1), "an edge has answered our birth meanwhile"


def test_what_a_broker_returns_of_ours_is_nobodys_fault() -> None:
    """Without No Local at once, over a bridge that was lost when the bridge is back."""
    network = RecordingNetwork()
    connections = Connections(
        network,  # type: ignore[arg-type]
        BrokerAccess(BrokerAddress("127.0.0.1")),
        Settings(),
        OURS,
        Inbox(lambda received: AdmittedMessage(None, received)),
    )
    connections.connect(1.0)
    connections.connect_updates()
    connections.subscribe_to_updates()
    connections.begin_session()
    limited = m.Limited(**OURS.envelope(), client="7", session="s", reason="too-many-bytes", detail="")
    old = m.Missing(**OURS.envelope(), round=1, clients={})
    new = m.Missing(**OURS.envelope(), round=1, clients={"7": m.MissingClient(state="online", seconds=1.0)})
    connections.send(t.RepliesTopic("7"), limited)
    connections.retain(t.MissingTopic(1), old)
    connections.retain(t.MissingTopic(1), new)
    published = network.connections[0].published
    topic, chunk = MESSAGES["model-chunk"]
    assert isinstance(chunk, m.ModelChunk)
    connections.retain_large(topic, lambda: chunk.model_copy(update={"data": bytes(2**20)}))
    connections.clear(topic)
    returned = [
        # The flag of our birth does not come back: see `Connections.subscribe_to_rivals`.
        connections.repair_if_foreign(topic, payload, retained=flag and topic != "fl/aggregator")
        for topic, payload, flag in list(published)
    ]
    assert returned == [True] * len(returned)
    assert not connections.repair_if_foreign("fl/replies/7", codec.encode(limited)[:-1], retained=False)
    last = {name: payload for name, payload, _ in published}
    assert last["fl/round/1/missing"] == codec.encode(new), "whatever came back, the newest stays"
    assert last[t.build("fl", topic)] == b"", "and what was cleared stays cleared"
