"""The aggregator of a region: a run whose rounds are ordered from above, on a thread of its own."""

from __future__ import annotations

import threading
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from fl_aggregator.configuration.regions import Region, Sums
from fl_aggregator.configuration.settings import Durability, Settings, parse_settings
from fl_aggregator.configuration.survey import Survey
from fl_aggregator.messaging.unsealing import Unsealer
from fl_aggregator.round import events as on
from fl_aggregator.round.phases import Failed
from fl_aggregator.round.state import Run
from fl_aggregator.server import launch as launches
from fl_aggregator.server.above import Above
from fl_aggregator.server.aggregator import Aggregator
from fl_aggregator.server.runner import Observer
from fl_aggregator.storage.run_directory import RUN_FILE
from fl_mqtt.regional.versions import Version
from fl_shared.cli.broker_access import BrokerAccess
from fl_shared.errors import RunFailed, UserError
from fl_shared.protocol import messages as m
from fl_shared.protocol.task_spec import own_options
from fl_shared.survey.terms import SurveyTerms

MOST_ROUNDS: Final = 1_000_000
STOP_TIMEOUT: Final = 10.0
"""Seconds that the aggregator of a region has to end."""


@dataclass(frozen=True, slots=True)
class RegionOptions:
    """What the user says of a region. ``edges``: how many it has; ``clients``: how many the whole run has."""

    name: str
    edges: int
    clients: int
    per_round: int
    quorum: int | None
    grace: float
    wait: float
    durability: Durability
    require_sealed: bool


def settings_of(
    options: RegionOptions, task: str, partition: m.Partition, sums: m.RegionalSums, prefix: str
) -> Settings:
    """Returns the settings of a region's run, most of which are those of the run above. Raises ``UserError``."""
    if options.per_round > sums.slots:
        raise UserError(
            f"--per-round {options.per_round}: the run above has room for {sums.slots} edges in a round "
            "(its --edges-per-round)"
        )
    name, task_options = own_options(task)
    terms = SurveyTerms.of(task)
    return parse_settings(
        task=name,
        task_option=task_options,
        clients=options.clients,
        rounds=MOST_ROUNDS,
        seed=partition.seed,
        partition=partition.scheme,
        train_examples=partition.examples,
        holdout=partition.holdout,
        per_round=options.per_round,
        quorum=options.quorum,
        edges_per_round=sums.slots,
        grace=options.grace,
        wait=options.wait,
        durability=options.durability,
        require_sealed=options.require_sealed,
        max_examples=sums.fold.max_examples,
        max_delta=sums.fold.max_delta,
        max_buffer=sums.fold.max_buffer,
        fold_bits=str(sums.fold.bits),
        encoding=sums.encoding,
        model_encoding=sums.model_encoding,
        prefix=prefix,
        survey=None if terms is None else Survey(least=terms.least, ranges=dict(terms.ranges)),
        region=Region(name=options.name, edges=options.edges),
        sums=Sums(combine=sums.combine, transforms=sums.transforms, norms=sums.norms),
    )


class Below:
    """A region's run in ``directory``, which is resumed if it has begun there. Its aggregator runs at once.

    Raises ``UserError`` if the directory or the settings are unusable.
    """

    def __init__(
        self, directory: Path, settings: Settings, broker: BrokerAccess, above: Above, observer: Observer
    ) -> None:
        if (directory / RUN_FILE).exists():
            launch = launches.resume(directory, simulated=False)
        else:
            launch = launches.new(settings, directory)
        self._launch = replace(launch, above=above)
        self._error: BaseException | None = None
        self._ended: Run | None = None
        unsealer = Unsealer(broker.kit, required=settings.require_sealed)
        self._aggregator = Aggregator(self._launch, broker, unsealer=unsealer, observer=observer)
        self._thread = threading.Thread(target=self._run, name="fl-region", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            with closing(self._launch):
                self._ended = self._aggregator.run().state
        except BaseException as error:  # it is raised again by `check`, on the thread of the program
            self._error = error

    def check(self) -> None:
        """Raises what has ended the aggregator, if it has ended."""
        if self._error is not None:
            raise self._error
        if self._ended is not None:
            phase = self._ended.phase
            detail = phase.detail if isinstance(phase, Failed) else getattr(phase, "reason", phase.name)
            raise RunFailed(f"the region's aggregator has ended: {detail}")

    def take(self, event: on.Event) -> None:
        """Gives it an event, behind all that were given before."""
        self._aggregator.take(event)

    def take_version(self, version: Version) -> None:
        """Gives it a version of the run above, and what that means."""
        self._aggregator.take_version(version.number, version.model, version.event)

    def stop(self, reason: str) -> None:
        """Stops it cleanly, so that it can be resumed."""
        if self._aggregator.running:
            self._aggregator.request_stop(reason)
        self._thread.join(STOP_TIMEOUT)
