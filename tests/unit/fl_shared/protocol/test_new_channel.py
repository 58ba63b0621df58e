"""Nothing forgets a new message: whatever depends on the table of channels sees it, or fails and names it."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fl_aggregator.configuration.settings import Settings
from fl_aggregator.messaging.connections import Connections
from fl_aggregator.messaging.inbox import AdmittedMessage, Inbox
from fl_aggregator.messaging.rate_limiter import RateLimiter
from fl_aggregator.messaging.reader import EMPTY_INBOUND
from fl_aggregator.messaging.rejections import Rejections
from fl_aggregator.messaging.router import Router
from fl_aggregator.messaging.translate import MessageRejected
from fl_aggregator.messaging.unsealing import Unsealer
from fl_aggregator.round.roster import Roster
from fl_aggregator.tools.doctor import rights
from fl_aggregator.tools.doctor.bench import ProbeSession
from fl_aggregator.tools.provision.accounts import Account
from fl_aggregator.tools.provision.acl import AclRule, acl_rules
from fl_edge.messaging.authenticity import MessageAuthenticator
from fl_edge.messaging.connection import EdgeConnection
from fl_shared.cli.broker_access import BrokerAccess
from fl_shared.errors import BadSignature
from fl_shared.mqtt import events as mqtt
from fl_shared.mqtt.address import BrokerAddress
from fl_shared.mqtt.network import Network
from fl_shared.protocol import asyncapi, codec
from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from fl_shared.protocol.channels import (
    CHANNELS,
    Channel,
    Channels,
    kind_of,
)
from fl_shared.protocol.envelope import EnvelopeSource
from fl_shared.security.kit import AccountRole
from fl_shared.security.signatures import Signer, Verifier
from tests.support.extended_channels import (
    EXTENDED,
    NEW,
    NOTICE,
    PING,
    PINGS,
    PONG,
    NoticesTopic,
    PingsTopic,
)
from tests.support.observation_samples import RUN
from tests.support.recording_connections import Broker, RecordingNetwork
from tests.support.round_playbook import training

ROOT = Path(__file__).parents[4]
SIGNER = Signer(bytes(32))
VERIFIER = Verifier(Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key().public_bytes_raw())


# --- the wire -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("topic", "message"), NEW)
def test_the_codec_knows_it(topic: t.Topic, message: m.Message) -> None:
    payload = codec.encode(message, EXTENDED)
    assert codec.decode(topic, payload, EXTENDED) == message
    with pytest.raises(LookupError, match=f"{type(message).__name__}: no channel carries it"):
        codec.encode(message)
    with pytest.raises(codec.DecodeError, match="at most 65536"):
        codec.decode(topic, payload + b" " * 2**16, EXTENDED)


def test_its_encoding_is_that_of_its_row() -> None:
    rows = [replace(row, encoding="msgpack") if row is PINGS else row for row in EXTENDED.rows]
    packed = Channels(rows, EXTENDED.kinds, [row.topic for row in rows])
    payload = codec.encode(PING, packed)
    assert not payload.startswith(b"{")
    assert codec.decode(PingsTopic("7"), payload, packed) == PING


def test_its_topic_is_parsed() -> None:
    assert EXTENDED.parse("fl", "fl/pings/7") == PingsTopic("7")
    assert CHANNELS.parse("fl", "fl/pings/7") is None


# --- subscriptions --------------------------------------------------------------------------------


def connections_of(network: RecordingNetwork, channels: Channels = EXTENDED) -> Connections:
    inbox = Inbox(lambda received: AdmittedMessage(None, received))
    reach = BrokerAccess(BrokerAddress.parse("mqtt://localhost"))
    connections = Connections(
        cast(Network, network), reach, Settings(), EnvelopeSource(RUN, 1), inbox, channels
    )
    connections._signer = SIGNER
    connections.connect(1)
    connections.permit(connections.withhold())
    return connections


def wire_of(network: RecordingNetwork, roles: tuple[m.ClientRole, ...], sealer: Any = None) -> EdgeConnection:
    settings = mqtt.ConnectionSettings(BrokerAddress.parse("mqtt://localhost"))
    return EdgeConnection(
        cast(Network, network), settings, "fl", "7", roles, lambda _: None, sealer, EXTENDED
    )


def test_the_aggregator_subscribes_to_it() -> None:
    network = RecordingNetwork()
    connections = connections_of(network)
    connections.connect_updates()
    connections.subscribe_to_updates()
    connections.subscribe_to_rivals()
    connections.begin_session()
    control, updates = network.connections
    assert control.own == [
        ("fl/register/#", 1), ("fl/clients/+/presence", 0), ("fl/evaluations/+", 1), ("fl/pings/+", 1),
    ]  # fmt: skip
    assert control.foreign == [
        ("fl/aggregator", 1), ("fl/status", 1), ("fl/history", 1), ("fl/control", 1), ("fl/clients/+/work", 1),
        ("fl/clients/+/unmask", 1),
        ("fl/round/#", 1), ("fl/model/#", 1), ("fl/brokers/+", 1), ("fl/notices/+", 1),
    ]  # fmt: skip
    assert updates.own == [("fl/updates/#", 1)]


ALWAYS = {"fl/replies/7", "fl/aggregator", "fl/model", "fl/clients/7/log-request"}
WHEN_TRAINING = {
    "fl/clients/7/work",
    "fl/clients/7/unmask",
    "fl/round/+/selected",
    "fl/round/+/result",
    "fl/notices/7",
}


@pytest.mark.parametrize(
    ("role", "more"), [("train", WHEN_TRAINING), ("evaluate", set()), ("predict", set())]
)
def test_an_edge_of_its_role_subscribes_to_it(role: m.ClientRole, more: set[str]) -> None:
    network = RecordingNetwork()
    wire = wire_of(network, (role,))
    wire.subscribe()
    assert set(network.connections[0].own) == {(name, 1) for name in ALWAYS | more}
    wire.subscribe_to_presence()
    assert network.connections[0].own[-1] == ("fl/clients/7/presence", 0)


# --- rights ---------------------------------------------------------------------------------------


OF_ROUNDS = ("selected", "missing", "edges", "result")


def granted(*roles: AccountRole) -> set[AclRule]:
    account = Account(name="7", roles=roles, issued=datetime.now(UTC), pending=False)
    return set(acl_rules(account, "fl", channels=EXTENDED)) - set(acl_rules(account, "fl"))


def test_the_acl_grants_it() -> None:
    assert granted("train") == {AclRule("write", "fl/pings/7"), AclRule("read", "fl/notices/7")}
    assert granted("predict") == {AclRule("write", "fl/pings/7")}
    assert granted("aggregator") == {AclRule("readwrite", "fl/pings/+"), AclRule("readwrite", "fl/notices/+")}
    assert granted("asker") == granted("operator") == set()


@pytest.mark.parametrize(
    ("unwritten", "unread", "found"),
    [
        ("fl/notices/", "-", ["write fl/notices/+"]),
        ("-", "fl/pings/", ["read fl/pings/+"]),
        ("-", "fl/notices/", ["read fl/notices/+"]),
        (
            "fl/replies/",
            "fl/round/",
            ["write fl/replies/+", *(f"read fl/round/+/{leaf}" for leaf in OF_ROUNDS)],
        ),
        ("-", "-", []),
    ],
)
def test_the_doctor_looks_for_the_right_to_it(
    unwritten: str, unread: str, found: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    reach = BrokerAccess(BrokerAddress.parse("mqtt://localhost"))
    bench, broker = ProbeSession(reach.connection_settings(), "fl"), Broker(unwritten, unread)
    monkeypatch.setattr(bench, "probe", lambda **_: broker)
    finding = rights.account_rights(bench, reach, False, EXTENDED)
    assert finding.measured["forbidden"] == found
    assert finding.verdict == ("missing" if found else "ok")


# --- limits, signatures, unsealer ----------------------------------------------------------------------


def test_the_limiter_charges_for_it() -> None:
    limiter = RateLimiter("fl", 10, 100, Roster, lambda: 0.0, EXTENDED)
    admitted = [limiter.admit(mqtt.Received("fl/pings/7", b"{}", False, 1)) for _ in range(501)]
    assert [arrival is None for arrival in admitted] == [False] * 500 + [True]
    (throttled,) = limiter.pop_throttled()
    assert (throttled.client, throttled.exceeded.reason) == ("7", "too-many-messages")
    for _ in range(1000):
        assert limiter.admit(mqtt.Received("fl/notices/7", b"{}", False, 1)) is not None


def received(topic: t.Topic, payload: bytes, *, retain: bool) -> AdmittedMessage:
    return AdmittedMessage(topic, mqtt.Received(t.build("fl", topic), payload, retain, 1))


def test_the_router_lets_only_its_sender_say_it() -> None:
    network, rejections, state = RecordingNetwork(), Rejections(), training(clients=1, per_round=1).state
    connections = connections_of(network)
    router = Router(
        connections,
        rejections,
        Unsealer(None, required=False, channels=EXTENDED),
        EnvelopeSource(RUN, 1),
        RateLimiter("fl", 10, 100, Roster, channels=EXTENDED),
        EXTENDED,
    )
    assert router.read(received(NoticesTopic("7"), b"junk", retain=True), state, 0.0) is EMPTY_INBOUND
    assert router.read(received(PingsTopic("7"), b"junk", retain=True), state, 0.0) is EMPTY_INBOUND
    assert network.connections[0].published == [("fl/notices/7", b"", True), ("fl/pings/7", b"", True)]
    router.read(received(PingsTopic("8"), codec.encode(PING, EXTENDED), retain=False), state, 0.0)
    assert {reason: times for (_, reason), times in rejections._total.items()} == {
        "foreign": 1, "retained": 1, "client-mismatch": 1,
    }  # fmt: skip


def test_the_aggregator_signs_it_and_an_edge_asks_for_its_signature() -> None:
    network = RecordingNetwork()
    connections = connections_of(network)
    trust = MessageAuthenticator(VERIFIER, EXTENDED)
    for topic, message in ((NoticesTopic("7"), NOTICE), (t.RepliesTopic("7"), PONG)):
        connections.send(topic, message)
        text, payload, _ = network.connections[0].published[-1]
        trust.check(topic, text, payload)
        with pytest.raises(BadSignature):
            trust.check(topic, text, codec.encode(message, EXTENDED))
    trust.check(PingsTopic("7"), "fl/pings/7", b"{}")


class Sealer:
    """Marks what is sealed; `test_sealing` has the real one."""

    def seal(self, topic: str, payload: bytes) -> bytes:
        return b"sealed for %b: %b" % (topic.encode(), payload)


def test_an_edge_seals_it_and_the_aggregator_may_require_that() -> None:
    network = RecordingNetwork()
    wire_of(network, ("train",), Sealer).send(PingsTopic("7"), PING, retain=False)
    assert network.connections[0].published == [
        ("fl/pings/7", b"sealed for fl/pings/7: " + codec.encode(PING, EXTENDED), False)
    ]
    unsealer = Unsealer(None, required=False, channels=EXTENDED)
    unsealer._required = True  # with a kit, which takes a whole provision to make
    with pytest.raises(MessageRejected, match="the message is not sealed, expected a sealed one"):
        unsealer.unseal(PingsTopic("7"), "fl/pings/7", b"{}")
    assert unsealer.unseal(t.PresenceTopic("7"), "fl/clients/7/presence", b"{}").content == b"{}"


# --- documents --------------------------------------------------------------------------------------


def test_asyncapi_describes_it() -> None:
    document = asyncapi.document("1", EXTENDED)
    assert document["channels"]["pings"]["address"] == "{prefix}/pings/{client}"
    assert document["operations"]["edgeSendsPings"]["reply"]["messages"] == [
        {"$ref": "#/channels/replies/messages/pong"}
    ]
    assert {"aggregatorReceivesPings", "aggregatorSendsNotices", "edgeReceivesNotices"} <= set(
        document["operations"]
    )
    assert {"ping", "pong", "notice"} <= set(document["components"]["messages"])
    assert {"Ping", "Pong", "Notice"} <= set(document["components"]["schemas"])


FIELD = {
    "prefix": "fl",
    "client": "<client>",
    "round": "<n>",
    "digest12": "<digest12>",
    "index": "<i>",
    "asker": "",
    "broker": "<broker>",
}
"""How the protocol's text spells what varies in a topic; clause 7.3 has the topic of answers to one asker."""

