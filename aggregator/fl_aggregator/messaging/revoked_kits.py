"""Refuses what revoked kits send (protocol, 14)."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Final

from fl_aggregator.messaging.unsealing import NotEntitled
from fl_aggregator.round.roster import REVOKED, Roster

if TYPE_CHECKING:
    from fl_shared.security.revocations import RevocationList
    from fl_shared.security.vouchers import Voucher

_SPARE: Final = 1000
"""Registrations that are remembered beyond twice the roster."""


class RevokedKits:
    """The newest list of revoked kits, on the loop's thread. Until there is one, no kit is revoked."""

    def __init__(self) -> None:
        self._accounts: Collection[str] = frozenset()
        self._keys: Collection[bytes] = frozenset()
        self._registered: dict[tuple[str, str], bytes] = {}
        """By client and session: the key that has sealed its registration."""

    def replace(self, newest: RevocationList, roster: Roster) -> tuple[str, ...]:
        """Takes a list in place of the one before; returns the clients of the roster whose kits are revoked, sorted."""
        self._accounts = frozenset(newest.accounts)
        self._keys = frozenset(map(bytes.fromhex, newest.keys))
        return tuple(
            sorted(name for name, client in roster.clients.items() if self._is_out(name, client.session))
        )

    def _is_out(self, client: str, session: str) -> bool:
        key = self._registered.get((client, session))
        return client in self._accounts if key is None else key in self._keys

    def check(self, account: str | None, voucher: Voucher | None) -> None:
        """Raises `NotEntitled` if the kit is revoked with which ``account`` has sealed a message, or if it has none.

        A plain message says nothing of a kit. A sealed one may come from a kit that is newer than the list.
        """
        if account in self._accounts if voucher is None else voucher.public in self._keys:
            raise NotEntitled("kit-revoked", f"edge {account}: {REVOKED}", account)

    def is_revoked(self, public: bytes) -> bool:
        """Whether a public key, 32 bytes, is in a revoked kit."""
        return public in self._keys

    def remember(self, client: str, session: str, voucher: Voucher | None, roster: Roster) -> None:
        """Remembers with which key an edge has sealed its registration, if it has."""
        if voucher is None:
            return
        if len(self._registered) > 2 * len(roster.clients) + _SPARE:
            self._registered = {
                (name, of): key
                for (name, of), key in self._registered.items()
                if (known := roster.get(name)) is not None and known.session == of
            }
        self._registered[client, session] = voucher.public
