"""A language for the round machine's tests: ``playbook >> "event" << "expected effect"``, all as text.

Every effect but ``Record`` has to be expected, in order, before the next event; ``invariants`` looks after
``Record`` and everything else that must hold at every step. An expectation is some of an effect's words in
their order, ``*`` standing for any text: ``result 1 abandoned 3=offline*``.

Events, with what may be left out in brackets (the defaults are those of an edge that does everything right)::

    start | tick | reconnect | resume | forget CLIENT … | interrupt [REASON]
    wait SECONDS (and a tick) | sleep SECONDS (no tick)
    join ID [roles=train,predict] [device=D] [session=S] [task=T] [encodings=f32] [abilities=A] [fresh=yes]
        [unable=WHY]                                                    first registration
    load ID [examples=10] [manifest=M] [device=D] [session=S]           second registration
    rejoin ID                                                           a new session of the same device
    lose ID [session=S]                                                 its will
    revoke [ID …] [list=N]                                              their kits, by the next list
    send ID [round=N] [base=vN] [digest=D] [examples=10] [manifest=M] [after.accuracy=0.5 …]
    offer ID [as send]                                                  an update too large to be sent unasked
    kept ID | unusable ID REASON [detail=…] [round=N] [digest=D] | made [round=N]    what the interpreter does
    fail ID [round=N] [detail=…]
    evaluate ID VERSION [VALUE of each declared metric] [loss=0.5] [examples=10] [split=test]
    sign ID [round=N] | open ID [round=N] | decline ID REASON [round=N]     a member of a masked round
    spoil [ID] [final=yes] [short=1]     the next sum cannot be unmasked, because of this edge

With ``auto`` (the default) ``kept`` and ``made`` follow by themselves, as they do in the program; a masked sum has
`TALLIES`. The digest
of version N is written ``vN``, that of an update is ``CLIENT@ROUND``, a client's sessions are ``CLIENT.1``,
``CLIENT.2``, …; the run's manifest is ``M``.
"""

from __future__ import annotations

import hashlib
import shlex
from base64 import urlsafe_b64encode
from collections import deque
from dataclasses import replace
from typing import Any, Self

from fl_aggregator.configuration.settings import Settings
from fl_aggregator.round import effects as do
from fl_aggregator.round import events as on
from fl_aggregator.round.machine import step
from fl_aggregator.round.phases import Buffering, Collecting
from fl_aggregator.round.state import new_run
from fl_shared.protocol.messages import MetricDeclaration, ModelReference
from tests.support.builders import ACCURACY
from tests.support.round_invariants import RoundInvariants
from tests.support.round_text import describe, matches
from tests.support.versions import digest_of

TALLIES = on.Tallies(
    examples=40,
    holdout=10,
    train_loss=0.5,
    before_loss=0.8,
    before_primary=0.5,
    after_loss=0.4,
    after_primary=0.75,
)


