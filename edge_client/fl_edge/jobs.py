"""What a worker can be asked for and what it answers, and how both travel through its pipes. No torch in here.

A frame is its length (4 bytes, big-endian) and a msgpack map: the class's name as ``is``, then its fields.
Vectors travel as little-endian float32 bytes. Both ends are the same program, so there is no version in it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field, fields
from typing import Any, BinaryIO, Final, Literal, cast

import msgpack
from pydantic import BaseModel

from fl_shared.messages import Partition, Split, TrainingSettings, UpdateMetrics
from fl_shared.tensors import Manifest

MAX_FRAME: Final = 2**32 - 1
_LENGTH: Final = struct.Struct(">I")

FailureKind = Literal["cancelled", "data-missing", "bad-payload", "unknown-task", "failed"]


@dataclass(frozen=True, slots=True)
class Load:
    """Look at ``client``'s part (none: at the task alone)."""

    client: str
    task: str
    partition: Partition | None


@dataclass(frozen=True, slots=True)
class Initial:
    """Make first weights."""

    task: str
    seed: int


@dataclass(frozen=True, slots=True)
class Train:
    """Train from ``base``. Without one (round 0) first weights are made and nothing is trained."""

    client: str
    task: str
    partition: Partition
    base: bytes | None
    manifest: Manifest | None
    settings: TrainingSettings
    round: int


@dataclass(frozen=True, slots=True)
class Evaluate:
    """Evaluate ``model`` on the test split, or on the holdout of ``client``'s part."""

    client: str
    task: str
    split: Split
    partition: Partition | None
    model: bytes
    manifest: Manifest


@dataclass(frozen=True, slots=True)
class Predict:
    """Answer ``payload`` with the model ``digest``, which the worker has been given before."""

    task: str
    digest: str
    payload: bytes


Job = Load | Initial | Train | Evaluate | Predict


@dataclass(frozen=True, slots=True)
class Loaded:
    """``examples``: for training; both counts are 0 if no partition was named."""

    examples: int
    holdout_examples: int
    manifest: Manifest


@dataclass(frozen=True, slots=True)
class Initialised:
    manifest: Manifest
    weights: bytes


@dataclass(frozen=True, slots=True)
class Trained:
    """``delta``: local − base; the whole weights if there was no base (then ``steps`` is 0)."""

    manifest: Manifest
    delta: bytes
    examples: int
    steps: int
    seconds: float
    metrics: UpdateMetrics


@dataclass(frozen=True, slots=True)
class Evaluated:
    """``more``: further metrics of the task."""

    examples: int
    loss: float
    accuracy: float
    more: dict[str, float]


@dataclass(frozen=True, slots=True)
class Predicted:
    label: str
    probabilities: dict[str, float]


@dataclass(frozen=True, slots=True)
class Failed:
    kind: FailureKind
    message: str


Outcome = Loaded | Initialised | Trained | Evaluated | Predicted | Failed


@dataclass(frozen=True, slots=True)
class JobResult:
    """``seconds`` that a worker spent on it (0 if none did)."""

    id: int
    job: Job
    outcome: Outcome
    seconds: float


# --- frames to a worker


@dataclass(frozen=True, slots=True)
class Do:
    id: int
    job: Job


@dataclass(frozen=True, slots=True)
class Cancel:
    id: int


@dataclass(frozen=True, slots=True)
class KeepModel:
    """A model for predictions, until it is to be forgotten."""

    task: str
    digest: str
    manifest: Manifest
    weights: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class ForgetModel:
    task: str
    digest: str


# --- frames from a worker


@dataclass(frozen=True, slots=True)
class Ready:
    """torch is imported."""


@dataclass(frozen=True, slots=True)
class Unusable:
    """There is no point in starting this worker again."""

    detail: str


@dataclass(frozen=True, slots=True)
class Done:
    id: int
    outcome: Outcome
    seconds: float


ToWorker = Do | Cancel | KeepModel | ForgetModel
FromWorker = Ready | Unusable | Done

_CLASSES: Final[dict[str, type[Any]]] = {
    kind.__name__: kind
    for kind in (
        Load, Initial, Train, Evaluate, Predict, Loaded, Initialised, Trained, Evaluated, Predicted, Failed,
        Do, Cancel, KeepModel, ForgetModel, Ready, Unusable, Done,
    )
}  # fmt: skip
_MODELS: Final[dict[str, type[BaseModel]]] = {
    "partition": Partition,
    "manifest": Manifest,
    "settings": TrainingSettings,
    "metrics": UpdateMetrics,
}
_NESTED: Final = frozenset({"job", "outcome"})


def write_frame(stream: BinaryIO, frame: ToWorker | FromWorker) -> None:
    """Write and flush. Raises ``OSError`` when the other end is gone."""
    data = cast(bytes, msgpack.packb(_plain(frame), use_bin_type=True))
    if len(data) > MAX_FRAME:
        raise ValueError(f"a frame of {len(data)} bytes, at most {MAX_FRAME}")
    stream.write(_LENGTH.pack(len(data)))
    stream.write(data)
    stream.flush()


def read_frame(stream: BinaryIO) -> Any:
    """The next frame (one of ``ToWorker`` or ``FromWorker``), or ``None`` at the end of the stream."""
    header = stream.read(_LENGTH.size)
    if len(header) < _LENGTH.size:
        return None
    (length,) = _LENGTH.unpack(header)
    data = stream.read(length)
    if len(data) < length:
        return None
    return _typed(msgpack.unpackb(data, raw=False, strict_map_key=False))


def _plain(thing: Any) -> dict[str, Any]:
    plain: dict[str, Any] = {"is": type(thing).__name__}
    for item in fields(thing):
        value = getattr(thing, item.name)
        if isinstance(value, BaseModel):
            value = value.model_dump_json()
        elif item.name in _NESTED:
            value = _plain(value)
        plain[item.name] = value
    return plain


def _typed(plain: dict[str, Any]) -> Any:
    values = {}
    for name, value in plain.items():
        if name in _MODELS and value is not None:
            values[name] = _MODELS[name].model_validate_json(value)
        elif name in _NESTED:
            values[name] = _typed(value)
        elif name != "is":
            values[name] = value
    return _CLASSES[plain["is"]](**values)
