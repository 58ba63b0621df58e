"""Whatever anyone sends to an aggregator is refused with a reason, counted, and changes nothing else (G1).

One run: every kind of bad input, each by an edge of its own, among edges that do everything right.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from fl_aggregator.messaging.rejections import UNKNOWN
from fl_shared.protocol import codec
from fl_shared.protocol import messages as m
from fl_shared.tensors.digest import content_digest
from fl_shared.tensors.manifest import ArraySpec, Manifest, Vector
from tests.support import programs
from tests.support.broker import Mosquitto
from tests.support.builders import digest_of, model_digest_of, session_of
from tests.support.invalid_updates import ANSWERED, MANIFEST, NOT_ANSWERED, OTHER, VALUES, Case, with_data
from tests.support.invalid_uploads import OFFERS, UPLOADS, bad_uploads
from tests.support.run_under_test import RunUnderTest, pack
from tests.support.samples import MESSAGES
from tests.support.simulated_edges import SimulatedEdges, folded

pytestmark = [pytest.mark.broker, pytest.mark.timeout(480)]

GOOD = tuple(f"good-{number}" for number in range(3))
FLOOD = 3000
CLIENTS = (
    *GOOD, *(bad.name for bad in ANSWERED), *(bad.name for bad in NOT_ANSWERED), *(name for name, *_ in OFFERS),
    *UPLOADS, "later-round",
)  # fmt: skip
SETTINGS = (
    "--clients", str(len(CLIENTS)), "--per-round", str(len(CLIENTS)), "--quorum", "3", "--rounds", "2",
    "--holdout", "0", "--grace", "0", "--wait", "120", "--deadline", "60",
)  # fmt: skip


def test_whatever_is_sent_the_good_updates_are_folded_exactly(
    tmp_path: Path, mosquitto: Mosquitto, stack: ExitStack
) -> None:
    wire = stack.enter_context(SimulatedEdges(mosquitto.endpoint, MANIFEST))
    leftovers = leave_behind(wire)
    with programs.aggregator(tmp_path, mosquitto.url, *SETTINGS) as run:
        tested = RunUnderTest(run, wire, CLIENTS)
        wire.expect(m.AggregatorPresence, 20, state="online")
        wire.join(tested.examples)
        for label, count in leftovers.items():
            tested.count(UNKNOWN, label, ("topic: ",), count)
        weights = first_weights(tested)
        selected = wire.expect(m.Selected, 10, round=1)
        assert selected.cohort is not None
        assert set(selected.cohort) == set(CLIENTS)
        assert selected.base is not None
        tested.base = selected.base.digest
        assert tested.base == model_digest_of(MANIFEST, weights.tobytes())
        registrations(tested)
        unknown_clients(tested)
        contributors = {*bad_updates(tested), *bad_uploads(tested), *GOOD}
        for client in GOOD:
            wire.send_update(client, tested.good(client))
            tested.accepted(client)
        result = wire.expect(m.Result, 10, round=1)
        assert result.outcome == "committed"
        assert set(result.participants) == contributors
        weights = folded(
            weights, [(tested.examples[c], tested.deltas[c]) for c in contributors], selected.fold.scale_bits
        )
        assert result.digest == model_digest_of(MANIFEST, weights.tobytes()), "nothing bad is in the model"
        assert {name: why.split(":")[1].strip() for name, why in result.missing.items()} == dict(
            out_of_the_round()
        )
        counted, tested.refused = tested.refused, {}

        tested.base, tested.round = result.digest, 2
        flood(tested)
        after_the_close(tested)
        for client in CLIENTS:
            wire.send_update(client, tested.good(client))
        result = wire.expect(m.Result, 20, round=2)
        assert set(result.participants) == set(CLIENTS), "a rejected edge is in the next round"
        weights = folded(
            weights, [(tested.examples[c], tested.deltas[c]) for c in CLIENTS], selected.fold.scale_bits
        )
        assert result.digest == model_digest_of(MANIFEST, weights.tobytes())
        run.ends_well(20)
    assert "Traceback" not in run.err
    assert "lost" not in run.err
    first, second = programs.history(tmp_path)
    assert first["refused"] == {client: dict(reasons) for client, reasons in counted.items()}
    assert second["refused"]["good-0"] == dict(tested.refused["good-0"])
    assert second["refused"]["nan"] == {"late": 1}
    full = sum(reasons.get("no-partition-left", 0) for reasons in second["refused"].values())
    assert full >= 100
    assert "refused: " in run.out
    assert len(run.err.splitlines()) < 300, "a flood of bad input is not one of log lines"


def out_of_the_round() -> list[tuple[str, str]]:
    return [
        *((bad.name, bad.reason) for bad in ANSWERED),
        *((name, reason) for name, reason, *_ in OFFERS),
        ("chunks-of-nan", "not-finite"),
        ("chunks-of-others", "wrong-digest"),
    ]


def leave_behind(wire: SimulatedEdges) -> dict[str, int]:
    """Retained from an earlier life, on topics of edges and of the aggregator."""
    retained = {
        "fl/updates/nan": codec.encode(MESSAGES["update"][1]),
        "fl/register/good-1": codec.encode(MESSAGES["register-first"][1]),
        "fl/evaluations/good-1": b"{}",
    }
    foreign = {
        "fl/round/77/selected": codec.encode(MESSAGES["selected"][1]),
        "fl/clients/good-2/work": b"junk",
        "fl/model/0123456789ab/0": codec.encode(MESSAGES["model-chunk"][1]),
        "fl/model": b"\xff" * 10,
    }
    for topic, payload in (retained | foreign).items():
        assert wire.publish(topic, payload, retain=True) < 0x80
    junk = [topic for topic in foreign if topic in ("fl/clients/good-2/work", "fl/model")]
    return {"retained": len(retained), "foreign": len(junk)}  # the others are of an earlier run


def first_weights(tested: RunUnderTest) -> Vector:
    """Round 0: bad first weights, by one edge after the other that is called, and then good ones."""
    wire = tested.wire
    weights = tested.chance.normal(0, 1, VALUES).astype(np.float32)

    def good(client: str, vector: Vector = weights) -> dict[str, Any]:
        return wire.update(client, 0, None, vector, tested.examples[client])

    def arrays(client: str, specs: Sequence[ArraySpec] | None) -> dict[str, Any]:
        update = good(client)
        dumped = None if specs is None else [spec.model_dump() for spec in specs]
        return update | {"sections": [update["sections"][0] | {"arrays": dumped}]}

    endless = weights.copy()
    endless[5] = np.inf
    backwards = tuple(reversed(MANIFEST.arrays))
    absurd = (ArraySpec(name="a", shape=(2**33,) * 16),)
    bad: list[tuple[Any, str, tuple[str, ...]]] = [
        (lambda client: arrays(client, None), "wrong-manifest", ("delta.arrays: missing",)),
        (lambda client: arrays(client, backwards), "wrong-manifest", ("delta.arrays", "ascending order")),
        (lambda client: arrays(client, absurd), "wrong-manifest", ("delta.arrays", "at most")),
        (
            lambda client: arrays(client, OTHER.arrays),
            "wrong-manifest",
            ("delta.manifest", OTHER.digest[:12]),
        ),
        (lambda client: good(client, endless), "not-finite", ("delta: element 5 of 'a' is inf",)),
        (lambda client: with_data(good(client), bytes(8)), "wrong-size", ("delta.data: 8 bytes", "2400")),
    ]
    called: set[str] = set()
    for make, reason, words in bad:
        client = newly_called(wire, called)
        wire.send_update(client, make(client))
        tested.rejected(client, reason, words)
    client = newly_called(wire, called)
    wire.send_update(client, good(client))
    wire.expect(m.Accepted, 10, client=client, round=0)
    return weights


def newly_called(wire: SimulatedEdges, called: set[str]) -> str:
    while True:
        cohort = wire.expect(m.Selected, 10, round=0).cohort
        assert cohort is not None
        new = set(cohort) - called
        if new:
            called |= new
            [client] = new
            return client


def registrations(tested: RunUnderTest) -> None:
    """Those that are refused, and those that cannot be read."""
    wire = tested.wire
    ours = {"run": wire.run, "incarnation": wire.incarnation}
    for client, label, changes, reason, words in (
        ("other-task", "other-task", {"task": "mnist"}, "wrong-task", ("'mnist'", "'digits'")),
        ("other-model", "other-model", {"manifest": OTHER.digest, "examples": 5} | ours, "wrong-manifest",
         (OTHER.digest[:12], MANIFEST.digest[:12])),
        ("too-many", "too-many", {}, "no-partition-left", (f"--clients {len(CLIENTS)}",)),
        ("good-1", "good-1", {"device": "another", "session": "another"}, "id-in-use", ("'good-1'", "--id")),
    ):  # fmt: skip
        wire.register(client, **cast(dict[str, Any], changes))
        refused = wire.expect(m.Refused, 10, client=client)
        assert refused.reason == reason
        assert all(word in refused.detail for word in words), refused.detail
        tested.count(label, reason, words)

    for version in (1, 7):
        other = {"v": version, "kind": "register", "client": "other", "session": f"session-of-{version}"}
        wire.send("fl/register/other", json.dumps(other).encode())
        refused = wire.expect(m.Refused, 10, client="other", session=f"session-of-{version}")
        assert refused.reason == "wrong-version"
        assert f"protocol version {version}, expected {m.PROTOCOL_VERSION}" in refused.detail
    tested.count("other", "wrong-version", ("protocol version 1",), 2)

    fields = wire.registration("good-1").model_dump(mode="json")
    for payload, said in (
        (json.dumps(fields | {"roles": ["boss"]}).encode(), ("roles.0: ", "'train'", "'boss'")),
        (json.dumps(fields | {"examples": -1}).encode(), ("examples: ", "-1")),
        (json.dumps(fields | {"encodings": ["x"] * 33}).encode(), ("encodings: ",)),
        (json.dumps(fields | {"task": "x" * 100_000}).encode(), ("100", "at most 65536")),
        (b"[" * 5000, ("message: ",)),
        (b"\xff\xfe", ("message: ",)),
        (b"{}", ("client: ", "required")),
    ):
        wire.send("fl/register/good-1", payload)
        tested.count("good-1", "malformed", said)
    wire.send("fl/register/good-1", json.dumps(fields | {"client": "good-0"}).encode())
    tested.count("good-1", "client-mismatch", ("client: 'good-0'", "'good-1'"))
    # What is larger than anything of ours the broker keeps from us: not a word of it, and no connection ends.
    wire.send("fl/register/huge", b" " * 3_000_000)
    wire.send("fl/updates/good-1", b" " * 20_000_000)


def unknown_clients(tested: RunUnderTest) -> None:
    """Whoever is not on the roster, and what is on no topic, or on somebody else's."""
    wire = tested.wire
    stranger = tested.good("good-0") | {"client": "stranger", "session": session_of("stranger")}
    wire.send_update("stranger", stranger)
    tested.rejected("stranger", "not-selected", ("'stranger'", "round 1"), "stranger")
    for topic, payload, client, reason in (
        ("fl/updates", b"\xdf\xff\xff\xff\xff", UNKNOWN, "malformed"),
        ("fl/updates", pack(stranger | {"run": "elsewhere"}), "stranger", "other-run"),
        ("fl/updates", pack(tested.good("good-2") | {"incarnation": 3}), "good-2", "other-incarnation"),
        ("fl/updates/a/b", b"x", UNKNOWN, "unknown-topic"),
        ("fl/register/" + "é" * 30, b"{}", UNKNOWN, "unknown-topic"),
        ("fl/clients/somebody/presence", b"junk", "somebody", "malformed"),
        ("fl/evaluations/good-2", codec.encode(MESSAGES["evaluation"][1]), "good-2", "client-mismatch"),
        ("fl/evaluations/good-2", b'{"loss": "low"}', "good-2", "malformed"),
        ("fl/round/1/result", codec.encode(MESSAGES["result"][1]), UNKNOWN, "foreign"),
    ):
        wire.send(topic, payload)
        tested.count(client, reason, ())
    wire.take_all(m.Result)


