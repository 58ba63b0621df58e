"""The options of the command line that choose a run's trackers."""

from __future__ import annotations

import functools
import importlib.util
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click
from click.core import ParameterSource

from fl_shared.cli.headings import OUTPUT, option_under
from fl_shared.errors import UserError
from fl_shared.system.invocation import install_command

if TYPE_CHECKING:
    from fl_aggregator.monitoring.tracking.trackers import Tracker, Trackers

Command = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class TrackingOptions:
    """The trackers that the user wants. ``metrics_port`` is null for no Prometheus metrics.

    ``mlflow`` is a tracking URI, null for no MLflow.
    """

    tensorboard: bool = True
    metrics_port: int | None = None
    metrics_host: str = "127.0.0.1"
    mlflow: str | None = None

    def check(self) -> None:
        """Raises ``UserError`` for a tracker that is not installed, or a URI with a password."""
        if self.mlflow is None:
            return
        if urlsplit(self.mlflow).password is not None:
            raise UserError(
                "--mlflow: a password in the URI is visible in the process list; set "
                "MLFLOW_TRACKING_PASSWORD and MLFLOW_TRACKING_USERNAME instead"
            )
        if importlib.util.find_spec("mlflow") is None:
            raise UserError(f"--mlflow: mlflow is not installed: {install_command('mlflow')}")

    def trackers(self, run_directory: Path) -> Trackers:
        """The chosen trackers, as a context manager.

        Raises ``UserError`` if the port is in use, a library is missing, or the URI contains a password.
        """
        from fl_aggregator.monitoring.tracking.trackers import Trackers

        chosen: list[Tracker] = []
        failures: Counter[str] = Counter()
        if self.tensorboard:
            from fl_aggregator.monitoring.tracking.tensorboard import TensorBoard

            chosen.append(TensorBoard(run_directory))
        if self.mlflow is not None:
            self.check()
            from fl_aggregator.monitoring.tracking.mlflow import MLflow

            chosen.append(MLflow(self.mlflow))
        if self.metrics_port is not None:  # last, since its constructor begins to serve
            from fl_aggregator.monitoring.tracking.prometheus import Prometheus

            chosen.append(Prometheus(self.metrics_host, self.metrics_port, failures))
        return Trackers(chosen, failures)


def tracking_options(command: Command) -> Command:
    """Adds the options of trackers to a command, which receives them as ``tracking``, a `TrackingOptions`."""

    @functools.wraps(command)
    def with_tracking(
        *, tensorboard: bool, metrics_port: int | None, metrics_host: str, mlflow: str | None, **values: Any
    ) -> Any:
        source = click.get_current_context().get_parameter_source("metrics_host")
        if metrics_port is None and source == ParameterSource.COMMANDLINE:
            raise UserError(
                f"--metrics-host {metrics_host} needs --metrics-port: no metrics are served without it"
            )
        return command(tracking=TrackingOptions(tensorboard, metrics_port, metrics_host, mlflow), **values)

    options = [
        option_under(OUTPUT, "--tensorboard/--no-tensorboard", default=True,
                     help="Write event files for TensorBoard."),
        option_under(OUTPUT, "--metrics-port", type=click.IntRange(1, 65_535), default=None,
                     help="Serve metrics for Prometheus on this port."),
        option_under(OUTPUT, "--metrics-host", metavar="ADDRESS", default="127.0.0.1",
                     help="Address to serve metrics on; no authentication."),
        option_under(OUTPUT, "--mlflow", metavar="URI", default=None,
                     help=f"Log to this MLflow server ({install_command('mlflow')})."),
    ]  # fmt: skip
    wrapped: Command = with_tracking
    for option in reversed(options):
        wrapped = option(wrapped)
    return wrapped
