"""``fl-aggregator serve``. Heavy imports wait until it runs."""

from __future__ import annotations

import math
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from fl_aggregator.cli.options import program_options
from fl_aggregator.cli.run import exit_code, run_aggregator
from fl_aggregator.monitoring.tracking.options import TrackingOptions
from fl_shared.cli import options as shared
from fl_shared.cli.headings import EVALUATION, OUTPUT, ROUNDS, SECURITY, option_under
from fl_shared.cli.logging import start_logging
from fl_shared.errors import RunFailed, UserError

if TYPE_CHECKING:
    from fl_aggregator.monitoring.tracking.trackers import Trackers
    from fl_aggregator.round import effects as do
    from fl_aggregator.round.state import Run
    from fl_aggregator.server.aggregator import Aggregator
    from fl_aggregator.server.operation import Operation
    from fl_aggregator.server.outcome import Outcome
    from fl_aggregator.server.runner import Observer
    from fl_aggregator.storage.served_history import LookedAt, Served
    from fl_shared.cli.broker_access import BrokerAccess, BrokerOptions

POLL: Final = 1.0
"""Seconds after which a rollback by another process is noticed."""
PREVIOUS: Final = "previous"
UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def seconds_of(text: str) -> float:
    """Returns the seconds that ``1d``, ``12h``, ``30m`` or ``90s`` mean. Raises ``UserError``."""
    number, unit = text[:-1], UNITS.get(text[-1:])
    try:
        seconds = math.nan if unit is None else float(number) * unit
    except ValueError:
        seconds = math.nan
    if not 1 <= seconds <= 1e8:
        raise UserError(
            f"--every {text!r}: expected a number and s, m, h or d, for example 12h or 1d; at least 1s"
        )
    return seconds


def version_of(text: str) -> int | None:
    """Returns the version that ``--rollback`` names; null for the previous one. Raises ``UserError``."""
    if text == PREVIOUS:
        return None
    if not (text.isascii() and text.isdecimal() and int(text) > 0):
        raise UserError(f"--rollback {text!r}: expected the number of a version, as --history lists them")
    return int(text)


