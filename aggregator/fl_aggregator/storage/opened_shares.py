"""The shares that members of a masked round have opened: ``DIR/spool/<round>/<client>.shares``.

They yield the masks of the sum, and of no single update. They are stored before the member is told so, as updates are.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Final

from fl_aggregator.storage.disk_space import raising_disk_full
from fl_aggregator.storage.spool_format import SpoolFileDamaged
from fl_shared.masking.unmasking import Opened
from fl_shared.system.files import write_atomically

SUFFIX: Final = ".shares"


def write_shares(folder: Path, client: str, opened: Opened, *, sync: bool) -> None:
    """Writes a member's shares: a line that says which packages it could not open, and then the shares.

    Raises ``OSError``; nothing is stored then.
    """
    header = json.dumps({"unopened": sorted(opened.unopened)}).encode() + b"\n"
    with raising_disk_full(len(header) + len(opened.shares), folder):
        write_atomically(folder / f"{client}{SUFFIX}", header, opened.shares, sync=sync, private=True)


def read_shares(folder: Path, client: str, digest: str) -> Opened:
    """Returns the shares of this digest that a member has opened. Raises ``SpoolFileDamaged`` and ``OSError``."""
    header, _, shares = (folder / f"{client}{SUFFIX}").read_bytes().partition(b"\n")
    if hashlib.sha256(shares).hexdigest() != digest:
        raise SpoolFileDamaged("its shares have another digest")
    try:
        unopened = tuple(json.loads(header)["unopened"])
    except (ValueError, KeyError, TypeError) as error:
        raise SpoolFileDamaged(f"its first line: {error}") from None
    return Opened(shares, unopened)
