"""The broker is not trusted: real programs with kits, and somebody with all its rights who listens, forges and repeats.

What the forger may do is what Mosquitto's operator could: read and write every topic (protocol, section 9).
"""

from __future__ import annotations

import contextlib
import json
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from fl_aggregator.tools.provision.kits import Provision
from fl_edge.training.executor import edge_seed
from fl_edge.training.synthetic_executor import SyntheticExecutor
from fl_shared.protocol import codec
from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from fl_shared.security.sealing import Sealer
from fl_shared.security.signatures import Signer
from fl_shared.tensors.sections import ModelSection
from fl_shared.transfer import upload
from tests.support.builders import finished_update, partition
from tests.support.client import Client, Endpoint
from tests.support.programs import KEEPALIVE, Program, history
from tests.support.provisioned_broker import ProvisionedBroker, kit_of, provisioned
from tests.support.simulated_aggregator import FOLD, TRAINING
from tests.support.wait import wait_until

pytestmark = pytest.mark.broker

VALUES = 5000
TASK = f"synthetic-{VALUES}"
FORGER = "\nuser forger\ntopic readwrite #\n"
ALL = "fl/#"


class Site:
    """A broker with accounts, and programs that use their kits."""

    def __init__(self, directory: Path, made: Provision, broker: ProvisionedBroker) -> None:
        self.directory, self.made, self.broker = directory, made, broker
        self._stack = contextlib.ExitStack()

    def kit(self, name: str) -> str:
        account = self.made.register.find(name)
        assert account is not None
        return str(self.made.out / account.kit_file)

    def program(self, name: str, command: str, *arguments: str) -> Program:
        keepalive = ("--keepalive", KEEPALIVE)
        return self._stack.enter_context(Program(self.directory / name, command, *arguments, *keepalive))

    def edge(self, name: str, *arguments: str, task: str = TASK) -> Program:
        state = str(self.directory / f"state-{name}")
        common = ("--kit", self.kit(name), "--task", task, "--state-dir", state)
        return self.program(f"edge-{name}", "fl-edge", *common, *arguments)

    def aggregator(self, name: str, *arguments: str, task: str = TASK, rounds: int = 3) -> Program:
        options = ["--kit", self.kit("aggregator"), "--task", task, "--clients", "2", "--per-round", "2"]
        options += ["--rounds", str(rounds), "--epochs", "1", "--holdout", "0", "--grace", "0"]
        options += ["--run-dir", str(self.directory / name / "run")]
        return self.program(name, "fl-aggregator", "start", *options, *arguments)

    def forger(self) -> Client:
        client = self._stack.enter_context(Client(Endpoint.of(kit_of(self.made, "forger"))))
        assert client.subscribe(ALL) < 0x80
        return client

    def close(self) -> None:
        self._stack.close()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    wanted = [("0", ("train",)), ("1", ("train",)), ("forger", ("asker",))]
    made = provisioned(tmp_path / "kits", wanted)  # type: ignore[arg-type]
    with ProvisionedBroker(made, extra_acl=FORGER) as broker:
        here = Site(tmp_path, made, broker)
        yield here
        here.close()


def heard(client: Client) -> list[tuple[str, bytes]]:
    """All that has come so far, and has not been asked for before."""
    return [(one.topic, one.payload) for one in client.take_all()]


def rounds(site: Site, name: str) -> list[dict[str, Any]]:
    return history(site.directory / name)


def undisturbed(site: Site, name: str, count: int) -> None:
    """All rounds of that run ended with both edges' updates."""
    lines = rounds(site, name)
    assert [line["outcome"] for line in lines] == ["committed"] * count
    assert all(line["participants"] == ["0", "1"] and not line["missing"] for line in lines)


def delta(client: str, number: int) -> bytes:
    """What an edge learns in a round, as it stands in its update: the task draws it from client, round and seed."""
    vector = np.zeros(VALUES, dtype="<f4")
    craft = SyntheticExecutor(VALUES)
    part = partition(count=2, holdout=0)
    training = TRAINING.model_copy(update={"seed": 0})
    made = craft.train(
        vector, craft.initial_weights(0, np.empty), part, training, number, client, lambda: False,
        lambda n: np.empty(n, "<f4"),
    )  # fmt: skip
    assert edge_seed(0, number, client) is not None
    return bytes(made.delta.tobytes())


# --- nobody reads -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("sealed", [True, False], ids=["sealed", "plain"])
def test_the_brokers_operator_reads_no_update(site: Site, sealed: bool) -> None:
    """Clause 9.10. The same listener reads it all where nothing is sealed."""
    observer = site.forger()
    for name in ("0", "1"):
        site.edge(name, *(["--seal"] if sealed else []))
    site.aggregator("run", *(["--require-sealed"] if sealed else [])).ends_well()
    undisturbed(site, "run", 3)
    messages = [
        (topic, payload)
        for topic, payload in heard(observer)
        if topic.startswith(("fl/updates/", "fl/register/", "fl/evaluations/")) and payload
    ]
    assert len({topic for topic, _ in messages}) >= 4
    assert all(codec.is_sealed(payload) is sealed for _, payload in messages)
    seen = b"".join(payload for _, payload in messages)
    patterns = [delta(client, number) for client in ("0", "1") for number in (1, 2, 3)]
    known = [piece[start : start + 16] for piece in patterns for start in (0, 4000, 12_000)]
    known += [b"delta", b"metrics", b"sections", b"examples", b'"register"', b"session"]
    assert [piece in seen for piece in known] == [not sealed] * len(known)


