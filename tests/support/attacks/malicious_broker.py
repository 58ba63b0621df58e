"""What whoever runs the broker can try, who reads and writes every topic, where only the two ends are trusted."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import cast

import msgpack
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from fl_shared.protocol import codec
from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from fl_shared.security.sealing import Sealer
from fl_shared.security.signatures import Signer
from fl_shared.tensors.sections import ModelSection
from fl_shared.transfer.publication import model_publication
from tests.support.attacks.attack import UNKNOWN, Attack, Counted, Logged, Where
from tests.support.attacks.cluster import BAD, HONEST, SEALED, TASK, VALUES, Cluster
from tests.support.attacks.impersonation import AGAIN, rewrites_the_model
from tests.support.received import Received
from tests.support.simulated_aggregator import FOLD, TRAINING

ANOTHER = Signer(Ed25519PrivateKey.generate().private_bytes_raw())
FAR = 500
"""A round that there never is."""
FOREIGN, FOREIGN_TWICE = Counted(UNKNOWN, "foreign"), Counted(UNKNOWN, "foreign", 2)
MISSING, WRONG = "sig: missing", "sig: not the aggregator's signature"


def forges(make: Callable[[Cluster], tuple[t.Topic, m.Message]]) -> Callable[[Cluster], None]:
    """Without a signature, and with one by another key."""

    def act(cluster: Cluster) -> None:
        topic, message = make(cluster)
        text, payload = t.build("fl", topic), codec.encode(message)
        retain = not isinstance(topic, t.RepliesTopic)
        for one in (payload, ANOTHER.sign(text, payload)):
            assert cluster.observer.publish(text, one, retain=retain) < 0x80

    return act


def selection(cluster: Cluster, number: int) -> m.Selected:
    return m.Selected(
        run=cluster.run, incarnation=cluster.incarnation, seq=10**6, round=number, task=TASK, cohort=HONEST,
        seconds_left=60.0,
        training=TRAINING, fold=FOLD, encoding="f32", inline_limit=10**7,
        base=m.ModelReference(version=1, digest=cluster.base),
    )  # fmt: skip


def false_selection(cluster: Cluster) -> tuple[t.Topic, m.Message]:
    return t.SelectedTopic(FAR), selection(cluster, FAR)


def false_work(cluster: Cluster) -> tuple[t.Topic, m.Message]:
    return t.WorkTopic("0"), selection(cluster, FAR)


def false_result(cluster: Cluster) -> tuple[t.Topic, m.Message]:
    """It would end the open round at the edges."""
    return t.ResultTopic(cluster.round), m.Result(
        run=cluster.run, incarnation=cluster.incarnation, seq=10**6, round=cluster.round, outcome="abandoned",
        reason="so",
        version=None, digest=None, participants=(), missing={}, examples=0, metrics={}, bytes_up=0, bytes_down=0,
        seconds=0.0,
    )  # fmt: skip


def false_model(cluster: Cluster) -> tuple[t.Topic, m.Message]:
    return t.ModelTopic(), m.ModelAnnouncement(
        run=cluster.run, incarnation=cluster.incarnation, seq=10**6, task=TASK, round=9, version=9,
        digest="0" * 64, chunks=1,
        size=4 * VALUES,
    )  # fmt: skip


def false_birth(cluster: Cluster) -> tuple[t.Topic, m.Message]:
    return t.AggregatorTopic(), m.AggregatorPresence(state="online", session="x", run="evil", incarnation=1)


def false_refusal(cluster: Cluster) -> tuple[t.Topic, m.Message]:
    """It would end the program with exit code 2."""
    return t.RepliesTopic("0"), m.Refused(
        run=cluster.run, incarnation=cluster.incarnation, seq=10**6, client="0", session=cluster.session_of("0"),
        reason="id-in-use", detail="go away",
    )  # fmt: skip


def of(topic: str, kind: str) -> Callable[[Received], bool]:
    words = f'"kind":"{kind}"'.encode()
    return lambda one: one.topic == topic and words in one.payload


def clears_the_selection(cluster: Cluster) -> None:
    topic = f"fl/round/{cluster.round}/selected"
    since = len(cluster.observer.received)
    assert cluster.observer.publish(topic, b"", retain=True) < 0x80
    cluster.observer.wait_for(of(topic, "selected"), "the selection again", since=since)


def repeats_an_admission(cluster: Cluster) -> None:
    old = next(filter(of("fl/replies/0", "admitted"), cluster.recorded))
    assert cluster.observer.publish("fl/replies/0", old.payload) < 0x80


def repeats_an_announcement(cluster: Cluster) -> None:
    announced = [*filter(of("fl/model", "model"), cluster.recorded)]
    old, newest = announced[0], announced[-1].payload
    assert json.loads(old.payload)["version"] == 0
    since = len(cluster.observer.received)
    assert cluster.observer.publish("fl/model", old.payload, retain=True) < 0x80
    cluster.observer.wait_for(
        lambda one: (one.topic, one.payload) == ("fl/model", newest), "the newest announcement", since=since
    )


def moves_a_result(cluster: Cluster) -> None:
    """What is signed for one topic is nothing on another."""
    old = next(filter(of("fl/round/1/result", "result"), cluster.recorded))
    assert cluster.observer.publish(f"fl/round/{cluster.round}/result", old.payload, retain=True) < 0x80


def poisons_a_chunk(cluster: Cluster) -> None:
    """Well-formed: only the digest says that it is of another model."""
    manifest = cluster.manifest
    section = ModelSection("weights", manifest, bytes(4 * VALUES))
    made = model_publication([section], 2**20)
    chunk = made.chunk(0, run=cluster.run, incarnation=cluster.incarnation, seq=10**6).model_copy(
        update={"digest": cluster.base}
    )
    topic = f"fl/model/{cluster.base[:12]}/0"
    true = next(one.payload for one in reversed(cluster.recorded) if one.topic == topic and one.payload)
    since = len(cluster.observer.received)
    assert cluster.observer.publish(topic, codec.encode(chunk), retain=True) < 0x80
    cluster.observer.wait_for(
        lambda one: (one.topic, one.payload) == (topic, true), "the true chunk", since=since
    )


def writes_an_update(cluster: Cluster) -> None:
    """In edge 0's name: plain; sealed by a key that nobody vouches for; by edge 3's, an accomplice."""
    update = cast(bytes, msgpack.packb(cluster.update(client="0", session=cluster.session_of("0"))))
    kit = cluster.kit(BAD)
    assert kit.voucher is not None
    strange = Sealer(X25519PrivateKey.generate().private_bytes_raw(), kit.voucher, kit.sealing_public)
    topic = "fl/updates/0"
    for payload in (update, strange.seal(topic, update), kit.sealer().seal(topic, update)):
        assert cluster.observer.publish(topic, payload) < 0x80
    bare = "fl/updates"
    for payload in (update, kit.sealer().seal(bare, update)):
        assert cluster.observer.publish(bare, payload) < 0x80


def registers_another(cluster: Cluster) -> None:
    words = codec.encode(cluster.registration(client="0"))
    for payload in (words, cluster.kit(BAD).sealer().seal("fl/register/0", words)):
        assert cluster.observer.publish("fl/register/0", payload) < 0x80


def repeats_updates(cluster: Cluster) -> None:
    """Of the round before and of this one: what is accepted twice counts once."""
    sealed = [one for one in cluster.recorded if one.topic == "fl/updates/0"]
    assert len(sealed) >= 2
    for one in sealed:
        since = len(cluster.observer.received)
        assert cluster.observer.publish("fl/updates/0", one.payload) < 0x80
        cluster.observer.wait_for(of("fl/replies/0", "accepted"), "accepted again", since=since)


def moves_an_update(cluster: Cluster) -> None:
    """Another's sealed words as edge 3's own, and where it has evaluations."""
    sealed = next(one for one in cluster.recorded if one.topic == "fl/updates/0")
    for topic in (f"fl/updates/{BAD}", f"fl/evaluations/{BAD}", "fl/updates/1"):
        assert cluster.observer.publish(topic, sealed.payload) < 0x80


def repeats_a_registration(cluster: Cluster) -> None:
    """The first one of this connection, which says nothing of what the edge has loaded, and takes nothing back."""
    old = next(one for one in cluster.recorded if one.topic == "fl/register/0")
    since = len(cluster.observer.received)
    assert cluster.observer.publish("fl/register/0", old.payload) < 0x80
    cluster.observer.wait_for(of("fl/replies/0", "admitted"), "admitted again", since=since)


def orders_a_stop(cluster: Cluster) -> None:
    words = codec.encode(m.Stop(run=cluster.run, incarnation=cluster.incarnation, reason="forged"))
    for payload in (words, cluster.kit(BAD).sealer().seal("fl/control", words)):
        assert cluster.observer.publish("fl/control", payload) < 0x80


def is_refused(one: Received) -> bool:
    return b'"reason":"wrong-role"' in one.payload


def trains_with_a_kit_of(name: str) -> Callable[[Cluster], None]:
    """With the kit of an account that may not train: registers in every role, then sends an update and scores."""

    def act(cluster: Cluster) -> None:
        sealer = cluster.kit(name).sealer()
        for role in ("train", "evaluate"):
            topic = f"fl/register/{name}"
            since = len(cluster.observer.received)
            registration = cluster.registration(client=name, roles=(role,))
            assert cluster.observer.publish(topic, sealer.seal(topic, codec.encode(registration))) < 0x80
            cluster.observer.wait_for(is_refused, "that it is refused", since=since)
        update = cast(bytes, msgpack.packb(cluster.update(client=name)))
        evaluation = codec.encode(scores(cluster, name))
        for topic, payload in ((f"fl/updates/{name}", update), (f"fl/evaluations/{name}", evaluation)):
            assert cluster.observer.publish(topic, sealer.seal(topic, payload)) < 0x80

    return act


def scores(cluster: Cluster, client: str) -> m.Evaluation:
    return m.Evaluation(
        run=cluster.run, incarnation=cluster.incarnation, seq=cluster.next_seq(), client=client, session="bad-session",
        version=1, digest=cluster.base, split="test", examples=10**6, loss=0.0, metrics={"accuracy": 1.0},
    )  # fmt: skip


def trains_with_an_askers_kit(cluster: Cluster) -> None:
    """It has no voucher, so it borrows one that it has seen on the wire, beside a key of its own."""
    kit = cluster.kit("kiosk")
    assert (kit.sealing_private, kit.voucher) == (None, None)
    seen = cluster.kit("lamp").voucher
    assert seen is not None
    sealer = Sealer(X25519PrivateKey.generate().private_bytes_raw(), seen, kit.sealing_public)
    topic, words = "fl/register/kiosk", codec.encode(cluster.registration(client="kiosk"))
    for payload in (words, sealer.seal(topic, words)):
        assert cluster.observer.publish(topic, payload) < 0x80


def evaluates_without_the_role(cluster: Cluster) -> None:
    """Edge 3's voucher says that it trains; scores on the test split would change which model is the best."""
    cluster.register(roles=("train", "evaluate"))
    cluster.bad.wait_for(is_refused, "that it is refused")
    cluster.say(f"fl/evaluations/{BAD}", codec.encode(scores(cluster, BAD)))


