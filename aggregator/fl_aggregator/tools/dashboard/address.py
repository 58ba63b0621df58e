"""The broker's address for browsers: ``ws://[user@]host[:port][/path]``, parsed once at the command line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self
from urllib.parse import unquote, urlsplit

from fl_shared.errors import UserError

_EXPECTED_FORM: Final = "ws://[user@]host:port/mqtt or wss://…, the broker's listener for WebSockets"


@dataclass(frozen=True, slots=True)
class WebSocketAddress:
    """The address of a broker's listener for WebSockets. ``url`` does not contain the user.

    ``user``: the account that the page proposes, null for none.
    """

    url: str
    user: str | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parses an address. Without a path, the path is ``/mqtt``.

        Raises `UserError` with what was expected. The message does not repeat a password in ``text``.
        """
        try:
            parts = urlsplit(text.strip())
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise UserError(f"broker: {error}; expected {_EXPECTED_FORM}") from None
        if parts.password is not None:
            raise UserError(
                "broker: a password in the URL is visible to everyone on this machine; the page asks for it"
            )
        if parts.scheme in ("mqtt", "mqtts"):
            raise UserError(
                f"broker {text!r}: browsers can only use WebSockets; expected {_EXPECTED_FORM}, "
                "for example ws://localhost:9001/mqtt"
            )
        if parts.scheme not in ("ws", "wss") or not host or parts.query or parts.fragment:
            raise UserError(f"broker {text!r}: expected {_EXPECTED_FORM}")
        if port == 0 or any(
            character.isspace() or not character.isprintable() for character in parts.netloc + parts.path
        ):
            raise UserError(f"broker {text!r}: expected {_EXPECTED_FORM}, with a port from 1 to 65535")
        host_text = f"[{host}]" if ":" in host else host
        authority = host_text if port is None else f"{host_text}:{port}"
        user = unquote(parts.username) if parts.username else None
        return cls(f"{parts.scheme}://{authority}{parts.path or '/mqtt'}", user)
