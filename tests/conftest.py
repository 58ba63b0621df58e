"""Brokers for all tests. Without a mosquitto program they fail, and say how to install it: nothing is skipped."""

from __future__ import annotations

import gc
import logging
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import settings
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

from fl_shared.mqtt.network import Network
from tests.support import programs
from tests.support.broker import Mosquitto
from tests.support.forked_children import popen
from tests.support.program_server import ENVIRONMENT, of_an_interpreter, server, share

# How long an example takes is no property of the code: the machine may be busy. Every day has other examples.
settings.register_profile("fl-mqtt", deadline=None, max_examples=40)
settings.load_profile("fl-mqtt")

# A training process costs as much CPU time to start as most tests train for, and five tests share the cores.
os.environ.setdefault("FL_WORKERS", "1")


def pytest_configure(config: pytest.Config) -> None:
    """Lets Ctrl-C reach the programs that tests start, even if a shell has started pytest in the background.

    The processes of pytest-xdist share the servers that fork programs: to start these costs ten CPU seconds.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if programs.FORKED and config.getoption("numprocesses", None) and not hasattr(config, "workerinput"):
        directory = tempfile.TemporaryDirectory(prefix="fl-servers-")
        config.add_cleanup(directory.cleanup)
        for connection in share(Path(directory.name)):
            config.add_cleanup(connection.close)


class OneBrowser(LoadFileScheduling):  # type: ignore[misc]
    """Gives each process whole files, and all that need the browser to one, since a browser takes seconds to start."""

    def _split_scope(self, nodeid: str) -> str:
        file: str = super()._split_scope(nodeid)
        return "tests/dashboard" if file.startswith("tests/dashboard/") else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> OneBrowser | None:
    return OneBrowser(config, log) if config.getvalue("dist") == "loadfile" else None


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Keeps the tests and their modules out of garbage collections: they live to the end."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_finish() -> None:
    """No module may change what decides how Python starts: then no program could be forked."""
    now, first = of_an_interpreter(os.environ), of_an_interpreter(ENVIRONMENT)
    assert now == first, (
        f"a module that is imported changes the environment: {dict(now.items() ^ first.items())}"
    )


@pytest.fixture(autouse=True)
def subnormal_numbers() -> Iterator[None]:
    """Training flushes them to zero, for its whole process (`local_training`); the aggregator does not."""
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_flush_denormal(False)


@pytest.fixture(autouse=True)
def log() -> Iterator[None]:
    """A command that a test calls in its own process configures the log of that process, on a stream of its own."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    """A broker for this test alone, which may kill it."""
    directory = tmp_path / "broker"
    directory.mkdir()
    broker = Mosquitto(directory)
    yield broker
    broker.stop()


@pytest.fixture(scope="session")
def shared_mosquitto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    """A broker for the whole session: each test uses a prefix of its own, and leaves it running."""
    broker = Mosquitto(tmp_path_factory.mktemp("broker"))
    yield broker
    broker.stop()


@pytest.fixture
def light_edges(monkeypatch: pytest.MonkeyPatch) -> None:
    """Edges of dense models train without torch, whose import takes longer than such a test needs besides."""
    monkeypatch.setenv("FL_LIGHT", "1")


@pytest.fixture
def forked_children(monkeypatch: pytest.MonkeyPatch) -> None:
    """The edges and training processes of this process are forked as well, as those of programs are."""
    fork_children(monkeypatch)


@pytest.fixture(scope="module")
def forked_children_of_module() -> Iterator[None]:
    """The same for all tests of a file."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        fork_children(monkeypatch)
        yield


def fork_children(monkeypatch: pytest.MonkeyPatch) -> None:
    if programs.FORKED:
        monkeypatch.setattr(subprocess, "Popen", popen(server().sockets))


@pytest.fixture
def command_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs and their children are not forked (`program_server`), so that they have command lines of their own."""
    monkeypatch.setattr(programs, "FORKED", False)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """For what is begun in the middle of a test, and ends with it."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def network() -> Iterator[Network]:
    """Its connections are closed at the end, and what a handler raised is raised."""
    network = Network()
    yield network
    network.close(timeout=2.0)
    network.check()