def test_an_update_that_comes_in_chunks_is_sealed_as_well(site: Site) -> None:
    task = "synthetic-1200000"
    observer = site.forger()
    for name in ("0", "1"):
        site.edge(name, "--seal", "--chunk", "500000", task=task)
    site.aggregator("run", "--require-sealed", task=task).ends_well()
    undisturbed(site, "run", 3)
    parts = [payload for topic, payload in heard(observer) if topic.startswith("fl/updates/")]
    assert sum(len(part) > 500_000 for part in parts) >= 3 * 2 * 9
    assert all(codec.is_sealed(part) for part in parts)


def test_an_aggregator_takes_both_if_nothing_is_required(site: Site) -> None:
    site.edge("0", "--seal")
    site.edge("1")
    site.aggregator("run").ends_well()
    undisturbed(site, "run", 3)


# --- nobody speaks in the aggregator's name ----------------------------------------------------------------


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
    run = site.aggregator("run", "--require-sealed", rounds=60)
    name = wait_until(lambda: re.search(r"run ([0-9a-f]+) at", run.err), 20, "it has begun")[1]
    forgeries = 0
    while run.running():
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
    assert forgeries >= 5
    undisturbed(site, "run", 60)
    for edge in edges:
        assert "round 5" in edge.err
        assert not re.search(r"round 5\d\d", edge.err), "it was selected for a round that there never was"
        assert "stopped: " not in edge.err


# --- nobody repeats what was said ---------------------------------------------------------------------------

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

    second = site.aggregator("second", "--require-sealed", rounds=60)
    wait_until(lambda: "round 2: version" in second.err, 30, "it has begun")
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
    second.ends_well()
    assert said > len(old)
    undisturbed(site, "second", 60)
    run = json.loads(next(payload for topic, payload in old if topic == "fl/aggregator"))["run"]
    for edge, mark in zip(edges, marks, strict=True):
        since = edge.err[mark:]
        assert f"admitted to run {run}" not in since
        assert "expected more than 1" in since, "what is of a run that is over"
        numbers = [int(number) for number in re.findall(r"selected for round (\d+)", since)]
        assert numbers == sorted(set(numbers)), "no round was begun twice"


# --- nobody speaks in an edge's name -------------------------------------------------------------------------


def poison(client: str, run: str, session: str, number: int, base: str) -> bytes:
    """An update with values that would be seen."""
    craft = SyntheticExecutor(VALUES)
    manifest = craft.initial_weights(0, lambda n: np.empty(n, "<f4"))
    section = ModelSection("delta", manifest, np.full(VALUES, 50.0, dtype="<f4").tobytes())
    update = finished_update(
        section, base=base, examples=1_000_000, steps=1, seconds=0.1, metrics=m.UpdateMetrics()
    )
    return codec.encode(upload.update_message(upload.Sender(client, session, run, 1, number), 1, update))


def test_a_forged_update_is_refused_and_changes_nothing(site: Site) -> None:
    """Clauses 9.11 to 9.13: plain, sealed with a forger's key, with an accomplice's kit, and on another topic."""
    forger = site.forger()
    site.edge("0", "--seal")
    site.edge("1", "--seal")
    quiet = site.aggregator("quiet", "--require-sealed", "--seed", "3", rounds=30)
    quiet.ends_well()
    sessions = {"0": "", "1": ""}
    for topic, payload in heard(forger):
        if (match := re.fullmatch("fl/clients/(.)/presence", topic)) is not None:
            sessions[match[1]] = json.loads(payload)["session"]
    kit = kit_of(site.made, "0")
    strange = X25519PrivateKey.generate()
    assert kit.voucher is not None
    accomplice = kit.sealer()
    own = Sealer(strange.private_bytes_raw(), kit.voucher, kit.sealing_public)

    loud = site.aggregator("loud", "--require-sealed", "--seed", "3", rounds=30)
    run = wait_until(lambda: re.search(r"run ([0-9a-f]+) at", loud.err), 20, "it has begun")[1]
    number, base, tried = 0, "", 0
    while loud.running():
        for topic, payload in heard(forger):
            if topic == "fl/model" and payload and json.loads(payload)["run"] == run:
                base = json.loads(payload)["digest"]
            if (match := re.fullmatch(r"fl/round/(\d+)/selected", topic)) is not None:
                number = max(number, int(match[1])) if payload else number
        if not base:
            time.sleep(0.01)
            continue
        text = "fl/updates/1"
        update = poison("1", run, sessions["1"], number, base)
        forger.publish(text, update)
        forger.publish(text, own.seal(text, update))
        forger.publish(text, accomplice.seal(text, update))
        forger.publish(text, accomplice.seal("fl/updates/0", update))
        forger.publish("fl/updates", accomplice.seal("fl/updates", update))
        forger.publish(
            "fl/updates/0", accomplice.seal("fl/updates/0", update)
        )  # its own account, another's update
        tried += 1
        time.sleep(0.05)
    loud.ends_well()
    undisturbed(site, "loud", 30)
    assert tried >= 3
    counted: dict[str, int] = {}
    for line in rounds(site, "loud"):
        for reasons in line["refused"].values():
            for reason, times in reasons.items():
                counted[reason] = counted.get(reason, 0) + times
    assert counted["not-sealed"] > 0
    assert counted["not-opened"] > 0
    models = [
        (site.directory / name / "run" / "model.safetensors").read_bytes() for name in ("quiet", "loud")
    ]
    assert models[0] == models[1], "as without any of it"


