"""Passes the announced versions of the run above on to the region, whose edges evaluate them and predict with them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from fl_edge.messaging.model_store import FetchedModel, ModelStore, ModelUser
from fl_shared.protocol import messages as m

LOG: Final = logging.getLogger(__name__)

FETCH_TIMEOUT: Final = 600.0
"""Seconds for fetching a version. It ends earlier if the broker no longer has it."""


class RegionalModels:
    """What the edge above does with announced models, in place of answering predictions (`ModelServer`).

    ``received`` takes each version, once.
    """

    def __init__(
        self, client: str, store: ModelStore, received: Callable[[m.ModelReference, FetchedModel], None]
    ) -> None:
        self._user = ModelUser(client)
        self._store = store
        self._received = received
        self._fetching: m.ModelAnnouncement | None = None

    def model_announced(self, announced: m.ModelAnnouncement, now: float) -> None:
        """Fetches the version, in place of an older one."""
        fetching = self._fetching
        if fetching is not None and fetching.digest == announced.digest:
            return
        if fetching is not None:
            self._store.release(self._user, fetching.digest)
        self._fetching = announced
        self._store.fetch(self._user, announced.digest, now, FETCH_TIMEOUT)

    def model_fetched(self, digest: str, model: FetchedModel | None, reason: str, now: float) -> None:  # noqa: ARG002
        """Hands the version on. One that could not be fetched comes with the next round."""
        fetching = self._fetching
        if fetching is None or fetching.digest != digest:
            return
        self._fetching = None
        if model is None:
            LOG.warning("version %d of the run above was not fetched: %s", fetching.version, reason)
            return
        self._received(m.ModelReference(version=fetching.version, digest=digest), model)
        self._store.release(self._user, digest)

    def close(self) -> None:
        """Ends a fetch. It has no connection of its own."""
        if self._fetching is not None:
            self._store.release(self._user, self._fetching.digest)
            self._fetching = None
