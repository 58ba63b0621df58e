"""What a worker can be asked for and what it answers, and how both travel through its socket. No torch in here.

A frame is its length (4 bytes, big-endian) and a msgpack map: the class's name as ``is``, then its fields. Vectors
(little-endian float32) do not travel: they lie in memory that both ends see (`memory`), of which the frame brings
the file descriptor. Both ends are the same program, so there is no version in it.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass, field, fields
from typing import Any, Final, Literal, cast

import msgpack
from pydantic import BaseModel

from fl_shared.protocol.messages import Confusion, Partition, Split, TrainingSettings, UpdateMetrics
from fl_shared.system.shared_memory import SharedBytes
from fl_shared.tensors.encodings.float32 import FLOAT32
from fl_shared.tensors.manifest import Manifest

MAX_FRAME: Final = 2**32 - 1
_LENGTH: Final = struct.Struct(">I")

FailureKind = Literal["cancelled", "data-missing", "bad-payload", "unknown-task", "failed"]


@dataclass(frozen=True, slots=True)
class LoadJob:
    """Look at ``client``'s part (none: at the task alone)."""

    client: str
    task: str
    partition: Partition | None


@dataclass(frozen=True, slots=True)
class TrainJob:
    """Train from the model ``base``. Without one (round 0) first weights are made and nothing is trained.

    ``encoding``: in which the result is wanted.
    """

    client: str
    task: str
    partition: Partition
    base: str | None
    settings: TrainingSettings
    round: int
    encoding: str


@dataclass(frozen=True, slots=True)
class EvaluateJob:
    """Evaluate the model ``digest`` on the test split, or on the holdout of ``client``'s part."""

    client: str
    task: str
    split: Split
    partition: Partition | None
    digest: str


@dataclass(frozen=True, slots=True)
class PredictJob:
    """Answer ``payload`` with the model ``digest``."""

    task: str
    digest: str
    payload: bytes


# Models are named by their digests: the worker has been given them before, each once (`CacheModel`).
Job = LoadJob | TrainJob | EvaluateJob | PredictJob


@dataclass(frozen=True, slots=True)
class LoadOutcome:
    """``examples``: for training; both counts are 0 if no partition was named.

    ``labels``: how many of both there are of each class, where the task names its classes; it stays on this machine.
    """

    examples: int
    holdout_examples: int
    manifest: Manifest
    labels: dict[str, int]


@dataclass(frozen=True, slots=True)
class TrainOutcome:
    """``delta``: local − base, in ``encoding``; the whole weights if there was no base (then ``steps`` is 0).

    ``digest``: of an update with this section only (protocol, 3.4).
    """

    manifest: Manifest
    delta: SharedBytes
    digest: str
    examples: int
    steps: int
    seconds: float
    metrics: UpdateMetrics
    encoding: str = FLOAT32.name


@dataclass(frozen=True, slots=True)
class EvaluateOutcome:
    """``more``: further metrics of the task."""

    examples: int
    loss: float
    accuracy: float
    task_metrics: dict[str, float]
    confusion: Confusion | None = None


@dataclass(frozen=True, slots=True)
class PredictOutcome:
    label: str
    probabilities: dict[str, float]


@dataclass(frozen=True, slots=True)
class FailureOutcome:
    kind: FailureKind
    message: str


JobOutcome = LoadOutcome | TrainOutcome | EvaluateOutcome | PredictOutcome | FailureOutcome


@dataclass(frozen=True, slots=True)
class JobResult:
    """``seconds`` that a worker spent on it (0 if none did)."""

    id: int
    job: Job
    outcome: JobOutcome
    seconds: float


# --- frames to a worker


@dataclass(frozen=True, slots=True)
class RunJob:
    id: int
    job: Job


@dataclass(frozen=True, slots=True)
class CancelJob:
    id: int


@dataclass(frozen=True, slots=True)
class CacheModel:
    """A model for jobs that name it, until it is to be forgotten."""

    digest: str
    manifest: Manifest
    weights: SharedBytes = field(repr=False)
    encoding: str = FLOAT32.name


