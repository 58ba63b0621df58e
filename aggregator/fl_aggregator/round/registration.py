"""Answers registrations: which edges are admitted, under which id, and with which partition. Pure."""

from __future__ import annotations

from fl_aggregator.round import looking
from fl_aggregator.round import roster as r
from fl_aggregator.round.effects import Admit, Effect, Refuse, SendReply, Transition
from fl_aggregator.round.events import Registered
from fl_aggregator.round.phases import (
    Aggregating,
    Agreeing,
    Buffering,
    Collecting,
    Evaluating,
    Selecting,
    Stopped,
    Unmasking,
)
from fl_aggregator.round.state import Run
from fl_aggregator.round.two_machines import turns_after
from fl_shared.protocol import abilities
from fl_shared.protocol.messages import MAX_ENVIRONMENTS, Environment
from fl_shared.system.frozen import replace


def register(state: Run, event: Registered) -> Transition:
    """Answers a registration; the same one again gives the same answer and changes nothing."""
    previous = state.roster.get(event.client)
    if (
        previous is not None
        and previous.present
        and previous.session == event.session
        and previous.device != event.device
    ):
        # Sessions are public, devices are not: another client used the id, and the edge would get an answer.
        return state, ()
    refusal = _refusal(state, event)
    if refusal is not None:
        if refusal.reason not in ("id-in-use", "no-partition-left"):
            state = _with_unable_client(state, event, refusal)
        return state, (SendReply(event.client, event.session, refusal),)
    previous_state, state = state, _with_capacity_for(state, event.client)
    partition = _assign_partition(state, event)
    if isinstance(partition, Refuse):
        return previous_state, (SendReply(event.client, event.session, partition),)
    known = previous if previous is not None and previous.device == event.device else None
    earlier, turns = turns_after(previous, event.session, event.device)
    state, environment = _with_environment(state, event.environment)
    client = r.Client(
        session=event.session,
        device=event.device,
        roles=event.roles,
        encodings=event.encodings,
        registered_at=event.now if known is None else known.registered_at,
        partition=partition,
        # A first registration does not say what the edge has loaded, but its partition is the same.
        manifest=event.manifest or (None if known is None else known.manifest),
        examples=_examples_known(known, event),
        edges=event.edges,
        via=event.via,
        environment=environment,
        keys=event.keys or (None if known is None else known.keys),
        local_part=event.local_part or (None if known is None else known.local_part),
        earlier=earlier,
        turns=turns,
    )
    if previous != client:
        state = replace(state, roster=state.roster.with_client(event.client, client))
        state = _without_changed_keys(state, event.client, client.keys)
    if state.declared is None and event.metrics is not None:
        state = replace(state, declared=event.metrics)
    return state, (
        SendReply(
            event.client,
            event.session,
            Admit(
                partition,
                finished_round_of(state, event.client),
                event.examples,
                _newest_round(state, event.client),
                _is_awaited(state, event.client),
                state.counted.get(event.client),
                sums=event.edges is not None,
            ),
        ),
    )


def _without_changed_keys(state: Run, client: str, keys: str | None) -> Run:
    """Stops waiting for an edge whose keys are no longer those with which the open round is masked."""
    phase = state.phase
    if not isinstance(phase, Collecting) or phase.masking is None or client not in phase.awaited:
        return state
    if phase.masking.keys.get(client) == keys:
        return state
    dropped = {**phase.dropped, client: "its keys are no longer those of the round: it has lost its state"}
    return replace(state, phase=replace(phase, dropped=dropped, awaited=phase.awaited.without(client)))


def _examples_known(previous: r.Client | None, event: Registered) -> int | None:
    """Returns how many examples the same device has loaded; an edge that had none may have some after a restart."""
    if event.examples is not None or previous is None:
        return event.examples
    if previous.examples == 0 and previous.session != event.session:
        return None
    return previous.examples


