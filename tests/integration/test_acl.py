"""Every account may do what the protocol asks of it and nothing else, on a real Mosquitto with generated files."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fl_aggregator.tools.provision.authority import Authority, new_serial
from fl_aggregator.tools.provision.kits import Provision
from fl_shared.security.kit import Kit
from tests.support.client import NOT_AUTHORISED, Client, ConnectionRefused, Endpoint
from tests.support.provisioned_broker import ProvisionedBroker, kit_of, provisioned

pytestmark = pytest.mark.broker

EDGES = [
    ("0", ("train",)),
    ("1", ("train", "predict")),
    ("judge", ("evaluate",)),
    ("oracle", ("predict",)),
]
OWN_PRESENCE = "fl/clients/0/presence"
OBSERVER = "\nuser observer\ntopic readwrite #\n"
"""It sends to every topic and so shows who hears what; only the tests have it."""

MODEL = "fl/model/0123456789ab"
FOR_ALL_EDGES = {"fl/aggregator", "fl/model", f"{MODEL}/manifest", f"{MODEL}/0"}
OF_ROUNDS = {"fl/round/3/selected", "fl/round/3/result"}
OF_AGGREGATOR = {
    "fl/aggregator",
    "fl/status",
    "fl/history",
    "fl/round/3/edges",
    "fl/control",
    "fl/round/3/selected",
    "fl/round/3/missing",
    "fl/round/3/result",
    "fl/model",
    f"{MODEL}/manifest",
    f"{MODEL}/0",
    "fl/clients/0/work",
    "fl/clients/1/work",
}
ANSWERS = {"fl/predictions", "fl/predictions/web"}
TRIALS = {"fl/doctor/0a1b/trip"}

MAY_WRITE = {
    "aggregator": OF_AGGREGATOR
    | TRIALS
    | {"fl/answers/a1b2"}
    | {f"fl/clients/{name}/presence" for name in ("0", "1", "judge", "oracle")}
    | {f"fl/{kind}/{name}" for kind in ("replies", "register") for name in ("0", "1", "judge", "oracle")}
    | {"fl/updates/0", "fl/updates/1", "fl/evaluations/0", "fl/evaluations/1", "fl/evaluations/judge"},
    "operator": {"fl/control", "fl/clients/0/log-request", "fl/clients/1/log-request"} | TRIALS,
    "0": {"fl/register/0", "fl/clients/0/presence", "fl/clients/0/log", "fl/updates/0", "fl/evaluations/0"},
    "1": {"fl/register/1", "fl/clients/1/presence", "fl/updates/1", "fl/evaluations/1", *ANSWERS}
    | {"fl/clients/1/log"}
    | {"fl/predict", "fl/predict/1"},
    "judge": {"fl/register/judge", "fl/clients/judge/presence", "fl/evaluations/judge"},
    "oracle": {
        "fl/register/oracle",
        "fl/clients/oracle/presence",
        *ANSWERS,
        "fl/predict",
        "fl/predict/oracle",
    },
    "web": {"fl/predict", "fl/predict/1", "fl/predict/oracle"},
}
MAY_READ = {
    "aggregator": OF_AGGREGATOR
    | TRIALS
    | {f"fl/register/{name}" for name in ("0", "1", "judge", "oracle")}
    | {f"fl/clients/{name}/presence" for name in ("0", "1", "judge", "oracle")}
    | {"fl/updates/0", "fl/updates/1", "fl/evaluations/0", "fl/evaluations/1", "fl/evaluations/judge"},
    "0": FOR_ALL_EDGES
    | OF_ROUNDS
    | {"fl/replies/0", "fl/clients/0/work", "fl/clients/0/presence", "fl/clients/0/log-request"},
    "1": FOR_ALL_EDGES
    | OF_ROUNDS
    | {"fl/replies/1", "fl/clients/1/work", "fl/clients/1/presence", "fl/predict", "fl/predict/1"}
    | {"fl/clients/1/log-request"},
    "judge": FOR_ALL_EDGES | {"fl/replies/judge", "fl/clients/judge/presence"},
    "oracle": FOR_ALL_EDGES
    | {"fl/replies/oracle", "fl/clients/oracle/presence", "fl/predict", "fl/predict/oracle"},
    "web": ANSWERS,
}
FORBIDDEN_TO_ALL = {
    # names that nobody has, whose retained messages would fill the broker
    "fl/predict/0",
    "fl/predict/other",
    "fl/predictions/other",
    "fl/predictions/web/x",
    # to write: bare topics that name nobody, levels that nobody asked for, and what is not ours
    "fl",
    "fl/register",
    "fl/updates",
    "fl/evaluations",
    "fl/replies",
    "fl/clients/0",
    "fl/clients/0/presence/x",
    "fl/clients/0/log/x",
    "fl/register/0/x",
    "fl/updates/0/x",
    "fl/evaluations/0/x",
    "fl/replies/0/x",
    "fl/predict/1/x",
    "fl/status/x",
    "fl/control/x",
    "fl/aggregator/x",
    "fl/other",
    "FL/updates/0",
    "fl2/updates/0",
    "other",
    "/fl/updates/0",
}
TOPICS = sorted(set().union(*MAY_WRITE.values(), *MAY_READ.values(), FORBIDDEN_TO_ALL))
MAY_READ["operator"] = {topic for topic in TOPICS if topic == "fl" or topic.startswith("fl/")}
ACCOUNTS = sorted(MAY_WRITE)


CERTIFICATES = pytest.mark.parametrize("made", [False], indirect=True, ids=["certificates"])


@pytest.fixture(scope="module", params=[False, True], ids=["certificates", "passwords"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Provision]:
    out = tmp_path_factory.mktemp("kits") / "out"
    askers = [("web", ("asker",)), ("observer", ("asker",))]
    provision = provisioned(out, [*EDGES, *askers], passwords=request.param)  # type: ignore[list-item]
    with ProvisionedBroker(provision, extra_acl=OBSERVER):
        yield provision


def topics_before(client: Client, topic: str) -> set[str]:
    """The topics of what it received before the first message on ``topic``."""
    client.wait_for(lambda one: one.topic == topic, topic)
    topics = [one.topic for one in client.received]
    return set(topics[: topics.index(topic)])


@pytest.mark.parametrize("name", ACCOUNTS)
def test_an_account_writes_what_it_must_and_nothing_else(made: Provision, name: str) -> None:
    with Client(Endpoint.of(kit_of(made, name))) as client:
        codes = {topic: client.publish(topic) for topic in TOPICS}
    assert {topic for topic, code in codes.items() if code < 0x80} == MAY_WRITE[name]
    assert {code for code in codes.values() if code >= 0x80} == {NOT_AUTHORISED}


@pytest.mark.parametrize("name", ACCOUNTS)
def test_an_account_hears_what_it_must_and_nothing_else_whatever_it_subscribes_to(
    made: Provision, name: str
) -> None:
    last = min(MAY_READ[name])
    with (
        Client(Endpoint.of(kit_of(made, name))) as client,
        Client(Endpoint.of(kit_of(made, "observer"))) as observer,
    ):
        client.subscribe("#")
        client.subscribe("$SYS/#")
        for topic in TOPICS:
            if topic != last:
                assert observer.publish(topic) < 0x80
        assert observer.publish(last) < 0x80
        assert topics_before(client, last) | {last} == MAY_READ[name]


@pytest.mark.parametrize(
    ("name", "filters", "heard"),
    [
        ("0", ["fl/updates/1", "fl/updates/+", "fl/updates/#"], set()),
        ("0", ["fl/replies/1", "fl/replies/+"], {"fl/replies/0"}),
        ("0", ["fl/clients/+/work", "fl/clients/1/work"], {"fl/clients/0/work"}),
        ("0", ["fl/clients/+/presence"], {"fl/clients/0/presence"}),
        ("0", ["fl/predict", "fl/predict/1", "$share/mine/fl/predict/#", "fl/predictions/#"], set()),
        ("0", ["fl/round/3/missing", "fl/round/3/edges", "fl/history", "fl/status", "fl/control"], set()),
        ("0", ["fl/register/+"], set()),
        ("1", ["$share/predictors/fl/predict", "fl/predict/1"], {"fl/predict", "fl/predict/1"}),
        ("1", ["fl/predict/+", "fl/predict/0"], {"fl/predict/1"}),
        ("web", ["fl/predict", "fl/predict/+", "fl/updates/#", "fl/model"], set()),
    ],
)
def test_neither_the_exact_filter_nor_a_wildcard_brings_what_is_anothers(
    made: Provision, name: str, filters: list[str], heard: set[str]
) -> None:
    last = min(MAY_READ[name])
    with (
        Client(Endpoint.of(kit_of(made, name))) as client,
        Client(Endpoint.of(kit_of(made, "observer"))) as observer,
    ):
        for one in [*filters, last]:
            client.subscribe(one)
        for topic in TOPICS:
            if topic != last:
                observer.publish(topic)
        observer.publish(last)
        assert topics_before(client, last) == heard


def test_a_will_on_anothers_topic_is_never_published(made: Provision) -> None:
    """2.0.11 lets who has one in, and drops it; refusing the connection would do as well."""
    with Client(Endpoint.of(kit_of(made, "observer"))) as observer:
        observer.subscribe("#")
        for topic in ("fl/clients/1/presence", "fl/aggregator", "fl/updates"):
            with (
                contextlib.suppress(ConnectionRefused),
                Client(Endpoint.of(kit_of(made, "0")), will=(topic, b"gone"), retain_will=False) as false,
            ):
                false.drop_connection()
        with Client(
            Endpoint.of(kit_of(made, "0")), will=(OWN_PRESENCE, b"gone"), retain_will=False
        ) as honest:
            honest.drop_connection()
        assert topics_before(observer, OWN_PRESENCE) == set()


def test_a_retained_message_of_the_aggregators_topics_cannot_be_cleared_by_an_edge(made: Provision) -> None:
    with (
        Client(Endpoint.of(kit_of(made, "aggregator"))) as aggregator,
        Client(Endpoint.of(kit_of(made, "1"))) as edge,
    ):
        assert aggregator.publish("fl/model", b"newest", retain=True) < 0x80
        assert edge.publish("fl/model", b"", retain=True) == NOT_AUTHORISED
        edge.subscribe("fl/model")
        received = edge.take(timeout=10)
        assert (received.topic, received.payload) == ("fl/model", b"newest")
        assert aggregator.publish("fl/model", b"", retain=True) < 0x80


def test_an_outsider_is_not_let_in(made: Provision, tmp_path: Path) -> None:
    kit = kit_of(made, "0")
    for outsider in _outsiders(made, kit, tmp_path):
        with pytest.raises(ConnectionRefused), Client(Endpoint.of(outsider)):
            pass
    with Client(Endpoint.of(kit)):
        pass


def _outsiders(made: Provision, kit: Kit, tmp_path: Path) -> list[Kit]:
    nobody = replace(kit, cert=None, key=None, user=None, password=None)
    if made.register.place.passwords:
        wrong = replace(kit, password="not " + (kit.password or ""))
        return [
            nobody,
            wrong,
            replace(kit, user="1"),
            replace(kit, user="stranger"),
            replace(kit, password=""),
        ]
    # An authority of his own, who gives him our edge's name.
    now = made._now
    forged = Authority.create(tmp_path / "authority", now).issue_client("0", new_serial(), now, 30)
    named = replace(nobody, user="0", password="x")
    return [nobody, named, replace(kit, cert=forged.cert, key=forged.key)]


@CERTIFICATES
def test_a_certificates_name_counts_and_not_what_its_holder_says(made: Provision) -> None:
    kit = replace(kit_of(made, "0"), user="aggregator", password="x")
    with Client(Endpoint.of(kit)) as client:
        assert client.publish("fl/status") == NOT_AUTHORISED
        assert client.publish("fl/register/0") < 0x80


@CERTIFICATES
def test_the_brokers_own_certificate_opens_no_connection(made: Provision) -> None:
    files = made.broker_directory
    stolen = replace(
        kit_of(made, "0"),
        cert=(files / "broker.pem").read_bytes(),
        key=(files / "broker.key").read_bytes(),
    )
    with pytest.raises(ConnectionRefused), Client(Endpoint.of(stolen)):
        pass


@pytest.mark.parametrize("passwords", [False, True], ids=["certificates", "passwords"])
def test_what_is_revoked_or_rotated_is_worth_nothing_any_more(tmp_path: Path, passwords: bool) -> None:
    made = provisioned(tmp_path / "kits", [("0", ("train",)), ("1", ("train",))], passwords=passwords)
    old, other = kit_of(made, "0"), kit_of(made, "1")
    with (
        ProvisionedBroker(made) as broker,
        Client(Endpoint.of(old)) as before,
        Client(Endpoint.of(other)) as unharmed,
    ):
        assert before.publish("fl/updates/0") < 0x80
        made.add([("2", ("train",))], force=False)
        made.revoke(["0"])
        broker.reload()
        # Whoever is connected may do nothing any more (or is thrown out), and cannot connect anew.
        if not passwords:
            assert before.publish("fl/updates/0") == NOT_AUTHORISED
        with pytest.raises(ConnectionRefused), Client(Endpoint.of(old)):
            pass
        assert unharmed.publish("fl/updates/1") < 0x80
        with Client(Endpoint.of(kit_of(made, "2"))) as added:
            assert added.publish("fl/updates/2") < 0x80
        rotated = kit_of(made, "1")
        made.rotate(["1"], force=True)
        broker.restart()
        for kit in (old, rotated):
            with pytest.raises(ConnectionRefused), Client(Endpoint.of(kit)):
                pass
        with Client(Endpoint.of(kit_of(made, "1"))) as renewed:
            assert renewed.publish("fl/updates/1") < 0x80


def test_another_prefix_is_kept_apart(tmp_path: Path) -> None:
    made = provisioned(tmp_path / "kits", [("0", ("train",))], prefix="plant7/fl")
    with ProvisionedBroker(made), Client(Endpoint.of(kit_of(made, "0"))) as client:
        assert client.publish("plant7/fl/updates/0") < 0x80
        assert client.publish("fl/updates/0") == NOT_AUTHORISED
