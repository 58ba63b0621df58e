"""What a command starts: a new run in a new directory, or one that is taken up again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fl_aggregator.aggregation.strategies.registry import Strategy, load
from fl_aggregator.server.resume import RecoveredRun, recover
from fl_aggregator.settings import Settings
from fl_aggregator.storage import run_directory
from fl_aggregator.storage.checkpoint import Model, read_safetensors
from fl_aggregator.storage.run_directory import FirstWeights, FleetRecord, RunDirectory, RunRecord
from fl_shared.errors import UserError


@dataclass(frozen=True, slots=True)
class Launch:
    """A run that is about to go on; owns its directory until it is closed."""

    record: RunRecord
    directory: RunDirectory
    strategy: Strategy
    first_weights: Model | None = None
    recovered: RecoveredRun | None = None

    def close(self) -> None:
        self.directory.close()


def new(
    settings: Settings,
    run_dir: Path | None = None,
    init: Path | None = None,
    fleet: FleetRecord | None = None,
) -> Launch:
    """A new run. Raises ``UserError`` if its strategy, directory or first weights cannot be used."""
    strategy = load(settings.strategy)
    weights = None if init is None else read_safetensors(init)
    first = None if weights is None else FirstWeights(digest=weights.digest, manifest=weights.manifest.digest)
    path = run_dir if run_dir is not None else run_directory.new_run_path(settings.task)
    directory = RunDirectory(path, settings.durability)
    record = run_directory.new_record(settings, first, fleet)
    return Launch(record, directory, strategy, first_weights=weights)


def resume(path: Path, *, simulated: bool, require_sealed: bool = False) -> Launch:
    """The run in ``path``, where it was. Raises ``UserError`` if none lies there that can go on.

    ``require_sealed``: from now on, if it was not so before.
    """
    record = run_directory.read_run(path)
    if simulated != (record.fleet is not None):
        begun = "start" if simulated else "simulate"
        raise UserError(
            f"--resume {path}: was started by fl-aggregator {begun}; resume it with: "
            f"fl-aggregator {begun} --resume {path}"
        )
    if require_sealed:
        settings = record.settings.model_copy(update={"require_sealed": True})
        record = record.model_copy(update={"settings": settings})
    strategy = load(record.settings.strategy)
    directory = RunDirectory(path, record.settings.durability, resume=True)
    try:
        found = recover(directory, record)
    except BaseException:
        directory.close()
        raise
    return Launch(
        record.model_copy(update={"incarnation": record.incarnation + 1}),
        directory,
        strategy,
        recovered=found,
    )
