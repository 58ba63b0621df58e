"""What a private run promises, how much noise that takes, and what it has spent, in words. Pure."""

from __future__ import annotations

import math
from typing import Final

from fl_aggregator.configuration.survey import Survey
from fl_aggregator.privacy.noise_length import (
    NoiseLength,
    effective_noise,
    error_of_share,
    noise_length,
)
from fl_aggregator.privacy.plan import PrivacyPlan
from fl_shared.privacy.gaussian_mechanism import advantage_of, mu_of
from fl_shared.protocol import messages as m
from fl_shared.survey.layout import Columns
from fl_shared.survey.proportions import weight_of
from fl_shared.tensors.manifest import Manifest

INSECURE: Final = "noise from a known seed: not private"
"""Said wherever a run with ``--dp-insecure-seed`` is shown."""
SEES: Final = {
    "wire": "sees all models and knows who took part",
    "models": "sees all models but does not know who took part",
}
"""What the adversary knows, as the end of a sentence."""
TRUST: Final = {
    "central": "the aggregator is trusted to add the noise",
    "distributed": "the edges add the noise, and the aggregator is not trusted to",
}
"""Who must add the noise, by mechanism."""
NOT_COVERED: Final = "presence, counts and time are not covered"
WOULD_HELP: Final = "more edges a round, fewer shared parameters, or a larger ε would help"
OF_EXAMPLES: Final = "fl-edge --dp-sgd protects single examples instead of edges"
HARDLY, BETTER = 0.2, 0.6
"""Up to these advantages, somebody is right hardly more often than a coin, and more often."""


def promise_lines(plan: PrivacyPlan) -> list[str]:
    """What the run promises against whom, once all of its versions are made; and whether that is true."""
    epsilon = plan.planned_epsilon
    if plan.against == "models":
        advantage = plan.spending.after(plan.times)[1]
        wire = f", {wire_text(plan.epsilon_with(math.sqrt(plan.times) / plan.noise))}"
    else:
        wire = ""
        advantage = advantage_of(mu_of(epsilon, plan.delta))
    promise = (
        f"differential privacy: whoever {SEES[plan.against]} can guess whether one edge's data was used with "
        f"{right_text(advantage)} accuracy; a coin toss gives 50 %; ε is at most {epsilon:.3g} at "
        f"δ = {plan.delta:.3g}{wire}; {TRUST[plan.mechanism]}"
    )
    return [promise, f"{INSECURE} (--dp-insecure-seed)"] if plan.insecure else [promise]


def length_of(plan: PrivacyPlan, values: int, per_round: int) -> NoiseLength:
    """How long the noise of a run is beside the updates of ``per_round`` edges of ``values`` parameters."""
    return noise_length(effective_noise(plan), values, per_round, plan.releases)


def noise_line(plan: PrivacyPlan, values: int, per_round: int) -> str:
    """How long the noise is (see `length_of`), and whether anything can be learnt with it."""
    length = length_of(plan, values, per_round)
    text = (
        f"the noise of a version is {times_text(length.release)} times as long as the longest possible mean update of "
        f"{per_round} edges with {values:,} shared parameters"
    )
    match length.teaches:
        case "nothing":
            return f"{text}: nothing will be learnt; {WOULD_HELP}; {OF_EXAMPLES}"
        case "little":
            return f"{text}: little will be learnt; {WOULD_HELP}"
        case _:
            return text


def survey_noise_line(plan: PrivacyPlan, survey: Survey, manifest: Manifest, edges: int) -> str:
    """How far noise moves a share in a survey with these arrays, if all ``edges`` take part."""
    error = error_of_share(plan, plan.noise, weight_of(Columns.of(manifest), survey.terms), edges)
    return (
        f"the noise gives each share a standard error of {100 * error:.2g} %, if all {edges} edges take part"
    )


def times_text(ratio: float) -> str:
    """A ratio with two digits: ``0.42``, ``65``, ``1,200``."""
    if ratio == 0:
        return "0"
    digits = max(0, 1 - math.floor(math.log10(abs(ratio))))
    return f"{round(ratio, 1 - math.floor(math.log10(abs(ratio)))):,.{digits}f}"


def often_text(plan: PrivacyPlan, what: str) -> str:
    """How often an edge contributes to ``what``, at most, and the ε of one that does."""
    rests = "" if plan.apart == 1 else f", and to at most one of {plan.apart:,} in a row"
    of = f"{plan.times:,} of {plan.releases:,} {what}"
    return f"an edge contributes to at most {of}{rests}; ε is {plan.planned_epsilon:.3g} then"


def right_text(advantage: float) -> str:
    """The accuracy of a guess with this advantage over a coin toss: ``at most 56 %``."""
    return f"at most {min(100, math.ceil(round(50 + 50 * advantage, 6)))} %"


def guess_text(advantage: float) -> str:
    """The same as part of a sentence, in words."""
    how = (
        "hardly better than a coin toss"
        if advantage <= HARDLY
        else "better than a coin toss"
        if advantage <= BETTER
        else "much better than a coin toss"
    )
    return f"{how}: with {right_text(advantage)} accuracy (advantage {advantage:.2g})"


def epsilon_text(spent: m.PrivacyStatus | m.PrivacySpent) -> str:
    """ε, of the budget if there is one, and δ: ``ε 1.7 of 2 at δ = 1e-05``."""
    of = "" if spent.budget is None else f" of {spent.budget:.3g}"
    return f"ε {spent.epsilon:.3g}{of} at δ = {spent.delta:.3g}"


def status_line(status: m.PrivacyStatus) -> str:
    """What the versions so far have told about an edge, in one line."""
    loud = f"; {INSECURE}" if status.insecure else ""
    return f"privacy: {epsilon_text(status)}, to whoever {SEES[status.against]}{loud}"


def spent_line(spent: m.PrivacySpent) -> str:
    """What a run has spent, in one line."""
    loud = f"; {INSECURE}" if spent.insecure else ""
    return f"privacy: {spent_text(spent)}{loud}"


def spent_text(spent: m.PrivacySpent) -> str:
    """What a run has spent, and of which edge the most."""
    count = "1 version" if spent.releases == 1 else f"{spent.releases} versions"
    most = "" if spent.spent_by is None else f", most of edge {spent.spent_by}"
    wire = "" if spent.wire_epsilon is None else f"; {wire_text(spent.wire_epsilon)}"
    return f"{epsilon_text(spent)}, spent by {count}{most}{wire}"


def wire_text(epsilon: float) -> str:
    """What secret cohorts spend against who sees more."""
    return f"at most {epsilon:.3g} against whoever {SEES['wire']}"
