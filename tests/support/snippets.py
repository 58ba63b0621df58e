"""The code blocks of the documents, and a page of them run as its reader would, in one empty directory.

A block runs, unless the line before it is ``<!-- not run: REASON -->``. With ``<!-- in another terminal -->`` it goes
on beside the blocks after it, and ends with the page. A broker listens at the port that stands for 1883.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click

from fl_aggregator.cli.main import cli as fl_aggregator
from fl_edge.cli import command as fl_edge
from fl_edge.tools.task_commands import check_task, new_task
from fl_mqtt.cli.main import cli as fl_mqtt
from fl_shared.cli.request_kit import request_kit_command
from tests.support.ports import free_port
from tests.support.programs import BIN
from tests.support.wait import PATIENCE, wait_until

ROOT: Final = Path(__file__).parents[2]
SHELL: Final = frozenset({"sh", "bash", "console"})
PYTHON: Final = frozenset({"python", "py"})
DATA: Final = frozenset({"toml", "json"})
SHOWN: Final = frozenset({"ini", "mermaid", "text", "yaml"})
"""Languages of blocks that only show something."""
FENCE: Final = re.compile(r"^( *)```([\w-]*)")
MARK: Final = re.compile(r"<!-- (?:not run: (?P<reason>\S.*)|(?P<beside>in another terminal)) -->")
PORTS: Final = ("1883", "1884", "8080", "8883", "9001", "9464")
"""Ports in commands; each stands for a free one, and the first one for that of the broker."""
PROGRAMS: Final = {
    "fl-aggregator": fl_aggregator,
    "fl-edge": fl_edge,
    "fl-edge new-task": new_task,
    "fl-edge check-task": check_task,
    "fl-edge request-kit": request_kit_command("edge"),
    "fl-mqtt": fl_mqtt,
    "fl-mqtt edge": fl_edge,
}
TIMEOUT: Final = 200.0


@dataclass(frozen=True, slots=True)
class Block:
    """A code block. ``line``: where it begins; ``reason``: why it is not run; ``beside``: in another terminal."""

    page: Path
    line: int
    language: str
    text: str
    reason: str | None = None
    beside: bool = False

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"


def blocks_of(page: Path) -> list[Block]:
    """All code blocks of a document, also those in lists."""
    lines = page.read_text(encoding="utf-8").splitlines()
    found, at = [], 0
    while at < len(lines):
        fence = FENCE.match(lines[at])
        if fence is None:
            at += 1
            continue
        end = next(i for i in range(at + 1, len(lines)) if lines[i].strip() == "```")
        mark = MARK.fullmatch(lines[at - 1].strip()) if at else None
        found.append(
            Block(
                page, at + 1, fence[2], textwrap.dedent("\n".join(lines[at + 1 : end])) + "\n",
                mark and mark["reason"], bool(mark and mark["beside"]),
            )
        )  # fmt: skip
        at = end + 1
    return found


def unknown_options(block: Block) -> list[str]:
    """The options of our programs in a block of commands that they do not have. For blocks that are not run."""
    found = []
    for line in block.text.replace("\\\n", " ").splitlines():
        for command in re.split(r"&&|\|\||[|;&]", line):
            words = _words(command)
            program = _program(words)
            if program is not None:
                parameters = program.get_params(click.Context(program))
                known = {"--version", *(name for p in parameters for name in (*p.opts, *p.secondary_opts))}
                given = [word.partition("=")[0] for word in words if word.startswith("--") and word != "--"]
                found += [f"{block.place}: {' '.join(words)}: {name}" for name in given if name not in known]
    return found


def _words(command: str) -> list[str]:
    try:
        words = shlex.split(command, comments=True)
    except ValueError:  # a quotation goes on in another line
        return []
    while words and (words[0] in ("$", "exec", "srun") or re.match(r"\w+=", words[0])):
        del words[0]
    return words


def _program(words: list[str]) -> click.Command | None:
    """The command that is called, or none of ours."""
    command: click.Command | None = PROGRAMS.get(" ".join(words[:2]))
    if command is not None:
        return command
    command = PROGRAMS.get(words[0]) if words else None
    for word in words[1:]:
        if not isinstance(command, click.Group) or word not in command.commands:
            break
        command = command.commands[word]
    return command


def run_page(blocks: list[Block], directory: Path, broker: int, environment: Mapping[str, str]) -> None:
    """Runs the blocks of one page, in order, in one shell. Raises ``AssertionError`` with the place of a failure."""
    work = directory / "work"
    work.mkdir()
    (work / "examples").symlink_to(ROOT / "examples")
    script, log = directory / "page.sh", directory / "output.txt"
    script.write_text("".join(_commands(blocks, work, broker)))
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["bash", script], cwd=work, env=_environment(directory, broker, environment), stdin=subprocess.DEVNULL,
            stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
        try:
            code: int | None = process.wait(TIMEOUT * PATIENCE)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            _end_group(process)
    place = (directory / "place").read_text().strip()
    logs = [log, *sorted(directory.glob("*.log"))]
    written = "\n".join(f"--- {file.name}\n{file.read_text(errors='replace')}" for file in logs)
    assert code == 0, f"{place}: exit code {code}\n{written}"


def _commands(blocks: list[Block], work: Path, broker: int) -> Iterator[str]:
    """The script of a page."""
    ports = {port: str(broker if port == PORTS[0] else free_port()) for port in PORTS}

    def translated(text: str) -> str:
        return re.sub(rf"\b({'|'.join(PORTS)})\b", lambda match: ports[match[1]], text)

    yield "set -eu -o pipefail\n"
    for block in blocks:
        text = translated(re.sub(r"^\$ ", "", block.text, flags=re.MULTILINE))
        yield f"echo {block.place} > ../place\n"
        if block.language in PYTHON:
            (work.parent / f"block{block.line}.py").write_text(text)
            text = f"python ../block{block.line}.py\n"
        yield f"(\n{text}) > ../block{block.line}.log 2>&1 &\n" if block.beside else text


def _environment(directory: Path, broker: int, environment: Mapping[str, str]) -> dict[str, str]:
    """A home with the broker's port for Mosquitto's clients, and programs that know the port without being told."""
    home, programs = directory / "home", directory / "programs"
    (home / ".config").mkdir(parents=True)
    programs.mkdir()
    for client in ("mosquitto_pub", "mosquitto_sub", "mosquitto_rr"):
        (home / ".config" / client).write_text(f"-p {broker}\n")
    for name in ("fl-aggregator", "fl-edge", "fl-mqtt"):
        # A simulation has a broker of its own, and a kit names its broker.
        _program_file(
            programs / name,
            'case " $* " in *" simulate "*|*.zip*) ;; '
            f'*) export FL_BROKER="${{FL_BROKER-mqtt://127.0.0.1:{broker}}}" ;; esac\nexec "{BIN / name}" "$@"\n',
        )
    mosquitto = shutil.which("mosquitto")
    if mosquitto and os.geteuid() == 0:  # else it becomes a user who cannot read the test's files
        as_root = '[ "$1" = -c ] && { cat "$2"; echo user root; } > "$2.root" && set -- -c "$2.root"'
        _program_file(programs / "mosquitto", f'{as_root}\nexec "{mosquitto}" "$@"\n')
    return {
        **{name: value for name, value in os.environ.items() if name != "XDG_CONFIG_HOME"},
        "HOME": str(home),
        "PATH": f"{programs}:{BIN}:{os.environ['PATH']}",
        **environment,
    }


def _program_file(file: Path, script: str) -> None:
    file.write_text(f"#!/bin/sh\n{script}")
    file.chmod(0o700)


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """Ends what the shell has left running, as Ctrl-C in its terminals would."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            wait_until(lambda: not _has_members(process), 10, "the programs of the page have ended")
        except ProcessLookupError:
            break
        except AssertionError:
            continue
    process.wait()


def _has_members(process: subprocess.Popen[bytes]) -> bool:
    process.poll()
    try:
        os.killpg(process.pid, 0)
    except ProcessLookupError:
        return False
    return True
