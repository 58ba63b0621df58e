"""The frames on the socket of a worker process, which carry its jobs and their outcomes. Imports no torch.

A frame is its length (4 bytes, big-endian) and a msgpack map: the name of the class as ``is``, then its fields. Vectors
are not copied into it: they are in shared memory (`fl_shared.system.shared_memory`), whose file descriptor comes with
the frame. Both ends are the same program, so a frame has no version.
"""

from __future__ import annotations

import errno
import socket
import struct
from dataclasses import astuple, dataclass, field, fields
from functools import lru_cache
from typing import Any, Final, cast

import msgpack
from pydantic import BaseModel

from fl_edge.session.privacy import Charge
from fl_edge.workers.jobs import (
    EvaluateJob,
    EvaluateOutcome,
    ExampleOutcome,
    FailureOutcome,
    Job,
    JobOutcome,
    LoadJob,
    LoadOutcome,
    Masked,
    Masking,
    PredictJob,
    PredictOutcome,
    TrainJob,
    TrainOutcome,
    Vectors,
)
from fl_shared.protocol.messages import (
    Confusion,
    Correction,
    MetricDeclaration,
    Partition,
    Selected,
    TrainingRequest,
    UpdateMetrics,
)
from fl_shared.system.shared_memory import SharedBytes
from fl_shared.tensors.encodings.float32 import FLOAT32
from fl_shared.tensors.manifest import Manifest

MAX_FRAME: Final = 2**32 - 1
"""Bytes; what the length can express."""
_LENGTH: Final = struct.Struct(">I")


# --- frames to a worker


@dataclass(frozen=True, slots=True)
class RunJob:
    """Do this job, with the data as they are since they have changed ``data_changes`` times."""

    id: int
    job: Job
    data_changes: int = 0


@dataclass(frozen=True, slots=True)
class CancelJob:
    """Stop this job, if it has not finished."""

    id: int


@dataclass(frozen=True, slots=True)
class CacheModel:
    """Keep this model for jobs that name its digest, until `EvictModel`."""

    digest: str
    manifest: Manifest
    weights: SharedBytes = field(repr=False)
    encoding: str = FLOAT32.name


@dataclass(frozen=True, slots=True)
class EvictModel:
    """Forget this model. Jobs that were sent before still have it."""

    digest: str


# --- frames from a worker


@dataclass(frozen=True, slots=True)
class Ready:
    """The worker accepts jobs. It has imported torch, unless it was started cold."""


@dataclass(frozen=True, slots=True)
class WorkerUnavailable:
    """The worker can never run, and should not be started again; ``detail`` says why, for people."""

    detail: str


@dataclass(frozen=True, slots=True)
class JobFinished:
    """A job has ended after ``seconds`` of processor time, with this outcome."""

    id: int
    outcome: JobOutcome
    seconds: float


ToWorker = RunJob | CancelJob | CacheModel | EvictModel
FromWorker = Ready | WorkerUnavailable | JobFinished

_CLASSES: Final[dict[str, type[Any]]] = {
    kind.__name__: kind
    for kind in (
        LoadJob,
        TrainJob,
        EvaluateJob,
        PredictJob,
        LoadOutcome,
        TrainOutcome,
        EvaluateOutcome,
        PredictOutcome,
        ExampleOutcome,
        FailureOutcome,
        Vectors,
        Masking,
        Masked,
        RunJob, CancelJob, CacheModel, EvictModel, Ready, WorkerUnavailable, JobFinished,
    )
}  # fmt: skip
_PYDANTIC_FIELDS: Final[dict[str, type[BaseModel]]] = {
    "partition": Partition,
    "settings": TrainingRequest,
    "metrics": UpdateMetrics,
    "confusion": Confusion,
    "correction": Correction,
    "selected": Selected,
}
_MANIFEST_FIELDS: Final = frozenset({"manifest", "run_weights"})
_SHARED_MEMORY_FIELDS: Final = frozenset({"weights", "delta", "memory"})
_NESTED_FIELDS: Final = frozenset({"job", "outcome", "sections", "own", "masking", "masked"})
_CHARGES_FIELDS: Final = frozenset({"charges", "spent"})
_MAX_FDS: Final = 3
_CLOSE_ON_EXEC: Final = getattr(socket, "MSG_CMSG_CLOEXEC", 0)


