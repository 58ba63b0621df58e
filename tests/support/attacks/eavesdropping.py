"""To read, or to swallow, what is for others."""

from __future__ import annotations

import hashlib
import re

from tests.support.attacks.attack import Attack
from tests.support.attacks.cluster import ALL, BAD, KITS, Cluster
from tests.support.client import Client

FILTERS = (
    "#", "+/#", "fl/#", "$SYS/#", "$SYS/broker/connection/#", "fl/updates/#", "fl/updates/0", "fl/replies/+",
    "fl/replies/0", "fl/register/+", "fl/evaluations/+", "fl/clients/+/work", "fl/clients/+/presence", "fl/control",
    "fl/status", "fl/round/+/missing", "fl/predict", "fl/predict/#", "fl/predictions/#", "$share/mine/fl/updates/#",
)  # fmt: skip
MAY_HEAR = re.compile(
    rf"fl/(aggregator|model(/.*)?|round/\d+/(selected|result)|replies/{BAD}|clients/{BAD}/(work|presence))"
)
REQUESTS = 10
FORBIDDEN_ANSWERS = (
    "fl/status", "fl/aggregator", "fl/model", "fl/control", "fl/round/2/selected", "fl/round/2/result", "fl/replies/0",
    "fl/clients/0/presence", "fl/clients/1/work", "fl/register/0", "fl/updates/0", "fl/predict", "fl/predict/0",
    "$SYS/broker/uptime",
)  # fmt: skip


def listens(cluster: Cluster) -> None:
    """All granted, since ACL files are about messages; what there is to hear comes in the rest of the run."""
    eavesdropper = cluster.enter(BAD, "eavesdropper")
    for name in FILTERS:
        eavesdropper.subscribe(name)
    cluster.eavesdroppers.append((eavesdropper, MAY_HEAR))


def swallows(cluster: Cluster) -> None:
    with (
        Client(cluster.endpoint(BAD), name="swallower") as intruder,
        Client(cluster.endpoint("kiosk"), name="kiosk") as asker,
    ):
        for group in ("predictors", "mine", "fl"):
            intruder.subscribe(f"$share/{group}/fl/predict")
        asker.subscribe("fl/predictions")
        for number in range(REQUESTS):
            request = b"request %d" % number
            assert asker.publish("fl/predict", request) < 0x80
            digest = hashlib.sha256(request).hexdigest().encode()
            asker.wait_for(lambda one, digest=digest: digest in one.payload, f"answer {number}")  # type: ignore[misc]
        assert not intruder.received


def points_answers_at_our_topics(cluster: Cluster) -> None:
    with Client(cluster.endpoint("kiosk"), name="pointer") as asker:
        asker.subscribe("fl/predictions")
        digests = []
        for topic in FORBIDDEN_ANSWERS:
            request = b"answer to " + topic.encode()
            assert asker.publish("fl/predict/0", request, response_topic=topic) < 0x80
            digest = hashlib.sha256(request).hexdigest().encode()
            digests.append(digest)
            answer = asker.wait_for(
                lambda one, digest=digest: digest in one.payload,  # type: ignore[misc]
                f"an answer to {topic}",
            )
            assert b"response topic" in answer.payload.lower(), answer.payload
        cluster.observer.wait_for(lambda one: digest in one.payload, "the last answer")
        # It may hear answers to the requests of another attack only now.
        answers = [
            one.topic for one in cluster.observer.received if any(digest in one.payload for digest in digests)
        ]
        assert answers == ["fl/predictions"] * len(FORBIDDEN_ANSWERS)


ATTACKS = (
    Attack("to read others' updates, replies, registrations, wills, work, predictions, `$SYS`: "
        f"{len(FILTERS)} filters, with wildcards and `$share`", "edge 3", "ACL", listens,
        shows="until the end of the run it receives only messages to all edges and to itself", setups=KITS),
    Attack("to intercept prediction requests, as a member of the share group", "edge 3, which does not have that role",
        "ACL", swallows, shows="all requests are answered: the group's name is secret", setups=KITS),
    Attack(f"a Response Topic that belongs to the run ({len(FORBIDDEN_ANSWERS)} of them)", "asker", "edge",
        points_answers_at_our_topics, shows="the answer is an error, on `fl/predictions`", setups=ALL),
)  # fmt: skip
