"""The log of a worker process: in the format of its parent, with the edge whose job a line is about."""

from __future__ import annotations

import logging
from contextvars import ContextVar
from typing import Final

from fl_shared.cli.logging import start_logging

CLIENT: Final = ContextVar("client", default="")
"""The edge whose job the thread does; empty if it is that of no edge."""


def start(log_format: str) -> None:
    """Makes all loggers write to standard error. ``log_format``: text or json."""
    start_logging(0, log_format)
    for handler in logging.getLogger().handlers:
        handler.addFilter(_name_client)


def _name_client(record: logging.LogRecord) -> bool:
    record.client = getattr(record, "client", None) or CLIENT.get() or None
    return True
