"""A run is prepared from what its directory says while its lock is held."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fl_aggregator.configuration.settings import Settings
from fl_aggregator.server import launch
from fl_aggregator.storage import run_directory
from fl_aggregator.storage.run_directory import RunDirectory


def test_the_record_is_read_inside_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process resumes the run and ends it between our first look and our lock."""
    path = tmp_path / "run"
    begun = launch.new(Settings(task="digits", clients=2, per_round=2), path)
    begun.directory.write_run(begun.record)
    begun.directory.close()

    class Late(RunDirectory):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            other = RunDirectory(path, resume=True)
            other.write_run(run_directory.read_run(path).model_copy(update={"incarnation": 5}))
            other.close()
            super().__init__(*arguments, **options)

    monkeypatch.setattr(launch, "RunDirectory", Late)
    resumed = launch.resume(path, simulated=False)
    resumed.directory.close()
    assert resumed.record.incarnation == 6