# --- the operator ------------------------------------------------------------------------------------------


def test_only_the_operators_kit_ends_a_run_and_its_word_is_good_once(site: Site) -> None:
    """Clause 9.14."""
    forger = site.forger()
    for name in ("0", "1"):
        site.edge(name, "--seal")
    run = site.aggregator("run", "--require-sealed", rounds=2000)
    name = wait_until(lambda: re.search(r"run ([0-9a-f]+) at", run.err), 20, "it has begun")[1]
    plain = codec.encode(m.Control(run=name, incarnation=1, reason="forged"))
    wait_until(lambda: "round 2: version" in run.err, 30, "rounds are made")
    forger.publish("fl/control", plain)
    forger.publish("fl/control", kit_of(site.made, "0").sealer().seal("fl/control", plain))
    wait_until(lambda: "not-sealed" in run.err and "not-opened" in run.err, 20, "both are refused")
    assert run.running()

    heard(forger)
    stop = site.program("stop", "fl-aggregator", "stop", "--kit", site.kit("operator"), "--reason", "lunch")
    stop.ends_well()
    assert run.wait() == 130, run.output
    assert "stopped by fl-aggregator stop: lunch" in run.output
    orders = [payload for topic, payload in heard(forger) if topic == "fl/control"]
    assert orders
    assert all(codec.is_sealed(payload) for payload in orders)

    again = site.program(
        "again", "fl-aggregator", "start", "--kit", site.kit("aggregator"), "--require-sealed",
        "--resume", str(site.directory / "run" / "run"),
    )  # fmt: skip
    before = len(rounds(site, "run"))
    wait_until(lambda: len(rounds(site, "run")) > before, 30, "it goes on")
    for payload in orders:
        forger.publish("fl/control", payload)
    wait_until(lambda: "other-incarnation" in again.err, 20, "it is refused")
    before = len(rounds(site, "run"))
    wait_until(lambda: len(rounds(site, "run")) > before + 3, 30, "it goes on all the same")
    assert again.running()


@pytest.mark.parametrize(
    ("program", "arguments", "said"),
    [
        (
            "fl-aggregator",
            ("start", "--kit", "edge-0.zip"),
            "is for '0' (train), expected one for aggregator",
        ),
        ("fl-aggregator", ("start", "--require-sealed"), "--require-sealed needs --kit"),
        (
            "fl-aggregator",
            ("stop", "--kit", "edge-0.zip"),
            "is for '0' (train), expected one for operator",
        ),
        ("fl-edge", ("--id", "0", "--seal"), "--seal needs --kit"),
    ],
)
def test_a_mistake_is_told_at_once(
    site: Site, program: str, arguments: tuple[str, ...], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(site.made.out)
    before = {path.name for path in site.made.out.iterdir()}
    started = site.program("mistake", program, *arguments)
    assert started.wait(30) == 2, started.output
    assert said in started.err
    assert {path.name for path in site.made.out.iterdir()} == before, "nothing was begun"


def test_a_run_that_takes_only_what_is_sealed_does_so_when_it_is_taken_up_again(site: Site) -> None:
    """And its last line says with which kit."""
    run = site.aggregator("first", "--require-sealed", rounds=50)
    wait_until(lambda: "watch it: " in run.err, 20, "the run")
    run.send(signal.SIGTERM)
    assert run.wait(20) == 130, run.output
    assert run.out.rstrip().endswith(f"/run --kit {site.kit('aggregator')}"), run.out
    directory = str(site.directory / "first" / "run")
    assert (
        json.loads((site.directory / "first" / "run" / "run.json").read_text())["settings"]["require_sealed"]
        is True
    )

    words = ("start", "--resume", directory, "--kit", site.kit("aggregator"))
    again = site.program("again", "fl-aggregator", *words)
    site.edge("0")  # without --seal
    wait_until(lambda: "not-sealed" in again.err, 20, "that the edge's registration is refused")
    again.send(signal.SIGTERM)
    assert again.wait(20) == 130, again.output