class Playbook:
    """One run of the machine, with its clock, its edges' sessions, and an interpreter if ``auto``."""

    def __init__(
        self,
        *,
        auto: bool = True,
        first_weights: bool = False,
        declared: tuple[MetricDeclaration, ...] = (ACCURACY,),
        **settings: Any,
    ) -> None:
        """``settings``: those of a run; ``first_weights``: the user gave initial weights.

        ``declared``: the metrics that the edges' task declares.
        """
        self.declared = declared
        self.abilities = "tickets" if settings.get("mode") == "async" else ""
        first = ModelReference(version=0, digest=digest_of(0)) if first_weights else None
        self.state = new_run(Settings.model_validate(settings), first, "M" if first_weights else None)
        self.now = 0.0
        self.auto = auto
        self.invariants = RoundInvariants(self.state)
        self.told: list[tuple[on.Event, tuple[do.Effect, ...]]] = []
        self._pending: deque[do.Effect] = deque()
        self._sessions: dict[str, int] = {}
        self._sent: dict[str, on.UpdateMetadata] = {}
        self._spoiled: deque[tuple[str | None, bool, int]] = deque()

    def __rshift__(self, line: str) -> Self:
        assert not self._pending, f"before {line!r}, not expected: {[describe(e) for e in self._pending]}"
        self._tell(line)
        return self

    def __lshift__(self, expected: str) -> Self:
        assert self._pending, f"expected {expected!r}, but nothing more is to be done"
        actual = describe(self._pending.popleft())
        assert matches(expected, actual), f"expected {expected!r}, to be done is {actual!r}"
        return self

    def __bool__(self) -> bool:
        assert not self._pending, f"at the end, not expected: {[describe(e) for e in self._pending]}"
        return True

    def play(self, *happened: str | on.Event) -> Self:
        """Handles events whose effects another test checks."""
        for what in happened:
            assert not self._pending, f"before {what!r}, not expected: {[describe(e) for e in self._pending]}"
            if isinstance(what, str):
                self._tell(what)
            else:
                self.handle(what)
            self._pending.clear()
        return self

    @property
    def collecting(self) -> Collecting:
        assert isinstance(self.state.phase, Collecting), self.state.phase
        return self.state.phase

    @property
    def cohort(self) -> tuple[str, ...]:
        return self.collecting.cohort

    @property
    def substitutes(self) -> tuple[str, ...]:
        return self.collecting.substitutes

    def result(self, number: int) -> str:
        """The first result of a round, in words without quotes."""
        lines = (describe(effect) for _, effects in self.told for effect in effects)
        return next(line for line in lines if line.startswith(f"result {number} ")).replace('"', "")

    def _tell(self, line: str) -> None:
        event = self.event(line)
        if event is not None:
            self.handle(event)

    def handle(self, event: on.Event) -> None:
        """Handles one event, and with ``auto`` the events that its effects lead to."""
        before = self.state
        self.state, effects = step(before, event)
        self.invariants.check(before, event, self.state, effects)
        self.told.append((event, effects))
        self._pending += [effect for effect in effects if not isinstance(effect, do.Record)]
        if self.auto:
            self.follow(effects)

    def follow(self, effects: tuple[do.Effect, ...]) -> None:
        """Handles at once what the interpreter would report after ``effects``."""
        for effect in effects:
            match effect:
                case do.StoreUpdate(update=update):
                    body = None if update.plan is None else f"body of {update.digest}"
                    self.handle(on.UpdateStored(now=self.now, update=replace(update, body=body)))
                case do.KeepShares(client=client, session=session, round=number, digest=digest):
                    self.handle(
                        on.SharesKept(
                            now=self.now, client=client, session=session, round=number, digest=digest
                        )
                    )
                case do.Average(round=number) if self._spoiled:
                    culprit, final, short = self._spoiled.popleft()
                    self.handle(
                        on.UnmaskFailed(
                            now=self.now, round=number, client=culprit, detail="wrong shares", final=final,
                            short=short,
                        )
                    )  # fmt: skip
                case do.Average(round=number, version=version, holders=holders):
                    self.handle(
                        on.ModelCreated(
                            now=self.now,
                            round=number,
                            digest=digest_of(version),
                            manifest="M",
                            tallies=TALLIES if holders else None,
                        )
                    )

    def event(self, line: str) -> on.Event | None:
        """The event that ``line`` tells of; ``None`` if it only moves the clock."""
        verb, *words = shlex.split(line)
        given = dict(word.split("=", 1) for word in words if "=" in word)
        plain = [word for word in words if "=" not in word]
        match verb, plain:
            case "start", []:
                return on.Started(now=self.now)
            case "tick", []:
                return on.TimePassed(now=self.now)
            case (("wait" | "sleep"), [seconds]):
                self.now += 0.0 if self.state.paused is not None else float(seconds)
                return on.TimePassed(now=self.now) if verb == "wait" else None
            case "disconnect", []:
                return on.Disconnected(now=self.now)
            case "reconnect", []:
                return on.Reconnected(now=self.now)
            case "resume", []:
                return on.Resumed(now=self.now, incarnation=self.state.incarnation + 1)
            case "forget", [*clients]:
                return on.UpdatesLost(now=self.now, round=self.round, clients=tuple(clients))
            case "interrupt", reason:
                return on.StopRequested(now=self.now, reason=" ".join(reason) or "stopped")
            case "pause", reason:
                return on.PauseRequested(
                    now=self.now, reason=" ".join(reason), number=_number(given), answer_to="operator"
                )
            case "unpause", []:
                return on.UnpauseRequested(now=self.now, number=_number(given), answer_to="operator")
            case "rejoin", [client]:
                self._sessions[client] = self._sessions.get(client, 1) + 1
                return self._registered(client, given)
            case "join", [client]:
                return self._registered(client, given)
            case "load", [client]:
                return self._registered(client, {"examples": "10", "manifest": "M", **given})
            case "lose", [client]:
                return on.EdgeLost(
                    now=self.now,
                    client=client,
                    session=given.get("session", self.session(client)),
                    reason=given.get("reason"),
                )
            case "unbridge", [broker]:
                return on.BridgeLost(now=self.now, broker=broker)
            case "revoke", [*clients]:
                number = int(given.get("list", self.state.revocations + 1))
                return on.KitsRevoked(now=self.now, number=number, clients=tuple(clients))
            case "send", [client]:
                self._sent[client] = self._update(client, given)
                return on.UpdateArrived(now=self.now, update=self._sent[client])
            case "offer", [client]:
                self._sent[client] = self._update(client, given)
                return on.UpdateOffered(now=self.now, update=self._sent[client])
            case "kept", [client]:
                return on.UpdateStored(now=self.now, update=self._sent[client])
            case "unusable", [client, reason]:
                return on.UpdateInvalid(
                    now=self.now,
                    client=client,
                    session=given.get("session", self.session(client)),
                    round=int(given.get("round", self.round)),
                    digest=given.get("digest"),
                    reason=reason,  # type: ignore[arg-type]
                    detail=given.get("detail", "no good"),
                )
            case "fail", [client]:
                return on.TrainingFailureReported(
                    now=self.now,
                    client=client,
                    round=int(given.get("round", self.round)),
                    detail=given.get("detail", "out of memory"),
                )
            case "sign", [client]:
                return on.Agreed(
                    now=self.now,
                    client=client,
                    round=int(given.get("round", self.round)),
                    closing="c",
                    signature=f"signature of {client}",
                )
            case "open", [client]:
                number = int(given.get("round", self.round))
                return on.SharesArrived(
                    now=self.now,
                    client=client,
                    session=given.get("session", self.session(client)),
                    round=number,
                    digest=f"shares of {client}@{number}",
                )
            case "decline", [client, reason]:
                return on.Declined(
                    now=self.now,
                    client=client,
                    round=int(given.get("round", self.round)),
                    reason=reason,  # type: ignore[arg-type]
                    detail=given.get("detail", "no"),
                )
            case "spoil", [*clients]:
                short = int(given.get("short", 1))
                self._spoiled.append((clients[0] if clients else None, "final" in given, short))
                return None
            case "made", []:
                version = 0 if self.state.model is None else self.state.version + 1
                return on.ModelCreated(
                    now=self.now,
                    round=int(given.get("round", self.round)),
                    digest=digest_of(version),
                    manifest="M",
                )
            case "evaluate", [client, of, *value]:
                return on.Evaluated(
                    now=self.now,
                    client=client,
                    session=given.get("session", self.session(client)),
                    version=int(of),
                    digest=digest_of(int(given.get("model", of))),
                    split=given.get("split", "test"),  # type: ignore[arg-type]
                    examples=int(given.get("examples", 10)),
                    loss=float(given.get("loss", 0.5)),
                    metrics={m.name: float(one) for m, one in zip(self.declared, value, strict=False)},
                    before={"accuracy": float(given["before"])} if "before" in given else {},
                )
        raise ValueError(f"{line!r}: see the notation in {__name__}")

    def session(self, client: str) -> str:
        return f"{client}.{self._sessions.get(client, 1)}"

    @property
    def round(self) -> int:
        """The open round's number, or the next one's, or the last one's."""
        number = getattr(self.state.phase, "round", None)
        return self.invariants.last_round if number is None else number

    def _registered(self, client: str, given: dict[str, str]) -> on.Registered:
        known = self.state.roster.get(client)
        roles = (
            given["roles"].split(",") if "roles" in given else known.roles if known else ["train", "predict"]
        )
        return on.Registered(
            now=self.now,
            client=client,
            session=given.get("session", self.session(client)),
            device=given.get("device", f"device-{client}"),
            roles=tuple(roles),  # type: ignore[arg-type]
            encodings=tuple(given.get("encodings", "f32").split(",")),
            abilities=tuple(filter(None, given.get("abilities", self.abilities).split(","))),
            task=given.get("task"),
            unable=given.get("unable"),
            fresh="fresh" in given,
            via=given.get("via", known.via if known else None),
            manifest=given.get("manifest"),
            examples=int(given["examples"]) if "examples" in given else None,
            metrics=self.declared if "examples" in given else None,
            keys=given.get("keys", keys_of(client))
            if self.state.settings.masked and "examples" in given
            else None,
        )

    def _update(self, client: str, given: dict[str, str]) -> on.UpdateMetadata:
        phase = self.state.phase
        base = phase.base if isinstance(phase, Collecting) else self.state.model
        number = int(given.get("round", self.round))
        ticket = phase.ticket_of(client) if isinstance(phase, Buffering) else None
        if ticket is not None and "round" not in given:
            base, number = ticket.base, ticket.round
        if "base" in given:
            base_digest = None if given["base"] == "none" else digest_of(int(given["base"].lstrip("v")))
        else:
            base_digest = None if base is None else base.digest
        reports: dict[str, dict[str, float]] = {"before": {}, "after": {}, "train": {}}
        for name, value in given.items():
            if "." in name:
                group, metric = name.split(".", 1)
                reports[group][metric] = float(value)
        return on.UpdateMetadata(
            client=client,
            session=given.get("session", self.session(client)),
            round=number,
            base=base_digest,
            digest=given.get("digest", f"{client}@{number}"),
            manifest=given.get("manifest", "M"),
            examples=int(given.get("examples", 10)),
            steps=int(given.get("steps", 1)),
            size=100,
            before=reports["before"],
            after=reports["after"],
            train=reports["train"],
            plan=given.get("plan", "P" if isinstance(phase, Collecting) and phase.masking else None),
        )


