"""Where a run is announced to Home Assistant: a topic outside the run's prefix, without a row in `channels`."""

from __future__ import annotations

import re
from typing import Final

DISCOVERY_PREFIX: Final = "homeassistant"
"""The prefix under which Home Assistant looks for discovery messages by default."""


def device_name(prefix: str) -> str:
    """The name under which Home Assistant knows the runs under ``prefix``, of its letters ``a-z A-Z 0-9 _ -``.

    Different prefixes have different names.
    """
    import hashlib  # not for the help of a program: it loads OpenSSL

    plain = re.sub("[^A-Za-z0-9_-]", "_", prefix)
    return f"fl-mqtt_{plain}" + (
        "" if plain == prefix else f"_{hashlib.sha256(prefix.encode()).hexdigest()[:8]}"
    )


def discovery_topic(discovery_prefix: str, prefix: str) -> str:
    """The topic on which the device of the runs under ``prefix`` is announced to Home Assistant."""
    return f"{discovery_prefix}/device/{device_name(prefix)}/config"
