"""The private keys of a device that has asked for a kit: one file, which never leaves the device.

It is created with mode 0600 and never overwritten. A kit that answers the request has no private keys, and is of no
use without this file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal, Self

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fl_shared.errors import UserError
from fl_shared.protocol.topics import CLIENT_PATTERN
from fl_shared.security.key_conversion import x25519_private
from fl_shared.security.key_fields import RawKey
from fl_shared.security.kit_request import KitRequest
from fl_shared.system.files import read_at_most, warn_if_others_may_read
from fl_shared.system.validation import first_error

KEYS_SUFFIX: Final = ".keys"
REQUEST_SUFFIX: Final = ".request"
_MAX_KEYS: Final = 8 * 2**10

_PrivateKey = Annotated[RawKey, Field(repr=False)]


class DeviceKeys(BaseModel):
    """The private halves of the keys of a request. ``request``: its digest.

    ``tls``: PEM. ``sealing`` (X25519) and ``member`` (Ed25519) are raw, 32 bytes. It shows none of them when printed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)

    format: Literal[1] = 1
    name: Annotated[str, Field(pattern=f"^{CLIENT_PATTERN}$")]
    request: RawKey
    tls: Annotated[str, Field(max_length=2048, repr=False)]
    sealing: _PrivateKey
    member: _PrivateKey

    @classmethod
    def generate(cls, name: str) -> tuple[DeviceKeys, KitRequest]:
        """New keys for the account ``name``, and the request for its kit."""
        tls = ec.generate_private_key(ec.SECP256R1())
        sealing, member = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
        request = KitRequest.make(name, tls, sealing, member)
        keys = cls.model_construct(
            name=name,
            request=request.digest,
            tls=tls.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
            sealing=x25519_private(sealing.private_bytes_raw()),
            member=member.private_bytes_raw(),
        )
        return keys, request

    @classmethod
    def read(cls, path: Path) -> Self:
        """Reads the file. Raises ``UserError``, which names what is wrong and shows no key."""
        try:
            content, mode = read_at_most(path, _MAX_KEYS + 1, regular=True)
        except OSError as error:
            raise UserError(f"keys {path}: {error.strerror}") from None
        warn_if_others_may_read("keys", path, mode)
        try:
            return cls.model_validate_json(content)
        except ValidationError as error:
            raise UserError(
                f"keys {path}: {first_error(error)}; expected the file as request-kit wrote it"
            ) from None

    def encode(self) -> bytes:
        """The content of the file."""
        return self.model_dump_json(indent=1).encode() + b"\n"
