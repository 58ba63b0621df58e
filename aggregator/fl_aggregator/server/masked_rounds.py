"""Performs the effects of masked rounds: asks members to sign and to open, and keeps what they have opened."""

from __future__ import annotations

from collections.abc import Callable

from fl_aggregator.aggregation.worker import AggregationWorker
from fl_aggregator.messaging.masked_answers import MaskedAnswers
from fl_aggregator.messaging.outlet import Outlet
from fl_aggregator.messaging.unmask_publisher import UnmaskPublisher
from fl_aggregator.monitoring.views import status
from fl_aggregator.round import effects as do
from fl_aggregator.round import events as on
from fl_aggregator.round.phases import Agreeing, Unmasking
from fl_aggregator.round.state import Run
from fl_aggregator.server.disk_pause import DiskPause
from fl_shared.masking.plan import Plan, plan_of
from fl_shared.masking.unmasking import Opened
from fl_shared.protocol import messages as m
from fl_shared.protocol.envelope import EnvelopeSource
from fl_shared.system import base64url


class MaskedRounds:
    """The masked round that is open or being unmasked; see `Interpreter` for the arguments.

    ``partition``: that of any edge.
    """

    def __init__(
        self,
        outlet: Outlet,
        scope: EnvelopeSource,
        worker: AggregationWorker,
        answers: MaskedAnswers,
        disk_pause: DiskPause,
        clock: Callable[[], float],
        partition: m.Partition,
    ) -> None:
        self._scope = scope
        self._worker = worker
        self._answers = answers
        self._disk_pause = disk_pause
        self._clock = clock
        self._partition = partition
        self._publisher = UnmaskPublisher(outlet, scope)

    def begin(self, selected: m.Selected) -> Plan | None:
        """Takes the message that opens a round; returns its plan, null if its updates are not masked."""
        self._answers.plan = None
        if selected.masked is not None:
            manifest = self._worker.averager.newest.manifest
            self._answers.plan = plan_of(selected, self._partition, manifest.digest, manifest.values)
        return self._answers.plan

    def end(self) -> None:
        """Ends the round: nobody is asked for anything any more."""
        self._publisher.end()
        self._answers.plan = None

    @property
    def _plan(self) -> Plan:
        assert self._answers.plan is not None, "a masked round"
        return self._answers.plan

    def ask_to_sign(self, effect: do.PublishClosing) -> None:
        """Publishes the set that is to be summed to each member."""
        now, plan = self._clock(), self._plan
        requests = {
            client: m.Closing(
                **self._scope.envelope(),
                round=effect.round,
                plan=plan.digest.hex(),
                included=dict(effect.included),
                seconds_left=max(0.0, effect.deadline - now),
            )
            for client in plan.clients
        }
        self._publisher.ask(requests, now)

    def ask_to_open(self, effect: do.PublishReveal) -> None:
        """Publishes the signed set to each member, with the shares that are for it."""
        now, plan, sections = self._clock(), self._plan, self._worker.averager.shares_sections
        requests = {
            holder: m.Reveal(
                **self._scope.envelope(),
                round=effect.round,
                plan=plan.digest.hex(),
                included=dict(effect.included),
                signatures=dict(effect.signatures),
                packages={
                    client: base64url.encoded(sections[client].package(index)) for client in effect.included
                },
                seconds_left=max(0.0, effect.deadline - now),
            )
            for index, holder in enumerate(plan.clients)
        }
        self._publisher.ask(requests, now)

    def keep(self, effect: do.KeepShares) -> on.SharesKept:
        """Writes the shares that a member has opened to the spool. Raises ``OSError``."""
        message = effect.payload
        assert isinstance(message, m.Opened)
        opened = Opened(message.shares, message.unopened)
        self._disk_pause.attempt(lambda: self._worker.keep_shares(effect.round, effect.client, opened))
        return on.SharesKept(
            now=self._clock(),
            client=effect.client,
            session=effect.session,
            round=effect.round,
            digest=effect.digest,
        )

    def due(self) -> float:
        """Returns the run time at which `do_what_is_due` does something; ∞ for never."""
        return self._publisher.due()

    def do_what_is_due(self, state: Run) -> None:
        """Asks again who has not answered."""
        self._publisher.repeat(
            status.awaited_clients(state) if isinstance(state.phase, Agreeing | Unmasking) else (),
            self._clock(),
        )

    def registered(self, client: str, state: Run) -> None:
        """Asks a member again that has registered and has not answered."""
        if isinstance(state.phase, Agreeing | Unmasking) and client in status.awaited_clients(state):
            self._publisher.repeat_to(client, self._clock())