@shared.command()
@click.argument("directory", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
@option_under(
    EVALUATION, "--retrain-below", metavar="METRIC=VALUE",
    help="Value that the served model must reach on the edges' holdouts: accuracy=0.9, or loss=0.5, which it must not "
    "exceed. If one look finds a worse value, the edges train a candidate to replace it.",
)  # fmt: skip
@option_under(
    EVALUATION, "--every", metavar="TIME", default="1d", show_default=True,
    help="Time from one look at the served model to the next: 90s, 30m, 12h, 1d.",
)  # fmt: skip
@option_under(EVALUATION, "--looks", type=click.IntRange(min=1), default=None, show_default="without end",
              help="End after this many looks.")  # fmt: skip
@option_under(ROUNDS, "--rounds", type=click.IntRange(1, 2**31), default=None, show_default="those of the run",
              help="Maximum rounds of a retraining; it ends as soon as a version is good enough.")  # fmt: skip
@option_under(ROUNDS, "--wait", type=shared.FiniteRange(0.001, 1e6), default=None, show_default="that of the run",
              help="Seconds that a look waits for enough edges. If too few connect, the model stays.")  # fmt: skip
@option_under(OUTPUT, "--history", is_flag=True, help="Show what has been served, and what looks have found.")
@option_under(
    OUTPUT, "--rollback", metavar="[VERSION]", is_flag=False, flag_value=PREVIOUS, default=None,
    help="Serve an earlier version again (default: the one before). A process that serves DIR follows at once.",
)  # fmt: skip
@option_under(SECURITY, "--require-sealed", is_flag=True, help="Reject unsealed messages from edges.")
@program_options
def serve(
    directory: Path,
    retrain_below: str | None,
    every: str,
    looks: int | None,
    rounds: int | None,
    wait: float | None,
    history: bool,
    rollback: str | None,
    require_sealed: bool,
    quiet: bool,
    broker: BrokerOptions,
    mqtt_client_id: str | None,
    verbose: int,
    log_format: str,
) -> int:
    """Serve the model of the finished run in DIR: look at it at regular intervals, and retrain it when it gets worse.

    The edges measure it on their newest data. A candidate takes its place only if it is better on the same holdouts.
    """
    from fl_aggregator.configuration.values import parse_target
    from fl_aggregator.server.operation import Operation, finished_run
    from fl_shared.mqtt.address import BrokerAddress

    if history or rollback is not None:
        _show_or_roll_back(directory, rollback, history=history)
        return 0
    if retrain_below is None:
        raise UserError("--retrain-below: missing, expected METRIC=VALUE, for example accuracy=0.9")
    try:
        parse_target(retrain_below)
    except ValueError as error:
        raise UserError(f"--retrain-below {retrain_below!r}: {error}") from None
    seconds = seconds_of(every)
    start_logging(verbose, log_format, quiet=quiet)
    record = finished_run(directory)
    recorded = BrokerAddress.parse(record.broker) if record.fleet is None else None
    access = broker.access(roles=("aggregator",), mqtt_client_id=mqtt_client_id, recorded_address=recorded)
    prefix = record.prefix if broker.prefix is None and broker.kit is None else access.prefix
    operation = Operation(
        directory, retrain_below, seconds, rounds, wait, prefix, require_sealed=require_sealed
    )
    try:
        with closing(operation):
            operation.begin()
            while looks is None or looks > 0:
                outcome, is_superseded = _look(
                    operation, access, log_format, broker.resume_arguments(), quiet=quiet
                )
                if is_superseded:
                    continue
                code = exit_code(outcome)
                if code == UserError.exit_code or outcome.state.phase.name == "interrupted":
                    return code
                click.echo(operation.decide(outcome.state))
                looks = None if looks is None else looks - 1
    except OSError as error:
        raise RunFailed(
            f"{error.filename or directory}: {error.strerror or error}; when this is fixed, serve it again"
        ) from None
    return 0


def _look(
    operation: Operation, access: BrokerAccess, log_format: str, resume_arguments: list[str], *, quiet: bool
) -> tuple[Outcome, bool]:
    """Looks once; returns how that ended, and whether it was stopped since another version is to be served."""
    from fl_aggregator.messaging.unsealing import Unsealer
    from fl_aggregator.server.aggregator import Aggregator

    launch, is_superseded = operation.launch()
    unsealer = Unsealer.of(access.kit, launch.record.settings)
    stopped = False

    def make(observer: Observer, trackers: Trackers) -> Aggregator:
        def observe(state: Run, effects: tuple[do.Effect, ...], at: float) -> float:
            nonlocal stopped
            due = observer(state, effects, at)
            if not stopped and not state.ended and is_superseded():
                stopped = True
                aggregator.request_stop("another version is to be served")
            return at + POLL if due is None else min(at + POLL, due)

        aggregator = Aggregator(launch, access, unsealer=unsealer, observer=observe, trackers=trackers)
        return aggregator

    tracking = TrackingOptions(tensorboard=False)
    with (
        closing(launch),
        run_aggregator(launch, make, tracking, log_format, quiet, resume_arguments) as (aggregator, _),
    ):
        outcome = aggregator.run()
    return outcome, stopped and outcome.state.phase.name == "interrupted"


def _show_or_roll_back(directory: Path, rollback: str | None, *, history: bool) -> None:
    from fl_aggregator.server.operation import finished_run
    from fl_aggregator.storage.served_history import ServedHistory

    version = None if rollback is None else version_of(rollback)
    finished_run(directory)
    kept = ServedHistory(directory)
    if rollback is not None:
        try:
            line = kept.roll_back(version)
        except OSError as error:
            raise UserError(f"{kept.path}: {error.strerror or error}") from None
        click.echo(f"version {line.version} is served from now on ({line.detail})")
    if history:
        for entry in kept.lines():
            click.echo(_text_of(entry))


def _text_of(entry: Served | LookedAt) -> str:
    at = f"{entry.at:%Y-%m-%d %H:%M:%S}"
    if entry.event == "look":
        return f"{at}  look at version {entry.version}: {entry.detail}"
    return f"{at}  version {entry.version} is served ({entry.why}): {entry.detail}"