def bad_updates(tested: RunUnderTest) -> list[str]:
    """Says who is still in the round, and has sent its good update after the bad one."""
    wire = tested.wire

    def sent(bad: Case) -> None:
        wire.send_update(bad.name, bad.make(tested.good(bad.name), pack))

    for bad in ANSWERED:
        sent(bad)
    for bad in ANSWERED:
        tested.rejected(bad.name, bad.reason, bad.words)
    for bad in NOT_ANSWERED:
        sent(bad)
    for bad in NOT_ANSWERED:
        tested.count(bad.name, bad.reason, bad.words)
        wire.send_update(bad.name, tested.good(bad.name))
        tested.accepted(bad.name)
    wire.send_update("later-round", tested.good("later-round") | {"round": 99})
    tested.rejected("later-round", "stale-round", ("round: 99", "round 1 is open"))
    wire.send_update("later-round", tested.good("later-round"))
    tested.accepted("later-round")
    return [*(bad.name for bad in NOT_ANSWERED), "later-round"]


def flood(tested: RunUnderTest) -> None:
    """Thousands of names register, to train and to predict, while the round is open."""
    wire = tested.wire
    wire.expect(m.Selected, 10, round=2)
    for number in range(FLOOD):
        roles = ("train",) if number % 2 else ("predict",)
        wire.register(f"flood-{number}", roles=roles)


def after_the_close(tested: RunUnderTest) -> None:
    """Late, and another update than the one that is held. Beside the flood, they are answered at once."""
    wire = tested.wire
    late = tested.good("nan") | {"round": 1}
    wire.send_update("nan", late)
    tested.rejected("nan", "late", ("round 1 has closed",))
    wire.send_update("good-0", tested.good("good-0"))
    tested.accepted("good-0")
    other = with_data(tested.good("good-0"), bytes(2400))
    wire.send_update("good-0", other)
    tested.rejected(
        "good-0", "duplicate", (tested.good("good-0")["digest"][:12], "has already been accepted")
    )


def test_only_what_is_wrong_differs_between_the_manifests() -> None:
    """What the table calls another shape is that, and nothing else."""
    assert MANIFEST.values == OTHER.values == VALUES
    assert Manifest(arrays=MANIFEST.arrays).digest != OTHER.digest
    data = bytes(4 * VALUES)
    assert digest_of(MANIFEST, data) == content_digest([("delta", "f32", MANIFEST.digest, data)])
