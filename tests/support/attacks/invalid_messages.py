"""Messages on one's own topics that no honest edge would send: bombs, claims, bad numbers, names."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final, cast

import msgpack
import numpy as np

from fl_shared.protocol import codec
from fl_shared.protocol import messages as m
from tests.support.attacks.attack import UNKNOWN, Attack, Counted
from tests.support.attacks.cluster import BAD, KITS, LAB, SEALED, VALUES, Cluster
from tests.support.attacks.raw_mqtt import raw_publish
from tests.support.builders import raw_offer_of

UPDATES = f"fl/updates/{BAD}"
REGISTER = f"fl/register/{BAD}"
EVALUATIONS = f"fl/evaluations/{BAD}"

NAMES = (
    "..",
    "../../etc/passwd",
    "a/b",
    "a b",
    "épinard",
    "边缘",
    "🚀",
    "(unknown)",
    "$SYS",
    "",
    "x" * 60_000,
)
FORBIDDEN_IN_TOPICS = (b"+", b"#", b"a/+/b", b"a\0b", b"\xff\xfe", b"\xed\xa0\x80")
"""Wildcards, a NUL, invalid UTF-8, a surrogate: a broker must close the connection (MQTT 5, 1.5.4 and 3.3.2.1)."""


def says(*messages: tuple[str, bytes]) -> Callable[[Cluster], None]:
    def act(cluster: Cluster) -> None:
        for topic, payload in messages:
            cluster.say(topic, payload)

    return act


JSON_BOMBS = (
    b"[" * 60_000,
    b'{"v":2,"kind":' * 4_000,
    b'{"v":2,"kind":"register","seq":' + b"9" * 60_000 + b"}",
    b'{"v":2,"kind":"register","seq":1e999}',
    b"{" + b",".join(b'"k%d":0' % n for n in range(7_000)) + b"}",
    b"\xef\xbb\xbf\xff",
)
MSGPACK_BOMBS = (
    b"\x81\xa4kind" + b"\x91" * 1020 + b"\xc0",
    b"\x91" * 2_000_000,
    b"\xdf\xff\xff\xff\xff",
    b"\x81\xa1a\xdd\xff\xff\xff\xff",
    b"\x81\xa1a\xc6\xff\xff\xff\xff",
    b"\x81\xa1a" + b"\xdc\xff\xff" + b"\x80" * 65_535,
    b"\x81\xa1a\xd7\xff" + bytes(8),
)
"""Deep, deeper, lengths that are claimed and not there, 65,535 maps, a time stamp."""


FORGED = "\r\nFORGED \x1b[2J\x1b]0;title\x07\x9b31m \u2028FORGED \u202edetalever"
"""Ends the line, clears the screen, names the window, turns the direction."""


def speaks_to_the_terminal(cluster: Cluster) -> None:
    """In why it cannot train, and in the name of a number."""
    failed = m.TrainingFailed(
        run=cluster.run, incarnation=cluster.incarnation, seq=cluster.next_seq(), client=BAD, session="bad-session",
        round=cluster.round, detail="",
    )  # fmt: skip
    words = cast(dict[str, Any], msgpack.unpackb(codec.encode(failed))) | {"detail": FORGED}
    cluster.say(UPDATES, cast(bytes, msgpack.packb(words)))
    cluster.say(
        UPDATES, cast(bytes, msgpack.packb(cluster.update(metrics={"before": {FORGED[:60]: "no number"}})))
    )


def claims_a_size(cluster: Cluster) -> None:
    offer = raw_offer_of(cluster.update(), 2**24)
    [section] = offer["sections"]
    for size, reason in ((2**62, "malformed"), (2**52, "wrong-size"), (2**43, "wrong-size")):
        cut = {"size": size, "chunk_size": 2**24, "chunks": min(10**6, size // 2**24)}
        cluster.rejected(offer | cut | {"sections": [section | {"size": size}]}, reason)


def claims_arrays(cluster: Cluster) -> None:
    """As many as one packet holds."""
    update = cluster.update()
    [section] = update["sections"]
    packed = cast(bytes, msgpack.packb(update | {"sections": [section | {"arrays": b"HERE"}]}))
    one = cast(bytes, msgpack.packb({"name": "a000001", "shape": [1], "role": "buffer"}))
    payload = packed.replace(b"\xc4\x04HERE", b"\xdd" + (400_000).to_bytes(4, "big") + 400_000 * one)
    assert 12 * 2**20 < len(payload) < 16 * 2**20
    cluster.say(UPDATES, payload)


def describes_arrays(cluster: Cluster) -> None:
    """All that a model may have, in offers, though nobody asked for first weights."""
    offer = raw_offer_of(cluster.update(), 2**24)
    [section] = offer["sections"]
    arrays = [{"name": f"a{number:05d}", "shape": [1], "role": "buffer"} for number in range(20_000)]
    for _ in range(UNWANTED_OFFERS):
        cluster.rejected(offer | {"sections": [section | {"arrays": arrays}]}, "malformed")


UNWANTED_OFFERS: Final = 20


def vector(value: float) -> np.ndarray[Any, Any]:
    """Good but for one value."""
    made = np.zeros(VALUES)
    made[1234] = value
    return made


def sends_bad_values(cluster: Cluster) -> None:
    for value, reason in (
        (np.nan, "not-finite"),
        (np.inf, "not-finite"),
        (1e30, "too-large"),
        (-101, "too-large"),
    ):
        cluster.rejected(cluster.update(vector(value)), reason)


def sends_what_does_not_fit(cluster: Cluster) -> None:
    update = cluster.update()
    [section] = update["sections"]
    attacks: list[tuple[dict[str, Any], str]] = [
        (update | {"digest": "0" * 64}, "wrong-digest"),
        (update | {"base": "0" * 64}, "wrong-base"),
        (update | {"examples": 2**50}, "bad-examples"),
        (update | {"examples": 0}, "bad-examples"),
        (update | {"sections": [section | {"data": b"1234"}]}, "wrong-size"),
        (update | {"sections": [section | {"manifest": "0" * 64}]}, "wrong-manifest"),
        (update | {"sections": [section | {"name": "other"}]}, "wrong-manifest"),
        (update | {"round": 2**40}, "stale-round"),
    ]
    for changed, reason in attacks:
        cluster.rejected(changed, reason)


def sends_chunks_unasked(cluster: Cluster) -> None:
    names = ("v", "run", "incarnation", "seq", "client", "session", "round", "digest")
    update = cluster.update()
    head = {name: update[name] for name in names} | {"kind": "update-chunk"}
    for index in (0, 2**40):
        part = head | {"index": index, "data": b""}
        cluster.say(UPDATES, cast(bytes, msgpack.packb(part)))


def says_of_another_run(cluster: Cluster) -> None:
    for changes in ({"run": "another"}, {"incarnation": cluster.incarnation + 1}):
        cluster.say(UPDATES, cast(bytes, msgpack.packb(cluster.update() | changes)))


def evaluates_wildly(cluster: Cluster) -> None:
    for loss in ("NaN", "Infinity", "1e999", '"1"'):
        text = (
            f'{{"v":2,"kind":"evaluation","run":"{cluster.run}","incarnation":{cluster.incarnation},"seq":1,"client":"{BAD}",'
            f'"session":"bad-session","version":1,"digest":"{cluster.base}","split":"test","examples":1,"loss":{loss},'
            f'"metrics":{{"accuracy":1.0}}}}'
        )
        cluster.say(EVALUATIONS, text.encode())


def injects_topics(cluster: Cluster) -> None:
    endpoint, allowed = cluster.endpoint(BAD), 0 if cluster.setup == "lab" else 0x87
    for name in NAMES:
        assert raw_publish(endpoint, "raw", b"fl/register/" + name.encode(), b"{}") == allowed, name
    for forbidden in FORBIDDEN_IN_TOPICS:
        assert raw_publish(endpoint, "raw", b"fl/register/" + forbidden, b"{}") >= 0x80, forbidden


def injects_names(cluster: Cluster) -> None:
    for name in (*NAMES[:-1], "+", "#", "a\0b", "x" * 60_000):
        words = json.loads(codec.encode(cluster.registration())) | {"client": name}
        cluster.say(REGISTER, json.dumps(words).encode())


def floods(cluster: Cluster) -> None:
    """Sixty at once and one in five seconds are its own; it is told of the others."""
    whole = {
        "run": cluster.run,
        "incarnation": cluster.incarnation,
        "manifest": cluster.manifest.digest,
        "examples": 10,
    }
    for _ in range(100):
        cluster.register(**whole)
    cluster.bad.wait_for(lambda one: b'"kind":"limited"' in one.payload, "that it is limited")


def sends_properties(cluster: Cluster) -> None:
    """As many as paho would take more than a minute for; they cost a copy."""
    for _ in range(4):
        cluster.say(UPDATES, b"?", user_properties=[("", "")] * 200_000)


def sends_broken_seals(cluster: Cluster) -> None:
    assert cluster.sealer is not None
    good = cluster.sealer.seal(UPDATES, b"{}")
    for payload in (b"\xc1", good[:100], good[:-1], good[:-1] + b"\0", b"\xc1\x02" + good[2:], good + b"\0",
                    good[:2] + bytes(32) + good[34:], good[:34] + bytes(32) + good[66:]):  # fmt: skip
        assert cluster.bad.publish(UPDATES, payload) < 0x80
    # Sealed for another topic of its own.
    assert cluster.bad.publish(EVALUATIONS, cluster.sealer.seal(UPDATES, b"{}")) < 0x80


def sends_unsealed(cluster: Cluster) -> None:
    assert cluster.bad.publish(UPDATES, cast(bytes, msgpack.packb(cluster.update()))) < 0x80
    assert cluster.bad.publish(REGISTER, codec.encode(cluster.registration())) < 0x80


ATTACKS = (
    Attack("text that ends a line, clears the screen or names the window, as a reason and as a metric's name", "edge 3",
        "aggregator", speaks_to_the_terminal, (Counted(BAD, "malformed"),), "in the log as one line of plain text"),
    Attack(f"deep nesting, giant numbers and other malicious JSON ({len(JSON_BOMBS)})", "edge 3", "aggregator",
        says(*((REGISTER, bomb) for bomb in JSON_BOMBS)), (Counted(BAD, "malformed", len(JSON_BOMBS)),)),
    Attack(f"deep nesting, false lengths and other malicious msgpack ({len(MSGPACK_BOMBS)})", "edge 3",
        "aggregator", says(*((UPDATES, bomb) for bomb in MSGPACK_BOMBS)),
        (Counted(BAD, "malformed", len(MSGPACK_BOMBS)),)),
    Attack("an offer of 2^62, 2^52 and 2^43 bytes", "edge 3", "aggregator", claims_a_size,
        (Counted(BAD, "malformed"), Counted(BAD, "wrong-size", 2)), "`rejected`"),
    Attack("a manifest of 400,000 arrays (more do not fit into a packet)", "edge 3", "aggregator", claims_arrays,
        (Counted(BAD, "malformed"),)),
    Attack(f"{UNWANTED_OFFERS} offers with 20,000 arrays, when first weights are not asked for", "edge 3", "aggregator",
        describes_arrays, (Counted(BAD, "malformed", UNWANTED_OFFERS),), "`rejected`, before its arrays are read"),
    Attack("an update with NaN, infinity, 10^30, −101", "edge 3", "aggregator", sends_bad_values,
        (Counted(BAD, "not-finite", 2), Counted(BAD, "too-large", 2)), "`rejected`"),
    Attack("an update with another digest, base, size, manifest, round, or 2^50 examples", "edge 3", "aggregator",
        sends_what_does_not_fit,
        (Counted(BAD, "wrong-digest"), Counted(BAD, "wrong-base"), Counted(BAD, "bad-examples", 2),
         Counted(BAD, "wrong-size"), Counted(BAD, "wrong-manifest", 2), Counted(BAD, "stale-round")), "`rejected`"),
    Attack("chunks that were not granted", "edge 3", "aggregator", sends_chunks_unasked,
        (Counted(BAD, "not-granted", 2),)),
    Attack("an update for another run, and for another incarnation", "edge 3", "aggregator", says_of_another_run,
        (Counted(BAD, "other-run"), Counted(BAD, "other-incarnation"))),
    Attack("an evaluation that is NaN, infinite or a text", "edge 3", "aggregator", evaluates_wildly,
        (Counted(BAD, "malformed", 4),)),
    Attack(f"topic injection: {len(NAMES)} names with `..`, `/`, spaces, other scripts, 60 kB; "
        "`+`, `#`, NUL, invalid UTF-8", "any client", "aggregator", injects_topics,
        (Counted(UNKNOWN, "unknown-topic", len(NAMES)),), "wildcards and NUL: the broker disconnects", LAB),
    Attack(f"topic injection: {len(NAMES)} names with `..`, `/`, spaces, other scripts, 60 kB; "
        "`+`, `#`, NUL, invalid UTF-8", "edge 3", "ACL", injects_topics,
        shows="PUBACK 0x87; wildcards and NUL: the broker disconnects", setups=KITS),
    Attack(f"the same names in a registration ({len(NAMES) + 3})", "edge 3", "aggregator", injects_names,
        (Counted(BAD, "malformed", len(NAMES) + 3),)),
    Attack("200,000 user properties on a message, four times", "edge 3", "aggregator", sends_properties,
        (Counted(BAD, "malformed", 4),), "they are skipped unread, and counted in bytes"),
    Attack("seals that are damaged, truncated, or of another version, key or topic", "edge 3", "aggregator",
    sends_broken_seals,
        (Counted(BAD, "not-opened", 9),), setups=SEALED),
    Attack("messages that should be sealed and are not", "edge 3", "aggregator", sends_unsealed, (Counted(BAD,
    "not-sealed", 2),),
        setups=SEALED),
    Attack("a flood of registrations of its own", "edge 3", "aggregator", floods,
        (Counted(BAD, "too-many-registrations", 1, or_more=True),), "`limited`"),
)  # fmt: skip
