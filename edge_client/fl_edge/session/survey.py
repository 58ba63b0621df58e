"""PURE: in which surveys an edge takes part (``--survey``, ``--survey-least``). It is imported for ``--help``, too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from fl_edge.session.state import Identity
    from fl_shared.protocol import messages as m

LEAST: Final = 5
"""The fewest edges in a sum by default."""
Telling = Literal["sums", "each", "no"]
"""What an edge tells in a survey: its part of sums, its own figures as well, or nothing."""


@dataclass(frozen=True, slots=True)
class SurveyPolicy:
    """What an edge tells, and the fewest edges of which it adds to a sum."""

    tells: Telling = "sums"
    least: int = LEAST


USUAL: Final = SurveyPolicy()
"""That of an edge whose user has said nothing."""


def hides_figures(identity: Identity, task: str) -> bool:
    """Whether the run is a survey, and the edge says nothing in it but its part of the sums."""
    from fl_shared.protocol.task_spec import is_survey

    return identity.survey.tells != "each" and is_survey(task)


def problem_of_survey(identity: Identity, task: str) -> str | None:
    """Says why the edge takes no part in a run of ``task`` because it is a survey; null if it does, or if it is none.

    A regional aggregator takes part: its edges decide.
    """
    from fl_shared.survey.terms import SurveyTerms

    try:
        terms = SurveyTerms.of(task)
    except ValueError as error:
        return str(error)
    if terms is None or identity.edges is not None:
        return None
    policy = identity.survey
    if policy.tells == "no":
        return "this edge does not take part in surveys (--survey no)"
    if not identity.trains:
        return "a survey needs edges with the role train"
    if terms.least < policy.least:
        return (
            f"the survey has sums of {terms.least} edges, expected at least {policy.least} (--survey-least)"
        )
    own = identity.privacy
    if own.is_asked and not terms.private:
        return f"the sums of a survey have no noise, but this edge sends nothing without noise ({own.option})"
    if own.examples is not None or own.local is not None:
        return (
            "the noise of a survey hides its sum, but this edge sends nothing without noise of its own "
            f"({own.option})"
        )
    return None


def problem_of_masked_survey(identity: Identity, selected: m.Selected) -> str | None:
    """Says why a masked round of a survey has too few updates in its sum; null if it has enough."""
    from fl_shared.protocol.task_spec import is_survey

    masked, least = selected.masked, identity.survey.least
    if masked is None or masked.least >= least or identity.edges is not None or not is_survey(selected.task):
        return None
    return f"the survey has sums of {masked.least} masked updates, expected at least {least} (--survey-least)"
