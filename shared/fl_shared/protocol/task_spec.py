"""A task and its options as one text: ``tabular``, or ``tabular?hidden=64&target=price`` (protocol, 2.4)."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import parse_qsl, quote, urlencode


def format_task(name: str, options: Mapping[str, str]) -> str:
    """Returns the task ``name`` with its options in the order of their names, percent-encoded as in a URL's query."""
    query = urlencode(sorted(options.items()), quote_via=quote, safe="")
    return f"{name}?{query}" if query else name


def parse_task(text: str) -> tuple[str, dict[str, str]]:
    """Returns the name and the options. Of an option that is given twice, the last value counts."""
    name, _, query = text.partition("?")
    return name, dict(parse_qsl(query, keep_blank_values=True))


def task_name(text: str) -> str:
    """Returns the name alone."""
    return text.partition("?")[0]
