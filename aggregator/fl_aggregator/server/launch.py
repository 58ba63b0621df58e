"""Prepares what a command starts: a new run in a new directory, or one that is resumed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fl_aggregator.aggregation.regional_sum import strategy_of
from fl_aggregator.aggregation.strategies.parts import Strategy
from fl_aggregator.aggregation.strategies.registry import changes_of, describe, load, planned, resolved
from fl_aggregator.configuration.privacy import check_manifest
from fl_aggregator.configuration.settings import Settings
from fl_aggregator.monitoring.views.beginning import log_fresh_state
from fl_aggregator.round.snapshot import Snapshot
from fl_aggregator.server.above import Above
from fl_aggregator.server.resume import RecoveredRun, recover
from fl_aggregator.storage import run_directory
from fl_aggregator.storage.checkpoint import Model
from fl_aggregator.storage.disk_space import DiskFull
from fl_aggregator.storage.initial_weights import PlainWeights, read_again, read_initial_weights
from fl_aggregator.storage.privacy_ledger import PrivacyLedger
from fl_aggregator.storage.replay import first_snapshot
from fl_aggregator.storage.run_directory import (
    RUN_FILE,
    FirstWeights,
    FleetRecord,
    PlainWeightsRecord,
    RunDirectory,
    RunRecord,
)
from fl_shared.errors import RunFailed, UserError
from fl_shared.system.invocation import aggregator_command


@dataclass(frozen=True, slots=True)
class Launch:
    """A run that is ready to begin or to continue; it owns its directory until it is closed."""

    record: RunRecord
    directory: RunDirectory
    strategy: Strategy
    first_weights: Model | None = None
    plain_weights: PlainWeights | None = None
    recovered: RecoveredRun | None = None
    above: Above | None = None
    """Of a region: the run above."""
    ledger: PrivacyLedger | None = None
    """Of a private run whose budget counts earlier ones."""

    @property
    def snapshot(self) -> Snapshot:
        """The run where it begins or continues."""
        return first_snapshot(self.record) if self.recovered is None else self.recovered.snapshot

    def close(self) -> None:
        """Gives up the run directory and the ledger; the files are deleted if no run has begun in the directory."""
        self.directory.close()
        if self.ledger is not None:
            self.ledger.close()

    def failed(self, error: OSError) -> RunFailed:
        """Returns how the run fails if one of its files cannot be read or written."""
        if isinstance(error, DiskFull):
            return RunFailed(str(error))
        path = self.directory.path
        has_begun = (path / RUN_FILE).exists()
        advice = f"continue with --resume {path}" if has_begun else "start again: no run has begun"
        return RunFailed(f"{error.filename or path}: {error.strerror or error}; when this is fixed, {advice}")


def new(
    settings: Settings,
    run_dir: Path | None = None,
    init: Path | None = None,
    fleet: FleetRecord | None = None,
) -> Launch:
    """Prepares a new run. Raises ``UserError`` if its strategy, directory or initial weights are unusable."""
    strategy = _strategy(settings)
    settings = settings if settings.region is not None else resolved(settings)
    weights = None if init is None else read_initial_weights(init, settings.task, settings.local_patterns)
    if weights is not None:
        log_fresh_state(strategy.state)
    first = plain = None
    if isinstance(weights, PlainWeights):
        plain, weights = weights, None
    elif weights is not None:
        weights = weights.published_in(settings.model_encoding)
        first = FirstWeights(digest=weights.digest, manifest=weights.manifest.digest)
    if weights is not None:
        check_manifest(settings, weights.manifest)
    path = run_dir if run_dir is not None else run_directory.new_run_path(settings.task)
    directory = RunDirectory(path, settings.durability, checkpoints=_checkpoints(settings))
    if settings.dp is not None:
        directory.make_private()
    ledger = None
    if settings.dp_ledger is not None:
        try:
            ledger, settings = _with_ledger(settings, directory.path)
        except UserError:
            directory.close()
            raise
    record = run_directory.new_record(settings, first, fleet)
    record.strategy_parts = describe(strategy)
    if plain is not None:
        record.plain_weights = PlainWeightsRecord(path=plain.path, sha256=plain.sha256)
    return Launch(record, directory, strategy, first_weights=weights, plain_weights=plain, ledger=ledger)


def resume(path: Path, *, simulated: bool, require_sealed: bool = False) -> Launch:
    """Prepares to resume the run in ``path``. Raises ``UserError`` if it cannot be resumed there.

    ``simulated``: whether ``simulate`` resumes it. ``require_sealed`` rejects unsealed messages from now on,
    even if the run did not do so before.
    """
    settings = _read_record(path, simulated).settings
    directory = RunDirectory(path, settings.durability, resume=True, checkpoints=_checkpoints(settings))
    try:
        # Read again inside the lock: another process may have resumed and ended the run in the meantime.
        record = _read_record(path, simulated)
        if require_sealed:
            settings = record.settings.model_copy(update={"require_sealed": True})
            record = record.model_copy(update={"settings": settings})
        strategy = _strategy(record.settings)
        if record.strategy_parts and (changes := changes_of(record.strategy_parts, strategy)):
            raise UserError(
                f"--resume {path}: the parts of its strategy have changed since it began: {'; '.join(changes)}: "
                "resume it with the versions of the packages with which it began"
            )
        recovered = recover(directory, record)
        plain = record.plain_weights if recovered.state.model is None else None
        weights = (
            None
            if plain is None
            else read_again(plain.path, settings.task, plain.sha256, settings.local_patterns)
        )
        ledger = _ledger_again(record, recovered)
    except BaseException:
        directory.close()
        raise
    return Launch(
        record.model_copy(update={"incarnation": record.incarnation + 1}),
        directory,
        strategy,
        plain_weights=weights,
        recovered=recovered,
        ledger=ledger,
    )


def _with_ledger(settings: Settings, directory: Path) -> tuple[PrivacyLedger, Settings]:
    """Returns the ledger of a new run, and its settings with what earlier runs have spent. Raises ``UserError``."""
    assert settings.dp_ledger is not None
    assert settings.privacy is not None
    path = Path(settings.dp_ledger).absolute()
    if not path.name:
        raise UserError(f"--dp-ledger {path}: is a directory, expected a file")
    if path.is_relative_to(directory.absolute()):
        raise UserError(
            f"--dp-ledger {path}: is in the run's directory, expected a file that outlives the run"
        )
    ledger = PrivacyLedger(path)
    settings = settings.model_copy(update={"dp_ledger": str(path)})
    if not (earlier := ledger.spent_before("")):
        return ledger, settings
    try:
        return ledger, planned(settings, earlier)
    except UserError:
        ledger.close()
        raise


def _ledger_again(record: RunRecord, recovered: RecoveredRun) -> PrivacyLedger | None:
    """Returns the ledger of a run that is resumed; null if it has none. Raises ``UserError``."""
    settings = record.settings
    if settings.dp_ledger is None:
        return None
    assert settings.privacy is not None
    ledger = PrivacyLedger(Path(settings.dp_ledger))
    try:
        ledger.check(record.run, settings.privacy, recovered.state.version)
    except UserError:
        ledger.close()
        raise
    return ledger


def _strategy(settings: Settings) -> Strategy:
    return load(settings) if settings.region is None else strategy_of(settings)


def _checkpoints(settings: Settings) -> int:
    """How many versions are kept: those in the mean of the newest, and of the one before it, if that is repeated."""
    return settings.versions_served + 2


def _read_record(path: Path, simulated: bool) -> RunRecord:
    record = run_directory.read_run(path)
    if record.settings.look is not None:
        raise UserError(
            f"--resume {path}: is a look at a served model, which cannot be resumed; start serve again: "
            f"{aggregator_command('serve', path.parent)}"
        )
    if simulated != (record.fleet is not None):
        command = "start" if simulated else "simulate"
        raise UserError(
            f"--resume {path}: was started by fl-aggregator {command}; resume it with: "
            f"{aggregator_command(command, '--resume', path)}"
        )
    return record
