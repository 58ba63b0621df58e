"""Runs edges on behalf of a Python program, in a process of their own: `Edge`."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from fl_edge.cli import command as fl_edge
from fl_mqtt.library.arguments import check_names, in_python
from fl_mqtt.library.task import passed_task
from fl_mqtt.simulation.local import STOP_TIMEOUT, edge_environment, mistake_in
from fl_shared.errors import INTERRUPTED, RunFailed, UserError
from fl_shared.system.child_process import ChildProcess

if TYPE_CHECKING:
    from fl_edge.tasks.task import Task


class Edge:
    """One edge or more, as ``fl-edge`` runs them, from `start` to `stop` or in a ``with`` block.

    ``id``: one id, or several (``"0-19"``). ``task``: the only task to train, by its name or class; None: the one that
    the aggregator announces. ``password``: of the broker. ``options``: every other option of ``fl-edge``
    (``role=("train", "predict"), device="cpu"``). The edges end with this process at the latest.
    """

    def __init__(
        self,
        id: str | int | None = None,  # noqa: A002  as the option is called
        *,
        broker: str | None = None,
        task: str | type[Task] | None = None,
        data: str | Path | None = None,
        password: str | None = None,
        **options: Any,
    ) -> None:
        check_names(options, [one.opts[-1].removeprefix("--").replace("-", "_") for one in fl_edge.params])
        self._task = None if task is None else passed_task(task)
        self._password = password
        self._options = {
            "id": id,
            "broker": broker,
            "data": data,
            "task": self._task and self._task.name,
            **options,
        }
        self._process: ChildProcess | None = None
        self._files = ExitStack()

    def start(self) -> Self:
        """Starts the process, which connects to the broker and trains when it is selected."""
        if self._process is not None:
            raise RuntimeError("this edge has been started before")
        directory = Path(self._files.enter_context(tempfile.TemporaryDirectory(prefix="fl-mqtt-")))
        self._process = ChildProcess(
            [sys.executable, "-m", "fl_edge", *arguments_of(self._options)],
            directory / "edge.log",
            edge_environment(self._password, [] if self._task is None else self._task.write(directory)),
        )
        return self

    @property
    def log(self) -> str:
        """What the process has written so far; empty before `start` and after `stop`."""
        return "" if self._process is None else self._process.log_tail(10_000)

    def wait(self, timeout: float = float("inf")) -> None:
        """Waits until the edges end. By themselves they stay after a run, and answer predictions.

        Raises ``TimeoutError`` after ``timeout`` seconds; ``UserError`` or ``RunFailed`` if they end for such a reason.
        """
        if self._process is None:
            raise RuntimeError("this edge has not been started")
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"{self._name} still runs after {timeout:g} s") from None
        self._check()

    def stop(self) -> None:
        """Ends the edges in order. Raises ``UserError`` or ``RunFailed`` if they ended before, for such a reason."""
        if self._process is None:
            return
        try:
            self._check()
        finally:
            self._process.stop(STOP_TIMEOUT)
            self._files.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            self.stop()
        except (UserError, RunFailed) as own:
            if error is None:
                raise
            error.add_note(str(own))  # it may well be the reason

    @property
    def _name(self) -> str:
        return "the edge" if self._options["id"] is None else f"edge {self._options['id']}"

    def _check(self) -> None:
        assert self._process is not None
        code = self._process.poll()
        if code in (None, 0, INTERRUPTED):
            return
        said = in_python(mistake_in(self._process.log_tail(1)))
        if code == UserError.exit_code:
            raise UserError(f"{self._name}: {said}")
        raise RunFailed(f"{self._name} exited (status {code}): {said}")


def arguments_of(options: Mapping[str, Any]) -> list[str]:
    """Keyword arguments as those of a program: a flag for True, and several values with commas between them."""
    arguments: list[str] = []
    for name, value in options.items():
        option = f"--{name.replace('_', '-')}"
        if value is True:
            arguments.append(option)
        elif value is not None and value is not False:
            several = isinstance(value, Sequence) and not isinstance(value, str)
            arguments += [option, ",".join(map(str, value)) if several else str(value)]
    return arguments
