"""Measures the cost of signatures and seals: alone, and in rounds of real programs.

    python benchmarks/sealing.py --edges 10 --params 431080 --rounds 20 --repeat 2
    python benchmarks/sealing.py --task fashion-mnist --edges 20 --per-round 10 --epochs 10 --rounds 10 --warm-up 0 \
        --repeat 1 --setups tcp,sealed --timeout 1800                                 # the reference workload

Alone: the time to make and to verify a signature (of a message of 700 bytes), to seal and to open a MB (in
chunks of 1 MiB), and to begin a connection (an encapsulation, and opening its first message). In rounds: an
aggregator, a broker and ``--edges`` edges run as one process each, since a kit is for one edge; `synthetic-N`
trains in no time. The same rounds run in four set-ups, in turn: ``tcp`` (nothing), ``mtls`` (certificates),
``signed`` (kits: the aggregator signs, edges verify), ``sealed`` (kits, ``--seal`` and ``--require-sealed``).

Prints one JSON line. Seconds are medians, and ``seconds_min`` are the shortest rounds. ``added`` is the
median minus that of ``mtls`` (or of the first set-up). ``cpu_seconds`` is the total processor time of the
aggregator and the edges, with their starts; on a busy machine it is the better comparison.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from fl_aggregator.tools.provision import kits
from fl_aggregator.tools.provision.accounts import BrokerLocation
from fl_shared.security.kit import Kit
from fl_shared.security.sealing import Opener, Sealer
from fl_shared.security.signatures import Signer, Verifier
from fl_shared.security.vouchers import Voucher
from fl_shared.system.mosquitto import LOOPBACK, MosquittoChild, find_mosquitto, free_port, is_running

BIN = Path(sys.executable).parent
SETUPS: Final = ("tcp", "mtls", "signed", "sealed")
TOPIC: Final = "fl/updates/7"


def say(text: str) -> None:
    """Prints a line on standard error at once."""
    print(text, file=sys.stderr, flush=True)


# --- alone ------------------------------------------------------------------------------------------------


def best(action: Callable[[], object], times: int = 100) -> float:
    """Seconds for one call: the mean of ``times`` calls, in the fastest of five tries."""
    found = []
    for _ in range(5):
        begun = time.perf_counter()
        for _ in range(times):
            action()
        found.append((time.perf_counter() - begun) / times)
    return min(found)


def alone() -> dict[str, float]:
    """The cost of each operation without a run, in the unit that its name ends with."""
    signing, aggregator, edge = (
        Ed25519PrivateKey.generate(),
        X25519PrivateKey.generate(),
        X25519PrivateKey.generate(),
    )
    signer = Signer(signing.private_bytes_raw())
    verifier = Verifier(signing.public_key().public_bytes_raw())
    message = b'{"text":"' + b"x" * 689 + b'"}'
    signed = signer.sign(TOPIC, message)

    recipient = aggregator.public_key().public_bytes_raw()
    voucher = Voucher("7", edge.public_key().public_bytes_raw(), frozenset({"train"}), 2**40).sign(signer)

    def new() -> Sealer:
        return Sealer(edge.private_bytes_raw(), voucher, recipient)

    sealer, opener = new(), Opener(aggregator.private_bytes_raw(), verifier)
    chunk = os.urandom(2**20)
    sealed = memoryview(sealer.seal(TOPIC, chunk))
    megabytes = len(chunk) / 1e6
    # Each is opened once, since only a connection's first message needs key agreements and the voucher.
    first = iter([new().seal(TOPIC, b"x") for _ in range(500)])
    return {
        "sign_us": best(lambda: signer.sign(TOPIC, message)) * 1e6,
        "verify_us": best(lambda: verifier.check(TOPIC, signed)) * 1e6,
        "seal_ms_per_mb": best(lambda: sealer.seal(TOPIC, chunk)) * 1e3 / megabytes,
        "open_ms_per_mb": best(lambda: opener.open("7", TOPIC, sealed)) * 1e3 / megabytes,
        "new_connection_us": best(new) * 1e6,
        "first_opened_us": best(lambda: opener.open("7", TOPIC, next(first))) * 1e6,
    }


# --- in a round -------------------------------------------------------------------------------------------


class Site:
    """A provisioned broker, and its accounts as kits and as separate files."""

    def __init__(self, directory: Path, edges: int) -> None:
        wanted: list[tuple[str, tuple[Any, ...]]] = [(str(number), ("train",)) for number in range(edges)]
        place = BrokerLocation(hosts=(LOOPBACK,), port=free_port(), prefix="fl", passwords=False, days=30)
        self.made, _ = kits.create_provision(directory / "kits", place, wanted, force=False)
        self.files = directory / "files"
        self.files.mkdir()
        for account in self.made.register.accounts:
            kit = Kit.read(self.kit(account.name))
            assert kit.cert is not None
            assert kit.key is not None
            for name, content in (("ca", kit.ca), ("cert", kit.cert), ("key", kit.key)):
                (self.files / f"{account.name}.{name}").write_bytes(content)

    def kit(self, name: str) -> Path:
        """The file of the account's kit."""
        account = self.made.register.find(name)
        assert account is not None
        return self.made.out / account.kit_file

    def reach(self, setup: str, name: str, plain: str) -> list[str]:
        """The options with which the program of an account connects in a set-up.

        ``plain``: the URL for ``tcp``.
        """
        if setup == "tcp":
            return ["--broker", plain]
        if setup == "mtls":
            parts = [[f"--{part}", str(self.files / f"{name}.{part}")] for part in ("ca", "cert", "key")]
            return ["--broker", self.made.register.place.url, *itertools.chain(*parts)]
        return ["--kit", str(self.kit(name))]

    @contextlib.contextmanager
    def broker(self) -> Iterator[None]:
        """Runs the provisioned Mosquitto while the block runs."""
        conf, log = self.made.broker_directory / "bench.conf", self.made.out / "mosquitto.log"
        user = "user root\n" if os.geteuid() == 0 else ""
        conf.write_text((self.made.broker_directory / "mosquitto.conf").read_text() + user)
        with log.open("wb") as output:
            process = subprocess.Popen([find_mosquitto(), "-c", str(conf)], stdout=output, stderr=output)
        try:
            deadline = time.monotonic() + 10
            while not is_running(log):
                if time.monotonic() > deadline or process.poll() is not None:
                    raise SystemExit(f"mosquitto does not start:\n{log.read_text()}")
                time.sleep(0.02)
            yield
        finally:
            process.terminate()
            process.wait(10)


