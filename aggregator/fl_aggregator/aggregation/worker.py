"""The worker thread, which checks, stores, folds and averages updates.

The loop stays free for small and urgent messages while a large update is hashed and added up. A finished job
returns through the loop's inbox, as the event that it means; nothing is decided here. There is one thread, so
that jobs are done in the order in which they were asked for: an average comes after all folds before it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

from fl_aggregator.aggregation.averaging import Averager, SummedRound
from fl_aggregator.aggregation.masked_sum import ImplausibleSum
from fl_aggregator.aggregation.masked_validation import ExpectedMaskedUpdate
from fl_aggregator.aggregation.strategies.parts import Strategy
from fl_aggregator.aggregation.uploads import GrantSender, ReceivedUpdate, Uploads
from fl_aggregator.aggregation.validation import CheckedUpdate, ExpectedUpdate, InvalidUpdate
from fl_aggregator.configuration.settings import Settings
from fl_aggregator.round import effects as do
from fl_aggregator.round import events as on
from fl_aggregator.storage.checkpoint import Model
from fl_aggregator.storage.disk_space import DiskFull
from fl_aggregator.storage.run_directory import RunDirectory
from fl_aggregator.storage.spool_format import SpoolFileDamaged
from fl_aggregator.storage.update_content import UpdateContent
from fl_shared.masking.plan import Plan
from fl_shared.masking.unmasking import Opened, UnmaskFailed
from fl_shared.protocol import messages as m

LOG: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class JobDone:
    """The worker thread has finished a job.

    ``event`` is what that means, if anything; its time is not set yet. ``checked`` or ``folded`` is the
    update that the job was about. ``resend``: all of the update must be sent again. ``disk_full``: there was
    no space, nothing was lost, and ``retry`` asks for the same job again. ``error``: what else the job
    raised.
    """

    event: on.Event | None = None
    checked: on.UpdateMetadata | None = None
    folded: on.UpdateMetadata | None = None
    resend: bool = False
    disk_full: DiskFull | None = None
    retry: Callable[[], None] | None = None
    error: BaseException | None = None


class AggregationWorker:
    """Receives, checks, stores, folds and averages updates, most of it on a thread of its own.

    All methods are for the loop's thread. ``post`` is called on the worker's thread, and puts a finished job
    into the loop's inbox. ``executor``: does one job after the other; a thread of its own, if none is given.
    """

    def __init__(
        self,
        settings: Settings,
        strategy: Strategy,
        directory: RunDirectory,
        grant: GrantSender,
        post: Callable[[JobDone], None],
        executor: Executor | None = None,
    ) -> None:
        self.averager = Averager(settings, strategy, directory)
        self.uploads = Uploads(directory.spool, grant)
        self._spool = directory.spool
        self._post = post
        self._executor = executor or ThreadPoolExecutor(1, "fl-arithmetic")
        self._expected: ExpectedUpdate | ExpectedMaskedUpdate | None = None
        self._in_progress: dict[str, str] = {}
        self._checked: dict[str, CheckedUpdate] = {}
        self._received: dict[tuple[str, str], ReceivedUpdate] = {}

    def restore(self, round_number: int, updates: Iterable[on.UpdateMetadata]) -> tuple[str, ...]:
        """At a resume: folds the stored updates of an open round, and returns when that is done.

        Called after ``begin_round`` and before the loop runs. Returns the clients whose update is missing or
        damaged (its file is deleted), sorted. Incomplete uploads continue when they are offered again.
        """
        missing = []
        sorted_updates = sorted(updates, key=lambda update: update.client)
        for update, future in [
            (update, self._executor.submit(self._restore, round_number, update)) for update in sorted_updates
        ]:
            if not future.result():
                missing.append(update.client)
        self.uploads.restore(round_number)
        return tuple(missing)

    def _restore(self, round_number: int, update: on.UpdateMetadata) -> bool:
        try:
            content = self._spool.read(update.round, update.client)
            # The edge sent an update with this digest; the one in the file's own description proves nothing.
            checked = self.averager.check(replace(content, digest=update.digest), update)
        except FileNotFoundError:
            return False
        except (SpoolFileDamaged, InvalidUpdate) as error:
            LOG.warning("deleted the damaged update of edge %s from the spool: %s", update.client, error)
            self._spool.delete(update.round, update.client)
            return False
        self.averager.hold_shares(update.client, checked)
        self.averager.fold(update, checked, round_number)
        return True

    def receive(self, offer: m.Offer, metadata: on.UpdateMetadata, now: float) -> on.UpdateMetadata | None:
        """Begins to receive an offered update; returns its metadata if all chunks are here already.

        Raises ``InvalidUpdate`` if the offer is not what the round expects.
        """
        if self._in_progress.get(metadata.client) == metadata.digest:
            return None
        assert self._expected is not None, "a round is open"
        self._expected.check_plan(metadata.plan)
        self._expected.check_description(offer.sections)  # before any space is taken for it
        return self.uploads.begin(offer, metadata, now)

    def store(self, update: on.UpdateMetadata, message: m.Update | None) -> None:
        """Checks an update's values and stores it; ``UpdateStored`` or ``UpdateInvalid`` will follow.

        A null message stands for the complete upload of that client.
        """
        if update.client in self._in_progress:
            return  # the same update again, or another one: the edge will repeat it if it is wanted
        self._in_progress[update.client] = update.digest
        if message is None:
            received = self.uploads.pop_complete(update.client)
            self._received[update.client, update.digest] = received
            self._submit(self._check, update, received.content(), received)
        else:
            self._submit(self._check, update, UpdateContent.of(message), None)

    def _check(
        self, update: on.UpdateMetadata, content: UpdateContent, received: ReceivedUpdate | None
    ) -> JobDone:
        try:
            checked = self.averager.check(content, update)
            if received is None:
                self._spool.put(update.round, update.client, content)
            else:
                received.partial.finalize()
        except InvalidUpdate as error:
            if error.reason == "wrong-digest" and received is not None and not received.again:
                # Our file or the way may be at fault, and the edge must not be dropped from the round for that.
                LOG.warning(
                    "the update of edge %s does not match its offer: requesting all of it again",
                    update.client,
                )
                return JobDone(checked=update, resend=True)
            return JobDone(error.event(update, 0.0), checked=update)
        except FileNotFoundError:
            # Its round has closed and its file is deleted. The edge repeats its offer and is told so.
            return JobDone(checked=update)
        self._checked[update.client] = checked
        stored = update if checked.masked is None else replace(update, body=checked.masked.body)
        return JobDone(on.UpdateStored(now=0.0, update=stored), checked=update)

    def fold(self, effect: do.Fold) -> None:
        """Adds a stored update to the sum of its round."""
        checked = self._checked.pop(effect.update.client)
        self.averager.hold_shares(effect.update.client, checked)
        in_chunks = (effect.update.client, effect.update.digest) in self._received
        self._submit(self._fold, effect, checked, in_chunks)

    def _fold(self, effect: do.Fold, checked: CheckedUpdate, in_chunks: bool) -> JobDone | None:
        self.averager.fold(effect.update, checked, effect.round)
        # An update that came whole leaves nothing to release: the loop need not wake up for it.
        return JobDone(folded=effect.update) if in_chunks else None

    def keep_shares(self, round_number: int, client: str, opened: Opened) -> None:
        """Stores what a member of a masked round has opened. Raises ``OSError``; nothing has changed then."""
        self._spool.put_shares(round_number, client, opened)
        self.averager.hold_opened(client, opened)

    def restore_shares(self, round_number: int, opened: Mapping[str, str]) -> tuple[str, ...]:
        """At a resume: reads what members have opened, by member the digest. Returns whose shares are missing."""
        missing = []
        for client, digest in opened.items():
            try:
                self.averager.hold_opened(client, self._spool.read_shares(round_number, client, digest))
            except (SpoolFileDamaged, OSError) as error:
                LOG.warning("the opened shares of edge %s cannot be read: %s", client, error)
                missing.append(client)
        return tuple(missing)

    def average(self, effect: do.Average) -> None:
        """Makes the next version and writes it to disk; ``ModelCreated`` will follow, or ``UnmaskFailed``."""
        self._submit(self._average, effect)

    def _average(self, effect: do.Average) -> JobDone:
        try:
            model, state = self.averager.average(effect)
        except UnmaskFailed as error:
            LOG.warning("round %d: the sum stays masked: %s", effect.round, error)
            return JobDone(
                on.UnmaskFailed(
                    now=0.0,
                    round=effect.round,
                    client=error.client,
                    detail=str(error),
                    final=isinstance(error, ImplausibleSum),
                    short=error.short,
                )
            )
        return JobDone(
            on.ModelCreated(
                now=0.0,
                round=effect.round,
                digest=model.digest,
                manifest=model.manifest.digest,
                strategy_state=state,
                similarity=self.averager.similarity,
                strategy=self.averager.report,
                tallies=self.averager.tallies,
                liars=self.averager.liars,
                clip=self.averager.next_clip,
                accuracy=self.averager.accuracy,
                served=served.digest if (served := self.averager.served.get(effect.version)) else None,
            )
        )

    def sum_up(self, effect: do.Average, done: Callable[[SummedRound], None]) -> None:
        """Of a region: makes the sum of a round that has closed, and calls ``done`` on the worker's thread."""
        self._submit(lambda: done(self.averager.summed(effect)))

    def take_version(self, version: int, model: Model, event: on.Event | None) -> None:
        """Of a region: writes a version of the run above to disk; ``event`` follows. May be called on any thread."""

        def take() -> JobDone | None:
            newest = self.averager.newest_version
            if newest is None or version > newest:
                self.averager.add(version, model)
            return None if event is None else JobDone(event)

        self._submit(take)

    def take_event(self, event: on.Event) -> None:
        """Of a region: posts an event, behind the versions that were taken before. May be called on any thread."""
        self._submit(lambda: JobDone(event))

    def in_progress(self) -> frozenset[str]:
        """Returns the clients whose update is being received or checked."""
        return frozenset((*self.uploads, *self._in_progress))

    def begin_round(
        self,
        base: m.ModelReference | None,
        encoding: str,
        plan: Plan | None = None,
        clip: float | None = None,
    ) -> None:
        """Prepares for the updates of a round that has opened; ``plan``: if they are masked; ``clip``: if it changes.

        A null base means round 0. The sum is emptied on the worker's thread, after the jobs before it. An asynchronous
        run has one such preparation after round 0.
        """
        self._expected = self.averager.expected(base, encoding, plan)
        self._submit(self.averager.begin_round, self._expected, clip)

    def release(self, job: JobDone, now: float) -> None:
        """Frees what is no longer needed, after the event of a finished job was handled."""
        if job.checked is not None:
            del self._in_progress[job.checked.client]
            if self._checked.pop(job.checked.client, None) is None and isinstance(job.event, on.UpdateStored):
                return  # its fold was asked for and needs it
            if job.resend:
                self.uploads.restart(self._received.pop((job.checked.client, job.checked.digest)), now)
                return
            self._release_update(job.checked, now, drop=True)
        if job.folded is not None:
            self._release_update(job.folded, now, drop=False)

    def _release_update(self, update: on.UpdateMetadata, now: float, *, drop: bool) -> None:
        received = self._received.pop((update.client, update.digest), None)
        if received is not None:
            self.uploads.release(received, now, drop=drop)
        elif drop:
            self._spool.delete(update.round, update.client)

    def close(self) -> None:
        """Waits for the job that is running; jobs that have not begun are cancelled."""
        self._executor.shutdown(wait=True, cancel_futures=True)

    def _submit(self, function: Callable[..., JobDone | None], *arguments: Any) -> None:
        pending_arguments = list(arguments)

        def run() -> None:
            try:
                result = function(*pending_arguments)
            except DiskFull as disk_full:
                disk_full.clear_traceback()
                result = JobDone(
                    disk_full=disk_full, retry=partial(self._submit, function, *pending_arguments)
                )
            except BaseException as error:
                result = JobDone(error=error)
            # Before the loop is told: it may close the files that the arguments are views of, which must have
            # no views then.
            pending_arguments.clear()
            if result is not None:
                self._post(result)

        self._executor.submit(run)
