"""Logs a run to an MLflow server or directory: settings as parameters, the numbers of rounds as metrics."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable

from fl_aggregator.monitoring.tracking.tensorboard import scalars
from fl_aggregator.monitoring.tracking.trackers import RuntimeMetrics
from fl_aggregator.monitoring.views.round_record import RoundRecord
from fl_aggregator.monitoring.views.visibility import marks
from fl_aggregator.round.effects import Effect
from fl_aggregator.round.state import Run
from fl_aggregator.storage.run_directory import RunRecord
from fl_shared.errors import UserError

EXPERIMENT, RUN_TAG = "fl-mqtt", "fl-mqtt.run"


def allowed_name(tag: str) -> str:
    """The tag with an underscore for each character that a part of it must not have.

    MLflow rejects a whole batch for one name that it does not allow, and tasks and edges choose names.
    """
    return "/".join(re.sub(r"[^\w -]", "_", part) for part in tag.split("/") if part) or "_"


class MLflow:
    """Logs to the MLflow tracking URI ``uri``. A resumed run continues in its MLflow run, found by a tag.

    Raises ``UserError`` if MLflow rejects the URI.
    """

    name = "mlflow"

    def __init__(self, uri: str) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        try:
            from mlflow import MlflowClient
            from mlflow.entities import Metric

            self._client, self._metric, self._run_id = MlflowClient(uri), Metric, ""
        except Exception as error:  # of a type that MLflow defines
            raise UserError(f"--mlflow {uri}: {str(error).splitlines()[0]}") from None

    def begin(
        self,
        run: RunRecord,
        earlier: Iterable[RoundRecord],  # noqa: ARG002
        runtime_metrics: Callable[[], RuntimeMetrics],  # noqa: ARG002
    ) -> None:
        """Continues the MLflow run of a resumed run, or creates one and logs the settings as parameters."""
        experiment = self._client.get_experiment_by_name(EXPERIMENT)
        experiment_id = experiment.experiment_id if experiment else self._client.create_experiment(EXPERIMENT)
        for existing in self._client.search_runs(
            [experiment_id], f"tags.`{RUN_TAG}` = '{run.run}'", max_results=1
        ):
            self._run_id = existing.info.run_id
            self._client.set_terminated(self._run_id, "RUNNING")
            return
        self._run_id = self._client.create_run(
            experiment_id, tags={RUN_TAG: run.run}, run_name=run.run
        ).info.run_id
        for key, value in run.settings.model_dump().items():
            self._client.log_param(self._run_id, key, value)
        for name, text in marks(run).items():
            self._client.set_tag(self._run_id, name, text)

    def observe(self, state: Run, effects: tuple[Effect, ...]) -> None:
        """Does nothing: only complete rounds are logged."""

    def log_round(self, record: RoundRecord) -> None:
        """Logs the numbers of a round as metrics, with the round's number as the step."""
        now = int(time.time() * 1000)
        metrics = {allowed_name(tag): float(value) for tag, value in scalars(record).items()}
        self._client.log_batch(
            self._run_id, [self._metric(t, v, now, record.round) for t, v in metrics.items()]
        )

    def close(self, outcome: str | None) -> None:
        """Sets the status of the MLflow run: FINISHED, KILLED if interrupted, else FAILED."""
        if self._run_id:
            statuses = {"finished": "FINISHED", "interrupted": "KILLED"}
            self._client.set_terminated(self._run_id, statuses.get(outcome or "", "FAILED"))
