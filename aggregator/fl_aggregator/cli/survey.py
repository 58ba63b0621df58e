"""``fl-aggregator survey``. Heavy imports wait until it runs."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from fl_aggregator.cli.options import program_options, settings_options
from fl_aggregator.cli.run import exit_code, run_aggregator
from fl_aggregator.monitoring.tracking.options import TrackingOptions
from fl_shared.cli import options as shared
from fl_shared.cli.headings import DATA, OUTPUT, PRIVACY, GroupedOption, option_under
from fl_shared.cli.logging import start_logging
from fl_shared.errors import UserError

if TYPE_CHECKING:
    from fl_aggregator.tools.survey.noisy import NoisyResult
    from fl_aggregator.tools.survey.result import Result
    from fl_shared.cli.broker_access import BrokerOptions

WAIT: Final = 60.0
"""Seconds to wait for all edges by default: an edge may not take part."""


def _settings_options() -> list[click.Parameter]:
    from fl_aggregator.configuration.settings import options_of_run
    from fl_aggregator.configuration.survey import OWN

    return [
        GroupedOption(
            ["--range", "ranges"],
            heading=DATA,
            multiple=True,
            callback=shared.key_values,
            metavar=shared.KEY_VALUE,
            help="Public range of a column: age=0:120. Values outside count as its ends, and quantiles are within "
            "1/512 of the range; may be given several times.",
        ),
        *settings_options(without=set(options_of_run()) - OWN, wait=WAIT),
    ]


def ranges_of(texts: dict[str, str]) -> dict[str, tuple[float, float]]:
    """Returns the ranges that the texts ``LOW:HIGH`` mean, by column. Raises ``UserError``."""
    from fl_shared.survey.terms import bounds_of

    found = {}
    for column, text in texts.items():
        if (bounds := bounds_of(text)) is None:
            raise UserError(f"--range {column}={text}: expected LOW:HIGH, two numbers, for example age=0:120")
        found[column] = bounds
    return found


@shared.command(more=_settings_options)
@click.argument(
    "directory", metavar="[DIR]", required=False, type=click.Path(file_okay=False, path_type=Path)
)
@option_under(
    PRIVACY,
    "--least",
    type=click.IntRange(2, 10**6),
    show_default="5",
    metavar="EDGES",
    help="Minimum number of edges in a sum. An edge may require more (fl-edge --survey-least).",
)
@option_under(
    PRIVACY,
    "--cells",
    type=click.IntRange(1, 10**6),
    show_default="5",
    metavar="EXAMPLES",
    help="Hide figures about fewer examples than this; 1: show all.",
)
@option_under(OUTPUT, "--json", "as_json", is_flag=True, help="Print the survey as one JSON object.")
@option_under(
    OUTPUT, "--run-dir", type=click.Path(path_type=Path), default=None, show_default="runs/<task>-<time>",
    help="New directory for the survey's files.",
)  # fmt: skip
@program_options
def survey(
    directory: Path | None,
    least: int | None,
    cells: int | None,
    as_json: bool,
    ranges: dict[str, str],
    run_dir: Path | None,
    broker: BrokerOptions,
    mqtt_client_id: str | None,
    verbose: int,
    log_format: str,
    quiet: bool,
    **values: Any,
) -> int:
    """Summarize the data that the edges have, before anything is trained: labels, means, quantiles, missing values.

    Only sums over the edges are shown, with --dp only with noise. With DIR, an earlier survey is shown again.
    """
    from fl_aggregator.tools.survey.reading import NO_CELLS, read_survey

    if directory is not None:
        _show(read_survey(directory, cells), as_json=as_json)
        return 0
    from fl_aggregator.configuration.privacy import check_account
    from fl_aggregator.configuration.survey import LEAST, Survey, survey_settings
    from fl_aggregator.messaging.unsealing import Unsealer
    from fl_aggregator.server import launch as launches
    from fl_aggregator.server.aggregator import Aggregator
    from fl_aggregator.tools.remote.cli import watch_command

    start_logging(verbose, log_format, quiet=quiet)
    if cells is not None and values.get("dp") is not None:
        raise UserError(NO_CELLS)
    asked = Survey(least=least or LEAST, cells=cells or LEAST, ranges=ranges_of(ranges))
    access = broker.access(roles=("aggregator",), mqtt_client_id=mqtt_client_id)
    settings = survey_settings(asked, **values, prefix=access.prefix)
    check_account(settings, has_kit=access.kit is not None)
    unsealer = Unsealer.of(access.kit, settings)
    launch = launches.new(settings, run_dir)
    hint = f"watch it: {watch_command(access, launch.record.prefix, broker)}"
    with (
        closing(launch),
        run_aggregator(
            launch,
            lambda observer, trackers: Aggregator(
                launch, access, unsealer=unsealer, observer=observer, trackers=trackers
            ),
            TrackingOptions(tensorboard=False),
            log_format,
            quiet,
            broker.resume_arguments(),
            hint,
            resumed_by="start",
        ) as (aggregator, finish),
    ):
        outcome = aggregator.run()
        code = exit_code(outcome)
        if code:
            finish(outcome)
    if not code:
        _show(read_survey(launch.directory.path), as_json=as_json)
    return code


def _show(result: Result | NoisyResult, *, as_json: bool) -> None:
    from fl_aggregator.tools.survey.noisy import NoisyResult
    from fl_aggregator.tools.survey.noisy_text import noisy_lines
    from fl_aggregator.tools.survey.text import lines

    shown = noisy_lines(result) if isinstance(result, NoisyResult) else lines(result)
    for line in [result.model_dump_json()] if as_json else shown:
        click.echo(line)