def run(arguments: argparse.Namespace, site: Site, setup: str, plain: str, directory: Path) -> list[float]:
    """Runs a run in one set-up. Returns the seconds from each commit to the next, without the warm-up."""
    directory.mkdir(parents=True)
    task, edges = arguments.task or f"synthetic-{arguments.params}", []
    for number in range(arguments.edges):
        identity = ["--id", str(number)] if setup in ("tcp", "mtls") else []
        edges.append(
            subprocess.Popen(
                [str(BIN / "fl-edge"), *identity, "--role", "train", *site.reach(setup, str(number), plain),
                 "--keepalive", "60", "--task", task, "--state-dir", str(directory / f"edge-{number}"),
                 *(["--seal"] if setup == "sealed" else [])],
                stdout=subprocess.DEVNULL, stderr=(directory / f"edge-{number}.log").open("wb"),
            )
        )  # fmt: skip
    log = directory / "aggregator.log"
    try:
        done = subprocess.run(
            [str(BIN / "fl-aggregator"), "start", "--task", task, *site.reach(setup, "aggregator", plain),
             "--clients", str(arguments.edges), "--per-round", str(arguments.per_round or arguments.edges),
             "--keepalive", "60", "--rounds", str(arguments.rounds + arguments.warm_up),
             "--epochs", str(arguments.epochs), "--holdout", "0", "--grace", "0",
             "--durability", "memory", "--run-dir", str(directory / "run"),
             *(["--require-sealed"] if setup == "sealed" else [])],
            stdout=subprocess.DEVNULL, stderr=log.open("wb"), timeout=arguments.timeout,
        )  # fmt: skip
    finally:
        for edge in edges:
            edge.terminate()
        for edge in edges:
            edge.wait(20)
    if done.returncode != 0:
        raise SystemExit(f"the aggregator ended with {done.returncode}:\n{log.read_text()[-2000:]}")
    lines = [json.loads(line) for line in (directory / "run" / "history.jsonl").read_text().splitlines()]
    return [sum(line["seconds"].values()) for line in lines[arguments.warm_up :]]


def cpu_seconds() -> float:
    """Processor seconds of all child processes that have ended and were waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def in_rounds(
    arguments: argparse.Namespace, directory: Path
) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Seconds of each round, and processor seconds of all programs but the broker, by set-up."""
    site = Site(directory, arguments.edges)
    setups = arguments.setups.split(",")
    seconds: dict[str, list[float]] = {setup: [] for setup in setups}
    cpu = dict.fromkeys(setups, 0.0)
    with MosquittoChild(directory / "plain") as child, site.broker():
        # The set-ups alternate, since a machine's speed drifts.
        for number, setup in itertools.product(range(arguments.repeat), setups):
            before = cpu_seconds()
            found = run(arguments, site, setup, child.url, directory / f"{number}-{setup}")
            cpu[setup] += cpu_seconds() - before
            say(f"{setup}: {statistics.median(found) * 1e3:.1f} ms a round")
            seconds[setup] += found
    return seconds, cpu


def main() -> None:
    """Measures all, and prints the result."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--edges", type=int, default=10)
    parser.add_argument("--params", type=int, default=431_080)
    parser.add_argument("--task", help="one that really trains, in the place of synthetic-N")
    parser.add_argument("--per-round", type=int, help="edges that are selected; without it all")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--setups", default=",".join(SETUPS), help="some of them, with commas between")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--warm-up", type=int, default=2, help="rounds that are left out: buffers are made")
    parser.add_argument("--repeat", type=int, default=2, help="so often each set-up")
    parser.add_argument("--timeout", type=float, default=300.0)
    arguments = parser.parse_args()
    costs = {name: round(value, 3) for name, value in alone().items()}
    with tempfile.TemporaryDirectory() as scratch:
        rounds, cpu = in_rounds(arguments, Path(scratch))
    compared = "mtls" if "mtls" in rounds else next(iter(rounds))
    medians = {setup: statistics.median(value) for setup, value in rounds.items()}
    found = {
        "benchmark": "sealing",
        "edges": arguments.edges,
        **({"params": arguments.params} if arguments.task is None else {"task": arguments.task}),
        "epochs": arguments.epochs,
        "rounds": arguments.rounds * arguments.repeat,
        **costs,
        "seconds_per_round": {setup: round(value, 5) for setup, value in medians.items()},
        "seconds_min": {setup: round(min(value), 5) for setup, value in rounds.items()},
        "cpu_seconds": {setup: round(value, 2) for setup, value in cpu.items()},
        "added": {setup: round(value - medians[compared], 5) for setup, value in medians.items()},
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
