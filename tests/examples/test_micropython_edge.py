"""``examples/micropython-edge``, in real MicroPython with a heap of 2 MB."""

from __future__ import annotations

import runpy
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from fl_edge.tasks.digits_mlp import DigitsMlpOptions, DigitsMlpTask
from fl_shared.protocol import codec
from fl_shared.protocol import messages as m
from tests.support import programs
from tests.support.broker import Mosquitto
from tests.support.client import Client
from tests.support.micropython_edge import MICROPYTHON, SOURCE, micropython_edge, needs_micropython
from tests.support.observed_fold import check_versions
from tests.support.samples import MESSAGES
from tests.support.wait import wait_until

ROOT = Path(__file__).parents[2]
MODEL = DigitsMlpTask(DigitsMlpOptions(hidden=0)).layers().manifest
ROUNDS = 4
SENT = ("offer", "update-chunk", "failed", "delayed")

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
    lines = [line for path in SOURCE.glob("*.py") for line in path.read_text().splitlines()]
    assert len(list(filter(str.strip, lines))) < 400


def test_its_model_is_that_of_the_task() -> None:
    described = runpy.run_path(str(SOURCE / "model.py"))["ARRAYS"]
    assert described == [one.model_dump() | {"shape": list(one.shape)} for one in MODEL.arrays]
    assert MODEL.values == 650


@pytest.mark.parametrize("program", [(sys.executable,), pytest.param(MICROPYTHON, marks=needs_micropython)])
def test_its_formats_are_those_of_the_vectors(tmp_path: Path, program: tuple[str, ...]) -> None:
    """Clauses 1.2, 3.3 and 3.4."""
    script = tmp_path / "formats_test.py"
    script.write_text(FORMATS)
    command = [*program, str(script), str(SOURCE), str(ROOT / "docs" / "vectors"), *SENT]
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
    url, prefix = shared_mosquitto.url, "micropython"
    run = ("--task", "digits-mlp", "--task-option", "hidden=0", "--clients", "2", "--per-round", "2")
    settings = ("--rounds", str(ROUNDS), "--epochs", "2", "--deadline", "60", "--wait", "60")
    observer = stack.enter_context(Client(shared_mosquitto.endpoint, f"{prefix}/#", prefix=prefix))
    stack.enter_context(programs.edges(tmp_path / "edge", url, "light", "--prefix", prefix, "--light"))
    device = stack.enter_context(
        micropython_edge(tmp_path / "device", shared_mosquitto.port, "small", prefix)
    )
    first = stack.enter_context(programs.aggregator(tmp_path, url, "--prefix", prefix, *run, *settings))
    wait_until(lambda: "round 2: trained" in device.out, 60, "a training of the device")
    first.send(signal.SIGKILL)
    first.wait()
    stack.enter_context(programs.resumed(tmp_path)).ends_well()
    lines = programs.history(tmp_path)
    assert [line["participants"] for line in lines] == [["light", "small"]] * ROUNDS
    assert lines[-1]["metrics"]["accuracy"] > 0.85, lines[-1]
    assert lines[-1]["split"] == "holdout"
    wait_until(lambda: f"round {ROUNDS}: trained" in device.out, 10, "what the device says")
    assert "round 1: accepted" in device.out, device.output
    assert "rejected" not in device.out
    assert "Error" not in device.output
    observer.catch_up()
    assert check_versions(observer.received, MODEL) == ROUNDS
    device.send(signal.SIGKILL)
    observer.expect(m.ClientPresence, client="small", state="offline")
