"""The keys of the noise of a private run: ``DIR/noise.json``, which only its owner may read.

A key is written before it is used, and belongs to one sum: a run that is killed and resumed adds the same noise to the
same sum, and never the same noise to another one, whose difference from the first would have none. Keys that no later
release needs are deleted, so that who gets hold of the directory later cannot take the noise off its versions.
"""

from __future__ import annotations

import json
import secrets
from pathlib import Path
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from fl_aggregator.storage.disk_space import raising_disk_full
from fl_shared.errors import RunFailed
from fl_shared.privacy.gaussian_noise import KEY
from fl_shared.system.files import read_regular, write_private
from fl_shared.system.validation import first_error

FILE_NAME: Final = "noise.json"
_MAX_BYTES: Final = 2**20
_Hex = Annotated[str, StringConstraints(pattern=rf"^[0-9a-f]{{{2 * KEY}}}$")]


class _Key(BaseModel):
    """The key of the noise of a release, and the digest of the sum that it is for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sum: _Hex
    key: _Hex


class _Content(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    keys: Annotated[dict[Annotated[int, Field(ge=1)], _Key], Field(max_length=1000)]


class NoiseKeys:
    """The keys in a run directory, by version. Raises ``RunFailed`` if the file is damaged, and ``OSError``."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / FILE_NAME

    def key_of(self, version: int, sum_digest: str) -> bytes:
        """Returns the key for a sum that becomes ``version``; a new one, which is on the disk then, if it has none."""
        keys = self._read()
        found = keys.get(version)
        if found is None or found.sum != sum_digest:
            found = _Key(sum=sum_digest, key=secrets.token_hex(KEY))
            self._write({**keys, version: found})
        return bytes.fromhex(found.key)

    def earlier(self, version: int, count: int) -> tuple[bytes, ...]:
        """Returns the keys of the ``count`` versions before ``version`` that are releases, the newest first."""
        keys, wanted = self._read(), range(version - 1, max(0, version - 1 - count), -1)
        for number in wanted:
            if number not in keys:
                raise RunFailed(
                    f"{self._path}: lacks the key of version {number}, with which the noise of version {version} is "
                    "correlated: restore the file, or begin a new run with the newest model (--init)"
                )
        return tuple([bytes.fromhex(keys[number].key) for number in wanted])

    def forget(self, before: int) -> None:
        """Deletes the keys of all versions before ``before``."""
        keys = self._read()
        kept = {version: key for version, key in keys.items() if version >= before}
        if kept != keys:
            self._write(kept)

    def _read(self) -> dict[int, _Key]:
        try:
            return _Content.model_validate_json(read_regular(self._path, _MAX_BYTES)).keys
        except FileNotFoundError:
            return {}
        except ValidationError as error:
            raise RunFailed(f"{self._path}: {first_error(error, 'the file')}: restore the file") from None

    def _write(self, keys: dict[int, _Key]) -> None:
        content = json.dumps(_Content(keys=keys).model_dump(mode="json")).encode() + b"\n"
        with raising_disk_full(len(content), self._path.parent):
            write_private(self._path, content)