def _refusal(state: Run, event: Registered) -> Refuse | None:
    previous = state.roster.get(event.client)
    if (
        previous is not None
        and previous.device != event.device
        and state.roster.is_in_use(event.client, event.now)
    ):
        seconds = max(0.0, event.now - previous.registered_at)
        in_use = f"has been in use by another device for {seconds:.0f} s"
        if seconds < 1:
            in_use = "is in use by another device"
        return Refuse(
            "id-in-use",
            f"client id {event.client!r} {in_use}: stop that one, or choose another --id",
        )
    if event.unable is not None:
        return Refuse("unable" if event.device else "wrong-version", event.unable)
    if event.task is not None and event.task != state.settings.task:
        return Refuse("wrong-task", f"the task is {event.task!r}, but this run's is {state.settings.task!r}")
    if event.manifest is not None and state.manifest not in (None, event.manifest):
        return Refuse("wrong-manifest", _manifest_mismatch(event.manifest, state))
    if state.settings.keep_local and event.roles == ("evaluate",):
        return Refuse(
            "lacks-ability",
            "the model lacks its local part here (--keep-local): only edges that train evaluate",
        )
    trains = "train" in event.roles
    if lacking := abilities.lacking(state.settings.needed_encodings(trains=trains), event.encodings):
        return Refuse("lacks-ability", f"encodings: {lacking}")
    if event.edges is not None and (reason := _cannot_sum(state, event.edges)):
        return Refuse("lacks-ability", reason)
    if trains and (lacking := abilities.lacking(state.settings.abilities, event.abilities)):
        return Refuse("lacks-ability", lacking)
    if trains and state.settings.masked and event.examples is not None and event.keys is None:
        return Refuse("no-run-keys", "keys: missing, but updates of this run are masked (--masked)")
    if trains and (misled := state.misled_text(event.client)):
        return Refuse("unable", misled)
    if previous is None and _is_full(state) and not state.roster.has_evictable():
        return Refuse(
            "no-partition-left", f"{len(state.roster.clients)} clients are already known (--max-clients)"
        )
    return None


def _cannot_sum(state: Run, edges: int) -> str | None:
    """Says why a run takes no sums of so many edges; null if it does."""
    settings = state.settings
    if settings.sums.needs_each:
        return f"a regional aggregator gives only sums of updates, but {settings.sums.needs_each} needs each update"
    if settings.look is not None:
        return (
            "a regional aggregator sends no metrics of its single edges, which a look at a served model needs"
        )
    if edges > settings.slots:
        return (
            f"the regional aggregator stands for {edges} edges, but a round has room for {settings.slots}: "
            "start the run with a larger --edges-per-round"
        )
    return None


def _with_unable_client(state: Run, event: Registered, refusal: Refuse) -> Run:
    """Keeps the client on the roster, without a partition, so that observers see why it does not take part.

    It displaces no other client if the roster is full.
    """
    previous = state.roster.get(event.client)
    if previous is None and _is_full(state):
        return state
    earlier, turns = turns_after(previous, event.session, event.device)
    state, environment = _with_environment(state, event.environment)
    client = r.Client(
        session=event.session,
        device=event.device,
        roles=event.roles,
        encodings=event.encodings,
        registered_at=previous.registered_at
        if previous is not None and previous.device == event.device
        else event.now,
        unable=refusal.detail,
        declines=refusal.reason != "wrong-manifest",
        edges=event.edges,
        via=event.via,
        environment=environment,
        earlier=earlier,
        turns=turns,
    )
    return (
        state if client == previous else replace(state, roster=state.roster.with_client(event.client, client))
    )


def _with_environment(state: Run, environment: Environment | None) -> tuple[Run, int | None]:
    """Remembers a new environment, unless there are too many. Returns its index, null if it is not remembered."""
    if environment is None:
        return state, None
    if environment in state.environments:
        return state, state.environments.index(environment)
    number = len(state.environments)
    if number >= MAX_ENVIRONMENTS:
        return state, None
    return replace(state, environments=(*state.environments, environment)), number


def _is_full(state: Run) -> bool:
    return len(state.roster.clients) >= state.settings.roster_limit


