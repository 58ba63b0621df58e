"""Commands as a user can paste them: by the program that is running, and as it was called."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import Final

PROGRAMS: Final = ("fl-aggregator", "fl-edge", "fl-mqtt")
DISTRIBUTION: Final = "fl-mqtt"


def aggregator_command(*arguments: object, extra: str = "") -> str:
    """``fl-aggregator`` with arguments; ``fl-mqtt aggregator`` if that is the program that is running.

    ``extra``: what it needs and has not installed. If only another command can install it, that is named, too.
    """
    command = _command("fl-aggregator", arguments, extra)
    return f"{command} (first: {install_command(extra)})" if extra and not _in_uvx() else command


def edge_command(*arguments: object) -> str:
    """``fl-edge`` with arguments; ``fl-mqtt edge`` if ``fl-mqtt`` is the program that is running."""
    return _command("fl-edge", arguments)


def install_command(extra: str) -> str:
    """The command that installs an extra; one that runs ``fl-mqtt`` with it, if ``uvx`` has started this program."""
    if _in_uvx():
        return shlex.join(["uvx", "--from", _source(extra), "fl-mqtt"])
    return f"pip install '{DISTRIBUTION}[{extra}]'"


def _command(program: str, arguments: tuple[object, ...], extra: str = "") -> str:
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    module = "" if spec is None else spec.name.removesuffix(".__main__")
    running = module.replace("_", "-") or Path(sys.argv[0]).name
    words = [program]
    if running == "fl-mqtt":
        words = [running, program.removeprefix("fl-")]
    if running in PROGRAMS:
        words[:1] = _reached(words[0], extra, as_module=bool(module))
    return shlex.join([*words, *map(str, arguments)])


def _reached(program: str, extra: str, *, as_module: bool) -> list[str]:
    """Returns how a shell starts ``program``, if it can start the one that is running."""
    if as_module:
        return [_typed(Path(sys.executable)), "-m", program.replace("-", "_")]
    if _in_uvx():
        source = _source(extra)
        return ["uvx", *([] if source == program else ["--from", source]), program]
    return [_typed(Path(sys.argv[0]).with_name(program))]


def _typed(path: Path) -> str:
    """Returns the name alone if the shell finds this file by it."""
    found = shutil.which(path.name)
    return path.name if found is not None and path.exists() and path.samefile(found) else str(path)


def _in_uvx() -> bool:
    """Whether this is one of the environments in uv's cache, whose programs are on the path of no shell."""
    return "UV" in os.environ and Path(sys.prefix).parent.name.startswith("archive-v")


def _source(extra: str) -> str:
    """Returns what the package was installed from, its name or a file or address, with ``extra`` if that is given."""
    try:
        recorded = importlib.metadata.distribution(DISTRIBUTION).read_text("direct_url.json")
    except importlib.metadata.PackageNotFoundError:
        recorded = None
    source = DISTRIBUTION if recorded is None else str(json.loads(recorded)["url"]).removeprefix("file://")
    return f"{source}[{extra}]" if extra else source
