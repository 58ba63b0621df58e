"""What is done with the bytes of updates: taken in, checked, made safe, folded, averaged. Most of it on a thread.

The loop stays free for what is small and urgent while a large update is hashed and added up. What the thread has
done comes back through the loop's inbox, as the event that it means; nothing is decided here. There is one thread,
so that work is done in the order in which it was asked for: an average comes after all folds before it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

from fl_aggregator import effects as do
from fl_aggregator import events as on
from fl_aggregator.averaging import Averaging, Checked
from fl_aggregator.check import Content, Unusable
from fl_aggregator.rundir import RunDirectory
from fl_aggregator.settings import Settings
from fl_aggregator.strategies import Strategy
from fl_aggregator.uploads import Grant, Misfit, Taken, Uploads
from fl_shared import messages as m
from fl_shared.publication import MAX_MODEL_BYTES
from fl_shared.tensors import WIRE_DTYPE

LOG: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Done:
    """The thread has finished something. ``event`` (its time is not set yet) is what that means, if anything.

    ``checked`` or ``folded`` is the update that it was about.
    """

    event: on.Event | None = None
    checked: on.UpdateFacts | None = None
    folded: on.UpdateFacts | None = None
    error: BaseException | None = None


class Workshop:
    """All methods are for the loop's thread. ``post`` puts what was done into its inbox."""

    def __init__(
        self,
        settings: Settings,
        strategy: Strategy,
        directory: RunDirectory,
        grant: Grant,
        post: Callable[[Done], None],
    ) -> None:
        self.averaging = Averaging(settings, strategy, directory)
        self.uploads = Uploads(directory.spool, grant)
        self._spool = directory.spool
        self._post = post
        self._thread = ThreadPoolExecutor(1, "fl-arithmetic")
        self._at_work: dict[str, str] = {}
        self._checked: dict[str, Checked] = {}
        self._taken: dict[tuple[str, str], Taken] = {}

    def receive(self, offer: m.Offer, facts: on.UpdateFacts, now: float) -> None:
        """Takes an offered update in, chunk by chunk. Raises ``uploads.Misfit``."""
        if self._at_work.get(facts.client) == facts.digest:
            return
        expected = self._expected_bytes(offer)
        if offer.size != expected:
            # Before any room is made for it.
            raise Misfit("wrong-size", f"size: {offer.size} bytes, expected {expected}")
        self.uploads.begin(offer, facts, now)

    def _expected_bytes(self, offer: m.Offer) -> int:
        if offer.base is not None:
            return self.averaging.newest.manifest.values * WIRE_DTYPE.itemsize
        values = sum(array.values for section in offer.sections for array in section.arrays or ())
        return min(values * WIRE_DTYPE.itemsize, MAX_MODEL_BYTES)

    def keep(self, update: on.UpdateFacts, whole: m.Update | None) -> None:
        """Checks an update's values and makes it safe; ``UpdateKept`` or ``UpdateUnusable`` comes of it."""
        if update.client in self._at_work:
            return  # the same again, or another one of its round: it will be sent again if it is wanted
        self._at_work[update.client] = update.digest
        if whole is None:
            taken = self.uploads.take_out(update.client)
            self._taken[update.client, update.digest] = taken
            self._run(self._check, update, taken.content(), taken)
        else:
            self._run(self._check, update, Content.of(whole), None)

    def _check(self, update: on.UpdateFacts, content: Content, taken: Taken | None) -> Done:
        try:
            checked = self.averaging.check(content)
            if taken is None:
                self._spool.put(update.round, update.client, content.sections)
            else:
                taken.partial.keep()
        except Unusable as error:
            unusable = on.UpdateUnusable(
                now=0.0,
                client=update.client,
                session=update.session,
                round=update.round,
                digest=update.digest,
                reason=error.reason,
                detail=str(error),
            )
            return Done(unusable, checked=update)
        except OSError as error:
            # Not accepted, so the edge keeps it and offers it again.
            LOG.error("update of %s not kept: %s: %s", update.client, error.strerror, error.filename)
            return Done(checked=update)
        self._checked[update.client] = checked
        return Done(on.UpdateKept(now=0.0, update=update), checked=update)

    def fold(self, update: on.UpdateFacts) -> None:
        """Adds a kept update to the round's sum."""
        self._run(self._fold, update, self._checked.pop(update.client))

    def _fold(self, update: on.UpdateFacts, checked: Checked) -> Done:
        self.averaging.fold(checked, update.examples)
        return Done(folded=update)

    def average(self, effect: do.Average) -> None:
        """Makes the next version and writes it to disk; ``ModelMade`` comes of it."""
        self._run(self._average, effect)

    def _average(self, effect: do.Average) -> Done:
        made = self.averaging.average(effect.version)
        return Done(
            on.ModelMade(now=0.0, round=effect.round, digest=made.digest, manifest=made.manifest.digest)
        )

    def begin_round(self, base: m.ModelReference | None) -> None:
        self._run(lambda: self.averaging.begin(base))

    def settle(self, done: Done, now: float) -> None:
        """After what came of ``done`` was handled: lets go of all that nobody will use any more."""
        if done.checked is not None:
            del self._at_work[done.checked.client]
            if self._checked.pop(done.checked.client, None) is None and isinstance(done.event, on.UpdateKept):
                return  # its fold was asked for
            self._let_go(done.checked, now, drop=True)
        if done.folded is not None:
            self._let_go(done.folded, now, drop=False)

    def _let_go(self, update: on.UpdateFacts, now: float, *, drop: bool) -> None:
        taken = self._taken.pop((update.client, update.digest), None)
        if taken is not None:
            self.uploads.put_away(taken, now, drop=drop)

    def close(self) -> None:
        """Waits for what is under way."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _run(self, work: Callable[..., Done | None], *arguments: Any) -> None:
        def run() -> None:
            try:
                done = work(*arguments)
            except BaseException as error:
                done = Done(error=error)
            if done is not None:
                self._post(done)

        self._thread.submit(run)
