"""The list of revoked kits, which ``fl-aggregator provision`` makes and the aggregator obeys (protocol, 14).

It is one JSON object in a file beside the aggregator's kit. The enrolment key signs it as messages are signed
(protocol, 9.1), with `_MARK` in the place of the topic. A list replaces those with smaller numbers, and never one
with a larger number.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fl_shared.errors import BadSignature
from fl_shared.protocol.topics import CLIENT_PATTERN
from fl_shared.security.signatures import Signer, Verifier
from fl_shared.system.validation import first_error

FILE_NAME: Final = "revoked.json"
MAX_LIST: Final = 16 * 2**20
"""Bytes of the largest list: a hundred thousand revoked kits take nearly as much."""
_MARK: Final = "fl-mqtt revoked 1"
"""What the signature covers first. No topic holds a space, so no signed message is a list, and no list a message."""

_Account = Annotated[str, Field(pattern=f"^{CLIENT_PATTERN}$")]
_PublicKey = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class InvalidList(Exception):
    """A list of revoked kits is not valid. The text says why, but does not name the file."""


class RevocationList(BaseModel):
    """Which kits are no longer valid.

    ``accounts``: names that have no valid kit. ``keys``: public keys in revoked kits, for sealing (X25519) and of
    members (Ed25519), 32 bytes in hexadecimal; an account may have a newer kit with others.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    format: Literal[1] = 1
    number: Annotated[int, Field(ge=1, lt=2**53)]
    accounts: tuple[_Account, ...]
    keys: tuple[_PublicKey, ...]

    def sign(self, signer: Signer) -> bytes:
        """The content of the file, signed with the enrolment key."""
        return signer.sign(_MARK, self.model_dump_json().encode()) + b"\n"

    @classmethod
    def read(cls, content: bytes, verifier: Verifier) -> Self:
        """Reads the content of a file; ``verifier`` is of the enrolment key. Raises `InvalidList`."""
        signed = content.removesuffix(b"\n")
        try:
            verifier.check(_MARK, signed)
        except BadSignature:
            raise InvalidList(
                "not signed with the enrolment key of this kit; expected the file that fl-aggregator provision "
                "wrote with it"
            ) from None
        body, _, _ = signed.rpartition(b',"sig":"')
        try:
            return cls.model_validate_json(body + b"}")
        except ValidationError as error:
            raise InvalidList(first_error(error)) from None
