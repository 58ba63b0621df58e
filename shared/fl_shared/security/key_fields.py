"""Keys and signatures as members of a JSON object, in base64, whose length and form pydantic checks."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Base64Bytes, Field

from fl_shared.security.hpke import KEY_BYTES
from fl_shared.security.signatures import SIGNATURE_BYTES, check_signing_key

RawKey = Annotated[Base64Bytes, Field(min_length=KEY_BYTES, max_length=KEY_BYTES)]
"""Any 32 bytes: a private key, an X25519 public key that is checked elsewhere, or a digest."""
SigningKey = Annotated[RawKey, AfterValidator(check_signing_key)]
"""A raw Ed25519 public key."""
Signature = Annotated[Base64Bytes, Field(min_length=SIGNATURE_BYTES, max_length=SIGNATURE_BYTES)]
"""A signature by such a key."""