def reads_everything(cluster: Cluster) -> None:
    """All that it has heard of what edges say, from the beginning."""
    told = [one for one in cluster.observer.received if one.topic.startswith(("fl/updates/", "fl/register/"))]
    by_honest = [one for one in told if one.topic[-1] in HONEST]
    assert len(by_honest) >= 3 * 2 + 3
    for one in by_honest:
        assert codec.is_sealed(one.payload)
        assert not [
            word for word in (b"weights", b"delta", b"session", b"register", b"digest") if word in one.payload
        ]


def attack(name: str, act: Callable[[Cluster], None], *seen: Counted | Logged, shows: str = "") -> Attack:
    where: Where = "edge" if any(isinstance(one, Logged) for one in seen) else "aggregator"
    return Attack(name, "operator", where, act, seen, shows, SEALED)


def twice(kind: str) -> tuple[Logged, Logged]:
    return Logged(f"{kind}: {MISSING}"), Logged(f"{kind}: {WRONG}")


ATTACKS = (
    Attack("to read updates and registrations", "operator", "edge", reads_everything, shows="they are sealed",
        setups=SEALED),
    attack("a forged `selected`, unsigned and signed by another key", forges(false_selection), *twice("SelectedTopic"),
        FOREIGN_TWICE),
    attack("forged work for one edge", forges(false_work), *twice("WorkTopic"), FOREIGN_TWICE),
    attack("a forged `result` of the open round", forges(false_result), *twice("ResultTopic"), FOREIGN_TWICE),
    attack("a forged model announcement", forges(false_model), *twice("ModelTopic"), FOREIGN_TWICE),
    attack("a forged birth of another run", forges(false_birth), *twice("AggregatorTopic"), FOREIGN_TWICE),
    attack("a forged refusal of edge 0's session", forges(false_refusal), *twice("RepliesTopic")),
    attack("a poisoned model: announcement, manifest, a chunk", rewrites_the_model, Logged(f"ModelTopic: {MISSING}"),
        Counted(UNKNOWN, "foreign", 6), shows=AGAIN),
    attack("a poisoned chunk", poisons_a_chunk, FOREIGN, shows=AGAIN),
    attack("to clear the open round's `selected`", clears_the_selection, FOREIGN, shows=AGAIN),
    attack("replay: an old `admitted` of this very session", repeats_an_admission, Logged("RepliesTopic: seq")),
    attack("replay: the announcement of an older model", repeats_an_announcement, Logged("ModelTopic: seq"),
        shows=AGAIN),
    attack("replay: the result of one round as that of another", moves_a_result, Logged(f"ResultTopic: {WRONG}"),
        FOREIGN),
    attack("an update in edge 0's name, plain and sealed by two other keys; on the topic without a client",
    writes_an_update,
        Counted("0", "not-sealed"), Counted("0", "not-opened", 2), Counted(UNKNOWN, "not-sealed"),
        Counted(UNKNOWN, "not-opened")),
    attack("a registration in edge 0's name, plain and sealed by edge 3's key", registers_another,
        Counted("0", "not-sealed"), Counted("0", "not-opened")),
    attack("replay: edge 0's sealed updates, of this round and of older ones", repeats_updates,
        shows="`accepted` again, counts once"),
    attack("replay: edge 0's sealed update as edge 3's, as edge 1's, as an evaluation", moves_an_update,
        Counted(BAD, "not-opened", 2), Counted("1", "not-opened")),
    attack("replay: edge 0's first registration", repeats_a_registration,
        shows="`admitted` again, which changes nothing"),
    attack("to train and to evaluate with a predictor's kit", trains_with_a_kit_of("lamp"),
        Counted("lamp", "wrong-role", 4), shows="`refused` on `fl/replies/lamp`"),
    attack("to train and to evaluate with the kit `operator.zip`", trains_with_a_kit_of("operator"),
        Counted("operator", "wrong-role", 4), shows="`refused` on `fl/replies/operator`"),
    attack("to train with an asker's kit, plain and with another's voucher", trains_with_an_askers_kit,
        Counted("kiosk", "not-sealed"), Counted("kiosk", "not-opened")),
    Attack("to evaluate with a kit that is only for training", "edge 3", "aggregator", evaluates_without_the_role,
        (Counted(BAD, "wrong-role", 2),), "`refused` on `fl/replies/3`", SEALED),
    attack("`stop`, plain and sealed by edge 3's key", orders_a_stop, Counted(UNKNOWN, "not-sealed"),
        Counted(UNKNOWN, "not-opened")),
)  # fmt: skip
