"""What a voucher entitles to: messages of another role, or after its expiry, have no effect (protocol, 9.15)."""

from __future__ import annotations

import itertools
from typing import Any, cast

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from fl_aggregator.configuration.settings import Settings
from fl_aggregator.messaging.connections import Connections
from fl_aggregator.messaging.inbox import AdmittedMessage, Inbox
from fl_aggregator.messaging.rate_limiter import RateLimiter
from fl_aggregator.messaging.reader import EMPTY_INBOUND, Inbound
from fl_aggregator.messaging.rejections import Rejections
from fl_aggregator.messaging.router import Router
from fl_aggregator.messaging.unsealing import Unsealer
from fl_aggregator.round import events as on
from fl_aggregator.round.effects import Refuse, SendReply
from fl_aggregator.round.roster import Client, Roster
from fl_aggregator.round.state import new_run
from fl_shared.cli.broker_access import BrokerAccess
from fl_shared.mqtt import events as mqtt
from fl_shared.mqtt.address import BrokerAddress
from fl_shared.mqtt.network import Network
from fl_shared.protocol import codec
from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from fl_shared.protocol.envelope import EnvelopeSource
from fl_shared.security.kit import Kit
from fl_shared.security.revocations import RevocationList
from fl_shared.security.sealing import Sealer
from fl_shared.security.signatures import Signer
from fl_shared.security.vouchers import Voucher, VoucherRole
from tests.support.builders import registration
from tests.support.recording_connections import RecordingNetwork

FUTURE, PAST = 2**40, 1_000_000_000
SCOPE: dict[str, Any] = {"run": "run-1", "incarnation": 1, "seq": 1}
SIGNING, ENROLMENT = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
AGGREGATOR = X25519PrivateKey.generate()
KIT = Kit(
    name="aggregator",
    roles=("aggregator",),
    broker="mqtts://broker:8883",
    prefix="fl",
    ca=b"",
    broker_pin=bytes(32),
    signing_public=SIGNING.public_key().public_bytes_raw(),
    sealing_public=AGGREGATOR.public_key().public_bytes_raw(),
    enrolment_public=ENROLMENT.public_key().public_bytes_raw(),
    signing_private=SIGNING.private_bytes_raw(),
    sealing_private=AGGREGATOR.private_bytes_raw(),
)


class Aggregator:
    """What an aggregator with a kit makes of a message; ``required``: with ``--require-sealed``."""

    def __init__(self, *, required: bool = True) -> None:
        self.rejections = Rejections()
        scope = EnvelopeSource("run-1", 1)
        self._state = new_run(Settings(task="digits"))
        self.limiter = limiter = RateLimiter("fl", 3, 100, lambda: self._state.roster)
        network = cast(Network, RecordingNetwork())
        access = BrokerAccess(BrokerAddress.parse("mqtt://localhost"))
        connections = Connections(network, access, self._state.settings, scope, Inbox(limiter.admit))
        unsealer = Unsealer(KIT, required=required)
        self._router = Router(connections, self.rejections, unsealer, scope, limiter)

    def revoke(
        self, *accounts: str, keys: tuple[str, ...] = (), roster: Roster | None = None
    ) -> tuple[str, ...]:
        newest = RevocationList(number=1, accounts=accounts, keys=keys)
        return self._router.revoked.replace(newest, roster or self._state.roster)

    def read_plain(self, topic: t.Topic, message: m.Message) -> Inbound:
        received = mqtt.Received(t.build("fl", topic), codec.encode(message), False, 1)
        return self._router.read(AdmittedMessage(topic, received), self._state, 0.0)

    def read(
        self,
        topic: t.Topic,
        message: m.Message,
        name: str,
        roles: set[VoucherRole],
        expires: int = FUTURE,
        issuer: Ed25519PrivateKey = ENROLMENT,
        key: X25519PrivateKey | None = None,
    ) -> Inbound:
        """Reads a message that the account ``name`` with these roles has sealed; ``issuer`` vouches for it."""
        key, text = key or X25519PrivateKey.generate(), t.build("fl", topic)
        voucher = Voucher(name, key.public_key().public_bytes_raw(), frozenset(roles), expires)
        encoded = voucher.sign(Signer(issuer.private_bytes_raw()))
        sealer = Sealer(key.private_bytes_raw(), encoded, KIT.sealing_public)
        sealed = sealer.seal(text, codec.encode(message))
        return self._router.read(
            AdmittedMessage(topic, mqtt.Received(text, sealed, False, 1)), self._state, 0.0
        )


