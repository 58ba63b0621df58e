"""Floods, giant claims and slow uploads by peers gone bad: the run of the others goes on, and ends with the same model.

What was refused is counted, and shown; nothing that a peer can make up fills the memory, the journal or the log.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import msgpack
import numpy as np
import pytest
from safetensors.numpy import save_file

from fl_aggregator.messaging.rate_limits import LIMIT_NOTICE_INTERVAL, NEW_CLIENT_BURST, NEW_CLIENT_RATE
from fl_aggregator.messaging.rejections import UNKNOWN
from fl_aggregator.storage.checkpoint import model_sha256
from fl_shared.mqtt.network import Network
from fl_shared.protocol import codec
from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from fl_shared.tensors.manifest import ArraySpec, Manifest
from tests.support import builders, programs
from tests.support.broker import Mosquitto
from tests.support.builders import model_digest_of, raw_offer_of
from tests.support.client import Client
from tests.support.flood import Flood
from tests.support.simulated_edges import SimulatedEdges
from tests.support.synthetic_run import TASK, settings

pytestmark = [pytest.mark.broker, pytest.mark.edge, pytest.mark.timeout(960)]

FLOOD = 20_000
MAD = "mad"
"""It registers as whoever may, and then says far too much."""


def registration(client: str, seq: int) -> tuple[t.Topic, bytes]:
    """By another session each time: each is a change of who is there."""
    message = builders.registration(
        client, seq=seq, session=f"s{seq}", device=f"device-{client}", roles=("predict",)
    )
    return t.RegisterTopic(client), codec.encode(message)


def fresh_ids(seq: int) -> tuple[t.Topic, bytes]:
    return registration(f"fresh-{seq}", seq)


def ghosts(seq: int) -> tuple[t.Topic, bytes]:
    client = f"ghost-{seq}"
    return t.PresenceTopic(client), codec.encode(
        m.ClientPresence(client=client, state="offline", session=f"s{seq}")
    )


def mad_words(run: str, incarnation: int, manifest: Manifest) -> Callable[[int], tuple[t.Topic, bytes]]:
    """Registrations, offers of what nobody asked for, and large updates, by turns."""
    updates: list[bytes] = []
    for number in range(2):
        section: dict[str, Any] = {"name": "delta", "encoding": "f32", "manifest": manifest.digest}
        head: dict[str, Any] = {
            "run": run, "incarnation": incarnation, "seq": number, "client": MAD, "session": "s1", "round": 1,
            "base": "ab" * 32, "digest": f"{number:064x}", "examples": 1, "steps": 1, "seconds": 1.0,
            "metrics": m.UpdateMetrics(),
        }  # fmt: skip
        offered = (m.OfferedSection(**section, size=2**40),)
        size: dict[str, Any] = {"size": 2**40, "chunk_size": 2**24, "chunks": 2**16}
        updates += [
            codec.encode(m.Offer(**head, sections=offered, **size)),
            codec.encode(m.Update(**head, sections=(m.Section(**section, data=bytes(200_000)),))),
        ]

    def make(seq: int) -> tuple[t.Topic, bytes]:
        if seq % 3 == 0:
            return registration(MAD, seq)
        return t.UpdatesTopic(MAD), updates[seq % len(updates)]

    return make


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_a_flood_changes_nothing_for_those_who_train(
    tmp_path: Path, mosquitto: Mosquitto, network: Network, stack: ExitStack, undisturbed: dict[int, str]
) -> None:
    begun = time.monotonic()
    manifest = Manifest(arrays=(ArraySpec(name="body", shape=(3,)),))
    with programs.aggregator(tmp_path, mosquitto.url, *settings(5), "--wait", "400") as run:
        observer = stack.enter_context(
            Client(mosquitto.endpoint, "fl/aggregator", "fl/status", f"fl/replies/{MAD}")
        )
        born = observer.expect(m.AggregatorPresence, 20, state="online")
        observer.send(t.RegisterTopic(MAD), codec.decode(*registration(MAD, 0)))
        observer.expect(m.Admitted, 10, client=MAD)
        newcomers = Flood(network, mosquitto, fresh_ids, FLOOD)
        absent = Flood(network, mosquitto, ghosts, FLOOD)
        mad = Flood(network, mosquitto, mad_words(born.run, born.incarnation, manifest), FLOOD // 4)
        with newcomers.going_on(), absent.going_on(), mad.going_on():
            for flood in (newcomers, absent, mad):
                flood.wait_for_burst()
            with programs.edges(tmp_path / "edges", mosquitto.url, "0-2", "--task", TASK) as edges:
                peak = 0
                while run.running():
                    peak = max(peak, peak_memory(run.pid))
                    time.sleep(0.1)
                run.ends_well(1)
        observer.expect_silence(m.Grant, 2.0)  # and hears what else there is
        seconds = time.monotonic() - begun
        statuses, told = observer.all(m.Status), observer.all(m.Limited)
    assert not [line for line in edges.err.splitlines() if "drops some of this edge's messages" in line]
    made = (tmp_path / "run" / "checkpoints").glob("version-*.safetensors")
    assert {int(f.stem.removeprefix("version-")): model_sha256(f) for f in made} == undisturbed
    for line in programs.history(tmp_path):
        assert line["participants"] == ["0", "1", "2"]
        assert not set(line["refused"]) & {"0", "1", "2"}, "an honest edge meets no limit"
    refused = total(tmp_path)
    assert refused[UNKNOWN]["too-many-registrations"] > 1000, refused
    assert refused[MAD]["too-many-registrations"] > 1000, refused
    assert refused[MAD]["too-many-messages"] > 1000, refused
    assert statuses[-1].refused[MAD] > 1000
    assert statuses[-1].refused[UNKNOWN] > 1000
    assert 1 <= len(told) <= 1 + seconds / LIMIT_NOTICE_INTERVAL, "told once in a while, and not each time"
    [closing] = [line for line in run.out.splitlines() if line.startswith("refused: ")]
    assert f"{MAD} " in closing
    assert "too-many-messages" in closing
    journal = (tmp_path / "run" / "journal.jsonl").read_text().splitlines()
    fresh = [line for line in journal if '"fresh-' in line]
    assert len(fresh) <= NEW_CLIENT_BURST + 2 * 3 + NEW_CLIENT_RATE * seconds
    assert not [line for line in journal if '"ghost-' in line], "those who were never here leave no word"
    assert len(run.err.splitlines()) < 300, "a flood is not one of log lines"
    assert peak < 500 * 2**20, peak
    assert "Traceback" not in run.err


SLOW = ("2", "3")
CHUNK = 2**18


class SlowEdges:
    """They are selected like others, offer their updates at once, and then only seem to send them."""

    def __init__(self, wire: SimulatedEdges, manifest: Manifest) -> None:
        """Ready before anybody else can be."""
        self._wire = wire
        vector = np.ones(manifest.values, np.float32)
        base = model_digest_of(manifest, bytes(4 * manifest.values))
        self.updates = {client: wire.update(client, 1, base, vector, 10) for client in SLOW}
        self._offers = {
            client: cast(bytes, msgpack.packb(raw_offer_of(update, CHUNK)))
            for client, update in self.updates.items()
        }
        self.dripped = 0

    def offer(self, client: str) -> None:
        self._wire.send_update(client, self._offers[client])

    def drip(self) -> None:
        """One of them sends a chunk now and then, the other offers anew."""
        update = self.updates[SLOW[0]]
        data = update["sections"][0]["data"][self.dripped * CHUNK : (self.dripped + 1) * CHUNK]
        names = ("v", "run", "incarnation", "seq", "client", "session", "round", "digest")
        part = {name: update[name] for name in names} | {"kind": "update-chunk", "index": self.dripped}
        self._wire.send_update(SLOW[0], cast(bytes, msgpack.packb(part | {"data": data})))
        self.dripped += 1
        self.offer(SLOW[1])


def test_whoever_only_seems_to_send_holds_nobody_up(
    tmp_path: Path, mosquitto: Mosquitto, stack: ExitStack
) -> None:
    values = 15_000_000  # of which two at a time come in
    manifest = Manifest(
        arrays=(
            ArraySpec(name="body", shape=(values - values // 10,)),
            ArraySpec(name="head", shape=(values // 10,)),
        )
    )
    first = tmp_path / "first.safetensors"
    arrays = {array.name: np.zeros(array.shape, np.float32) for array in manifest.arrays}
    save_file(arrays, first, {"buffers": "[]"})
    run_settings = (
        "--task", f"synthetic-{values}", "--clients", "4", "--per-round", "2", "--over-select", "2",
        "--rounds", "1", "--holdout", "0", "--grace", "0", "--wait", "60", "--deadline", "170",
        "--init", str(first),
    )  # fmt: skip
    wire = stack.enter_context(SimulatedEdges(mosquitto.endpoint, manifest, task=f"synthetic-{values}"))
    with programs.aggregator(tmp_path, mosquitto.url, *run_settings) as run:
        wire.expect(m.AggregatorPresence, 20, state="online")
        wire.join(dict.fromkeys(SLOW, 10))
        slow = SlowEdges(wire, manifest)
        with programs.edges(tmp_path / "edges", mosquitto.url, "0,1", "--role", "train"):
            wire.expect(m.Selected, 60, round=1)
            for client in SLOW:
                slow.offer(client)
            wire.expect(m.Grant, 20, client=SLOW[0])
            while run.running():
                slow.drip()
                wire.expect_silence(m.Refused, 1.5)
            run.ends_well(1)
    assert 3 < slow.dripped < 100
    [line] = programs.history(tmp_path)
    assert line["participants"] == ["0", "1"]
    assert set(line["missing"]) == set(SLOW)


@pytest.mark.parametrize("claim", ["size", "arrays", "sections"])
def test_a_claim_that_is_too_large_is_refused_before_a_byte_is_taken(
    tmp_path: Path, mosquitto: Mosquitto, stack: ExitStack, claim: str
) -> None:
    """Also of first weights, of which the edge says what they are."""
    manifest = Manifest(arrays=(ArraySpec(name="body", shape=(600,)),))
    huge = [{"name": "body", "shape": [2**29], "role": "parameter"}]
    run_settings = (
        "--clients", "2", "--per-round", "2", "--rounds", "1", "--holdout", "0", "--grace", "0", "--wait", "120",
    )  # fmt: skip
    wire = stack.enter_context(SimulatedEdges(mosquitto.endpoint, manifest))
    with programs.aggregator(tmp_path, mosquitto.url, *run_settings) as run:
        wire.expect(m.AggregatorPresence, 20, state="online")
        wire.join({"0": 10, "1": 10})
        selected = wire.expect(m.Selected, 20, round=0)
        assert selected.cohort is not None
        [bad] = selected.cohort
        weights = np.ones(600, np.float32)
        offer = raw_offer_of(wire.update(bad, 0, None, weights, 10), 1024)
        [section] = offer["sections"]
        if claim == "size":
            offer |= {"size": 2**40, "chunk_size": 2**24, "chunks": 2**16}
            offer["sections"] = [section | {"size": 2**40}]
        else:
            offer |= {"size": 2**31, "chunk_size": 2**24, "chunks": 2**7}
            other = section | {"size": 2**31, "arrays": huge}
            if claim == "sections":
                digest = Manifest.model_validate({"arrays": tuple(huge)}, strict=False).digest
                other |= {"name": "zzz", "size": 2**31 - 2400, "manifest": digest}
            offer["sections"] = [section, other] if claim == "sections" else [other]
        wire.send_update(bad, cast(bytes, msgpack.packb(offer)))
        rejected = wire.expect(m.Rejected, 10, client=bad)
        assert rejected.reason == ("wrong-size" if claim == "size" else "wrong-manifest")
        assert not wire.all(m.Grant)
        assert used_by(tmp_path / "run") < 2**20
        [good] = {"0", "1"} - {bad}
        wire.send_update(good, wire.update(good, 0, None, weights, 10))
        wire.expect(m.Accepted, 10, client=good, round=0)
        selected = wire.expect(m.Selected, 10, round=1)
        assert selected.base is not None
        for client in ("0", "1"):
            wire.send_update(client, wire.update(client, 1, selected.base.digest, weights, 10))
        run.ends_well(20)
    assert programs.history(tmp_path)[0]["refused"][bad] == {rejected.reason: 1}


def used_by(directory: Path) -> int:
    """Bytes on the disk."""
    return sum(512 * file.stat().st_blocks for file in directory.rglob("*") if file.is_file())


def peak_memory(pid: int) -> int:
    """Bytes, of a process that may have ended."""
    with contextlib.suppress(OSError):
        found = re.search(r"^VmHWM:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
        return 0 if found is None else int(found[1]) * 1024
    return 0


def total(tmp_path: Path) -> dict[str, dict[str, int]]:
    """What the history has counted."""
    found: dict[str, dict[str, int]] = {}
    for line in programs.history(tmp_path):
        for who, reasons in line["refused"].items():
            for reason, times in reasons.items():
                counts = found.setdefault(who, {})
                counts[reason] = counts.get(reason, 0) + times
    return found
