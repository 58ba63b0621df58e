"""Effects and phases of the round machine in words, for playbooks and traces."""

from __future__ import annotations

import shlex
from fnmatch import fnmatchcase

from fl_aggregator.round import effects as do
from fl_aggregator.round.phases import Agreeing, Buffering, Collecting, Selecting, Unmasking
from fl_aggregator.round.state import Run, Summary
from fl_shared.protocol.messages import ModelReference
from tests.support.versions import version_of


def matches(expected: str, actual: str) -> bool:
    """Whether ``actual`` contains the words of ``expected`` in order; ``*`` matches any text in a word."""
    words = iter(shlex.split(actual))
    return all(any(fnmatchcase(word, wanted) for word in words) for wanted in shlex.split(expected))


def describe(effect: do.Effect) -> str:
    """An effect on one line."""
    match effect:
        case do.Record():
            return "record"
        case do.SendReply(client=client, session=session, body=body):
            return f"{_describe_body(client, body)}{'' if session == f'{client}.1' else f' to={session}'}"
        case do.Answer(command=command, accepted=accepted, detail=detail):
            return f"answer {command} {'yes' if accepted else 'no'} {_quote(detail)}"
        case do.AnnounceRound():
            cohort = ",".join(effect.cohort)
            masking = effect.masking
            masked = "" if masking is None else f" masked={masking.threshold},{masking.least}"
            until = f"until={effect.deadline:g}"
            return f"announce {effect.round} base={_model(effect.base)} cohort={cohort} {until}{masked}"
        case do.Draw(round=number, eligible=eligible, rate=rate):
            return f"draw {number} of {','.join(eligible)} rate={rate:g}"
        case do.DeclineOrder(round=number, detail=detail):
            return f"decline {number} {_quote(detail)}"
        case do.WithdrawRound(round=number):
            return f"withdraw {number}"
        case do.IssueTicket(client=client, ticket=ticket):
            return f"issue {client} {ticket.round} base={_model(ticket.base)} until={ticket.deadline:g}"
        case do.WithdrawTicket(client=client, round=number):
            return f"withdraw {client} {number}"
        case do.CloseBuffer(round=number, updates=updates):
            return f"close {number} of={','.join(update.digest for update in updates)}"
        case do.Receive(update=update):
            return f"receive {update.digest}"
        case do.StoreUpdate(update=update):
            return f"keep {update.digest}"
        case do.Fold(update=update):
            stale = f" stale={update.staleness}" if update.staleness else ""
            return f"fold {update.digest}{stale}"
        case do.Average(round=number, version=version, contributors=contributors):
            of = ",".join(update.digest for update in contributors)
            holders = f" with={','.join(effect.holders)}" if effect.holders else ""
            return f"average {number} base={_model(effect.base)} of={of} version={version}{holders}"
        case do.PublishClosing(round=number, included=included, deadline=deadline):
            return f"closing {number} of={','.join(included)} until={deadline:g}"
        case do.PublishReveal(round=number, included=included, signatures=signatures, deadline=deadline):
            return f"reveal {number} of={','.join(included)} signed={','.join(signatures)} until={deadline:g}"
        case do.KeepShares(digest=digest):
            return f"keep {digest}"
        case do.PublishModel(round=number, model=model, evaluate=split):
            return f"publish {_model(model)} round={number} evaluate={split or '-'}"
        case do.Personalize(model=model):
            return f"personalize {_model(model)}"
        case do.PublishResult(summary=summary):
            return f"result {_describe_summary(summary)}"
        case do.WriteHistory(summary=summary):
            return f"history {_describe_summary(summary)}"
        case do.StoreBest(model=model):
            return f"best {_model(model)}"
        case do.EndRun():
            return "end"


def _quote(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _describe_body(client: str, body: do.Admit | do.Refuse | do.Accept | do.Reject) -> str:
    match body:
        case do.Admit(partition=part, finished_round=held, examples=examples):
            tail = "" if examples is None else f" examples={examples}"
            tail += "" if held is None else f" finished_round={held}"
            return f"admit {client} part={'-' if part is None else part}{tail}"
        case do.Refuse(reason=reason, detail=detail):
            return f"refuse {client} {reason} {_quote(detail)}"
        case do.Accept(digest=digest):
            return f"accept {client} {digest}"
        case do.Reject(digest=digest, reason=reason, detail=detail):
            return f"reject {client} {digest or '-'} {reason} {_quote(detail)}"


def _describe_summary(summary: Summary) -> str:
    words = [
        str(summary.round),
        summary.outcome,
        _model(summary.model),
        f"by={','.join(summary.participants) or '-'}",
        f"examples={summary.examples}",
        *(f"{name}={value:g}" for name, value in sorted(summary.metrics.items())),
        *(f"{name}={_quote(why)}" for name, why in sorted(summary.missing.items())),
        *(f"{name}={value:g}s" for name, value in summary.seconds.items() if value),
        *([f"reason={_quote(summary.reason)}"] if summary.reason else []),
    ]
    return " ".join(words)


def _model(model: ModelReference | None) -> str:
    return "-" if model is None else f"v{version_of(model.digest)}"


def describe_phase(state: Run) -> str:
    """The state of the machine, on one line."""
    phase = state.phase
    words = [*(["paused:"] if state.paused is not None else []), type(phase).__name__.lower()]
    match phase:
        case Selecting(round=number):
            words.append(str(number))
        case Collecting(round=number):
            words += [str(number), f"{len(phase.updates)}/{phase.target}", "of", ",".join(phase.cohort)]
        case Agreeing(round=number):
            signed = ",".join(phase.signatures) or "-"
            words += [str(number), f"{len(phase.signatures)}/{phase.masking.threshold}", "signed by", signed]
        case Unmasking(round=number):
            words += [
                str(number),
                f"{len(phase.opened)}/{phase.needed}",
                "opened by",
                ",".join(phase.opened) or "-",
            ]
        case Buffering(round=number):
            at_work = ",".join(sorted(phase.tickets)) or "-"
            words += [str(number), f"{len(phase.updates)}/{state.settings.per_round}", "at work", at_work]
            words += ["away", ",".join(sorted(phase.away))] if phase.away else []
            words += ["making", str(phase.making.round)] if phase.making is not None else []
        case _:
            words += [
                str(getattr(phase, name)) for name in ("round", "reason", "detail") if hasattr(phase, name)
            ]
    return " ".join(words)
