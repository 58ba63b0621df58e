"""Frames between a pool and its workers carry jobs, results and shared memory."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

pytest.importorskip("torch")

from fl_edge.tasks.registry import load_task
from fl_edge.training import local_training
from fl_edge.workers import jobs, protocol
from fl_edge.workers.jobs import FailureOutcome, PredictOutcome, TrainOutcome
from fl_edge.workers.protocol import CacheModel
from fl_shared.protocol.messages import UpdateMetrics
from fl_shared.system.shared_memory import SharedBytes
from fl_shared.tensors.manifest import Manifest
from tests.support.builders import partition, training_request
from tests.support.pool_harness import first_model

pytestmark = pytest.mark.edge


@pytest.fixture
def line() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(5)
        theirs.settimeout(5)
        yield ours, theirs


def test_frames_come_out_as_they_went_in(line: tuple[socket.socket, socket.socket]) -> None:
    manifest: Manifest = local_training.initial_weights(load_task("digits"), 0)[0]
    frames: list[protocol.ToWorker | protocol.FromWorker] = [
        protocol.RunJob(1, jobs.LoadJob("e", "digits", None)),
        protocol.RunJob(2, jobs.TrainJob("e", "digits", partition(), "d0", training_request(), 7, "f16")),
        protocol.RunJob(3, jobs.EvaluateJob("e", "digits", "holdout", partition(), "d0")),
        CacheModel("d", manifest, SharedBytes.copy_of(bytes(range(256))), "f16"),
        protocol.CancelJob(4),
        protocol.Ready(),
        protocol.JobFinished(
            5,
            TrainOutcome(
                manifest,
                SharedBytes.copy_of(b"\xff"),
                "d",
                3,
                4,
                0.5,
                UpdateMetrics(train={"loss": 0.1}),
                "f16",
            ),
            0.25,
        ),
        protocol.JobFinished(6, PredictOutcome({"is": 0.5, "job": [None, "x"]}), 0.0),
        protocol.JobFinished(7, FailureOutcome("bad-payload", "…"), 0.0),
    ]
    ours, theirs = line
    for frame in frames:
        protocol.write_frame(ours, frame)
    ours.shutdown(socket.SHUT_WR)
    assert [protocol.read_frame(theirs) for _ in frames] == frames
    assert protocol.read_frame(theirs) is None


def test_a_vector_is_the_same_memory_at_both_ends(line: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = line
    memory = SharedBytes.copy_of(bytes(10_000_000))
    protocol.write_frame(ours, CacheModel("d", first_model().manifest, memory.slice(8, 4000)))
    there = protocol.read_frame(theirs).weights
    memory.view[8:12] = b"abcd"
    assert bytes(there.view[:4]) == b"abcd"
    assert len(there.view) == 4000
    own = there.private_view()
    own[:4] = b"mine"
    assert bytes(memory.view[8:12]) == b"abcd", "nobody else sees what is written to a private view"


def test_memory_that_is_not_there_is_not_believed_in() -> None:
    memory = SharedBytes.new(10)
    with pytest.raises(ValueError, match="20 bytes from 5 on, but the memory has only 10"):
        SharedBytes.from_fd(os.dup(memory.fd), 5, 20)


def test_a_frame_cut_short_is_the_end() -> None:
    ours, theirs = socket.socketpair()
    protocol.write_frame(ours, protocol.CancelJob(1))
    whole = theirs.recv(1000)
    for length in range(len(whole)):
        ours, theirs = socket.socketpair()
        ours.sendall(whole[:length])
        ours.close()
        assert protocol.read_frame(theirs) is None
        theirs.close()


def test_a_descriptor_for_which_there_was_no_room_is_said() -> None:
    """The kernel leaves it out of the message without an error (recvmsg(2), MSG_CTRUNC)."""
    with pytest.raises(OSError, match="too many open files in this program"):
        protocol._from_map({"is": "TrainOutcome", "delta": [0, 1]}, [])
