"""What tests of faults compare with."""

from __future__ import annotations

from pathlib import Path

import pytest

from fl_aggregator.storage.checkpoint import model_sha256
from tests.support import programs
from tests.support.synthetic_run import settings


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[int, str]:
    """The SHA-256 of the last versions' files (3 to 5) in a run of `settings` in which nothing happens.

    It is one in virtual time, which has the bits of one over a broker.
    """
    directory = tmp_path_factory.mktemp("undisturbed")
    with programs.simulate_virtually(directory, *settings(5)) as run:
        run.ends_well()
    return {
        int(file.stem.removeprefix("version-")): model_sha256(file)
        for file in (directory / "run" / "checkpoints").glob("version-*.safetensors")
    }


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A working directory with files that are broken."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "run.json").write_text('{"run": "0123456789ab", "settings": 3}')
    (tmp_path / "number.toml").write_text('rounds = "many"\n')
    (tmp_path / "list.toml").write_text("rounds = [1, 2]\n")
    (tmp_path / "name.toml").write_text("roundz = 3\n")
    return tmp_path
