"""Broker addresses: ``mqtts://[user@]host[:port]`` and similar URLs, parsed once at the command line."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal, Self, cast, get_args
from urllib.parse import quote, unquote, urlsplit

from fl_shared.errors import UserError

UrlScheme = Literal["mqtt", "mqtts", "ws", "wss"]

PORTS: Final[dict[UrlScheme, int]] = {"mqtt": 1883, "mqtts": 8883, "ws": 80, "wss": 443}
"""The default port of each scheme."""
DEFAULT_PORT: Final = PORTS["mqtt"]
WEBSOCKET_PATH: Final = "/mqtt"
_URL_FORM: Final = (
    "mqtt://, mqtts://, ws:// or wss://, then [user@]host[:port] (and [/path] for ws, wss), "
    "for example mqtts://broker.example:8883"
)
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_OTHER_NAMES: Final = {
    "ssl": "mqtts", "tls": "mqtts", "mqtt+ssl": "mqtts", "tcp": "mqtt", "http": "ws", "https": "wss",
}  # fmt: skip
_PATH: Final = re.compile(r"/[A-Za-z0-9._~!$&'()*+,;=:@/?%-]{0,1023}")
_END_OF_AUTHORITY: Final = re.compile(r"[/?#]")
_ZONE: Final = re.compile(r"[A-Za-z0-9._~-]{1,64}")


@dataclass(frozen=True, slots=True)
class BrokerAddress:
    """The address of a broker. ``host`` is a name or an IP address (IPv6 without brackets, perhaps with a zone).

    ``user`` is the account, None for anonymous. ``path`` is the WebSocket's with its query (``ws``, ``wss``), empty
    for the other schemes. The address contains no password, so that it may be shown and logged everywhere.
    """

    host: str
    port: int = DEFAULT_PORT
    user: str | None = None
    scheme: UrlScheme = "mqtt"
    path: str = ""

    @property
    def is_encrypted(self) -> bool:
        """Whether connections use TLS (``mqtts``, ``wss``)."""
        return self.scheme in ("mqtts", "wss")

    @property
    def is_websocket(self) -> bool:
        """Whether connections use a WebSocket (``ws``, ``wss``)."""
        return self.scheme in ("ws", "wss")

    @classmethod
    def parse(cls, url: str) -> Self:
        """Parses a broker's URL. Raises `UserError` with what was expected.

        The error text never repeats a password that is in ``url``.
        """
        text = url.strip()
        match = _SCHEME.match(text)
        if match is None:
            raise UserError(f"broker {_redacted(url)!r}: no scheme; expected {_URL_FORM}")
        name, after_scheme = match.group()[:-3].lower(), text[match.end() :]
        if name not in get_args(UrlScheme):
            hint = f"; write {_OTHER_NAMES[name]}://" if name in _OTHER_NAMES else ""
            raise UserError(
                f"broker {_redacted(url)!r}: the scheme {name!r} is unknown{hint}; expected {_URL_FORM}"
            )
        scheme = cast(UrlScheme, name)
        account, at_sign, location = after_scheme.rpartition("@")
        if ":" not in account and _END_OF_AUTHORITY.search(account):
            # The last @ belongs to the path. With a colon, what is before it may be a password.
            authority = _END_OF_AUTHORITY.split(after_scheme, maxsplit=1)[0]
            account, at_sign, server = authority.rpartition("@")
            location = server + after_scheme[len(authority) :]
        if at_sign and ":" in account:
            raise UserError(
                f"broker {_redacted(url)!r}: a password in the URL is visible to everyone on this machine; "
                f"write {scheme}://user@host and give the password in FL_PASSWORD or with --password-file"
            )
        user = unquote(account) if at_sign else None
        if user is not None and (not user.isprintable() or not user):
            raise UserError(
                f"broker {_redacted(url)!r}: the user before @ is empty or not printable; expected {_URL_FORM}"
            )
        host, port, path = _parse_host(url, scheme, location)
        return cls(host, PORTS[scheme] if port is None else port, user, scheme, path)

    def __str__(self) -> str:
        account = "" if self.user is None else quote(self.user, safe="") + "@"
        return f"{self.scheme}://{account}{self.host_and_port}{self.path}"

    @property
    def server_name(self) -> str:
        """The host as certificates and HTTP name it: without the zone, which only this machine knows (RFC 6874)."""
        return self.host.partition("%")[0]

    @property
    def host_and_port(self) -> str:
        """``host:port`` as in a URL, with an IPv6 address in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def _parse_host(url: str, scheme: UrlScheme, location: str) -> tuple[str, int | None, str]:
    try:
        url_parts = urlsplit("mqtt://" + location)
        host, port = url_parts.hostname, url_parts.port
    except ValueError as error:
        raise UserError(
            f"broker {_redacted(url)!r}: {error}; expected {_URL_FORM} "
            "(an IPv6 address in brackets, a port from 1 to 65535)"
        ) from None
    path = url_parts.path
    if url_parts.fragment or (url_parts.query and scheme not in ("ws", "wss")):
        raise UserError(
            f"broker {_redacted(url)!r}: nothing may follow the port and path; expected {_URL_FORM}"
        )
    if scheme in ("ws", "wss"):
        path = (path or WEBSOCKET_PATH) + (f"?{url_parts.query}" if url_parts.query else "")
        path = path.replace("@", "%40")  # the address as text is parsed again
        if not _PATH.fullmatch(path):
            raise UserError(
                f"broker {_redacted(url)!r}: the path {path[:80]!r}; expected a path like /mqtt, "
                "at most 1024 characters"
            )
    elif path not in ("", "/"):
        raise UserError(f"broker {_redacted(url)!r}: nothing may follow the port; expected {_URL_FORM}")
    else:
        path = ""
    name, percent, zone = (host or "").partition("%")
    zone = zone.removeprefix("25")  # "%25" is "%" in a URL
    if percent and ":" in name and _ZONE.fullmatch(zone):
        host = f"{name}%{zone}"
    elif not host or not host.isprintable() or any(mark in host for mark in " \\%,") or len(host) > 253:
        raise UserError(f"broker {_redacted(url)!r}: {host or ''!r} is not a host name; expected {_URL_FORM}")
    if port == 0:
        raise UserError(f"broker {_redacted(url)!r}: port 0; expected a port from 1 to 65535")
    return host, port, path


def _redacted(url: str) -> str:
    """``url`` without a possible password: the text from the first colon of the account to the last @."""
    account, at_sign, location = url.strip().rpartition("@")
    if not at_sign:
        return url
    scheme = _SCHEME.match(account)
    start = scheme.end() if scheme else 0
    user, colon, _ = account[start:].partition(":")
    return f"{account[:start]}{user}{':…' if colon else ''}@{location}"
