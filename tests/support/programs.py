"""Our two programs as a user starts them, and queries about their processes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from tests.support.program_server import ForkedProgram, server
from tests.support.schemas import checked
from tests.support.wait import PATIENCE, wait_until

BIN = Path(sys.executable).parent
KEEPALIVE = "2"
RESULTS = ("fl-aggregator doctor", "fl-aggregator predict", "fl-aggregator simulate")
Process = subprocess.Popen[bytes] | ForkedProgram
FORKED = sys.platform == "linux"
"""Whether programs may be forked by `program_server`, whose sockets other systems lack. The fixture ``command_lines``
sets it to False."""


FORKED_FOR = re.compile(r"(?:program|worker|edges) (\d+)")
"""The name of a process that a server has forked for another."""


class Program:
    """A program of `program_of`, its output in files; killed when the ``with`` block ends."""

    def __init__(
        self, directory: Path, name: str, *arguments: str, environment: Mapping[str, str] | None = None
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._out, self._err = directory / "stdout.txt", directory / "stderr.txt"
        self._name = " ".join((name, *arguments[:1]))
        self.command = [*program_of(name), *arguments]
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self._process = begin(self.command, environment, out, err)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def out(self) -> str:
        return self._out.read_text(errors="replace")

    @property
    def err(self) -> str:
        return self._err.read_text(errors="replace")

    @property
    def output(self) -> str:
        """The output so far, for the text of a failing assertion."""
        return f"$ {' '.join(self.command)}\n--- stdout\n{self.out}\n--- stderr\n{self.err}"

    @property
    def result(self) -> dict[str, Any]:
        """The JSON object in the last line of standard output, which `RESULTS` print: what its schema says."""
        assert self._name in RESULTS
        found: dict[str, Any] = checked(self._name, self.out.splitlines()[-1])
        return found

    def running(self) -> bool:
        return self._process.poll() is None

    def wait(self, timeout: float = 90.0) -> int:
        """Returns the exit code; waits ``timeout`` seconds on a quiet machine (see `PATIENCE`)."""
        try:
            return self._process.wait(timeout * PATIENCE)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {timeout * PATIENCE} s\n{self.output}") from None

    def ends_well(self, timeout: float = 90.0) -> None:
        code = self.wait(timeout)
        assert code == 0, f"exit code {code}\n{self.output}"

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.running():
            self._process.kill()
        self._process.wait()


def program_of(name: str) -> list[str]:
    """The beginning of the command that runs a console script, a module of the tests, or a program by its path."""
    if Path(name).is_absolute():
        return [name]
    return [sys.executable, "-m", name] if "." in name else [str(BIN / name)]


def run(
    name: str, *arguments: str, environment: Mapping[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs a program to its end. ``name``: see `program_of`."""
    command = [*program_of(name), *arguments]
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = begin(command, environment, out, err, cwd)
        try:
            code = process.wait(120)
        finally:
            process.kill()
        written = []
        for file in (out, err):
            file.seek(0)
            written.append(file.read().decode(errors="replace"))
    return subprocess.CompletedProcess(command, code, *written)


def begin(
    command: list[str],
    environment: Mapping[str, str] | None,
    out: IO[bytes],
    err: IO[bytes],
    cwd: Path | None = None,
) -> Process:
    """Begins a command of `program_of`, with nothing to read."""
    given = os.environ if environment is None else environment
    # Then the commands that they print name programs, not files.
    given = {**given, "PATH": f"{BIN}:{given.get('PATH', os.defpath)}"}
    if FORKED and server().can_start(command, given):
        return server().start(command, given, out, err, cwd)
    return subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True, env=given, cwd=cwd
    )


def aggregator(directory: Path, broker: str, *arguments: str) -> Program:
    """``fl-aggregator start`` that writes to ``directory/run``."""
    common = ("--broker", broker, "--keepalive", KEEPALIVE, "--run-dir", str(directory / "run"))
    return Program(directory, "fl-aggregator", "start", *common, *arguments)


def resumed(directory: Path, *arguments: str) -> Program:
    """``fl-aggregator start --resume directory/run``; its output goes to ``directory/again``."""
    common = ("--resume", str(directory / "run"), "--keepalive", KEEPALIVE)
    return Program(directory / "again", "fl-aggregator", "start", *common, *arguments)


