"""The model that an edge answers predictions with: the newest one, which is fetched when a request needs it."""

from __future__ import annotations

import logging
import math
from typing import Final

from fl_edge.messaging.model_store import FetchedModel, ModelStore, ModelUser
from fl_shared.protocol import messages as m

LOG = logging.getLogger(__name__)

PREDICTION_FETCH_TIMEOUT: Final = 600.0
"""Seconds for fetching a model, enough for a large one over a slow link."""
MAX_FETCH_WAIT: Final = 5.0
"""Seconds from the start of a fetch for which requests wait for it. Then the model that is loaded answers
them."""
FETCH_RETRY_DELAY: Final = 15.0
"""Seconds until a model that could not be fetched is tried again."""
ADVANCE_INTERVAL: Final = 1.0
"""Seconds after which `NewestModel.advance` looks again at what changes without its being told."""
STALLED_FETCH_TIMEOUT: Final = 10.0
"""Seconds without progress after which the fetch of a model gives way to a model that was announced later."""


class NewestModel:
    """Fetches models from ``store`` on behalf of ``client``. All times are in seconds."""

    def __init__(self, client: str, store: ModelStore) -> None:
        self._client = client
        self._store = store
        self.loaded: tuple[m.ModelAnnouncement, FetchedModel] | None = None
        """The newest model that is here."""
        self._announced: m.ModelAnnouncement | None = None
        self._fetching: m.ModelAnnouncement | None = None
        self._fetching_since = 0.0
        self._progress: tuple[str, float] = ("", 0.0)
        self._failed: tuple[str, float] = ("", 0.0)

    @property
    def user(self) -> ModelUser:
        """The name under which models of the store are used."""
        return ModelUser(self._client)

    def announce(self, announced: m.ModelAnnouncement, now: float) -> None:
        """Makes this model the newest. It is fetched at once if no model is here yet."""
        self._announced = announced
        if self.loaded is None:
            self.want(now)

    def want(self, now: float) -> None:
        """Fetches the newest model, unless one is being fetched."""
        if self._announced is not None and self._fetching is None:
            self._fetch(self._announced, now)

    def fetched(self, digest: str, model: FetchedModel | None, reason: str, now: float) -> bool:
        """Takes the outcome of a fetch, or logs why there is no model. Returns whether it was waited for."""
        fetching = self._fetching
        if fetching is None or fetching.digest != digest:
            return False
        self._fetching = None
        if model is None:
            self._failed = (digest, now)
            LOG.info(
                "could not fetch version %d; predictions continue with the previous version, if there is one: %s",
                fetching.version,
                reason,
                extra={"client": self._client},
            )
        else:
            if self.loaded is not None and self.loaded[1].digest != digest:
                self._store.release(self.user, self.loaded[1].digest)
            self.loaded = (fetching, model)
        return True

    def due(self, now: float) -> float:
        """Returns when `advance` must be called next: every second while a model is fetched; ∞ for never."""
        return self._retry_at() if self._fetching is None else now + ADVANCE_INTERVAL

    def _retry_at(self) -> float:
        """When a first model that could not be fetched is tried again."""
        waits = self._fetching is None and self.loaded is None and self._announced is not None
        return self._failed[1] + FETCH_RETRY_DELAY if waits else math.inf

    def advance(self, now: float) -> None:
        """Gives up a fetch that has stalled, and tries a first model again that could not be fetched."""
        self._abandon_stalled_fetch(now)
        if now >= self._retry_at():
            self.want(now)

    def _abandon_stalled_fetch(self, now: float) -> None:
        """Gives up a fetch without progress, if another model was announced after it began.

        A model that does not arrive must not keep the edge from later ones.
        """
        fetching, announced = self._fetching, self._announced
        if fetching is None or announced is None:
            return
        progress = self._store.progress(fetching.digest)
        if progress != self._progress[0]:
            self._progress = (progress, now)
        elif now >= self._progress[1] + STALLED_FETCH_TIMEOUT and announced.digest != fetching.digest:
            LOG.info("version %d does not arrive: trying version %d", fetching.version, announced.version,
                     extra={"client": self._client})  # fmt: skip
            self._fetching = None
            self._store.release(self.user, fetching.digest)
            self._fetch(announced, now)

    def is_slow(self, now: float) -> bool:
        """Whether requests have waited long enough for the model that is being fetched."""
        return self._fetching is not None and now >= self._fetching_since + MAX_FETCH_WAIT

    def is_here(self, now: float) -> bool:
        """Whether the loaded model is the newest that can be had now. One must be loaded."""
        assert self._announced is not None
        assert self.loaded is not None
        digest, failed_at = self._failed
        has_failed_recently = digest == self._announced.digest and now < failed_at + FETCH_RETRY_DELAY
        return self._announced.digest == self.loaded[1].digest or has_failed_recently

    def release(self) -> None:
        """Releases all models."""
        for digest in {x.digest for x in (self._fetching, self.loaded and self.loaded[0]) if x}:
            self._store.release(self.user, digest)
        self.loaded = self._announced = self._fetching = None

    def _fetch(self, announced: m.ModelAnnouncement, now: float) -> None:
        self._fetching, self._fetching_since = announced, now
        self._progress = (self._store.progress(announced.digest), now)
        self._store.fetch(self.user, announced.digest, now, PREDICTION_FETCH_TIMEOUT)
