"""What a strategy keeps from version to version: vectors beside the checkpoint of the model, as a safetensors file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from fl_aggregator.storage.disk_space import raising_disk_full
from fl_shared.system.files import write_atomically
from fl_shared.tensors.digest import digest_of
from fl_shared.tensors.encodings.float32 import FLOAT32
from fl_shared.tensors.manifest import Vector
from fl_shared.tensors.safetensors_file import Tensor, file_head


def state_digest(state: Mapping[str, Vector]) -> str:
    """Returns the digest of the vectors, each of float32, by name."""
    parts: list[bytes | memoryview] = []
    for name in sorted(state):
        parts += f"{name}\0{len(state[name])}\0".encode(), FLOAT32.encode(state[name], seed=0)
    return digest_of(*parts)


def write_state(path: Path, state: Mapping[str, Vector], *, sync: bool) -> None:
    """Writes the vectors to a new file. Raises ``OSError`` (for example ``DiskFull``)."""
    names = sorted(state)
    data = [FLOAT32.encode(state[name], seed=0) for name in names]
    head = file_head(
        (Tensor(name, state[name].shape, len(one)) for name, one in zip(names, data, strict=True)), None
    )
    with raising_disk_full(sum(map(len, data)), path.parent):
        write_atomically(path, head, *data, sync=sync)
