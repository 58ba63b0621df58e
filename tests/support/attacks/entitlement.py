"""What the holder of a kit tries with roles that it does not have, and the holder of one that is revoked."""

from __future__ import annotations

from typing import cast

import msgpack

from fl_shared.protocol import codec
from fl_shared.protocol import messages as m
from fl_shared.security.sealing import Sealer
from tests.support.attacks.attack import Attack, Counted
from tests.support.attacks.cluster import BAD, SEALED, Cluster
from tests.support.attacks.malicious_broker import is_refused, scores

GONE = "gone"
EVALUATES = 2
"""The bit of the role in a voucher."""


def takes_part_with_a_revoked_kit(cluster: Cluster) -> None:
    """Every kind of message that an edge seals, over the connection of an operator who still lets it in."""
    sealer = cluster.gone.sealer()

    def say(topic: str, payload: bytes) -> None:
        assert cluster.observer.publish(topic, sealer.seal(topic, payload)) < 0x80

    for role in ("train", "evaluate", "predict"):
        since = len(cluster.observer.received)
        say(f"fl/register/{GONE}", codec.encode(cluster.registration(client=GONE, roles=(role,))))
        cluster.observer.wait_for(lambda one: b'"kit-revoked"' in one.payload, "a refusal", since=since)
    say(f"fl/updates/{GONE}", cast(bytes, msgpack.packb(cluster.update(client=GONE))))
    failed = m.TrainingFailed(
        run=cluster.run, incarnation=cluster.incarnation, seq=cluster.next_seq(), client=GONE, session="bad-session",
        round=cluster.round, detail="so",
    )  # fmt: skip
    say(f"fl/updates/{GONE}", codec.encode(failed))
    say(f"fl/evaluations/{GONE}", codec.encode(scores(cluster, GONE)))


def changes_the_roles_of_its_voucher(cluster: Cluster) -> None:
    """The bits of the roles come first, and are signed."""
    kit = cluster.kit(BAD)
    assert kit.sealing_private is not None
    assert kit.voucher is not None
    changed = bytes([kit.voucher[0] | EVALUATES]) + kit.voucher[1:]
    sealer = Sealer(kit.sealing_private, changed, kit.sealing_public)
    registration = codec.encode(cluster.registration(roles=("train", "evaluate")))
    for topic, payload in (
        (f"fl/register/{BAD}", registration),
        (f"fl/evaluations/{BAD}", codec.encode(scores(cluster, BAD))),
    ):
        assert cluster.bad.publish(topic, sealer.seal(topic, payload)) < 0x80


def stands_for_a_region(cluster: Cluster) -> None:
    """A sum of many edges would count as many times as it says."""
    since = len(cluster.bad.received)
    cluster.register(edges=1000)
    cluster.bad.wait_for(is_refused, "that it is refused", since=since)


ATTACKS = (
    Attack("to register, train and evaluate with a revoked kit, when the broker still lets its owner in", "operator",
        "aggregator", takes_part_with_a_revoked_kit, (Counted(GONE, "kit-revoked", 6),),
        f"`refused` on `fl/replies/{GONE}`", SEALED),
    Attack("to evaluate with a voucher whose roles are changed", "edge 3", "aggregator",
        changes_the_roles_of_its_voucher, (Counted(BAD, "not-opened", 2),), "", SEALED),
    Attack("to stand for a region of 1,000 edges with an edge's kit", "edge 3", "aggregator", stands_for_a_region,
        (Counted(BAD, "wrong-role"),), f"`refused` on `fl/replies/{BAD}`", SEALED),
)  # fmt: skip