def refusal(inbound: Inbound) -> Refuse:
    assert inbound.event is None
    assert isinstance(inbound.reply, SendReply)
    assert isinstance(inbound.reply.body, Refuse)
    return inbound.reply.body


def evaluation(split: Any) -> m.Evaluation:
    return m.Evaluation(
        **SCOPE,
        client="7",
        session="s",
        version=1,
        digest="0" * 64,
        split=split,
        examples=1,
        loss=0.0,
        metrics={"accuracy": 1.0},
    )


def test_an_edge_registers_in_roles_of_its_voucher_and_in_no_others() -> None:
    aggregator, topic = Aggregator(), t.RegisterTopic("7")
    both = registration("7", roles=("train", "evaluate"))
    assert isinstance(aggregator.read(topic, both, "7", {"train", "evaluate"}).event, on.Registered)
    fewer = registration("7", roles=("train",))
    assert isinstance(aggregator.read(topic, fewer, "7", {"train", "evaluate"}).event, on.Registered)
    answer = refusal(aggregator.read(topic, both, "7", {"train"}))
    assert (answer.reason, answer.detail) == (
        "wrong-role", "roles: train, evaluate, but the kit of '7' is only for train",
    )  # fmt: skip


def test_whoever_sends_what_cannot_be_opened_pays_for_the_time_that_it_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    aggregator, topic, stranger = Aggregator(), t.EvaluationsTopic("1"), Ed25519PrivateKey.generate()
    monkeypatch.setattr(
        "time.thread_time", itertools.count().__next__
    )  # each look at the clock takes a second
    for _ in range(3):
        received = mqtt.Received(t.build("fl", topic), b"\xc1", False, 1)
        assert aggregator.limiter.admit(received) is not None
        aggregator.read(topic, evaluation("test"), "1", {"evaluate"}, issuer=stranger)
    assert aggregator.rejections.total == {"1": {"not-opened": 3}}
    assert aggregator.limiter.admit(received) is None
    assert [each.exceeded.reason for each in aggregator.limiter.pop_throttled()] == ["too-much-work"]


