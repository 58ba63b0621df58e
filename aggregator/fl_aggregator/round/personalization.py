"""After the last version, the edges train models of their own from it (``--personalize``). Pure.

They are asked once, when the run has nothing else to do. Their reports are those of an evaluation on the split
``personal``, which delays the end of the run and the last line of the history as any other evaluation does.
"""

from __future__ import annotations

from fl_aggregator.round import effects as do
from fl_aggregator.round.effects import Transition
from fl_aggregator.round.persistent_map import PersistentMap
from fl_aggregator.round.phases import Evaluating
from fl_aggregator.round.state import PendingEvaluation, PersonalMissing, PersonalScore, Run
from fl_shared.protocol.messages import LOSS
from fl_shared.system.frozen import replace


def is_owed(state: Run) -> bool:
    """Whether the run has its last version, and the edges are still to be asked for models of their own."""
    return bool(state.settings.personalize) and state.personal is None and state.is_done and state.version > 0


def request(state: Run, round_number: int, since: float, now: float) -> Transition:
    """Asks the edges that are there, or offline within their grace, and have data. Without any, there is no effect."""
    model = state.served
    assert model is not None, "the run has a version"
    state = replace(state, personal={}, personal_missing={"absent": state.settings.clients})
    asked = PendingEvaluation(
        model=model,
        split="personal",
        requested_at=now,
        deadline=now + state.settings.deadline,
        awaited=PersistentMap(
            (name, None)
            for name, client in state.roster.clients.items()
            if client.ready(state.manifest) and not state.roster.is_absent(name, now, state.settings.grace)
        ),
    )
    if not asked.awaited:
        return state, ()
    evaluating = Evaluating(round=round_number, since=since)
    state = replace(state, phase=evaluating, evaluations=(*state.evaluations, asked))
    return state, (do.Personalize(model),)


def repeated(state: Run) -> tuple[do.Personalize, ...]:
    """Returns what edges must be asked once more after a resume."""
    return tuple(do.Personalize(one.model) for one in state.evaluations if one.split == "personal")


def close(state: Run, evaluation: PendingEvaluation, now: float) -> Transition:
    """Keeps the scores of each edge that has reported, in the summary of the last version, too; and who has none."""
    state = replace(state, evaluations=tuple(e for e in state.evaluations if e is not evaluation))
    primary = state.primary
    scores: dict[str, PersonalScore] = {}
    for report in sorted(evaluation.results, key=lambda one: one.client):
        before, after = (
            values.get(primary.name) for values in (report.before, {**report.metrics, LOSS.name: report.loss})
        )
        if before is not None and after is not None and primary.contains(before) and primary.contains(after):
            scores[report.client] = PersonalScore(before=before, after=after)
    late = sum(not state.roster.is_absent(name, now, state.settings.grace) for name in evaluation.awaited)
    reported = len(evaluation.results)
    missing: dict[PersonalMissing, int] = {
        "deadline": late,
        "absent": max(0, state.settings.clients - reported - late),
        "unmeasured": reported - len(scores),
    }
    state = replace(state, personal=scores, personal_missing=missing)
    if not scores:
        return state, ()
    summaries = [
        replace(one, personal=scores) if one.model == state.model else one for one in state.pending_summaries
    ]
    results = [do.PublishResult(one) for one in summaries if one.personal]
    return replace(state, pending_summaries=tuple(summaries)), tuple(results)
