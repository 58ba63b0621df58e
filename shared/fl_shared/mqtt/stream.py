"""Opens the byte stream to a broker: TCP, with TLS and a WebSocket over it if the URL asks for them."""

from __future__ import annotations

import socket
import ssl

from fl_shared.mqtt.address import BrokerAddress
from fl_shared.mqtt.websocket import WebSocket

Stream = socket.socket | WebSocket


def open_stream(address: BrokerAddress, tls: ssl.SSLContext | None, timeout: float) -> Stream:
    """Opens a byte stream to the broker. Blocks.

    Each IP address of the host, TLS and the WebSocket may take ``timeout`` seconds. Raises ``OSError`` (also
    `ssl.SSLError` and `WebSocketRefused`), ``UnicodeError`` if the host name is not valid, and ``ValueError``
    if ``tls`` does not match the scheme.
    """
    if (tls is not None) != address.is_encrypted:
        raise ValueError(f"{address}: expected tls for mqtts and wss, and for nothing else")
    sock = socket.create_connection((address.host, address.port), timeout)
    try:
        # Send small packets at once: with Nagle's algorithm a round trip of MQTT takes 44 ms.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls is not None:
            sock = tls.wrap_socket(sock, server_hostname=address.server_name, do_handshake_on_connect=False)
            sock.settimeout(timeout)
            sock.do_handshake()
        return WebSocket(sock, address, timeout) if address.is_websocket else sock
    except BaseException:
        sock.close()
        raise
