"""The command ``fl-aggregator report``. The function imports what is slow to import."""

from __future__ import annotations

from pathlib import Path

import click

from fl_shared.cli import options as shared
from fl_shared.errors import UserError

_FILE = click.Path(dir_okay=False, path_type=Path)


@shared.command(epilog=None)
@click.argument(
    "directories", metavar="DIR...", nargs=-1, required=True, type=click.Path(file_okay=False, path_type=Path)
)
@click.option(
    "--out", type=_FILE, default=Path("report.html"), help="File for the page; - for no page, with --csv."
)
@click.option(
    "--csv", "csv_file", type=_FILE, default=None, help="Also write the rounds of all runs to this file."
)
@shared.config_option
def report(directories: tuple[Path, ...], out: Path, csv_file: Path | None) -> None:
    """Write a page about the run in DIR, or a comparison of the runs in several: curves, rounds, edges, labels.

    DIR is a run directory of start or simulate. The run may still be in progress. The page works offline.
    For a sweep (simulate --seeds, --sweep), it shows each setting's mean and deviation over the seeds.
    """
    from fl_aggregator.storage.sweep_record import is_sweep
    from fl_aggregator.tools.report.page import page
    from fl_aggregator.tools.report.reading import read_run_report
    from fl_aggregator.tools.report.spreadsheet import csv_text
    from fl_aggregator.tools.report.sweep import read_sweep
    from fl_aggregator.tools.report.sweep_page import sweep_page
    from fl_shared.system.files import write_atomically
    from fl_shared.system.text import one_line

    sweep = None
    if any(map(is_sweep, directories)):
        if len(directories) > 1:
            raise UserError(
                f"DIR: {', '.join(map(str, directories))}: expected a sweep on its own, or only runs"
            )
        sweep = read_sweep(directories[0])
    runs = [read_run_report(directory) for directory in directories] if sweep is None else sweep.reports
    for run in runs:
        for fault in run.faults:
            click.echo(f"fl-aggregator report: {one_line(fault)}; skipped", err=True)
    if len({run.path.resolve() for run in runs}) < len(runs):
        raise UserError(f"DIR: {', '.join(map(str, directories))}: expected each run once")
    written = []
    try:
        if str(out) != "-":
            text = page(runs) if sweep is None else sweep_page(sweep)
            write_atomically(out, text.encode())
            written.append(out)
        if csv_file is not None:
            write_atomically(csv_file, csv_text(runs).encode())
            written.append(csv_file)
    except OSError as error:
        raise UserError(f"{error.filename or out}: {error.strerror or error}") from None
    for file in written:
        click.echo(f"written: {file}")
    if not written:
        raise UserError("--out - needs --csv: nothing would be written")