def _with_capacity_for(state: Run, client: str) -> Run:
    """Makes room on a full roster, by forgetting a hundredth of its clients at once.

    To search for one client at each registration would help a flood.
    """
    if client in state.roster or not _is_full(state):
        return state
    evicted = frozenset(state.roster.evictable(max(1, state.settings.roster_limit // 100)))
    return replace(state, roster=state.roster.without(evicted))


def _manifest_mismatch(manifest: str | None, state: Run) -> str:
    return (
        f"the weights have the manifest {str(manifest)[:12]}, but this run's have {str(state.manifest)[:12]}: "
        "the edge has another model for this task"
    )


def register_after_the_end(state: Run, event: Registered) -> tuple[Effect, ...]:
    """Answers a registration after the end of the run.

    Members stay, and new edges may join to predict; partitions are no longer assigned.
    """
    if event.client in state.roster:
        return register(state, event)[1]
    body = _refusal(state, event) or Admit(None, None, event.examples)
    return (SendReply(event.client, event.session, body),)


def _assign_partition(state: Run, event: Registered) -> int | Refuse | None:
    if "train" not in event.roles or looking.is_held(state, event.now):
        return None
    count = state.settings.clients
    partition = r.partition_for(state.roster, event.client, count, run_begun=state.begun)
    if partition == "none-left":
        return Refuse("no-partition-left", f"all {count} partitions are taken (--clients {count})")
    return partition


def finished_round_of(state: Run, client: str) -> int | None:
    """Returns the round in which nothing more of an edge is needed, or null.

    Its update is stored, or the round has closed; or its newest ticket is answered.
    """
    phase = state.phase.resume_phase if isinstance(state.phase, Stopped) else state.phase
    if isinstance(phase, Buffering):
        answered = None if phase.ticket_of(client) else state.answered.get(client)
        return None if answered is None or answered.digest is None else answered.round
    match phase:
        case Collecting(updates=done) if client in done:
            return phase.round
        case Agreeing() | Unmasking() | Aggregating() if client in phase.collected.cohort:
            return phase.round
        case Selecting() | Evaluating():
            return _newest_round(state, client)
        case _:
            return None


def _is_awaited(state: Run, client: str) -> bool:
    phase = state.phase
    if isinstance(phase, Buffering):
        return phase.ticket_of(client) is not None
    return isinstance(phase, Collecting) and client in phase.awaited


def _newest_round(state: Run, client: str) -> int | None:
    """Returns the number of the newest round that has been opened, or of the ticket of the edge; or null."""
    match state.phase:
        case Buffering(round=number) as phase:
            ticket = phase.ticket_of(client)
            return number if ticket is None else ticket.round
        case Selecting(round=number) | Evaluating(round=number):
            return number - 1 if number > 0 else None
        case Collecting() | Agreeing() | Unmasking() | Aggregating() as phase:
            return phase.round
        case _:
            return None


def assign_free_partitions(state: Run) -> Transition:
    """Assigns the free partitions at the start of the run, and refuses trainers for which none is left."""
    roster, assigned = r.assign_partitions(state.roster, state.settings.clients)
    unassigned = tuple(name for name in roster.trainers() if roster[name].partition is None)
    refusal = Refuse("no-partition-left", f"all {state.settings.clients} partitions are taken")
    admissions = (
        SendReply(
            name,
            roster[name].session,
            Admit(roster[name].partition, None, sums=roster[name].edges is not None),
        )
        for name in assigned
    )
    refusals = (SendReply(name, roster[name].session, refusal) for name in unassigned)
    return replace(state, roster=roster.without(unassigned)), (*admissions, *refusals)


def common_manifest(state: Run) -> str | None:
    """Returns the run's manifest or, while it has no weights, the one that most trainers have loaded.

    Null if no trainer has loaded its partition.
    """
    if state.manifest is not None:
        return state.manifest
    counts = state.roster.loaded_manifests()
    return min(counts, key=lambda digest: (-counts[digest], digest), default=None)


def refuse_other_manifests(state: Run) -> Transition:
    """Refuses the trainers whose manifest differs from the run's, once that is known."""
    assert state.manifest is not None
    mismatched = {
        name: client
        for name in state.roster.trainers()
        if (client := state.roster[name]).manifest not in (None, state.manifest)
    }
    roster, replies = state.roster, []
    for name, client in mismatched.items():
        refusal = Refuse("wrong-manifest", _manifest_mismatch(client.manifest, state))
        unable = replace(client, partition=None, manifest=None, examples=None, unable=refusal.detail)
        roster = roster.with_client(name, unable)
        replies.append(SendReply(name, client.session, refusal))
    return replace(state, roster=roster), tuple(replies)
