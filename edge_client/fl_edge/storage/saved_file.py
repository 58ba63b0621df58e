"""What the files of an edge have in common: safetensors whose metadata has all but the data, as JSON."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import IO, Final

from pydantic import ValidationError

from fl_shared.tensors.safetensors_file import LENGTH_BYTES

LOG: Final = logging.getLogger(__name__)


def read_metadata(file: IO[bytes], kind: str, max_header: int) -> tuple[str, int]:
    """Returns the JSON of what the file holds, which its metadata has under the name of its ``kind``, with article.

    Also returns the offset where the data begins. ``max_header``: bytes. Raises ``OSError`` and ``ValueError``.
    """
    size = os.fstat(file.fileno()).st_size
    length = int.from_bytes(file.read(LENGTH_BYTES), "little")
    if not 0 < length <= min(max_header, size - LENGTH_BYTES):
        raise ValueError(f"a header of {length} bytes in a file of {size}")
    try:
        text = json.loads(file.read(length))["__metadata__"][kind.split()[-1]]
    except (KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"its metadata does not describe {kind} ({type(error).__name__})") from None
    if not isinstance(text, str):
        raise ValueError(f"its metadata does not describe {kind}")
    return text, LENGTH_BYTES + length


def reason_of(error: OSError | ValueError) -> str:
    """Says in a few words why a file is not usable."""
    return (error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error))[:300]


def delete(path: Path) -> bool:
    """Removes the file if there is one, and returns whether there is none now; logs if that fails."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        LOG.warning("cannot remove %s: %s", path, error.strerror)
        return False
    return True
