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
from fl_shared.transfer.publication import publication
from tests.aggregator_over_the_wire import FOLD, TRAINING
from tests.attacks.row import UNKNOWN, Counted, Row, Said, Where
from tests.attacks.speech import AGAIN, rewrites_the_model
from tests.attacks.stage import BAD, HONEST, SEALED, TASK, VALUES, Stage
from tests.attacks.villain import Heard

ANOTHER = Signer(Ed25519PrivateKey.generate().private_bytes_raw())
FAR = 500
"""A round that there never is."""
FOREIGN, FOREIGN_TWICE = Counted(UNKNOWN, "foreign"), Counted(UNKNOWN, "foreign", 2)
MISSING, WRONG = "sig: missing", "sig: not the aggregator's signature"


def forges(make: Callable[[Stage], tuple[t.Topic, m.Message]]) -> Callable[[Stage], None]:
    """Without a signature, and with one by another key."""

    def act(stage: Stage) -> None:
        topic, message = make(stage)
        text, payload = t.build("fl", topic), codec.encode(message)
        retain = not isinstance(topic, t.RepliesTopic)
        for one in (payload, ANOTHER.signed(text, payload)):
            assert stage.witness.publish(text, one, retain=retain) < 0x80

    return act


def selection(stage: Stage, number: int) -> m.Selected:
    return m.Selected(
        run=stage.run, epoch=stage.epoch, seq=10**6, round=number, task=TASK, cohort=HONEST, seconds_left=60.0,
        training=TRAINING, fold=FOLD, base=m.ModelReference(version=1, digest=stage.base), inline_limit=10**7,
    )  # fmt: skip


def false_selection(stage: Stage) -> tuple[t.Topic, m.Message]:
    return t.SelectedTopic(FAR), selection(stage, FAR)


def false_work(stage: Stage) -> tuple[t.Topic, m.Message]:
    return t.WorkTopic("0"), selection(stage, FAR)


def false_result(stage: Stage) -> tuple[t.Topic, m.Message]:
    """It would end the open round at the edges."""
    return t.ResultTopic(stage.round), m.Result(
        run=stage.run, epoch=stage.epoch, seq=10**6, round=stage.round, outcome="abandoned", reason="so",
        version=None, digest=None, participants=(), missing={}, examples=0, metrics={}, bytes_up=0, bytes_down=0,
        seconds=0.0,
    )  # fmt: skip


def false_model(stage: Stage) -> tuple[t.Topic, m.Message]:
    return t.ModelTopic(), m.ModelAnnouncement(
        run=stage.run, epoch=stage.epoch, seq=10**6, task=TASK, round=9, version=9, digest="0" * 64, chunks=1,
        size=4 * VALUES,
    )  # fmt: skip


def false_birth(stage: Stage) -> tuple[t.Topic, m.Message]:
    return t.AggregatorTopic(), m.AggregatorPresence(state="online", session="x", run="evil", epoch=1)


def false_refusal(stage: Stage) -> tuple[t.Topic, m.Message]:
    """It would end the program with exit code 2."""
    return t.RepliesTopic("0"), m.Refused(
        run=stage.run, epoch=stage.epoch, seq=10**6, client="0", session=stage.session_of("0"), reason="id-in-use",
        detail="go away",
    )  # fmt: skip


def of(topic: str, kind: str) -> Callable[[Heard], bool]:
    words = f'"kind":"{kind}"'.encode()
    return lambda one: one.topic == topic and words in one.payload


def clears_the_selection(stage: Stage) -> None:
    topic = f"fl/round/{stage.round}/selected"
    since = len(stage.witness.heard)
    assert stage.witness.publish(topic, b"", retain=True) < 0x80
    stage.witness.until(of(topic, "selected"), "the selection again", since=since)


def repeats_an_admission(stage: Stage) -> None:
    old = next(filter(of("fl/replies/0", "admitted"), stage.recorded))
    assert stage.witness.publish("fl/replies/0", old.payload) < 0x80


def repeats_an_announcement(stage: Stage) -> None:
    old = next(filter(of("fl/model", "model"), stage.recorded))
    assert json.loads(old.payload)["version"] == 0
    assert stage.witness.publish("fl/model", old.payload, retain=True) < 0x80


def moves_a_result(stage: Stage) -> None:
    """What is signed for one topic is nothing on another."""
    old = next(filter(of("fl/round/1/result", "result"), stage.recorded))
    assert stage.witness.publish(f"fl/round/{stage.round}/result", old.payload, retain=True) < 0x80


def poisons_a_chunk(stage: Stage) -> None:
    """Well-formed, with a good checksum: only the digest says that it is another model."""
    manifest = stage.manifest
    section = ModelSection("weights", manifest, bytes(4 * VALUES))
    made = publication([section], 2**20)
    chunk = made.chunk(0, run=stage.run, epoch=stage.epoch, seq=10**6).model_copy(
        update={"digest": stage.base}
    )
    topic = f"fl/model/{stage.base[:12]}/0"
    true = next(one.payload for one in reversed(stage.recorded) if one.topic == topic and one.payload)
    since = len(stage.witness.heard)
    assert stage.witness.publish(topic, codec.encode(chunk), retain=True) < 0x80
    stage.witness.until(lambda one: (one.topic, one.payload) == (topic, true), "the true chunk", since=since)


def writes_an_update(stage: Stage) -> None:
    """In edge 0's name: plain; sealed by a key that nobody vouches for; by edge 3's, an accomplice."""
    update = cast(bytes, msgpack.packb(stage.update(client="0", session=stage.session_of("0"))))
    kit = stage.kit(BAD)
    assert kit.voucher is not None
    strange = Sealer(X25519PrivateKey.generate().private_bytes_raw(), kit.voucher, kit.sealing_public)
    topic = "fl/updates/0"
    for payload in (update, strange.seal(topic, update), kit.sealer().seal(topic, update)):
        assert stage.witness.publish(topic, payload) < 0x80
    bare = "fl/updates"
    for payload in (update, kit.sealer().seal(bare, update)):
        assert stage.witness.publish(bare, payload) < 0x80


