"""What a shell completes that click does not know: names of a list, and kits. Needs only click."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem[Any]]]


def names_of(names: Callable[[], Iterable[str]]) -> Completer:
    """Returns the ``shell_complete`` of a parameter whose values are ``names``, which are looked up when asked for."""

    def complete(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem[Any]]:
        return [CompletionItem(name) for name in names() if name.startswith(incomplete)]

    return complete


def kit_files(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem[Any]]:
    """Completes the zip archives of a directory, and the directories in it (a ``shell_complete`` of click)."""
    directory, slash, begun = incomplete.rpartition("/")
    found = []
    try:
        for path in sorted(Path(directory or slash or ".").expanduser().iterdir()):
            is_directory = path.is_dir()
            if path.name.startswith(begun) and (is_directory or path.suffix == ".zip"):
                found.append(CompletionItem(f"{directory}{slash}{path.name}{'/' if is_directory else ''}"))
    except OSError:
        return []
    return found
