"""To speak in the name of others: with accounts the broker's ACL refuses it, whatever is in the message."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import partial
from typing import cast

import msgpack

from fl_shared.protocol import codec
from fl_shared.protocol import messages as m
from tests.support.attacks.attack import UNKNOWN, Attack, Counted
from tests.support.attacks.cluster import BAD, KITS, LAB, MARK, Cluster
from tests.support.client import NOT_AUTHORISED, Client
from tests.support.received import Received
from tests.support.wait import wait_until

AGAIN = "within a second the genuine message is retained again"
DENIED = "PUBACK 0x87; broker's log: `Denied PUBLISH`"


def denied(*topics: str, retain: bool = False) -> Callable[[Cluster], None]:
    """Edge 3 writes to ``topics``, in which ``{n}`` is the open round and ``{model}`` the model's name."""

    def act(cluster: Cluster) -> None:
        for topic in topics:
            text = topic.format(n=cluster.round, model=cluster.base[:12])
            payload = json.dumps({"v": 2, "what": MARK.decode()}).encode()
            assert cluster.bad.publish(text, payload, retain=retain) == NOT_AUTHORISED, text
            assert cluster.denied("bad", text), text

    return act


def clears(cluster: Cluster) -> None:
    for topic in (
        "fl/model",
        f"fl/round/{cluster.round}/selected",
        f"fl/model/{cluster.base[:12]}/0",
        "fl/status",
    ):
        assert cluster.bad.publish(topic, b"", retain=True) == NOT_AUTHORISED, topic
        assert cluster.denied("bad", topic), topic


def false_will(cluster: Cluster) -> None:
    """2.0.11 lets who has such a will in, and drops it."""
    payload = codec.encode(m.ClientPresence(client="0", state="offline", session=cluster.session_of("0")))
    with Client(cluster.endpoint(BAD), name="false-will", will=("fl/clients/0/presence", payload)) as dying:
        since = len(cluster.observer.received)
        dying.drop_connection()
        ended = r"Client false-will (closed its connection|disconnected)|Socket error on client false-will"
        wait_until(lambda: re.search(ended, cluster.broker_log()), 15, "the broker has noticed")
    # A will that was sent would have come before what is published after that.
    cluster.observer.catch_up()
    assert not [one for one in cluster.observer.received[since:] if one.payload == payload]


def says_it_is_gone(cluster: Cluster) -> None:
    """In a lab anybody can: of another session it says nothing, and the edge says what is so."""
    payload = codec.encode(m.ClientPresence(client="0", state="offline", session="not-its-own"))
    since = len(cluster.observer.received)
    assert cluster.bad.publish("fl/clients/0/presence", payload, retain=True) < 0x80
    cluster.observer.wait_for(
        lambda one: one.topic == "fl/clients/0/presence" and b'"online"' in one.payload,
        "a birth",
        since=since,
    )


def registers_as_another(cluster: Cluster) -> None:
    words = codec.encode(cluster.registration(client="0"))
    since = len(cluster.observer.received)
    assert cluster.bad.publish("fl/register/0", words) < 0x80
    cluster.observer.wait_for(
        lambda one: one.topic == "fl/replies/0" and b'"id-in-use"' in one.payload, "a refusal", since=since
    )


def names_another(cluster: Cluster) -> None:
    cluster.say(f"fl/updates/{BAD}", cast(bytes, msgpack.packb(cluster.update(client="0"))))
    cluster.say(f"fl/register/{BAD}", codec.encode(cluster.registration(client="0")))


def rewrites_the_model(cluster: Cluster) -> None:
    """Twice in a moment. Whoever has loaded it has it; the others find what the aggregator says again."""
    writer = cluster.bad if cluster.setup == "lab" else cluster.observer
    for topic in ("fl/model", f"fl/model/{cluster.base[:12]}/manifest", f"fl/model/{cluster.base[:12]}/0"):
        true = next(one.payload for one in reversed(cluster.recorded) if one.topic == topic and one.payload)
        for _ in range(2):
            since = len(cluster.observer.received)
            assert writer.publish(topic, b"\x80poison", retain=True) < 0x80
        cluster.observer.wait_for(partial(is_there, topic, true), f"the true {topic} again", since=since)


def is_there(topic: str, payload: bytes, heard: Received) -> bool:
    return (heard.topic, heard.payload) == (topic, payload)


ATTACKS = (
    Attack("an update in another's name", "edge 3", "ACL", denied("fl/updates/0"), shows=DENIED, setups=KITS),
    Attack("a registration in another's name", "edge 3", "ACL", denied("fl/register/0", "fl/register/4"),
        shows=DENIED, setups=KITS),
    Attack("a registration in the name of a present edge, from another device", "any client", "aggregator",
        registers_as_another, (Counted("0", "id-in-use"),), "`refused` on `fl/replies/0`", LAB),
    Attack("“edge 0 is gone”, as a message", "edge 3", "ACL", denied("fl/clients/0/presence", retain=True),
        shows=DENIED, setups=KITS),
    Attack("“edge 0 is gone”, as a will", "edge 3", "ACL", false_will,
        shows="the will is never published", setups=KITS),
    Attack("“edge 0 is gone”, of another session", "any client", "aggregator", says_it_is_gone,
        shows="edge 0 publishes its birth again", setups=LAB),
    Attack("an evaluation in another's name", "edge 3", "ACL", denied("fl/evaluations/0"), shows=DENIED, setups=KITS),
    Attack("another's name in a message on its own topic", "edge 3", "aggregator", names_another,
        (Counted(BAD, "client-mismatch", 2),)),
    Attack("an update or a registration on the topic without a client, in another's name", "edge 3", "ACL",
        denied("fl/updates", "fl/register"), shows=DENIED, setups=KITS),
    Attack("a forged `selected`, `result`, `missing`", "edge 3", "ACL",
        denied("fl/round/{n}/selected", "fl/round/99/selected", "fl/round/{n}/result", "fl/round/{n}/missing",
               "fl/clients/0/work", retain=True), shows=DENIED, setups=KITS),
    Attack("a forged reply to another, or to itself", "edge 3", "ACL", denied("fl/replies/0", f"fl/replies/{BAD}"),
        shows=DENIED, setups=KITS),
    Attack("a poisoned model: announcement, manifest, chunks", "edge 3", "ACL",
        denied("fl/model", "fl/model/{model}/manifest", "fl/model/{model}/0", "fl/model/0123456789ab/0", retain=True),
        shows=DENIED, setups=KITS),
    Attack("a poisoned model: announcement, manifest, a chunk", "any client", "aggregator", rewrites_the_model,
        (Counted(UNKNOWN, "foreign", 6),), AGAIN, LAB),
    Attack("a forged birth, will or status of the aggregator", "edge 3", "ACL",
        denied("fl/aggregator", "fl/status", retain=True), shows=DENIED, setups=KITS),
    Attack("to clear the aggregator's retained messages", "edge 3", "ACL", clears, shows=DENIED, setups=KITS),
    Attack("`stop`", "edge 3", "ACL", denied("fl/control"), shows=DENIED, setups=KITS),
    Attack("an answer to another client's prediction request", "edge 3, which does not have that role", "ACL",
        denied("fl/predictions", "fl/predictions/web"), shows=DENIED, setups=KITS),
    Attack("to write on topics outside the run: other prefixes, `$SYS`, a bridge's state", "edge 3", "ACL",
        denied("$SYS/broker/connection/x/state", "$SYS/broker/uptime", "other", "fl",
               "fl2/updates/3", "fl/doctor/1/trip", "/fl/updates/3"), shows=DENIED, setups=KITS),
)  # fmt: skip
