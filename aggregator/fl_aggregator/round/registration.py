"""Registrations: who is let in, under whose name, with which part of the data. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from fl_aggregator.round import roster as r
from fl_aggregator.round.effects import Admit, Effect, Refuse, SendReply, Transition
from fl_aggregator.round.events import Registered
from fl_aggregator.round.state import Collecting, Run
from fl_shared.tensors.encodings.float32 import FLOAT32


def register(state: Run, event: Registered) -> Transition:
    """Answers a registration. The same one twice gives the same answer and changes nothing."""
    known = state.roster.get(event.client)
    if (
        known is not None
        and known.present
        and known.session == event.session
        and known.device != event.device
    ):
        # A session is public, a device is not: somebody else used the name, and an answer would reach the edge.
        return state, ()
    if state.roster.has_session_ended(event.client, event.session, event.now):
        # It would be taken for present for ever. An edge that is there after all repeats what is not answered.
        return state, ()
    refusal = _refusal(state, event)
    if refusal is not None:
        return state, (SendReply(event.client, event.session, refusal),)
    before, state = state, _with_capacity_for(state, event.client)
    part = _assign_partition(state, event)
    if isinstance(part, Refuse):
        return before, (SendReply(event.client, event.session, part),)
    again = known is not None and known.device == event.device
    client = r.Client(
        session=event.session,
        device=event.device,
        roles=event.roles,
        encodings=event.encodings,
        registered_at=known.registered_at if known is not None and again else event.now,
        partition=part,
        # A first registration says nothing of what the edge has loaded; its part is still the same.
        manifest=event.manifest or (known.manifest if known is not None and again else None),
        examples=known.examples if known is not None and again and event.examples is None else event.examples,
    )
    if known != client:
        state = replace(state, roster=state.roster.with_client(event.client, client))
    return state, (
        SendReply(
            event.client, event.session, Admit(part, received_round_of(state, event.client), event.examples)
        ),
    )


def _refusal(state: Run, event: Registered) -> Refuse | None:
    known = state.roster.get(event.client)
    if known is not None and known.device != event.device and state.roster.is_in_use(event.client, event.now):
        seconds = max(0.0, event.now - known.registered_at)
        return Refuse(
            "id-in-use",
            f"client id {event.client!r} has been in use by another device for {seconds:.0f} s: "
            "stop that one, or choose another --id",
        )
    if event.task is not None and event.task != state.settings.task:
        return Refuse("wrong-task", f"the task is {event.task!r}, but this run's is {state.settings.task!r}")
    if event.manifest is not None and state.manifest not in (None, event.manifest):
        return Refuse("wrong-manifest", _manifest_mismatch(event.manifest, state))
    if "train" in event.roles:
        for encoding in (
            FLOAT32.name,
            state.settings.encoding,
        ):  # of the first weights, and of all other updates
            if encoding not in event.encodings:
                return Refuse("wrong-encoding", _lacks_encoding(encoding, event.encodings))
    if known is None and _is_full(state) and not state.roster.has_evictable():
        return Refuse(
            "no-partition-left", f"{len(state.roster.clients)} clients are already known (--max-clients)"
        )
    return None


def _is_full(state: Run) -> bool:
    return len(state.roster.clients) >= state.settings.roster_limit


def _with_capacity_for(state: Run, client: str) -> Run:
    """Makes room for a hundredth of them at once: to look for one each time would take a flood's side."""
    if client in state.roster or not _is_full(state):
        return state
    forgotten = frozenset(state.roster.evictable(max(1, state.settings.roster_limit // 100)))
    return replace(state, roster=state.roster.without(forgotten))


def _lacks_encoding(encoding: str, offered: tuple[str, ...]) -> str:
    return (
        f"encodings: {', '.join(offered) or 'none'}, but this run needs {encoding!r}: "
        "install a version of the edge that has it"
    )


def _manifest_mismatch(manifest: str | None, state: Run) -> str:
    return (
        f"the weights have the manifest {str(manifest)[:12]}, but this run's have {str(state.manifest)[:12]}: "
        "the edge has another model for this task"
    )


def register_after_the_end(state: Run, event: Registered) -> tuple[Effect, ...]:
    """Whoever took part stays, and newcomers may come to predict; parts are not given out any more."""
    if event.client in state.roster:
        return register(state, event)[1]
    body = _refusal(state, event) or Admit(None, None, event.examples)
    return (SendReply(event.client, event.session, body),)


def _assign_partition(state: Run, event: Registered) -> int | Refuse | None:
    if "train" not in event.roles:
        return None
    count = state.settings.clients
    part = r.partition_for(state.roster, event.client, count, begun=state.begun)
    if part == "none-left":
        return Refuse("no-partition-left", f"all {count} partitions are taken (--clients {count})")
    return part


def received_round_of(state: Run, client: str) -> int | None:
    """The open round for which the client's update is already here."""
    phase = state.phase
    return phase.round if isinstance(phase, Collecting) and client in phase.updates else None


def assign_free_partitions(state: Run) -> Transition:
    """At the start of the run: the free parts go to those who have none; who gets none is refused."""
    roster, given = r.assign_partitions(state.roster, state.settings.clients)
    without = tuple(name for name in roster.trainers() if roster[name].partition is None)
    refusal = Refuse("no-partition-left", f"all {state.settings.clients} partitions are taken")
    told = (SendReply(name, roster[name].session, Admit(roster[name].partition, None)) for name in given)
    refused = (SendReply(name, roster[name].session, refusal) for name in without)
    return replace(state, roster=roster.without(without)), (*told, *refused)


def common_manifest(state: Run) -> str | None:
    """The run's manifest, or before it has weights the one on which most trainers agree."""
    if state.manifest is not None:
        return state.manifest
    loaded = (state.roster[name] for name in state.roster.trainers())
    counts = Counter(client.manifest for client in loaded if client.manifest is not None and client.examples)
    return min(counts, key=lambda digest: (-counts[digest], digest), default=None)


def refuse_other_manifests(state: Run) -> Transition:
    """Once the manifest is settled: whoever has loaded another model cannot take part."""
    assert state.manifest is not None
    wrong = {
        name: client
        for name in state.roster.trainers()
        if (client := state.roster[name]).manifest not in (None, state.manifest)
    }
    replies = tuple(
        SendReply(name, client.session, Refuse("wrong-manifest", _manifest_mismatch(client.manifest, state)))
        for name, client in wrong.items()
    )
    return replace(state, roster=state.roster.without(wrong)), replies
