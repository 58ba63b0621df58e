"""Tasks of another distribution whose own code has mistakes, and the entry points that make an edge find them."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from fl_edge.tasks.digits import DigitsTask
from fl_edge.tasks.task import Scores, TrainReport

if TYPE_CHECKING:
    import pytest

ROOT = Path(__file__).parents[2]


class Loud(DigitsTask):
    """Writes to stdout in all ways, and reads stdin."""

    name = "loud"

    def model(self, seed: int) -> Any:
        print("hello")  # noqa: T201
        os.write(1, b"x" * 1000)
        os.system("echo I am a child")
        assert os.read(0, 1) == b""
        return super().model(seed)


class Deadly(DigitsTask):
    """Ends the process as soon as it is looked at."""

    name = "deadly"

    def model(self, *_: Any) -> Any:
        os._exit(3)


class Waiting(DigitsTask):
    """Answers a request, which names a pipe, when somebody has opened the pipe for writing and closed it."""

    name = "waiting"

    def predict(self, _model: Any, payload: bytes) -> Any:
        Path(os.fsdecode(payload)).read_bytes()
        return {"value": 1.0}


class Unprintable(Exception):
    """An error that cannot be made a text."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


class Mistaken(DigitsTask):
    """Does in training and in prediction what a name says; the base learns nothing."""

    mistake: ClassVar[str]

    def train(self, *_: Any) -> Any:
        return self._mistake() or TrainReport(1, 0.5)

    def predict(self, *_: Any) -> Any:
        return self._mistake() or {"value": 1.0}

    def evaluate(self, _model: Any, examples: Any) -> Any:
        return Scores(len(examples), 0.5, {"accuracy": -0.3 if self.mistake == "negative" else 0.5})

    def _mistake(self) -> Any:
        match self.mistake:
            case "exits":
                sys.exit(3)
            case "interrupts":
                raise KeyboardInterrupt
            case "unprintable":
                raise Unprintable
            case "surrogates":
                raise ValueError("a\udcff\nb")
            case "forks":
                os.fork()  # both return
            case "forks-and-hangs":
                os.fork()
                time.sleep(3600)
            case "crashes":
                os.kill(os.getpid(), signal.SIGSEGV)
                time.sleep(3600)  # another thread may receive the signal, and this one would go on until then
            case "hangs":
                time.sleep(3600)
            case "negative":
                return TrainReport(-1, 0.5)
        return None


def __getattr__(name: str) -> Any:
    mistake = name.replace("_", "-")
    return type(name, (Mistaken,), {"name": mistake, "mistake": mistake})


MISTAKES = (
    "exits", "interrupts", "unprintable", "surrogates", "forks", "forks-and-hangs", "crashes", "hangs", "negative",
)  # fmt: skip


def install(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes tasks known to all processes that this one starts: ``loud``, ``deadly``, ``waiting``, the `MISTAKES`."""
    tasks = {"loud": "Loud", "deadly": "Deadly", "waiting": "Waiting"}
    tasks |= {name: name.replace("-", "_") for name in MISTAKES}
    install_tasks(
        directory, monkeypatch, {name: f"{__name__}:{attribute}" for name, attribute in tasks.items()}
    )


def install_tasks(directory: Path, monkeypatch: pytest.MonkeyPatch, tasks: dict[str, str]) -> None:
    """Makes tasks, each with its ``module:attribute``, known to all processes that this one starts."""
    info = directory / "tasks_of_tests-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tasks-of-tests\nVersion: 1\n")
    lines = [f"{name} = {place}" for name, place in tasks.items()]
    (info / "entry_points.txt").write_text("\n".join(["[fl_mqtt.tasks]", *lines, ""]))
    path = os.pathsep.join(filter(None, [str(directory), str(ROOT), os.environ.get("PYTHONPATH")]))
    monkeypatch.setenv("PYTHONPATH", path)
