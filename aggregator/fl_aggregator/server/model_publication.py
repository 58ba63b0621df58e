"""Publishes the versions of the model, or the means that are served in their place, with their companions."""

from __future__ import annotations

from collections.abc import Mapping

from fl_aggregator.aggregation.averaging import Averager
from fl_aggregator.configuration.settings import Settings
from fl_aggregator.messaging.publisher import ModelPublisher
from fl_aggregator.monitoring.views.notices import log_noise
from fl_aggregator.round import effects as do
from fl_aggregator.storage.checkpoint import Model
from fl_shared.protocol import messages as m


class ModelPublication:
    """``companions``: those of the newest version, as a selection names them."""

    def __init__(self, publisher: ModelPublisher, averager: Averager, settings: Settings) -> None:
        self.companions: tuple[m.Companion, ...] = ()
        self._publisher = publisher
        self._averager = averager
        self._settings = settings
        self._noise_is_told = False

    def publish(self, effect: do.PublishModel) -> None:
        """Publishes a version with its companions, or the mean that is served in its place."""
        newest, previous = self._averager.newest, self._averager.previous
        companions = {}
        if not self._noise_is_told:
            self._noise_is_told = True
            log_noise(self._settings, newest.manifest)
        self._averager.released(effect.model.version)
        if effect.model.digest == newest.digest:
            companions = self._averager.companions()
            self.companions = tuple(
                m.Companion(section=name, digest=vector.digest) for name, vector in companions.items()
            )
        if effect.served is not None:
            self._publish_mean(effect, effect.served, companions)
        elif effect.model.digest == newest.digest:
            is_candidate = self._settings.look is not None and effect.model.version > 0
            self._publisher.publish(
                effect.round,
                effect.model,
                newest,
                effect.evaluate,
                previous,
                companions=companions,
                is_candidate=is_candidate,
            )
        elif previous is not None:  # only when a run is resumed
            self._publisher.publish(effect.round, effect.model, previous, effect.evaluate)

    def _publish_mean(
        self, effect: do.PublishModel, mean: m.ModelReference, companions: Mapping[str, Model]
    ) -> None:
        averager = self._averager
        newest, previous, served = averager.newest, averager.previous, averager.served
        is_newest = effect.model.digest == newest.digest
        base = newest if is_newest else previous
        if base is None or mean.version not in served:  # only when a run is resumed
            return
        self._publisher.publish(
            effect.round,
            mean,
            served[mean.version],
            effect.evaluate,
            previous if is_newest else None,
            base=base,
            first_version=self._settings.first_served(mean.version),
            companions=companions,
        )
