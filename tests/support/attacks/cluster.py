"""A broker, an aggregator and three honest edges in the middle of a round, and their attackers.

Edges 0, 1 and 2 are real programs. Edge 3 is an attacker: it has a kit, has joined, is selected in each
round, and never sends anything that counts. So the model depends only on the others, and is always the same.
Edge 1's worker is frozen during the attacks, so that a round is open. Then it continues, and the run must end
as if there had been no attack.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any, Final, Literal, cast

import msgpack
import numpy as np
from safetensors.numpy import save_file

from fl_edge.training.synthetic_executor import SyntheticExecutor
from fl_shared.protocol import codec
from fl_shared.protocol import messages as m
from fl_shared.security.kit import AccountRole, Kit
from fl_shared.security.sealing import Sealer
from tests.support import builders, programs
from tests.support.broker import Mosquitto
from tests.support.client import Client, Endpoint
from tests.support.programs import Program, freeze, thaw, workers
from tests.support.provisioned_broker import ProvisionedBroker, kit_of, provisioned
from tests.support.received import Received
from tests.support.synthetic_run import model_sha256
from tests.support.wait import wait_until

Setup = Literal["lab", "accounts", "end to end"]
LAB: Final[tuple[Setup, ...]] = ("lab",)
SEALED: Final[tuple[Setup, ...]] = ("end to end",)
KITS: Final[tuple[Setup, ...]] = ("accounts", "end to end")
ALL: Final[tuple[Setup, ...]] = ("lab", *KITS)

VALUES: Final = 5000
TASK: Final = f"synthetic-{VALUES}"
HONEST: Final = ("0", "1", "2")
BAD: Final = "3"
KEEPALIVE: Final = "60"
"""No attack is about silence, and on a busy machine a program may be silent for seconds."""
ROUNDS: Final = 12
"""So many that they are not over before the observer has frozen edge 1's worker, on a busy machine too."""
FIRST_HELD_ROUND: Final = 2
"""The first round that can be the open one: the one before it provides old messages."""
MARK: Final = b"attack-on-a-topic-of-others"
"""The mark of messages that no client may receive."""
OBSERVER: Final = (
    "\nuser observer\ntopic readwrite #\nuser aggregator\ntopic read fl/updates\ntopic read fl/register\n"
)
"""Hears everything, as the broker's operator does; end to end it attacks with that. An operator can also have the
aggregator hear what ours keeps from it."""
ACCOUNTS: Final[list[tuple[str, tuple[AccountRole, ...]]]] = [
    ("0", ("train", "predict")), ("1", ("train",)), ("2", ("train",)), (BAD, ("train",)), ("gone", ("train",)),
    ("kiosk", ("asker",)), ("observer", ("asker",)), ("lamp", ("predict",)),
]  # fmt: skip