def test_what_can_be_opened_costs_only_the_time_to_decode_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks that were granted cost no bytes, and a slow machine takes long to open them."""
    aggregator, topic, times = Aggregator(), t.EvaluationsTopic("1"), iter((0.0, 100.0, 100.0))
    monkeypatch.setattr("time.thread_time", times.__next__)
    aggregator.read(topic, evaluation("test"), "1", {"evaluate"})
    assert aggregator.limiter.admit(mqtt.Received(t.build("fl", topic), b"\xc1", False, 1)) is not None


def test_only_who_may_be_a_region_stands_for_many_edges() -> None:
    aggregator, topic = Aggregator(), t.RegisterTopic("7")
    region = registration("7", roles=("train",), edges=5)
    assert isinstance(aggregator.read(topic, region, "7", {"train", "region"}).event, on.Registered)
    answer = refusal(aggregator.read(topic, region, "7", {"train"}))
    assert (answer.reason, answer.detail) == (
        "wrong-role", "edges: 5, as of a regional aggregator, but the kit of '7' is only for train",
    )  # fmt: skip


def test_the_aggregators_own_key_vouches_for_nobody() -> None:
    aggregator, message = Aggregator(), registration("7")
    read = aggregator.read(t.RegisterTopic("7"), message, "7", {"train"}, issuer=SIGNING)
    assert read is EMPTY_INBOUND
    assert aggregator.rejections.total == {"7": {"not-opened": 1}}


@pytest.mark.parametrize("name", ["operator", "7"])
def test_the_operators_voucher_is_not_one_of_an_edge(name: str) -> None:
    topic, message = t.RegisterTopic(name), registration(name)
    answer = refusal(Aggregator().read(topic, message, name, {"operator"}))
    assert answer.reason == "wrong-role"


def test_a_kit_that_has_expired_is_refused() -> None:
    aggregator = Aggregator()
    answer = refusal(aggregator.read(t.RegisterTopic("7"), registration("7"), "7", {"train"}, PAST))
    assert answer.reason == "kit-expired"
    assert "the kit of '7' expired on 2001-09-09, expected a new one" in answer.detail
    failed = m.TrainingFailed(**SCOPE, client="7", session="s", round=1, detail="")
    assert aggregator.read(t.UpdatesTopic("7"), failed, "7", {"train"}, PAST) is EMPTY_INBOUND
    assert aggregator.rejections.total == {"7": {"kit-expired": 1}}


@pytest.mark.parametrize("roles", [{"predict"}, {"evaluate"}, {"predict", "evaluate"}])
def test_only_who_may_train_sends_updates(roles: set[VoucherRole]) -> None:
    aggregator, topic = Aggregator(), t.UpdatesTopic("7")
    failed = m.TrainingFailed(**SCOPE, client="7", session="s", round=1, detail="")
    assert aggregator.read(topic, failed, "7", {"train"}).event is not None
    assert aggregator.read(topic, failed, "7", roles) is EMPTY_INBOUND
    assert aggregator.rejections.total == {"7": {"wrong-role": 1}}


@pytest.mark.parametrize(
    ("split", "roles", "counts"),
    [
        ("test", {"evaluate"}, True),
        ("test", {"train"}, False),
        ("holdout", {"train"}, True),
        ("holdout", {"evaluate"}, False),
        ("test", {"predict"}, False),
    ],
)
def test_an_evaluation_needs_the_role_of_its_split(split: str, roles: set[VoucherRole], counts: bool) -> None:
    aggregator = Aggregator()
    read = aggregator.read(t.EvaluationsTopic("7"), evaluation(split), "7", roles)
    assert (read.event is not None) == counts
    assert aggregator.rejections.total == ({} if counts else {"7": {"wrong-role": 1}})


def test_only_the_operators_voucher_stops_a_run() -> None:
    aggregator, stop = Aggregator(), m.Stop(run="run-1", incarnation=1, reason="lunch")
    assert isinstance(
        aggregator.read(t.ControlTopic(), stop, "operator", {"operator"}).event, on.StopRequested
    )
    assert aggregator.read(t.ControlTopic(), stop, "operator", {"train"}) is EMPTY_INBOUND
    assert aggregator.rejections.total == {"operator": {"wrong-role": 1}}


def test_nothing_counts_that_a_revoked_kit_sends() -> None:
    aggregator, key = Aggregator(), X25519PrivateKey.generate()
    public = key.public_key().public_bytes_raw().hex()
    aggregator.revoke("7", "operator", keys=(public,))
    roles: set[VoucherRole] = {"train", "evaluate", "operator"}
    answer = refusal(aggregator.read(t.RegisterTopic("7"), registration("7"), "7", roles, key=key))
    assert answer.reason == "kit-revoked"
    assert answer.detail.startswith("edge 7: its kit was revoked, expected a new one")
    failed = m.TrainingFailed(**SCOPE, client="7", session="s", round=1, detail="")
    assert aggregator.read(t.UpdatesTopic("7"), failed, "7", roles, key=key) is EMPTY_INBOUND
    assert aggregator.read(t.EvaluationsTopic("7"), evaluation("test"), "7", roles, key=key) is EMPTY_INBOUND
    stop = m.Stop(run="run-1", incarnation=1, reason="lunch")
    assert aggregator.read(t.ControlTopic(), stop, "operator", roles, key=key) is EMPTY_INBOUND
    assert aggregator.rejections.total == {"7": {"kit-revoked": 2}, "operator": {"kit-revoked": 1}}
    assert aggregator.read(t.UpdatesTopic("7"), failed, "7", roles).event is not None, (
        "a kit counts that is newer than the list"
    )


def test_an_account_without_a_kit_sends_nothing_plain_either_but_its_presence() -> None:
    aggregator = Aggregator(required=False)
    aggregator.revoke("7")
    assert refusal(aggregator.read_plain(t.RegisterTopic("7"), registration("7"))).reason == "kit-revoked"
    assert aggregator.read_plain(t.RegisterTopic("8"), registration("8")).event is not None
    gone = m.ClientPresence(client="7", session="s", state="offline")
    assert isinstance(aggregator.read_plain(t.PresenceTopic("7"), gone).event, on.EdgeLost)


def test_a_list_names_the_edges_that_have_registered_with_revoked_kits_and_no_others() -> None:
    aggregator, old, new = Aggregator(), X25519PrivateKey.generate(), X25519PrivateKey.generate()
    for name, session, key in (("7", "s1", old), ("8", "s2", new), ("9", "s3", old), ("9", "s4", new)):
        message = registration(name, session=session)
        assert aggregator.read(t.RegisterTopic(name), message, name, {"train"}, key=key).event is not None
    roster = Roster()
    for name, session in (("7", "s1"), ("8", "s2"), ("9", "s4"), ("10", "s5"), ("11", "s6")):
        client = Client(session=session, device="d", roles=("train",), encodings=("f32",), registered_at=0.0)
        roster = roster.with_client(name, client)
    keys = (old.public_key().public_bytes_raw().hex(),)
    assert aggregator.revoke("10", keys=keys, roster=roster) == ("10", "7")
