"""An edge does not obey recorded messages of its aggregator."""

from __future__ import annotations

import json
import re

import pytest

from tests.support.programs import freeze, thaw, workers
from tests.support.provisioned_site import Site, heard, undisturbed
from tests.support.wait import wait_until

pytestmark = pytest.mark.broker

ROUNDS = 12

OF_THE_AGGREGATOR = re.compile(
    r"fl/(aggregator|model|replies/.*|clients/.*/work|round/\d+/(selected|result))"
)


def test_what_was_recorded_is_not_obeyed(site: Site) -> None:
    """Clauses 9.5 to 9.7: a run that is over admitted these very sessions; all of it is said again."""
    forger = site.forger()
    edges = [site.edge(name, "--seal") for name in ("0", "1")]
    first = site.aggregator("first", "--require-sealed", rounds=4)
    first.ends_well()
    undisturbed(site, "first", 4)
    old = [
        (topic, payload) for topic, payload in heard(forger) if OF_THE_AGGREGATOR.fullmatch(topic) and payload
    ]
    kinds = {json.loads(payload)["kind"] for _, payload in old}
    assert kinds >= {"aggregator", "admitted", "accepted", "selected", "result", "model"}
    assert all(payload.endswith(b'"}') and b',"sig":"' in payload for _, payload in old)

    # Edge 0 works on only after all has been said once, so that the run is not over before.
    held = workers(edges[0])
    is_held = forger.when(lambda one: one.topic == "fl/round/2/selected", lambda: freeze(*held))
    second = site.aggregator("second", "--require-sealed", rounds=ROUNDS)
    wait_until(is_held.is_set, 60, "a round of it is held")
    marks = [len(edge.err) for edge in edges]
    said = 0
    while second.running():
        own = [
            (topic, payload)
            for topic, payload in heard(forger)
            if OF_THE_AGGREGATOR.fullmatch(topic) and payload
        ]
        for topic, payload in (*old, *own[-20:]):
            if not second.running():
                break
            forger.publish(topic, payload, retain=not topic.startswith("fl/replies/"))
            said += 1
        thaw(*held)
    second.ends_well()
    assert said > len(old)
    undisturbed(site, "second", ROUNDS)
    run = json.loads(next(payload for topic, payload in old if topic == "fl/aggregator"))["run"]
    for edge, mark in zip(edges, marks, strict=True):
        since = edge.err[mark:]
        assert f"admitted to run {run}" not in since
        assert "expected more than 1" in since, "what is of a run that is over"
        numbers = [int(number) for number in re.findall(r"selected for round (\d+)", since)]
        assert numbers == sorted(set(numbers)), "no round was begun twice"