class Cluster:
    """A cluster whose programs `start` starts. Its run begins with `join`, or with `hold`, which returns when it is
    ready for attacks. `finish` lets the run end."""

    def __init__(self, setup: Setup, directory: Path) -> None:
        self.setup: Setup = setup
        self.directory = directory
        self._stack = contextlib.ExitStack()
        self._seq = 0
        self._frozen: list[int] = []
        self.eavesdroppers: list[tuple[Client, re.Pattern[str]]] = []
        """Clients that listen until the end of the run, and the topics that they may receive."""
        self.sealer: Sealer | None = None
        if setup == "lab":
            directory.mkdir(parents=True, exist_ok=True)
            lab = Mosquitto(directory, extra=["log_type all"])
            self._stack.callback(lab.stop)
            self.port, self.made, self.broker_log = lab.port, None, lab.log
        else:
            self.made = provisioned(directory / "kits", ACCOUNTS)
            self.gone = kit_of(self.made, "gone")
            self.made.revoke(["gone"])
            conf = self.made.broker_directory / "mosquitto.conf"
            conf.write_text(conf.read_text() + "log_type all\n")  # also what it denies
            broker = self._stack.enter_context(ProvisionedBroker(self.made, extra_acl=OBSERVER))
            self.port, self.broker_log = self.made.register.place.port, broker.log
            if setup == "end to end":
                self.sealer = self.kit(BAD).sealer()
        self.manifest = SyntheticExecutor(VALUES).initial_weights(0, lambda n: np.empty(n, "<f4"))

    # --- who is there -------------------------------------------------------------------------------------

    def kit(self, name: str) -> Kit:
        assert self.made is not None
        return kit_of(self.made, name)

    def endpoint(self, name: str) -> Endpoint:
        """The endpoint of an account; in the lab all share one."""
        return Endpoint(self.port) if self.made is None else Endpoint.of(self.kit(name))

    def enter(self, account: str, name: str, **more: Any) -> Client:
        """A client with ``account``; it is closed with the cluster."""
        client = Client(self.endpoint(account), name=name, **more)
        self._stack.callback(client.close)
        return client

    def _program(self, name: str, command: str, account: str, *arguments: str) -> Program:
        way = ["--broker", f"mqtt://127.0.0.1:{self.port}"]
        if self.made is not None:
            found = self.made.register.find(account)
            assert found is not None
            way = ["--kit", str(self.made.out / found.kit_file)]
        return self._stack.enter_context(
            Program(self.directory / name, command, *arguments, *way, "--keepalive", KEEPALIVE)
        )

    def _edge(self, name: str) -> Program:
        more = ["--task", TASK, "--state-dir", str(self.directory / f"state-{name}"), "--workers", "1"]
        more += ["--seal"] if self.setup == "end to end" else []
        if self.made is None:
            more += ["--id", name, "--role", "train,predict" if name == "0" else "train"]
        return self._program(f"edge-{name}", "fl-edge", name, *more)

    # --- up to the moment of the attacks ------------------------------------------------------------------

    def start(self) -> None:
        """Starts the programs of the run, which waits for edge 3."""
        first = self.directory / "first.safetensors"
        arrays = {one.name: np.zeros(one.shape, np.float32) for one in self.manifest.arrays}
        save_file(arrays, first, {"buffers": "[]"})
        self.observer = self.enter("observer", "observer")
        self.observer.subscribe("#")
        self.edges = {name: self._edge(name) for name in HONEST}
        self.aggregator = self._program(
            "aggregator", "fl-aggregator", "aggregator", "start", "--task", TASK, "--clients", "4",
            "--per-round", "3", "--over-select", "1", "--quorum", "3", "--rounds", str(ROUNDS), "--holdout", "0",
            "--grace", "60", "--wait", "60", "--deadline", "300", "--init", str(first),
            "--run-dir", str(self.directory / "run"), *(["--require-sealed"] if self.sealer else []),
        )  # fmt: skip
        self.bad = self.enter(BAD, "bad")
        self.bad.subscribe(f"fl/replies/{BAD}")

    def hold(self) -> None:
        """Returns in the middle of a round that waits only for edge 1."""
        self._hold_edge_1()
        self.join()
        self._last("fl/round/1/result")
        wait_until(self._is_held, 60, "a round waits for edge 1 alone")
        status = json.loads(self._last("fl/status").payload)
        self.round = int(status["round"])
        assert FIRST_HELD_ROUND <= self.round <= ROUNDS, "rounds were made faster than they could be stopped"
        selected = json.loads(self._last(f"fl/round/{self.round}/selected").payload)
        self.base = str(selected["base"]["digest"])
        self.recorded = list(self.observer.received)

    def join(self) -> None:
        """Edge 3 joins, so that the run begins."""
        birth = self.observer.wait_for(
            lambda one: one.topic == "fl/aggregator" and b'"online"' in one.payload, "a birth"
        )
        head = json.loads(birth.payload)
        self.run, self.incarnation = str(head["run"]), int(head["incarnation"])
        self.register()
        self.bad.wait_for(lambda one: b'"partition":{' in one.payload, "that it has a part")
        self.register(run=self.run, incarnation=self.incarnation, manifest=self.manifest.digest, examples=10)
        self.bad.wait_for(lambda one: b'"examples":10,"finished_round"' in one.payload, "that it is ready")

    def _hold_edge_1(self) -> None:
        """Freezes edge 1's worker once its first update is on the wire: later rounds take only milliseconds."""
        self._frozen = wait_until(lambda: workers(self.edges["1"]), 20, "edge 1 has a worker")
        self._stack.callback(lambda: thaw(*self._frozen))
        self.observer.when(lambda one: one.topic == "fl/updates/1", lambda: freeze(*self._frozen))

    def _is_held(self) -> bool:
        """Whether two statuses in turn say that all but edge 1 are in: the first may precede what edge 1 had finished
        when it was frozen."""
        statuses = [
            json.loads(one.payload)
            for one in self.observer.received
            if one.topic == "fl/status" and one.payload
        ]
        held = [
            status["round"] if (status["phase"], status["missing"]) == ("collecting", ["1", BAD]) else 0
            for status in statuses[-2:]
        ]
        return len(held) == 2 and held[0] == held[1] >= FIRST_HELD_ROUND

    def _last(self, topic: str) -> Received:
        """The newest message on ``topic`` that the observer receives, now or later."""
        self.observer.wait_for(lambda one: one.topic == topic and bool(one.payload), topic)
        return next(one for one in reversed(self.observer.received) if one.topic == topic and one.payload)

    def finish(self, refused: Counter[str]) -> None:
        """Lets the run end, once so many messages of each client are counted as refused: some may still be unread.

        A status names only the clients with most of them.
        """
        most = Counter(dict(refused.most_common(m.MAX_REFUSED_NAMED)))

        def are_counted(one: Received) -> bool:
            found = json.loads(one.payload)["refused"] if one.topic == "fl/status" and one.payload else {}
            return most <= Counter(found)

        if most:
            self.observer.wait_for(are_counted, f"a status with {dict(most)} refused", timeout=60)
        thaw(*self._frozen)
        self.aggregator.ends_well(60)
        # Everything else on the way to those who listen has come before the last result.
        for client in (self.observer, *(client for client, _ in self.eavesdroppers)):
            client.wait_for(lambda one: one.topic == f"fl/round/{ROUNDS}/result", "the last result")

    def close(self) -> None:
        self._stack.close()

    # --- what edge 3 says ---------------------------------------------------------------------------------

    def next_seq(self) -> int:
        self._seq += 1
        return self._seq

    def say(self, topic: str, payload: bytes, **more: Any) -> None:
        """Publishes as edge 3 on a topic of its own, sealed with its kit where that is required."""
        if self.sealer is not None:
            payload = self.sealer.seal(topic, payload)
        assert self.bad.publish(topic, payload, **more) < 0x80

    def register(self, **changes: Any) -> None:
        self.say(f"fl/register/{BAD}", codec.encode(self.registration(**changes)))

    def registration(self, **changes: Any) -> m.Registration:
        usual = {"seq": self.next_seq(), "session": "bad-session", "device": "bad-device"}
        return builders.registration(BAD, **usual | changes)

    def update(self, vector: np.ndarray[Any, Any] | None = None, **changes: Any) -> dict[str, Any]:
        """An update for the open round, as the map that is sent; ``changes`` replace members."""
        data = (np.full(VALUES, 50.0) if vector is None else vector).astype("<f4").tobytes()
        whole = builders.update(
            builders.section(data, self.manifest), run=self.run, incarnation=self.incarnation,
            seq=self.next_seq(), client=BAD,
            session="bad-session", round=self.round, base=self.base, examples=1_000_000, seconds=0.1,
        )  # fmt: skip
        return cast(dict[str, Any], msgpack.unpackb(codec.encode(whole))) | changes

    def rejected(self, update: dict[str, Any], reason: str) -> None:
        """Sends an update as edge 3 and checks that it is rejected for ``reason``."""
        before = len(self.bad.received)
        self.say(f"fl/updates/{BAD}", cast(bytes, msgpack.packb(update)))
        words = f'"reason":"{reason}"'.encode()
        self.bad.wait_for(lambda one: words in one.payload, f"rejected: {reason}", since=before)

    # --- what others have said ----------------------------------------------------------------------------

    def session_of(self, client: str) -> str:
        return str(json.loads(self._last(f"fl/clients/{client}/presence").payload)["session"])

    # --- what became of it --------------------------------------------------------------------------------

    def model(self) -> str:
        return model_sha256(self.directory)

    def refused(self) -> dict[tuple[str, str], int]:
        found: dict[tuple[str, str], int] = {}
        for line in programs.history(self.directory):
            for who, reasons in line["refused"].items():
                for reason, times in reasons.items():
                    found[who, reason] = found.get((who, reason), 0) + times
        return found

    def denied(self, account: str, topic: str) -> bool:
        """Whether the broker's log says that ``account`` was not allowed to publish on ``topic``."""
        pattern = rf"Denied PUBLISH from {re.escape(account)} .*'{re.escape(topic)}'"
        return re.search(pattern, self.broker_log()) is not None
