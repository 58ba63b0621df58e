"""The edge of ``examples/micropython-edge``, in MicroPython with a heap of 2 MB."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path
from typing import Final

import pytest

from fl_shared.data.digits import DIGITS
from fl_shared.system.mosquitto import LOOPBACK
from tests.support.programs import Program

SOURCE: Final = Path(__file__).parents[2] / "examples" / "micropython-edge"
MICROPYTHON: Final = (shutil.which("micropython") or "", "-X", "heapsize=2M")
needs_micropython = pytest.mark.skipif(
    not MICROPYTHON[0], reason="micropython is not installed (Debian's package micropython)"
)
EXAMPLES: Final = 150


def micropython_edge(directory: Path, port: int, client: str, prefix: str) -> Program:
    """Starts one with `EXAMPLES` of the digits, at the broker on this port of this machine."""
    directory.mkdir()
    data = directory / "own.csv"
    lines = gzip.decompress(DIGITS.read_bytes()).decode().splitlines()[:EXAMPLES]
    data.write_text("".join(f"{line}\n" for line in lines))
    arguments = (str(SOURCE / "edge.py"), LOOPBACK, str(port), client, str(data), prefix)
    return Program(directory, MICROPYTHON[0], *MICROPYTHON[1:], *arguments)
