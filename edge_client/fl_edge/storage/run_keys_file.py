"""The keys of an edge in a masked run, and the one plan and the one set of updates of its newest round.

``masked.json`` in the state directory (mode 0600) is replaced as a whole. For which plan an update is masked, and which
set is signed, is on the disk before the update or the signature leaves: an edge that is killed in between does the same
again, and never anything else for that round. With updates for two plans of one round, the difference of two sums could
be one update. An edge that has lost the file has lost its keys with it, so it can sign nothing for the rounds before.
"""

from __future__ import annotations

import logging
import secrets
from pathlib import Path
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from fl_edge.storage.saved_file import reason_of
from fl_shared.masking.run_keys import RunKeys
from fl_shared.protocol import messages as m
from fl_shared.system.files import read_regular, sync_directory, write_private

LOG: Final = logging.getLogger(__name__)

FILE_NAME: Final = "masked.json"
"""Name of the file in the state directory."""
MAX_BYTES: Final = 2**12

_PrivateKey = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$"), Field(repr=False)]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    run: m.RunId
    mask_private: _PrivateKey
    agree_private: _PrivateKey
    round: m.Count | None = None
    """The newest round that it has masked or signed for."""
    plan: m.Digest | None = None
    closing: m.Digest | None = None
    """The digest of the set that was signed or opened (hex); null if none was."""


class RunKeysFile:
    """The keys and the record of one edge. If the file cannot be written, both are in memory, and on no disk.

    If it cannot be removed either, the disk may say anything of what it was told, and `commit` fails until it can.
    """

    def __init__(self, directory: Path, client: str) -> None:
        self._path = directory / FILE_NAME
        self._client = client
        self._record = self._read()
        self._keys = None if self._record is None else _keys_of(self._record)
        self._is_disk_unknown = False

    @property
    def run(self) -> str | None:
        """The run whose keys these are; null if there are none."""
        return None if self._record is None else self._record.run

    def keys(self, run: str) -> RunKeys | None:
        """The edge's keys of this run; null if it has none."""
        return self._keys if self.run == run else None

    def make(self, run: str) -> RunKeys:
        """The edge's keys of this run, which are made if there are none; those of another run are lost."""
        if self._keys is None or self.run != run:
            self._keys = RunKeys.generate(secrets.token_bytes)
            mask, agree = (key.hex() for key in self._keys.private_bytes())
            self._record = _Record(run=run, mask_private=mask, agree_private=agree)
            try:
                self._write(self._record)
            except OSError as error:
                LOG.warning(
                    "%s can be neither replaced nor removed: %s; until it can, this edge masks and signs nothing",
                    self._path,
                    error.strerror,
                    extra={"client": self._client},
                )
        return self._keys

    def drop(self) -> None:
        """Deletes the keys and the record."""
        self._record = self._keys = None
        try:
            self._path.unlink(missing_ok=True)
        except OSError as error:
            LOG.warning("cannot remove %s: %s", self._path, error.strerror, extra={"client": self._client})

    def commit(self, number: int, plan: str, closing: str | None = None) -> bool:
        """Writes down for which plan of round ``number`` an update is masked, and perhaps which set is signed.

        On return it is on the disk. Returns false, and writes nothing, if the round is an earlier one, or if another
        plan or set of it is written down. Raises ``OSError`` if what the disk says can be neither replaced nor removed.
        """
        record = self._record
        if record is None or (record.round is not None and number < record.round):
            return False
        if number == record.round and (
            plan != record.plan or (None not in (closing, record.closing) and closing != record.closing)
        ):
            return False
        kept = record.closing if number == record.round else None
        new = record.model_copy(update={"round": number, "plan": plan, "closing": closing or kept})
        if new != record or self._is_disk_unknown:
            self._write(new)
            self._record = new
        return True

    def _write(self, record: _Record) -> None:
        """Raises ``OSError`` if an older record may be on the disk then."""
        self._is_disk_unknown = True
        try:
            write_private(self._path, record.model_dump_json().encode() + b"\n")
        except OSError as error:
            # An older record beside these keys would let a restarted edge sign another set.
            self._path.unlink(missing_ok=True)
            sync_directory(self._path.parent)
            LOG.warning(
                "%s: not written: %s; this edge's keys of the run are in memory, and lost if it is killed now",
                self._path,
                error.strerror,
                extra={"client": self._client},
            )
        self._is_disk_unknown = False

    def _read(self) -> _Record | None:
        try:
            return _Record.model_validate_json(read_regular(self._path, MAX_BYTES))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            LOG.warning(
                "%s is not usable: %s; this edge makes new keys, and cannot help with rounds that are open",
                self._path,
                reason_of(error),
                extra={"client": self._client},
            )
            return None


def _keys_of(record: _Record) -> RunKeys:
    return RunKeys.from_private(bytes.fromhex(record.mask_private), bytes.fromhex(record.agree_private))