DocumentedRow = tuple[set[str], str, set[str], bool, list[str]]
"""Topics, sender, receivers, whether it is retained, and kinds."""


def documented(row: Channel) -> DocumentedRow:
    """The row as section 2 has to have it."""
    addresses = [asyncapi.address(row.topic, bare) for bare in (False, True)[: 1 + t.is_optional(row.topic)]]
    field = FIELD if t.is_optional(row.topic) else {**FIELD, "asker": "<asker>"}
    topics = {one.format_map(field).removesuffix("/") for one in addresses}
    return topics, row.sender, set(row.receivers), row.retained, list(map(kind_of, row.messages))


def table_of_the_protocol() -> list[DocumentedRow]:
    section = (ROOT / "docs" / "protocol.md").read_text().split("\n## 2. Topics")[1].split("\n## 3.")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    rows = []
    for topics, direction, retained, kinds in (
        map(str.strip, line.strip("|").split("|")) for line in lines[2:]
    ):
        sender, receivers = direction.split(" → ")
        named = {re.sub(r"^(an|same|the same) ", "", one).removesuffix("s") for one in receivers.split(", ")}
        assert retained.split(",")[0] in ("yes", "no")
        is_retained = retained.startswith("yes")
        rows.append((set(quoted(topics)), sender, named, is_retained, quoted(kinds)))
    return rows


def quoted(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


def test_the_table_in_the_protocol_has_every_row() -> None:
    assert table_of_the_protocol() == [documented(row) for row in CHANNELS.rows]


def test_the_table_in_the_protocol_would_miss_a_new_one() -> None:
    missing = [row for row in map(documented, EXTENDED.rows) if row not in table_of_the_protocol()]
    assert [topics for topics, *_ in missing] == [
        {"fl/replies/<client>"},
        {"fl/pings/<client>"},
        {"fl/notices/<client>"},
    ]
