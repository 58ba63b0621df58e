"""Seals between an edge and the operator, who has no topic of the aggregator's: for the edge's log (protocol, 12.4)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fl_shared.protocol.topics import OPERATOR
from fl_shared.security.sealing import Sealer
from fl_shared.security.signatures import Verifier
from fl_shared.security.vouchers import Voucher

if TYPE_CHECKING:
    from fl_shared.security.kit import Kit


def sealer_for_operator(kit: Kit, public: bytes, voucher: bytes, now: float) -> Sealer | None:
    """A sealer of the edge with ``kit`` for the operator's key ``public``; null unless the voucher is the operator's.

    ``now``: in seconds since 1970, for the voucher's expiry. The edge's kit must have a voucher.
    """
    found = Voucher.read(voucher, OPERATOR, public, Verifier(kit.enrolment_public))
    if found is None or "operator" not in found.roles or found.has_expired(now):
        return None
    return kit.sealer(public)


def operator_key(kit: Kit) -> tuple[bytes, bytes]:
    """The public key (32 bytes) and the voucher (73) of the operator's ``kit``, which must have a voucher."""
    assert kit.voucher is not None
    return kit.public_keys[0], kit.voucher
