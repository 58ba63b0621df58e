"""PURE: the masked rounds that an edge requires (``--require-masked``). It is imported for ``--help``, too."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

from fl_edge.session.survey import problem_of_masked_survey, problem_of_survey

if TYPE_CHECKING:
    from fl_edge.session.privacy import OwnPrivacy
    from fl_edge.session.state import Identity, Session
    from fl_shared.protocol import messages as m
    from fl_shared.transfer.upload import FinishedUpdate

NOISE_ONLY: Final = (
    "this edge trains only in rounds whose edges add enough noise themselves (--require-noise)"
)
MASKED_ONLY: Final = "this edge trains in masked rounds only (--require-masked)"


@dataclass(frozen=True, slots=True)
class RequiredMasking:
    """What ``--require-masked`` asks of each round but round 0.

    ``members``: the fewest updates in a sum. ``colluders``: how many of their edges may work together with the
    aggregator, at least.
    """

    members: int
    colluders: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads ``MEMBERS[,COLLUDERS]``. Raises ``ValueError`` that says what was expected."""
        from fl_shared.protocol.kinds.masked import MAX_MEMBERS

        form = re.fullmatch(r"(\d{1,3})(?:,(\d{1,3}))?", text)
        members, colluders = (int(form[1]), int(form[2] or 1)) if form else (0, 0)
        if not colluders + 2 <= members <= MAX_MEMBERS:
            raise ValueError(
                f"{text!r}; expected MEMBERS or MEMBERS,COLLUDERS, for example 8,1: at least two members more than "
                f"colluders, and at most {MAX_MEMBERS}"
            )
        return cls(members, colluders)


def policy_problem(selected: m.Selected, required: RequiredMasking | None) -> str | None:
    """Says why the edge's policy forbids a round; null if it does not.

    The weights of round 0 depend on the run's seed and its task alone, so nothing of them is masked.
    """
    masked = selected.masked
    if required is None or (selected.base is None and selected.round == 0):
        return None
    if masked is None:
        return MASKED_ONLY
    if masked.least < required.members:
        return f"{MASKED_ONLY}: least: {masked.least} updates in a sum, expected at least {required.members}"
    if masked.colluders < required.colluders:
        return f"{MASKED_ONLY}: colluders: {masked.colluders}, expected at least {required.colluders}"
    return None


def noise_problem(selected: m.Selected, privacy: OwnPrivacy) -> str | None:
    """Says why the noise of a round is less than the edge requires (``--require-noise``); null if it is not.

    Only noise that edges add counts: that of a sum with the fewest updates, of which all colluders leave out theirs.
    """
    from fl_shared.privacy.distributed_noise import noise_of_sum

    least, masked, given = privacy.least_noise, selected.masked, selected.privacy
    if least is None or selected.base is None:
        return None
    if masked is None or given is None or given.mechanism != "distributed":
        return NOISE_ONLY
    honest = masked.least - masked.colluders
    noise = 0.0
    if honest > 0:
        noise = noise_of_sum(given.noise, masked.least, masked.colluders, masked.least)
    return None if noise >= least else f"{NOISE_ONLY}: noise: {noise:g}, expected at least {least:g}"


def problem_of_task(identity: Identity, task: str) -> str | None:
    """Says why an edge takes no part in a run of ``task``: it requires masks, or wants no such survey; null if it does.

    With the options of a task, an aggregator could choose what of the data the names of a model's arrays tell.
    """
    from fl_shared.protocol.task_spec import format_task, own_options

    if problem := problem_of_survey(identity, task):
        return problem
    if identity.requires is None or identity.names_task(task):
        return None
    named = shlex.quote(format_task(*own_options(task)))
    return (
        f"an edge with --require-masked takes part in the task only that its user has named: --task {named}"
    )


def problem_of_masking(session: Session, selected: m.Selected) -> str | None:
    """Says why the edge takes no part in a round because of its masks, or since it has none; null if it does."""
    from fl_shared.protocol.task_spec import is_private_survey

    membership, kept = session.membership, session.masked_run
    if problem := policy_problem(selected, session.identity.requires):
        return problem
    if problem := problem_of_masked_survey(session.identity, selected):
        return problem
    private = is_private_survey(selected.task) or (membership is not None and membership.private)
    if problem := _problem_of_privacy(private, selected):
        return problem
    if problem := noise_problem(selected, session.identity.privacy):
        return problem
    if selected.masked is None:
        is_plain = membership is not None and membership.masked and selected.base is not None
        return "the updates of this run are masked, but not those of this round" if is_plain else None
    if kept is None or kept.run != selected.run:
        return "the round is masked, but this edge has no keys of the run"
    return None


def _problem_of_privacy(private: bool, selected: m.Selected) -> str | None:
    """Says why a round has not the noise that its run, or its selection, speaks of; null if it has."""
    if selected.base is None:
        return None
    if selected.privacy is None:
        return "the run has differential privacy, but not this round" if private else None
    if selected.privacy.mechanism == "distributed" and selected.masked is None:
        return (
            "each edge adds a part of the noise, which hides masked updates only, and this round has no masks"
        )
    return None


def problem_of_update(session: Session, selected: m.Selected, update: FinishedUpdate) -> str | None:
    """Says why the edge does not send an update that an earlier process of it has made; null if it does.

    That process may have been started without ``--require-masked``, or with another.
    """
    if problem := problem_of_masking(session, selected):
        return problem
    if (update.plan is None) != (selected.masked is None):
        return "it contradicts its selection: only one of them is masked"
    return None
