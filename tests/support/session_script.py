"""A language for what happens to an edge's session: one line an event. What it does: `session_text`.

``connected s1`` · ``admitted part=3/20 incarnation=2 finished_round=5`` · ``selected 4 cohort=7,8`` · ``trained 1`` …
Everything is about the client ``7``, the run ``R`` and the task ``digits``, unless a ``name=value`` says otherwise.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

from fl_edge.session import events
from fl_edge.session.effects import Effect
from fl_edge.session.events import Event
from fl_edge.session.machine import step
from fl_edge.session.privacy import Charge
from fl_edge.session.registration import told_examples
from fl_edge.session.state import Confirming, Identity, LoadedPartition, Session, SessionState
from fl_edge.session.work import Answering, EvaluationScores, PendingUpdate, Refusal, Shares, Signature
from fl_shared.protocol import messages as m
from fl_shared.tensors.sections import ModelSection
from fl_shared.transfer.upload import FinishedUpdate
from tests.support.builders import ACCURACY, finished_update, fold_settings, partition, training_request
from tests.support.samples import DATA, MANIFEST
from tests.support.session_text import shown

CLIENT, RUN = "7", "R"
EDGE = Identity(CLIENT, device="dev", roles=("train", "predict"), tasks=("digits", "mnist"))
TRAINING = training_request(epochs=1)
KEYS = "k" * 86
"""Public keys of a masked run."""
FOLD = fold_settings()
CHARGES = (Charge("example", 1.1, 0.1, 20),)
"""What an update costs that ``trained 1 costs`` has made."""


def version_digest(version: int) -> str:
    """The digest of the model of this version, in these tests."""
    return hashlib.sha256(f"version {version}".encode()).hexdigest()


def update(*, base: str | None = "b" * 64, data: bytes = DATA) -> FinishedUpdate:
    return finished_update(ModelSection("delta", MANIFEST, data), base=base)


def partition_of(text: str) -> m.Partition:
    index, count, *scheme = text.split("/")  # 3/20, or 3/20/own
    return partition(int(index), count=int(count), scheme=scheme[0] if scheme else "iid")


def masking(least: str = "2", colluders: str = "0", **_: str) -> m.Masking:
    """How a round of three edges is masked. Their keys are not read by a session."""
    members = tuple(m.Member(client=name, keys=KEYS) for name in (CLIENT, "8", "9"))
    return m.Masking(bits=64, threshold=2, least=int(least), colluders=int(colluders), members=members)


def masked_set(kind: str, number: int, named: dict[str, str]) -> m.Closing | m.Reveal:
    """What asks to sign or to open a set of updates: of the edges in ``of``, for ``left`` seconds."""
    clients = named.get("of", "7,8").split(",")
    scope: dict[str, Any] = {
        "run": named.get("run", RUN),
        "incarnation": int(named.get("incarnation", "1")),
        "seq": 0,
        "round": number,
        "plan": "c" * 64,
        "included": dict.fromkeys(clients, "b" * 64),
        "seconds_left": float(named.get("left", "60")),
    }
    if kind == "closing":
        return m.Closing(**scope)
    return m.Reveal(**scope, signatures={}, packages={})


class SessionScript:
    """One session and its clock; its updates have ``size`` bytes, or the four values of the golden messages.

    ``kept``: an earlier process had finished its update for that round of the run ``R``. An edge ignores the
    ``seq`` of what the aggregator sends.
    """

    def __init__(self, identity: Identity = EDGE, size: int | None = None, kept: int | None = None) -> None:
        self.state: SessionState = Session(identity)
        self.now = 0.0
        if kept is not None:
            selection = self.event(f"selected {kept}")
            assert isinstance(selection, events.SelectionSeen)
            base = None if kept == 0 else "b" * 64
            self.state = Session(
                identity, restored_update=PendingUpdate(selection.selected, update(base=base))
            )
        self.data = DATA if size is None else (DATA * -(-size // len(DATA)))[:size]

    @property
    def session(self) -> Session:
        assert isinstance(self.state, Session)
        return self.state

    def happen(self, event: Event) -> tuple[Effect, ...]:
        self.state, done = step(self.state, event)
        return done

    def do(self, *lines: str) -> tuple[Effect, ...]:
        """Handles events; returns the effects of the last one."""
        done: tuple[Effect, ...] = ()
        for line in lines:
            done = self.happen(self.event(line))
        return done

    def texts(self, *lines: str) -> list[str]:
        return [shown(effect) for effect in self.do(*lines)]

    def event(self, line: str) -> Event:
        words = [word for word in line.split() if "=" not in word]
        named = dict(word.split("=", 1) for word in line.split() if "=" in word)
        what, rest = words[0], words[1:]
        if what == "time":
            self.now += float(rest[0])
            return events.TimePassed(self.now)
        if what == "lost":
            return events.ConnectionLost(self.now)
        if what == "stop":
            return events.StopRequested(self.now)
        if what == "connected":
            largest = int(named["largest"]) if "largest" in named else None
            return events.ConnectionEstablished(self.now, rest[0], largest)
        if what == "bridge":
            return events.BridgeSeen(self.now, connected=rest == ["1"])
        if what == "overdue":
            return events.ModelOverdue(self.now)
        if what == "charged":
            digest = named.get("digest", update(data=self.data).digest)
            return events.Charged(self.now, digest, " ".join(rest) or None)
        if what in ("keys", "signed", "opened", "declined"):
            return self._of_masks(what, rest, named)
        if what in ("loaded", "fetched", "trained", "evaluated", "failed"):
            return self._of_job(what, int(rest[0]), " ".join(rest[1:]), named)
        return self._of_wire(what, rest, named)

    def _of_masks(self, what: str, rest: list[str], named: dict[str, str]) -> Event:
        if what == "keys":
            return events.RunKeysMade(self.now, named.get("run", RUN), KEYS)
        state = self.session.unmasking
        asked = state.asked if isinstance(state, Answering) else masked_set("closing", 1, {})
        if what == "signed":
            return events.Answered(self.now, asked, Signature("e" * 64, b"s" * 64))
        if what == "opened":
            shares = b"o" * 16
            digest = hashlib.sha256(shares).hexdigest()
            return events.Answered(self.now, asked, Shares("e" * 64, digest, shares, tuple(rest)))
        reason: Any = rest[0]
        return events.Answered(self.now, asked, Refusal("e" * 64, reason, "because"))

    def _of_job(self, what: str, job: int, text: str, named: dict[str, str]) -> Event:
        if what == "loaded":
            holdout = int(named.get("holdout", "10"))
            able = tuple(filter(None, named.get("abilities", "").split(",")))
            return events.PartitionLoaded(
                self.now,
                job,
                int(named.get("examples", "40")),
                holdout,
                "c" * 64,
                (ACCURACY,),
                able,
                values=4,
            )
        if what == "fetched":
            return events.Fetched(self.now, job)
        if what == "trained":
            made = update(base=None if named.get("base") == "none" else "b" * 64, data=self.data)
            if "after" in named:
                before, after = (
                    {"accuracy": float(named[when]), "loss": 0.5, "examples": 10.0}
                    for when in ("before", "after")
                )
                made = replace(made, metrics=m.UpdateMetrics(before=before, after=after))
            own = {"control": memoryview(DATA)} if text.startswith("own") else {}
            body = "b" * 64 if "masked" in text else None
            costs = CHARGES if "costs" in text else ()
            return events.Trained(self.now, job, made, own, body, costs, 0.25 if costs else None)
        if what == "evaluated":
            return events.ModelEvaluated(
                self.now, job, EvaluationScores(10, 0.5, {"accuracy": 0.75}, declared=(ACCURACY,))
            )
        fault: Any = named.get("fault", "run")
        return events.JobFailed(self.now, job, text, user_error="user" in named, fault=fault)

    def _of_wire(self, what: str, rest: list[str], named: dict[str, str]) -> Event:
        scope: dict[str, Any] = {
            "run": named.get("run", RUN),
            "incarnation": int(named.get("incarnation", "1")),
            "seq": 0,
        }
        task = named.get("task", "digits")
        match what:
            case "aggregator":
                state: Any = rest[0]
                seen = m.AggregatorPresence(
                    state=state,
                    session=rest[1],
                    run=scope["run"],
                    incarnation=scope["incarnation"],
                    sealed="sealed" in rest,
                )
                return events.AggregatorSeen(self.now, seen, retained="retained" in rest)
            case "presence":
                if rest == ["cleared"]:
                    return events.PresenceSeen(self.now, None)
                state = rest[0]
                return events.PresenceSeen(
                    self.now, m.ClientPresence(client=CLIENT, state=state, session=rest[1])
                )
            case "admitted" | "refused" | "grant" | "accepted" | "rejected":
                return events.Replied(self.now, self._reply(what, rest, named, scope))
            case "selected":
                number = int(rest[0])
                base = (
                    None
                    if number == 0
                    else m.ModelReference(version=number - 1, digest=version_digest(number - 1))
                )
                selected = m.Selected(
                    **scope,
                    round=number,
                    task=task,
                    ticket="ticket" in rest,
                    cohort=None if "work" in rest else tuple(named.get("cohort", CLIENT).split(",")),
                    seconds_left=float(named.get("left", "600")),
                    training=TRAINING.model_copy(update={"precision": named.get("precision", "float32")}),
                    fold=FOLD,
                    encoding=named.get("encoding", "f32"),
                    base=base,
                    inline_limit=int(named.get("limit", "1000000")),
                    masked=masking(**named) if "masked" in rest else None,
                    privacy=m.RoundPrivacy.model_validate(
                        {"mechanism": named["dp"], "clip": 0.5, "noise": 2.0}
                    )
                    if "dp" in named
                    else None,
                )
                return events.SelectionSeen(self.now, selected, on_own_topic="work" in rest)
            case "cleared":
                return events.SelectionCleared(self.now, None if rest == ["work"] else int(rest[0]))
            case "closing" | "reveal":
                return events.UnmaskingAsked(self.now, masked_set(what, int(rest[0]), named))
            case "unmask":
                return events.UnmaskingCleared(self.now)
            case "result":
                return events.ResultSeen(self.now, self._result(rest, named, scope))
            case "model":
                split: Any = named.get("evaluate")
                version = int(rest[0])
                candidate = None
                if "candidate" in named:
                    number = int(named["candidate"])
                    candidate = m.ModelReference(version=number, digest=version_digest(number))
                announced = m.ModelAnnouncement(
                    **scope,
                    task=task,
                    round=version,
                    version=version,
                    digest=version_digest(version),
                    chunks=1,
                    size=16,
                    evaluate=split,
                    training=training_request() if split == "personal" else None,
                    candidate=candidate,
                )
                return events.ModelAnnounced(self.now, announced)
        raise AssertionError(f"no such event: {what}")

    def _reply(self, what: str, rest: list[str], named: dict[str, str], scope: dict[str, Any]) -> Any:
        line = self.session.connection if isinstance(self.state, Session) else None
        to: dict[str, Any] = {
            "client": CLIENT,
            "session": named.get("session", line.session if line else "none"),
        }
        if what == "admitted":
            part = named.get("part")
            held = int(named["finished_round"]) if "finished_round" in named else None
            # It answers the registration that the edge sent last, unless the script says `answers=first`.
            confirmed = isinstance(self.state, Session) and isinstance(self.state.registration, Confirming)
            loaded = self.state.partition_state if isinstance(self.state, Session) else None
            second = confirmed and isinstance(loaded, LoadedPartition) and named.get("answers") != "first"
            return m.Admitted(
                **scope,
                **to,
                task=named.get("task", "digits"),
                partition=partition_of(part) if part else None,
                examples=told_examples(self.session, loaded)
                if second and isinstance(loaded, LoadedPartition)
                else None,
                finished_round=held,
                newest_round=int(named["newest_round"]) if "newest_round" in named else None,
                awaited="awaited" in rest,
                masked="masked" in rest,
                private="private" in rest,
                counted=m.CountedUpdate(
                    round=int(named["counted"]), digest=named.get("digest", update(data=self.data).digest)
                )
                if "counted" in named
                else None,
            )
        if what == "grant":
            chunks = tuple(int(index) for index in rest[1].split(","))
            digest = named.get("digest", update(data=self.data).digest)
            return m.Grant(**scope, **to, round=int(rest[0]), digest=digest, chunks=chunks)
        reason: Any = rest[-1]
        if what == "refused":
            weights = MANIFEST if "explained" in rest else None
            return m.Refused(**scope, **to, reason=reason, detail="because", weights=weights)
        digest = named.get("digest", update(data=self.data).digest)
        if what == "accepted":
            return m.Accepted(**scope, **to, round=int(rest[0]), digest=digest)
        return m.Rejected(
            **scope,
            **to,
            round=int(rest[0]),
            digest=None if digest == "none" else digest,
            reason=reason,
            detail="because",
        )

    def _result(self, rest: list[str], named: dict[str, str], scope: dict[str, Any]) -> m.Result:
        number = int(rest[0])
        return m.Result(
            **scope,
            round=number,
            outcome="abandoned" if "abandoned" in rest else "committed",
            reason=None,
            version=number,
            digest=version_digest(number),
            participants=tuple(named.get("with", "8").split(",")),
            missing={},
            examples=40,
            metrics={},
            bytes_up=0,
            bytes_down=0,
            seconds=1.0,
        )


def identity(**changes: Any) -> Identity:
    return replace(EDGE, **changes)
