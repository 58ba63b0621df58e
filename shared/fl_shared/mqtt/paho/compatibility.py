"""Chooses the client: `FastClient`, or unmodified paho where that is not the version that it was written for.

If the version is another one, or a part is missing or has other parameters, paho is used unmodified: this is slower,
but works the same. FL_STOCK_PAHO=1 selects unmodified paho.
"""

from __future__ import annotations

import functools
import inspect
import logging
import os
import time
from typing import Final

import paho.mqtt.client
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from fl_shared.mqtt.paho.fast_client import FastClient

LOG = logging.getLogger(__name__)

STOCK_ENV: Final = "FL_STOCK_PAHO"
"""Environment variable: 1 for unmodified paho, for measurements and in case of doubt."""
PAHO_VERSION: Final = "2.2."

_PARAMETERS: Final = {
    "_create_socket": ("self",),
    "_do_on_publish": ("self", "mid", "reason_code", "properties"),
    "_loop_rc_handle": ("self", "rc"),
    "_pack_remaining_length": ("self", "packet", "remaining_length"),
    "_packet_handle": ("self",),
    "_packet_queue": ("self", "command", "packet", "mid", "qos", "info"),
    "_packet_read": ("self",),
    "_packet_write": ("self",),
    "publish": ("self", "topic", "payload", "qos", "retain", "properties"),
    "_send_puback": ("self", "mid"),
    "_sock_send": ("self", "buf"),
    "_send_publish": ("self", "mid", "topic", "payload", "qos", "retain", "dup", "info", "properties"),
    "loop_read": ("self", "max_packets"),
}
"""The methods of paho's `Client` that `FastClient` overrides or calls, with their expected parameters."""
_ATTRIBUTES: Final = (
    "_connect_timeout",
    "_host",
    "_in_callback_mutex",
    "_in_packet",
    "_last_bytes_received",
    "_msgtime_mutex",
    "_on_message",
    "_out_message_mutex",
    "_out_messages",
    "_out_packet",
    "_port",
    "_sock",
    "_ssl",
    "_ssl_context",
    "_transport",
    "_userdata",
    "_websocket_path",
)
_IN_PACKET: Final = frozenset(
    (
        "command",
        "have_remaining",
        "packet",
        "pos",
        "remaining_count",
        "remaining_length",
        "remaining_mult",
        "to_process",
    )
)


def differences() -> list[str]:
    """The parts of the installed paho that differ from the version that `FastClient` was written for."""
    version = paho.mqtt.__version__
    if not version.startswith(PAHO_VERSION):
        return [f"version {version}, not {PAHO_VERSION}x"]
    found = []
    for name, expected in _PARAMETERS.items():
        method = getattr(Client, name, None)
        if method is None or tuple(inspect.signature(method).parameters) != expected:
            found.append(f"Client.{name}")
    client = Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
    found += [f"Client().{name}" for name in _ATTRIBUTES if not hasattr(client, name)]
    if frozenset(getattr(client, "_in_packet", ())) != _IN_PACKET:
        found.append("Client()._in_packet")
    if getattr(paho.mqtt.client, "time_func", None) is not time.monotonic:
        found.append("time_func")
    return found


@functools.cache
def _is_supported_paho() -> bool:
    found = differences()
    if found:
        LOG.warning(
            "using paho without shortcuts, which is slower: this version of paho differs in %s",
            ", ".join(found),
        )
    return not found


def client_class() -> type[Client]:
    """`FastClient`, or paho's own client if this paho is not supported or `STOCK_ENV` is 1."""
    return Client if os.environ.get(STOCK_ENV) == "1" or not _is_supported_paho() else FastClient