def keys_of(client: str) -> str:
    """Public keys of an edge, which open nothing."""
    return urlsafe_b64encode(hashlib.sha512(client.encode()).digest()).decode().rstrip("=")


def _number(given: dict[str, str]) -> int | None:
    return int(given["number"]) if "number" in given else None


def gathered(*, auto: bool = True, **settings: Any) -> Playbook:
    """Everyone (ids from 0) has joined and loaded: round 0 is open."""
    playbook = Playbook(auto=auto, **settings).play("start")
    for client in range(playbook.state.settings.clients):
        playbook.play(f"join {client}", f"load {client}")
    return playbook


def training(*, auto: bool = True, evaluator: bool = False, **settings: Any) -> Playbook:
    """Version 0 exists and round 1 is open; with ``evaluator``, an edge ``e`` has that role."""
    playbook = Playbook(**settings).play("start")
    if evaluator:
        playbook.play("join e roles=evaluate")
    for client in range(playbook.state.settings.clients):
        playbook.play(f"join {client}", f"load {client}")
    playbook.play(f"send {playbook.cohort[0]}")
    assert playbook.state.version == 0
    assert playbook.round == 1
    playbook.auto = auto
    return playbook


def round_done(playbook: Playbook) -> Playbook:
    """The whole cohort of the open round sends its updates."""
    number = playbook.round
    for client in playbook.cohort:
        playbook.play(f"send {client} round={number}")
    return playbook