def edges(
    directory: Path, broker: str, ids: str, *arguments: str, environment: Mapping[str, str] | None = None
) -> Program:
    """``fl-edge --id IDS``, its state in ``directory/state``."""
    common = ("--broker", broker, "--keepalive", KEEPALIVE, "--state-dir", str(directory / "state"))
    return Program(directory, "fl-edge", "--id", ids, *common, *arguments, environment=environment)


def simulate(directory: Path, *arguments: str, environment: Mapping[str, str] | None = None) -> Program:
    """``fl-aggregator simulate --json`` that writes to ``directory/run``."""
    common = ("--json", "--keepalive", KEEPALIVE, "--run-dir", str(directory / "run"))
    return Program(directory, "fl-aggregator", "simulate", *common, *arguments, environment=environment)


def simulate_virtually(directory: Path, *arguments: str) -> Program:
    """``fl-aggregator simulate --virtual --json`` that writes to ``directory/run``."""
    common = ("--virtual", "--json", "--run-dir", str(directory / "run"))
    return Program(directory, "fl-aggregator", "simulate", *common, *arguments)


def history(directory: Path) -> list[dict[str, Any]]:
    """The lines of ``directory/run/history.jsonl``."""
    path = directory / "run" / "history.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def is_stopped(pid: int) -> bool:
    """Whether the process has been stopped by SIGSTOP."""
    return _state(pid) == "T"


def alive(pids: Sequence[int]) -> list[int]:
    """Which of the processes still run."""
    return [pid for pid in pids if _state(pid) not in (None, "Z")]


class Children:
    """The processes below this one, without those of fixtures that were there before."""

    def __init__(self) -> None:
        self._servers = server().pids if FORKED else []
        self._before = descendants(os.getpid())

    def started(self) -> list[int]:
        """Those that have come since and still run, without those that wait for the end of a program."""
        new = [pid for pid in descendants(os.getpid()) if pid not in self._before]
        return alive([pid for pid in new if _parent(pid) not in self._servers])


def descendants(pid: int) -> list[int]:
    """All processes below ``pid``."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (parent := _parent(int(entry.name))) is not None:
            children.setdefault(parent, []).append(int(entry.name))
    found: list[int] = []
    waiting = [pid]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def _stat(pid: int) -> tuple[str, list[str]] | None:
    """The name of a process, and the fields that follow it."""
    try:
        before, _, fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")
    except OSError:
        return None
    return before.partition("(")[2], fields.split()


def _state(pid: int) -> str | None:
    found = _stat(pid)
    return None if found is None else found[1][0]


def _parent(pid: int) -> int | None:
    """The process that has started it; its name says which, if a server has forked it (`forked_children`)."""
    if (found := _stat(pid)) is None:
        return None
    name, (_, parent, *_) = found
    forked = FORKED_FOR.fullmatch(name)
    if forked is not None and ((above := _stat(int(parent))) is None or above[0] != name):
        return int(forked[1])
    return int(parent)  # what a forked process forks has its name


def loads(pid: int, library: str) -> bool:
    """Whether a process has mapped a file whose path has ``library`` in it."""
    return library in Path(f"/proc/{pid}/maps").read_text()


def kill_all(pids: Sequence[int]) -> None:
    for pid in pids:
        if alive([pid]):
            os.kill(pid, signal.SIGKILL)


def workers(edge: Program) -> list[int]:
    """The processes that train for an edge or a fleet."""
    return descendants(edge.pid)


def workers_of_simulation(run: Program) -> list[int]:
    """The processes that train for the fleet of ``fl-aggregator simulate``."""
    return [pid for pid in descendants(run.pid) if "worker" in command_line(pid)]


def command_line(pid: int) -> str:
    """The name and the command line of a process; empty if it has ended."""
    try:
        arguments = Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""
    found = _stat(pid)
    return arguments if found is None else f"{found[0]}: {arguments}"


def freeze(*pids: int) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)


def thaw(*pids: int) -> None:
    for pid in pids:
        if alive([pid]):
            os.kill(pid, signal.SIGCONT)


def kill(edge: Program) -> None:
    """Kills the program with SIGKILL and waits for its end.

    Workers that were frozen continue, and notice that their parent is gone.
    """
    below = workers(edge)
    edge.send(signal.SIGKILL)
    edge.wait(10)
    thaw(*below)
    wait_until(lambda: not alive(below), 10, "the workers of a killed edge end")