def registers_another(stage: Stage) -> None:
    words = codec.encode(stage.registration(client="0"))
    for payload in (words, stage.kit(BAD).sealer().seal("fl/register/0", words)):
        assert stage.witness.publish("fl/register/0", payload) < 0x80


def repeats_updates(stage: Stage) -> None:
    """Of the round before and of this one: what is accepted twice counts once."""
    sealed = [one for one in stage.recorded if one.topic == "fl/updates/0"]
    assert len(sealed) >= 2
    for one in sealed:
        since = len(stage.witness.heard)
        assert stage.witness.publish("fl/updates/0", one.payload) < 0x80
        stage.witness.until(of("fl/replies/0", "accepted"), "accepted again", since=since)


def moves_an_update(stage: Stage) -> None:
    """Another's sealed words as edge 3's own, and where it has evaluations."""
    sealed = next(one for one in stage.recorded if one.topic == "fl/updates/0")
    for topic in (f"fl/updates/{BAD}", f"fl/evaluations/{BAD}", "fl/updates/1"):
        assert stage.witness.publish(topic, sealed.payload) < 0x80


def repeats_a_registration(stage: Stage) -> None:
    """The first one of this connection, which says nothing of what the edge has loaded, and takes nothing back."""
    old = next(one for one in stage.recorded if one.topic == "fl/register/0")
    since = len(stage.witness.heard)
    assert stage.witness.publish("fl/register/0", old.payload) < 0x80
    stage.witness.until(of("fl/replies/0", "admitted"), "admitted again", since=since)


def orders_a_stop(stage: Stage) -> None:
    words = codec.encode(m.Control(run=stage.run, epoch=stage.epoch, reason="forged"))
    for payload in (words, stage.kit(BAD).sealer().seal("fl/control", words)):
        assert stage.witness.publish("fl/control", payload) < 0x80


def reads_everything(stage: Stage) -> None:
    """All that it has heard of what edges say, from the beginning."""
    told = [one for one in stage.witness.heard if one.topic.startswith(("fl/updates/", "fl/register/"))]
    by_honest = [one for one in told if one.topic[-1] in HONEST]
    assert len(by_honest) >= 3 * 2 + 3
    for one in by_honest:
        assert codec.is_sealed(one.payload)
        assert not [word for word in (b"weights", b"session", b"register", b"digest") if word in one.payload]


def row(name: str, act: Callable[[Stage], None], *seen: Counted | Said, shows: str = "") -> Row:
    where: Where = "edge" if any(isinstance(one, Said) for one in seen) else "aggregator"
    return Row(name, "operator", where, act, seen, shows, SEALED)


def twice(kind: str) -> tuple[Said, Said]:
    return Said(f"{kind}: {MISSING}"), Said(f"{kind}: {WRONG}")


ROWS = (
    Row("to read updates and registrations", "operator", "edge", reads_everything, shows="they are sealed",
        setups=SEALED),
    row("a forged `selected`, unsigned and signed by another key", forges(false_selection), *twice("SelectedTopic"),
        FOREIGN_TWICE),
    row("forged work for one edge", forges(false_work), *twice("WorkTopic"), FOREIGN_TWICE),
    row("a forged `result` of the open round", forges(false_result), *twice("ResultTopic"), FOREIGN_TWICE),
    row("a forged model announcement", forges(false_model), *twice("ModelTopic"), FOREIGN_TWICE),
    row("a forged birth of another run", forges(false_birth), *twice("AggregatorTopic"), FOREIGN_TWICE),
    row("a forged refusal of edge 0's session", forges(false_refusal), *twice("RepliesTopic")),
    row("a poisoned model: announcement, manifest, a chunk", rewrites_the_model, Said(f"ModelTopic: {MISSING}"),
        Counted(UNKNOWN, "foreign", 6), shows=AGAIN),
    row("a poisoned chunk with a good checksum", poisons_a_chunk, FOREIGN, shows=AGAIN),
    row("to clear the open round's `selected`", clears_the_selection, FOREIGN, shows=AGAIN),
    row("replay: an old `admitted` of this very session", repeats_an_admission, Said("RepliesTopic: seq")),
    row("replay: the announcement of an older model", repeats_an_announcement, Said("ModelTopic: seq"), FOREIGN),
    row("replay: the result of one round as that of another", moves_a_result, Said(f"ResultTopic: {WRONG}"), FOREIGN),
    row("an update in edge 0's name, plain and sealed by two other keys; on the bare topic", writes_an_update,
        Counted("0", "not-sealed"), Counted("0", "not-opened", 2), Counted(UNKNOWN, "not-sealed"),
        Counted(UNKNOWN, "not-opened")),
    row("a registration in edge 0's name, plain and sealed by edge 3's key", registers_another,
        Counted("0", "not-sealed"), Counted("0", "not-opened")),
    row("replay: edge 0's sealed updates, of this round and of older ones", repeats_updates,
        shows="`accepted` again, counts once"),
    row("replay: edge 0's sealed update as edge 3's, as edge 1's, as an evaluation", moves_an_update,
        Counted(BAD, "not-opened", 2), Counted("1", "not-opened")),
    row("replay: edge 0's first registration", repeats_a_registration, shows="`admitted` again, which changes nothing"),
    row("`stop`, plain and sealed by edge 3's key", orders_a_stop, Counted(UNKNOWN, "not-sealed"),
        Counted(UNKNOWN, "not-opened")),
)  # fmt: skip
