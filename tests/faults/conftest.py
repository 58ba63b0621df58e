"""What tests of faults compare with."""

from __future__ import annotations

import pytest

from fl_aggregator.storage.checkpoint import sha256
from tests.support import programs
from tests.support.broker import Mosquitto
from tests.support.synthetic_run import TASK, settings


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, shared_mosquitto: Mosquitto) -> dict[int, str]:
    """The SHA-256 of the last versions' files (3 to 5) in a run of `settings` in which nothing happens."""
    directory = tmp_path_factory.mktemp("undisturbed")
    with (
        programs.edges(directory / "edges", shared_mosquitto.url, "0-2", "--task", TASK),
        programs.aggregator(directory, shared_mosquitto.url, *settings(5)) as run,
    ):
        run.ends_well()
    return {
        int(file.stem.removeprefix("version-")): sha256(file)
        for file in (directory / "run" / "checkpoints").glob("version-*.safetensors")
    }
