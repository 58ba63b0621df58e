"""Log lines on standard error, as text or as JSON."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from fl_shared.errors import UserError
from fl_shared.system.text import one_line

LOG_FORMATS: Final = ("text", "json")


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        import json

        fields = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        client = getattr(record, "client", None)
        if client is not None:
            fields["client"] = client
        fields |= getattr(record, "facts", {})
        if exception := _exception(self, record):
            fields["exception"] = exception
        return json.dumps(fields, ensure_ascii=False)


class _TextFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        client = getattr(record, "client", None)
        level_text = "" if record.levelno <= logging.INFO else f"{record.levelname.lower()}: "
        client_text = "" if client is None else f"[{client}] "
        text = (
            f"{self.formatTime(record, '%H:%M:%S')} {client_text}{level_text}{one_line(record.getMessage())}"
        )
        exception = _exception(self, record)
        return f"{text}\n{exception}" if exception else text


def _exception(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    """Returns the traceback of the record's error, or of that of another process (``exception``)."""
    if record.exc_info:
        return formatter.formatException(record.exc_info)
    return str(getattr(record, "exception", ""))


def _formatter(log_format: str) -> logging.Formatter:
    return _JsonFormatter() if log_format == "json" else _TextFormatter()


@contextmanager
def logging_to_file(path: Path, log_format: str, *names: str) -> Iterator[None]:
    """Makes the loggers of these names, and those below them, write to a file instead. Raises ``OSError``."""
    loggers = [logging.getLogger(name) for name in names]
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(_formatter(log_format))
    for logger in loggers:
        logger.addHandler(handler)
        logger.propagate = False
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
            logger.propagate = True
        handler.close()


def start_logging(verbose: int, log_format: str, *, quiet: bool = False) -> None:
    """Makes all loggers write to standard error. Raises ``UserError`` for ``quiet`` with ``verbose``.

    ``extra={"client": …}`` of a record names the edge that it is about. ``extra={"facts": {…}}``: the values
    in the message, as members of the JSON. ``extra={"exception": …}``: the traceback of another process.
    ``verbose``: above 0, also debug messages. ``quiet``: only errors.
    """
    if quiet and verbose:
        raise UserError("--quiet cannot be combined with --verbose")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_formatter(log_format))
    level = logging.ERROR if quiet else logging.DEBUG if verbose else logging.INFO
    logging.basicConfig(level=level, handlers=[handler], force=True)
    # No line says from which line of code, thread or process it comes (Python's logging HOWTO, "Optimization").
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    # At the debug level, asyncio would log which selector it uses.
    logging.getLogger("asyncio").setLevel(logging.WARNING)