def write_frame(stream: socket.socket, frame: ToWorker | FromWorker) -> None:
    """Writes a frame. Raises ``OSError`` if the other end is closed, ``ValueError`` above `MAX_FRAME`."""
    shared: list[SharedBytes] = []
    data = cast(bytes, msgpack.packb(_to_map(frame, shared), use_bin_type=True))
    if len(data) > MAX_FRAME:
        raise ValueError(f"a frame of {len(data)} bytes, expected at most {MAX_FRAME}")
    header = _LENGTH.pack(len(data))
    if shared:
        # The descriptors come with the first byte of the length. The socket may accept fewer bytes than given.
        sent = socket.send_fds(stream, [header], [memory.fd for memory in shared])
        header = header[sent:]
    stream.sendall(header + data)


def read_frame(stream: socket.socket) -> Any:
    """Reads the next frame (a ``ToWorker`` or ``FromWorker``); ``None`` at the end of the stream."""
    try:
        header, fds, _, _ = socket.recv_fds(stream, _LENGTH.size, _MAX_FDS, _CLOSE_ON_EXEC)
        header += _read(stream, _LENGTH.size - len(header)) if header else b""
        if len(header) < _LENGTH.size:
            return None
        (length,) = _LENGTH.unpack(header)
        data = _read(stream, length)
    except ConnectionResetError:  # the other end died before it read everything
        return None
    if len(data) < length:
        return None
    return _from_map(msgpack.unpackb(data, raw=False, strict_map_key=False), fds)


def _read(stream: socket.socket, length: int) -> bytearray:
    """Reads ``length`` bytes; fewer if the stream ends."""
    data = bytearray(length)
    view, received = memoryview(data), 0
    while received < length and (count := stream.recv_into(view[received:])):
        received += count
    return data if received == length else bytearray(view[:received])


def _to_map(frame: Any, shared: list[SharedBytes]) -> dict[str, Any]:
    encoded: dict[str, Any] = {"is": type(frame).__name__}
    for item in fields(frame):
        value = getattr(frame, item.name)
        if isinstance(value, BaseModel):
            value = value.model_dump_json()
        elif isinstance(value, SharedBytes):
            shared.append(value)
            value = [value.start, value.size]
        elif item.name in _NESTED_FIELDS and value is not None:
            value = _to_map(value, shared)
        elif item.name == "declared":
            value = [metric.model_dump() for metric in value]
        elif item.name in _CHARGES_FIELDS:
            value = [astuple(one) for one in value]
        encoded[item.name] = value
    return encoded


@lru_cache(8)
def _manifest(text: str) -> Manifest:
    """All jobs of a run have the same one, which is decoded and hashed once."""
    return Manifest.model_validate_json(text)


def _from_map(encoded: dict[str, Any], fds: list[int]) -> Any:
    values: dict[str, Any] = {}
    for name, value in encoded.items():
        if name in _MANIFEST_FIELDS and value is not None:
            values[name] = _manifest(value)
        elif name in _PYDANTIC_FIELDS and value is not None:
            values[name] = _PYDANTIC_FIELDS[name].model_validate_json(value)
        elif name in _SHARED_MEMORY_FIELDS:
            if not fds:  # the kernel leaves out the descriptors for which there is no room
                raise OSError(
                    errno.EMFILE, "too many open files in this program: raise the limit (ulimit -n)"
                )
            values[name] = SharedBytes.from_fd(fds.pop(0), *value)
        elif name in _NESTED_FIELDS and value is not None:
            values[name] = _from_map(value, fds)
        elif name == "declared":
            values[name] = tuple(MetricDeclaration.model_validate(metric) for metric in value)
        elif name in _CHARGES_FIELDS:
            values[name] = tuple(Charge(*one) for one in value)
        elif name != "is":
            values[name] = value
    return _CLASSES[encoded["is"]](**values)
