"""The zip file of a kit: its members, each of which is read whole, and no other files."""

from __future__ import annotations

import io
import stat
import zipfile
import zlib
from typing import Final

MAX_MEMBER: Final = 64 * 2**10
DESCRIPTION: Final = "kit.json"
CA: Final = "ca.pem"
CERTIFICATE: Final = "cert.pem"
KEY: Final = "key.pem"
_MEMBERS: Final = frozenset({DESCRIPTION, CA, CERTIFICATE, KEY})
_COMPRESSIONS: Final = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""How members may be compressed. Each other method has errors of its own if its bytes are damaged."""
_ZIP_EPOCH: Final = (1980, 1, 1, 0, 0, 0)
"""The earliest time in a zip file, for all members; the certificate says when the kit was made."""


class InvalidKit(Exception):
    """A kit is not valid. The text says why, but does not name the kit."""


def zip_members(members: dict[str, bytes | None]) -> bytes:
    """The bytes of a zip file with the members that are not null; equal members give equal bytes."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            if content is not None:
                info = zipfile.ZipInfo(name, _ZIP_EPOCH)
                info.external_attr = (stat.S_IFREG | 0o600) << 16
                archive.writestr(info, content)
    return file.getvalue()


def unzip_members(data: bytes) -> dict[str, bytes]:
    """The members of a kit's zip file. Raises `InvalidKit` for others. It writes no files."""
    members: dict[str, bytes] = {}
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for info in archive.infolist():
                if info.filename not in _MEMBERS:
                    raise InvalidKit(
                        f"contains {info.filename[:80]!r}; expected only {', '.join(sorted(_MEMBERS))}"
                    )
                if info.filename in members:
                    raise InvalidKit(f"contains {info.filename} twice")
                if info.compress_type not in _COMPRESSIONS:
                    raise zipfile.BadZipFile(info.compress_type)
                if info.file_size > MAX_MEMBER:
                    raise InvalidKit(
                        f"{info.filename}: {info.file_size} bytes, expected at most {MAX_MEMBER}"
                    )
                with archive.open(info) as member:
                    # This never reads more than the size in the header, whatever the member would unpack to.
                    members[info.filename] = member.read(MAX_MEMBER + 1)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, ValueError, OSError, EOFError):
        raise InvalidKit("not a readable zip file; expected a kit made by fl-aggregator provision") from None
    return members
