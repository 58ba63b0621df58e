"""``examples/micropython-edge``, in real MicroPython with a heap of 2 MB."""

from __future__ import annotations

import gzip
import runpy
import shutil
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from fl_edge.tasks.digits_mlp import DigitsMlpOptions, DigitsMlpTask
from fl_shared.data.digits import DIGITS
from fl_shared.protocol import codec
from fl_shared.protocol import messages as m
from tests.support import programs
from tests.support.broker import Mosquitto
from tests.support.client import Client
from tests.support.samples import MESSAGES
from tests.support.wait import wait_until
from tests.support.witnessed_versions import check_versions

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "micropython-edge"
MICROPYTHON = shutil.which("micropython") or ""
HEAP = ("-X", "heapsize=2M")
ROUNDS = 4
SENT = ("offer", "update-chunk", "failed", "delayed")

needs_micropython = pytest.mark.skipif(
    not MICROPYTHON, reason="micropython is not installed (Debian's package micropython)"
)

FORMATS = """
import json, sys
from binascii import hexlify, unhexlify
sys.path.insert(0, sys.argv[1])
import formats

def plain(value):
    if isinstance(value, dict):
        given = {name: plain(value[name]) for name in value}
        return unhexlify(value["hex"]) if list(value) == ["hex"] else given
    return [plain(item) for item in value] if isinstance(value, list) else value

vectors = sys.argv[2]
digests = json.load(open(vectors + "/digests.json"))["blake3"]["digests"]
assert len(digests) > 10
for length in digests:
    assert formats.blake3(bytes(i % 251 for i in range(int(length)))) == digests[length], length
messages = json.load(open(vectors + "/messages.json"))
for name in ("manifest", "model-chunk"):
    payload, content = unhexlify(messages[name]["payload"]), plain(messages[name]["content"])
    assert formats.unpack(payload) == (content, len(payload)), name
for name in sys.argv[3:]:
    print(hexlify(formats.pack(plain(messages[name]["content"]))).decode())
"""


def test_it_is_small() -> None:
    lines = [line for path in EXAMPLE.glob("*.py") for line in path.read_text().splitlines()]
    assert len(list(filter(str.strip, lines))) < 400


def test_its_model_is_that_of_the_task() -> None:
    described = runpy.run_path(str(EXAMPLE / "model.py"))["ARRAYS"]
    layers = DigitsMlpTask(DigitsMlpOptions(hidden=0)).layers()
    assert described == [one.model_dump() | {"shape": list(one.shape)} for one in layers.manifest.arrays]
    assert layers.manifest.values == 650


@pytest.mark.parametrize(
    "program", [(sys.executable,), pytest.param((MICROPYTHON, *HEAP), marks=needs_micropython)]
)
def test_its_formats_are_those_of_the_vectors(tmp_path: Path, program: tuple[str, ...]) -> None:
    """Clauses 1.2, 3.3 and 3.4."""
    script = tmp_path / "formats_test.py"
    script.write_text(FORMATS)
    command = [*program, str(script), str(EXAMPLE), str(ROOT / "docs" / "vectors"), *SENT]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    for name, payload in zip(SENT, done.stdout.splitlines(), strict=True):
        topic, message = MESSAGES[name]
        assert codec.decode(topic, bytes.fromhex(payload)) == message


@needs_micropython
@pytest.mark.broker
@pytest.mark.timeout(480)
def test_it_shares_a_run_with_a_light_edge_and_goes_on_with_a_resumed_aggregator(
    shared_mosquitto: Mosquitto, stack: ExitStack, tmp_path: Path
) -> None:
    """Clauses 1.11, 4.1 to 4.4, 5.2, 5.5, 5.10, 5.11 and 6.1 to 6.3, as an edge in MQTT 3.1.1 keeps them."""
    data, url, prefix = tmp_path / "own.csv", shared_mosquitto.url, ("--prefix", "micropython")
    data.write_text(
        "".join(f"{line}\n" for line in gzip.decompress(DIGITS.read_bytes()).decode().splitlines()[:150])
    )
    run = ("--task", "digits-mlp", "--task-option", "hidden=0", "--clients", "2", "--per-round", "2")
    settings = ("--rounds", str(ROUNDS), "--epochs", "2", "--deadline", "60", "--wait", "60")
    watcher = stack.enter_context(Client(shared_mosquitto.endpoint, "micropython/#", prefix="micropython"))
    stack.enter_context(programs.edges(tmp_path / "edge", url, "light", *prefix, "--light"))
    address = ("127.0.0.1", str(shared_mosquitto.port))
    device = stack.enter_context(
        programs.Program(
            tmp_path / "device",
            MICROPYTHON,
            *HEAP,
            str(EXAMPLE / "edge.py"),
            *address,
            "small",
            str(data),
            prefix[1],
        )
    )
    first = stack.enter_context(programs.aggregator(tmp_path, url, *prefix, *run, *settings))
    wait_until(lambda: "round 2: trained" in device.out, 60, "a training of the device")
    first.send(signal.SIGKILL)
    first.wait()
    stack.enter_context(programs.resumed(tmp_path)).ends_well()
    lines = programs.history(tmp_path)
    assert [line["participants"] for line in lines] == [["light", "small"]] * ROUNDS
    assert lines[-1]["metrics"]["accuracy"] > 0.85, lines[-1]
    assert lines[-1]["split"] == "holdout"
    told = [device.out.count(f"round {number}: accepted") for number in range(1, ROUNDS + 1)]
    assert told[1] <= 1, "the aggregator may have been killed after it accepted the update, before it said so"
    assert [told[0], *told[2:]] == [1] * (ROUNDS - 1), device.output
    assert "rejected" not in device.out
    assert "Error" not in device.output
    assert check_versions(watcher) == ROUNDS + 1
    device.send(signal.SIGKILL)
    watcher.expect(m.ClientPresence, client="small", state="offline")
