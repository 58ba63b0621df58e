"""What an edge's updates have cost of the privacy of its data, over all runs: ``privacy.jsonl`` in its state directory.

The file (mode 0600) only grows. Its first line names the edge and the file itself, each other one is an update. A line
is on the disk before anything of its update is sent, so a killed edge has never sent what is not written down. A line
that cannot be read, such as one that a power failure has torn, counts like the dearest one.

A copy of the file does not know what the original says later: an edge does not go on with one.
"""

from __future__ import annotations

import logging
import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field

from fl_edge.session.privacy import Charge, Unit, added
from fl_edge.storage.saved_file import reason_of
from fl_shared.errors import UserError
from fl_shared.protocol import messages as m
from fl_shared.system.files import open_regular, sync_directory, write_all

LOG: Final = logging.getLogger(__name__)

FILE_NAME: Final = "privacy.jsonl"
"""Name of the file in the state directory."""
MAX_BYTES: Final = 2**30

_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _Head(_Strict):
    client: m.ClientId
    inode: int


class _Charge(_Strict):
    unit: Unit
    noise: _Positive
    rate: Annotated[float, Field(gt=0, le=1)] = 1.0
    steps: Annotated[int, Field(ge=1)] = 1


class _Line(_Strict):
    run: m.RunId
    round: m.Count
    digest: m.Digest
    charges: tuple[_Charge, ...]


class PrivacyLedger:
    """The ledger of ``client``, whose state ``directory`` this process has locked.

    ``charges``: all that is written down. Raises ``UserError`` if the file is a copy, or says what cannot be counted.
    """

    def __init__(self, directory: Path, client: str) -> None:
        self._path = directory / FILE_NAME
        self._client = client
        self._has_head = False
        self._digests: dict[str, tuple[Charge, ...]] = {}
        self.charges: tuple[Charge, ...] = ()
        try:
            with os.fdopen(open_regular(self._path), "rb") as file:
                content, inode = file.read(MAX_BYTES), os.fstat(file.fileno()).st_ino
        except FileNotFoundError:
            return
        except OSError as error:
            raise UserError(f"{self._path}: {error.strerror}") from None
        self._read(content, inode)

    def of(self, digest: str) -> tuple[Charge, ...]:
        """Returns what the update with this digest was charged; nothing if it is not written down."""
        return self._digests.get(digest, ())

    def charge(self, run: str, number: int, digest: str, charges: tuple[Charge, ...]) -> None:
        """Writes down what an update of round ``number`` costs, once. On return it is on the disk.

        Raises ``OSError`` if that is not sure. The line may be there then, and count after a restart.
        """
        if digest in self._digests:
            return
        costs = tuple(_Charge(**asdict(one)) for one in charges)
        line = _Line(run=run, round=number, digest=digest, charges=costs)
        self._append(line.model_dump_json().encode())
        self._digests[digest] = charges
        self.charges = added(self.charges, charges)

    def _append(self, line: bytes) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND
        with os.fdopen(open_regular(self._path, flags, 0o600), "r+b", buffering=0) as file:
            status = os.fstat(file.fileno())
            before = b""
            if not self._has_head:
                file.truncate(0)
                before = _Head(client=self._client, inode=status.st_ino).model_dump_json().encode() + b"\n"
            elif os.pread(file.fileno(), 1, status.st_size - 1) != b"\n":
                before = b"\n"  # after a line that was not written whole
            write_all(file, before + line + b"\n")
            self._has_head = True
            os.fsync(file.fileno())
        sync_directory(self._path.parent)

    # --- reading ------------------------------------------------------------------------------------------

    def _read(self, content: bytes, inode: int) -> None:
        first, *others = content.split(b"\n")
        if not others:
            return  # not even the first line was written whole, so nothing was sent
        self._check_head(first, inode)
        self._has_head = True
        unreadable = []
        for number, text in enumerate(others, start=2):
            if not text:
                continue
            try:
                line = _Line.model_validate_json(text)
            except ValueError as error:
                LOG.warning(
                    "%s, line %d: cannot be read, and counts like the dearest one: %s",
                    *(self._path, number, reason_of(error)),
                    extra={"client": self._client},
                )
                unreadable.append(number)
                continue
            charges = tuple(Charge(**one.model_dump()) for one in line.charges)
            self._digests[line.digest] = charges
            self.charges = added(self.charges, charges)
        self._count_unreadable(unreadable)

    def _check_head(self, text: bytes, inode: int) -> None:
        try:
            head = _Head.model_validate_json(text)
        except ValueError as error:
            raise UserError(f"{self._path}, line 1: {reason_of(error)}; expected the edge's id") from None
        if head.client != self._client:
            raise UserError(
                f"{self._path}: belongs to edge {head.client!r}, but this is edge {self._client!r}; expected a state "
                "directory of its own"
            )
        if head.inode != inode:
            own = _Head(client=self._client, inode=inode).model_dump_json()
            raise UserError(
                f"{self._path}: is a copy, which does not know what the original has spent since; expected the state "
                f"directory itself. If no edge uses the original any more, make the first line {own}"
            )

    def _count_unreadable(self, numbers: list[int]) -> None:
        if not numbers:
            return
        if not self._digests:
            raise UserError(
                f"{self._path}, line {numbers[0]}: cannot be read, and no other line says what an update costs; "
                "expected what this edge has written. Remove the line if nothing of that update can have been sent"
            )
        for unit in ("edge", "example"):
            ofs = [tuple(one for one in charges if one.unit == unit) for charges in self._digests.values()]
            dearest = max(ofs, key=_cost)
            for _ in numbers:
                self.charges = added(self.charges, dearest)


def _cost(charges: tuple[Charge, ...]) -> float:
    """Orders updates by what they cost, roughly: by the sum of the squares of their μ."""
    return sum(one.steps * (one.rate / one.noise) ** 2 for one in charges)
