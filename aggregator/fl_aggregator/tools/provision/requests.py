"""Requests for kits (`fl_shared.security.kit_request`): reads them, and remembers which keys they were for."""

from __future__ import annotations

import hashlib
from base64 import b64decode, b64encode
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Self

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key
from pydantic import BaseModel, ConfigDict, Field

from fl_shared.errors import UserError
from fl_shared.security.kit_request import MAX_REQUEST, InvalidRequest, KitRequest
from fl_shared.system.files import read_at_most

if TYPE_CHECKING:
    from fl_aggregator.tools.provision.accounts import AccountRegister

_Hex32 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class RequestedKeys(BaseModel):
    """The public keys of a request, whose ``digest`` its kit names; all but ``tls`` in hexadecimal.

    ``tls``: SubjectPublicKeyInfo in DER, in base64. ``sealing``: X25519. ``member``: Ed25519.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    digest: _Hex32
    tls: Annotated[str, Field(max_length=256)]
    sealing: _Hex32
    member: _Hex32

    @classmethod
    def of(cls, request: KitRequest) -> Self:
        """Those of a request that has been read."""
        der = request.tls_public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return cls(
            digest=request.digest.hex(),
            tls=b64encode(der).decode(),
            sealing=request.sealing_public.hex(),
            member=request.member.hex(),
        )

    @property
    def tls_public(self) -> ec.EllipticCurvePublicKey:
        """The key that the certificate is for."""
        public = load_der_public_key(b64decode(self.tls))
        assert isinstance(public, ec.EllipticCurvePublicKey)
        return public

    @property
    def tls_digest(self) -> str:
        """The SHA-256 of that key, in hexadecimal."""
        return hashlib.sha256(b64decode(self.tls)).hexdigest()

    @property
    def identifiers(self) -> frozenset[str]:
        """What no other account may have: the three keys."""
        return frozenset({self.tls_digest, self.sealing, self.member})


def read_request(path: Path) -> KitRequest:
    """Reads the file of a request. Raises ``UserError``, which names what is wrong in it."""
    try:
        content, _ = read_at_most(path, MAX_REQUEST + 1, regular=True)
    except OSError as error:
        raise UserError(f"request {path}: {error.strerror}") from None
    try:
        return KitRequest.read(content)
    except InvalidRequest as error:
        raise UserError(f"request {path}: {error}") from None


def check_unused(request: KitRequest, register: AccountRegister) -> RequestedKeys:
    """Returns the keys of a request. Raises ``UserError`` if one of them is, or was, in use."""
    keys = RequestedKeys.of(request)
    name = request.name
    if register.place.passwords:
        raise UserError(
            f"the request of {name!r} cannot be answered: accounts here have passwords, which would be in the kit; "
            "expected accounts with certificates (provision without --password)"
        )
    for account in register.accounts:
        if account.requested is not None and account.requested.digest == keys.digest:
            raise UserError(f"the request of {name!r} has already been answered: {account.kit_file}")
        if not keys.identifiers.isdisjoint(account.identifiers):
            raise UserError(
                f"the request of {name!r} has a key of the account {account.name!r}; "
                "expected a new request, made by request-kit on its own device"
            )
    for revoked in register.revoked_keys:
        if not keys.identifiers.isdisjoint({*revoked.keys, revoked.tls}):
            raise UserError(
                f"the request of {name!r} has a key that was revoked on {revoked.when:%Y-%m-%d} with the kit of "
                f"{revoked.name!r}; expected a new request, made by request-kit"
            )
    return keys