@dataclass(frozen=True, slots=True)
class EvictModel:
    """Jobs that were given before keep it."""

    digest: str


# --- frames from a worker


@dataclass(frozen=True, slots=True)
class Ready:
    """It can begin; torch is imported, unless it was started to do without."""


@dataclass(frozen=True, slots=True)
class WorkerUnavailable:
    """There is no point in starting this worker again."""

    detail: str


@dataclass(frozen=True, slots=True)
class JobFinished:
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
        FailureOutcome,
        RunJob, CancelJob, CacheModel, EvictModel, Ready, WorkerUnavailable, JobFinished,
    )
}  # fmt: skip
_PYDANTIC_FIELDS: Final[dict[str, type[BaseModel]]] = {
    "partition": Partition,
    "manifest": Manifest,
    "settings": TrainingSettings,
    "metrics": UpdateMetrics,
    "confusion": Confusion,
}
_SHARED_MEMORY_FIELDS: Final = frozenset({"weights", "delta"})
_NESTED_FIELDS: Final = frozenset({"job", "outcome"})
_MAX_FDS: Final = 1
_CLOSE_ON_EXEC: Final = getattr(socket, "MSG_CMSG_CLOEXEC", 0)


def write_frame(stream: socket.socket, frame: ToWorker | FromWorker) -> None:
    """Raises ``OSError`` when the other end is gone."""
    shared: list[SharedBytes] = []
    data = cast(bytes, msgpack.packb(_to_map(frame, shared), use_bin_type=True))
    if len(data) > MAX_FRAME:
        raise ValueError(f"a frame of {len(data)} bytes, expected at most {MAX_FRAME}")
    header = _LENGTH.pack(len(data))
    if shared:
        # The descriptors come with the first byte of the length. A stream takes as few bytes as it likes.
        sent = socket.send_fds(stream, [header], [memory.fd for memory in shared])
        header = header[sent:]
    stream.sendall(header + data)


def read_frame(stream: socket.socket) -> Any:
    """The next frame (one of ``ToWorker`` or ``FromWorker``), or ``None`` at the end of the stream."""
    try:
        header, fds, _, _ = socket.recv_fds(stream, _LENGTH.size, _MAX_FDS, _CLOSE_ON_EXEC)
        header += _read(stream, _LENGTH.size - len(header)) if header else b""
        if len(header) < _LENGTH.size:
            return None
        (length,) = _LENGTH.unpack(header)
        data = _read(stream, length)
    except ConnectionResetError:  # it died with something of ours unread
        return None
    if len(data) < length:
        return None
    return _from_map(msgpack.unpackb(data, raw=False, strict_map_key=False), fds)


def _read(stream: socket.socket, length: int) -> bytearray:
    """So many bytes; fewer if the stream ends."""
    data = bytearray(length)
    view, have = memoryview(data), 0
    while have < length and (came := stream.recv_into(view[have:])):
        have += came
    return data if have == length else bytearray(view[:have])


def _to_map(thing: Any, shared: list[SharedBytes]) -> dict[str, Any]:
    plain: dict[str, Any] = {"is": type(thing).__name__}
    for item in fields(thing):
        value = getattr(thing, item.name)
        if isinstance(value, BaseModel):
            value = value.model_dump_json()
        elif isinstance(value, SharedBytes):
            shared.append(value)
            value = [value.start, value.size]
        elif item.name in _NESTED_FIELDS:
            value = _to_map(value, shared)
        plain[item.name] = value
    return plain


def _from_map(plain: dict[str, Any], fds: list[int]) -> Any:
    values: dict[str, Any] = {}
    for name, value in plain.items():
        if name in _PYDANTIC_FIELDS and value is not None:
            values[name] = _PYDANTIC_FIELDS[name].model_validate_json(value)
        elif name in _SHARED_MEMORY_FIELDS:
            values[name] = SharedBytes.from_fd(fds.pop(0), *value)
        elif name in _NESTED_FIELDS:
            values[name] = _from_map(value, fds)
        elif name != "is":
            values[name] = value
    return _CLASSES[plain["is"]](**values)
