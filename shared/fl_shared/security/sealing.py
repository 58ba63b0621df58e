"""Seals messages: only the aggregator can read them, and only the account they name can have made them.

A sealed payload is a head and a ciphertext (protocol, 9.10 ff.)::

    0xC1  version  enc (32)  sender's key (32)  its voucher (73)  sequence (8, big-endian)  ciphertext and tag

It uses `hpke` in its authenticated mode, with one encapsulation for each connection of a sender; ``aad`` is
the topic. Messages may be lost or come twice, so each carries its sequence number and everything else that is
needed to open it alone. No JSON and no msgpack begins with 0xC1.
"""

from __future__ import annotations

import itertools
import struct
from functools import lru_cache
from typing import Final, NamedTuple

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from fl_shared.errors import CannotOpen
from fl_shared.protocol.codec import SEALED_MARKER
from fl_shared.security import hpke
from fl_shared.security.signatures import Verifier
from fl_shared.security.vouchers import VOUCHER_BYTES, Voucher

SEAL_VERSION: Final = 1
INFO: Final = b"fl-mqtt 1"
_HEAD: Final = struct.Struct(f">BB{hpke.KEY_BYTES}s{hpke.KEY_BYTES}s{VOUCHER_BYTES}sQ")
SEAL_OVERHEAD: Final = _HEAD.size + hpke.TAG_BYTES
"""Bytes by which a payload grows when it is sealed."""
MAX_CONTEXTS: Final = 20_000


class Sealer:
    """Seals the messages of one connection of an account.

    ``private``: the account's raw X25519 key; ``voucher``: the encoded voucher for its public key;
    ``recipient``: the aggregator's public key; ``ephemeral``: a fixed key for tests, None for a fresh one.
    """

    def __init__(
        self,
        private: bytes,
        voucher: bytes,
        recipient: bytes,
        *,
        ephemeral: X25519PrivateKey | None = None,
    ) -> None:
        key = X25519PrivateKey.from_private_bytes(private)
        self._enc, secret = hpke.encapsulate(recipient, key, ephemeral)
        self._context = hpke.Context(secret, INFO)
        self._public, self._voucher = key.public_key().public_bytes_raw(), voucher
        self._sequence = itertools.count()

    def seal(self, topic: str, payload: bytes | memoryview) -> bytes:
        """Seals ``payload`` for ``topic``. Besides the ciphertext, this makes one more copy of its size."""
        sequence = next(self._sequence)
        header = _HEAD.pack(SEALED_MARKER, SEAL_VERSION, self._enc, self._public, self._voucher, sequence)
        return b"".join((header, self._context.seal(sequence, topic.encode(), payload)))


class Opened(NamedTuple):
    """The content of a sealed message, and the voucher of the account that sealed it, which may have expired."""

    content: bytes
    voucher: Voucher


class Opener:
    """Opens sealed messages. ``private``: the aggregator's raw X25519 key; ``verifier`` checks vouchers.

    ``max_contexts``: how many encapsulations are cached, the last used; to derive one again takes a fraction
    of a millisecond.
    """

    def __init__(self, private: bytes, verifier: Verifier, *, max_contexts: int = MAX_CONTEXTS) -> None:
        self._key = X25519PrivateKey.from_private_bytes(private)
        self._verifier = verifier
        self._context = lru_cache(max_contexts)(self._new_context)

    def open(self, account: str, topic: str, payload: bytes | memoryview) -> Opened:
        """Opens what ``account`` has sealed for ``topic``. Raises only ``CannotOpen``, for any bytes."""
        if len(payload) < SEAL_OVERHEAD:
            raise CannotOpen(f"{len(payload)} bytes, expected at least {SEAL_OVERHEAD} of a sealed message")
        magic, version, enc, public, voucher, sequence = _HEAD.unpack_from(payload)
        if (magic, version) != (SEALED_MARKER, SEAL_VERSION):
            raise CannotOpen(f"version: {version}, expected {SEAL_VERSION}")
        context, valid_voucher = self._context(account, enc, public, voucher)
        content = context.open(sequence, topic.encode(), memoryview(payload)[_HEAD.size :])
        return Opened(content, valid_voucher)

    def _new_context(
        self, account: str, enc: bytes, public: bytes, encoded: bytes
    ) -> tuple[hpke.Context, Voucher]:
        voucher = Voucher.read(encoded, account, public, self._verifier)
        if voucher is None:
            raise CannotOpen(f"its key has no valid voucher for {account!r}")
        return hpke.Context(hpke.decapsulate(self._key, public, enc), INFO), voucher
