"""An edge does not obey messages that somebody else sends in the aggregator's name."""

from __future__ import annotations

import json
import re
import time

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fl_shared.protocol import codec
from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from fl_shared.security.signatures import Signer
from tests.support.builders import partition
from tests.support.client import Client
from tests.support.programs import freeze, thaw, workers
from tests.support.provisioned_site import TASK, Site, undisturbed
from tests.support.simulated_aggregator import FOLD, TRAINING
from tests.support.wait import wait_until

pytestmark = pytest.mark.broker

ROUNDS = 12


def forged(forger: Client, topic: t.Topic, message: m.Message, signer: Signer | None = None) -> None:
    text, payload = t.build("fl", topic), codec.encode(message)
    retain = not isinstance(topic, t.RepliesTopic)
    assert (
        forger.publish(text, payload if signer is None else signer.sign(text, payload), retain=retain) < 0x80
    )


def session_of(forger: Client, client: str, deadline: float = 20.0) -> str:
    """Of an edge that is online: its presence is no secret."""
    end = time.monotonic() + deadline
    while time.monotonic() < end:
        one = forger.take(timeout=deadline)
        if one.topic == f"fl/clients/{client}/presence" and one.payload:
            return str(json.loads(one.payload)["session"])
    raise AssertionError(f"edge {client} was not born")


def selection(run: str, number: int, incarnation: int = 1) -> m.Selected:
    return m.Selected(
        run=run, incarnation=incarnation, seq=10**6, round=number, task=TASK, cohort=("0", "1"), seconds_left=60.0,
        training=TRAINING, fold=FOLD, encoding="f32", base=None, inline_limit=10**7,
    )  # fmt: skip


@pytest.mark.parametrize("signer", [None, Signer(Ed25519PrivateKey.generate().private_bytes_raw())],
                         ids=["unsigned", "with another key"])  # fmt: skip
def test_a_false_aggregator_is_not_obeyed(site: Site, signer: Signer | None) -> None:
    """Clauses 9.2 and 9.3: a birth, an admission of the very session, a selection; then the real one comes."""
    forger = site.forger()
    edges = [site.edge("0", "--seal"), site.edge("1", "--seal")]
    session = session_of(forger, "0")
    forged(
        forger,
        t.AggregatorTopic(),
        m.AggregatorPresence(state="online", session="x", run="evil", incarnation=1),
        signer,
    )
    part = partition(count=2, holdout=0)
    admitted = m.Admitted(
        run="evil",
        incarnation=1,
        seq=1,
        client="0",
        session=session,
        task=TASK,
        partition=part,
        examples=None,
    )
    refused = m.Refused(
        run="evil", incarnation=1, seq=2, client="0", session=session, reason="id-in-use", detail="go away"
    )
    forged(forger, t.RepliesTopic("0"), admitted, signer)
    forged(forger, t.SelectedTopic(0), selection("evil", 0), signer)
    forged(forger, t.RepliesTopic("0"), refused, signer)
    wait_until(lambda: edges[0].err.count("dropped a message") >= 3, 20, "they were all dropped")
    site.aggregator("run", "--require-sealed").ends_well()
    undisturbed(site, "run", 3)
    for edge in edges:
        assert edge.running(), edge.output
        assert "evil" not in edge.err
    assert "sig: " in edges[0].err


def test_a_forged_selection_is_not_obeyed_while_the_run_goes_on(site: Site) -> None:
    """Clause 9.3: of the real run, its next rounds; and a result that would end the open one."""
    forger = site.forger()
    edges = [site.edge(name, "--seal") for name in ("0", "1")]
    run = site.aggregator("run", "--require-sealed", rounds=ROUNDS)
    name = wait_until(lambda: re.search(r"run ([0-9a-f]+) at", run.err), 20, "it has begun")[1]
    forgeries = 0
    held = wait_until(lambda: workers(edges[0]), 20, "a worker")
    freeze(*held)  # so that the run does not end before it has been attacked
    while run.running():
        if forgeries == 5:
            thaw(*held)
        number = 500 + forgeries
        forged(forger, t.SelectedTopic(number), selection(name, number))
        for client in ("0", "1"):
            forged(forger, t.WorkTopic(client), selection(name, number))
        done = len(re.findall(r"round \d+: version", run.err))
        result = m.Result(
            run=name, incarnation=1, seq=10**6, round=done + 1, outcome="abandoned", reason="so", version=None,
            digest=None,
            participants=(), missing={}, examples=0, metrics={}, bytes_up=0, bytes_down=0, seconds=0.0,
        )  # fmt: skip
        forged(forger, t.ResultTopic(done + 1), result)
        forger.publish(f"fl/round/{done + 1}/selected", b"", retain=True)
        forgeries += 1
    run.ends_well()
    assert forgeries > 5
    undisturbed(site, "run", ROUNDS)
    for edge in edges:
        assert "round 5" in edge.err
        assert not re.search(r"round 5\d\d", edge.err), "it was selected for a round that there never was"
        assert "stopped: " not in edge.err
