"""Where the broker is: ``mqtt://[user@]host[:port]``, parsed once at the command line."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Self
from urllib.parse import quote, unquote, urlsplit

from fl_shared.errors import UserError

DEFAULT_PORT: Final = 1883
_FORM: Final = "mqtt://[user@]host[:port], for example mqtt://localhost:1883"
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_TLS: Final = frozenset({"mqtts", "wss", "ssl", "tls"})


@dataclass(frozen=True, slots=True)
class BrokerAddress:
    """``host`` is a name or an address (IPv6 without brackets), ``user`` the account, None for anonymous.

    There is no password in it, so that it may be shown and logged everywhere.
    """

    host: str
    port: int = DEFAULT_PORT
    user: str | None = None

    @classmethod
    def parse(cls, url: str) -> Self:
        """Raises `UserError` with what was expected; a password in ``url`` is not repeated in the message."""
        text = url.strip()
        found = _SCHEME.match(text)
        if found is None:
            raise UserError(f"broker {_shown(url)!r}: no scheme; expected {_FORM}")
        scheme, rest = found.group()[:-3].lower(), text[found.end() :]
        if scheme in _TLS:
            raise UserError(
                f"broker {_shown(url)!r}: TLS (mqtts://, wss://) is not supported yet; expected {_FORM}"
            )
        if scheme != "mqtt":
            raise UserError(f"broker {_shown(url)!r}: the scheme {scheme!r} is unknown; expected {_FORM}")
        account, at, place = rest.rpartition("@")
        if at and ":" in account:
            raise UserError(
                f"broker {_shown(url)!r}: a password in the URL can be seen by everybody on this machine; "
                "write mqtt://user@host and give the password in FL_PASSWORD or with --password-file"
            )
        user = unquote(account) if at else None
        if user is not None and (not user.isprintable() or not user):
            raise UserError(
                f"broker {_shown(url)!r}: the user before @ is empty or not printable; expected {_FORM}"
            )
        host, port = _host_and_port(url, place)
        return cls(host, port, user)

    def __str__(self) -> str:
        account = "" if self.user is None else quote(self.user, safe="") + "@"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"mqtt://{account}{host}:{self.port}"


def _host_and_port(url: str, place: str) -> tuple[str, int]:
    try:
        parts = urlsplit("mqtt://" + place)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise UserError(
            f"broker {_shown(url)!r}: {error}; expected {_FORM} "
            "(an IPv6 address in brackets, a port from 1 to 65535)"
        ) from None
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise UserError(f"broker {_shown(url)!r}: nothing may follow the port; expected {_FORM}")
    if not host or not host.isprintable() or any(mark in host for mark in " \\%,") or len(host) > 253:
        raise UserError(f"broker {_shown(url)!r}: {host or ''!r} is no host name; expected {_FORM}")
    if port == 0:
        raise UserError(f"broker {_shown(url)!r}: port 0; expected a port from 1 to 65535")
    return host, DEFAULT_PORT if port is None else port


def _shown(url: str) -> str:
    """``url`` without what may be a password: all between the first colon of the account and the last @."""
    before, at, place = url.strip().rpartition("@")
    if not at:
        return url
    scheme = _SCHEME.match(before)
    start = scheme.end() if scheme else 0
    user, colon, _ = before[start:].partition(":")
    return f"{before[:start]}{user}{':…' if colon else ''}@{place}"
