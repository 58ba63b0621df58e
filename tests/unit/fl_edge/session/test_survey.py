"""In which surveys an edge takes part, and what it tells in them."""

from __future__ import annotations

from typing import Any

import pytest

from fl_edge.session.policy import NOISE_ONLY, RequiredMasking
from fl_edge.session.privacy import NO_PRIVACY, Budget, Charge, ExampleNoise, LocalNoise, OwnPrivacy
from fl_edge.session.survey import SurveyPolicy, Telling
from fl_shared.protocol import messages as m
from fl_shared.system.frozen import replace
from tests.support.session_script import SessionScript, identity
from tests.support.session_steps import sent

TASK = "digits?survey-least=5"
NO_NOISE = "the sums of a survey have no noise, but this edge sends nothing without noise"
PRIVATE_TASK = "digits?survey-least=5&survey-private=yes"
OWN_NOISE = "the noise of a survey hides its sum, but this edge sends nothing without noise of its own"
OF_EDGES = OwnPrivacy(least_noise=2.0, budget=Budget(8.0))
NOISE = OwnPrivacy(local=LocalNoise(1.0, 0.5), budget=Budget(8.0))


def script_of(**changes: Any) -> SessionScript:
    script = SessionScript(identity(**changes))
    script.do("connected s1")
    return script


@pytest.mark.parametrize(
    ("changes", "task", "problem"),
    [
        ({}, TASK, None),
        ({"survey": SurveyPolicy("each")}, TASK, None),
        ({"survey": SurveyPolicy("no")}, "digits", None),
        ({"survey": SurveyPolicy("no")}, TASK, "this edge does not take part in surveys (--survey no)"),
        (
            {},
            "digits?survey-least=4",
            "the survey has sums of 4 edges, expected at least 5 (--survey-least)",
        ),
        ({"survey": SurveyPolicy(least=2)}, "digits?survey-least=2", None),
        ({"roles": ("evaluate",)}, TASK, "a survey needs edges with the role train"),
        ({"privacy": NOISE}, TASK, f"{NO_NOISE} (--dp-local)"),
        ({"privacy": NOISE}, PRIVATE_TASK, f"{OWN_NOISE} (--dp-local)"),
        ({"privacy": OwnPrivacy(ExampleNoise(1.1))}, PRIVATE_TASK, f"{OWN_NOISE} (--dp-sgd)"),
        ({"privacy": OF_EDGES}, TASK, f"{NO_NOISE} (--require-noise)"),
        ({"privacy": OF_EDGES}, PRIVATE_TASK, None),
        ({"survey": SurveyPolicy("no")}, PRIVATE_TASK, "this edge does not take part in surveys (--survey no)"),
        ({}, "digits?survey-least=many", "survey-least: 'many', expected a number of edges from 2 on"),
        ({"requires": RequiredMasking(5, 1), "task": "digits"}, TASK, None),
        ({"edges": 12, "survey": SurveyPolicy("no")}, TASK, None),
    ],
)  # fmt: skip
def test_an_edge_declines_what_its_user_does_not_want(
    changes: dict[str, Any], task: str, problem: str | None
) -> None:
    script = script_of(**changes)
    messages = sent(script.do(f"admitted part=7/20 task={task}"))
    assert [one.unable for one in messages if isinstance(one, m.Registration) and one.unable] == (
        [] if problem is None else [problem]
    )


@pytest.mark.parametrize("tells", ["sums", "each"])
def test_an_edge_tells_its_own_figures_only_if_it_may(tells: Telling) -> None:
    script = script_of(survey=SurveyPolicy(tells))
    for line in ("admitted part=7/20", "loaded 0", "admitted part=7/20", "selected 1", "fetched 1"):
        script.do(f"{line} task={TASK}")
    (update,) = sent(script.do("trained 1 before=0.25 after=0.75"))
    assert isinstance(update, m.Update)
    assert (update.metrics == m.UpdateMetrics()) == (tells == "sums")
    assert tells == "each" or (update.examples, update.steps) == (1, 0)


@pytest.mark.parametrize(
    ("least", "problem"),
    [(5, None), (6, "the survey has sums of 5 masked updates, expected at least 6 (--survey-least)")],
)
def test_a_masked_round_must_have_the_least_edges_too(least: int, problem: str | None) -> None:
    script = script_of(survey=SurveyPolicy(least=least))
    task = "task=digits?survey-least=8"
    for line in ("admitted part=7/20 masked", "loaded 0", "keys", "admitted part=7/20 masked"):
        script.do(f"{line} {task}")
    messages = sent(script.do(f"selected 1 cohort=7,8,9 masked least=5 colluders=1 {task}"))
    assert [one.detail for one in messages if isinstance(one, m.TrainingFailed)] == (
        [] if problem is None else [problem]
    )


@pytest.mark.parametrize(
    ("privacy", "selection", "problem"),
    [
        (NO_PRIVACY, "dp=central", None),
        (NO_PRIVACY, "", "the run has differential privacy, but not this round"),
        (OF_EDGES, "dp=central", NOISE_ONLY),
        (OF_EDGES, "dp=distributed masked least=5 colluders=1", None),
        (
            OwnPrivacy(least_noise=2.5),
            "dp=distributed masked least=5 colluders=1",
            f"{NOISE_ONLY}: noise: 2, expected at least 2.5",
        ),
    ],
)
def test_a_private_survey_needs_the_noise_that_it_speaks_of(
    privacy: OwnPrivacy, selection: str, problem: str | None
) -> None:
    """The first admission does not say that the run is private: the task does."""
    script, masked = script_of(privacy=privacy), "masked" if "masked" in selection else ""
    task = f"task={PRIVATE_TASK}"
    for line in ("admitted part=7/20", "loaded 0", *(["keys"] if masked else []), "admitted part=7/20"):
        script.do(f"{line} {masked} {task}" if "admitted" in line else line)
    messages = sent(script.do(f"selected 1 cohort=7,8,9 {selection} {task}"))
    assert [one.detail for one in messages if isinstance(one, m.TrainingFailed)] == (
        [] if problem is None else [problem]
    )


def test_a_budget_that_is_spent_allows_no_survey() -> None:
    script = script_of(privacy=OF_EDGES)
    script.state = replace(script.session, charged=(Charge("edge", 2.0, steps=50),))
    messages = sent(script.do(f"admitted part=7/20 masked task={PRIVATE_TASK}"))
    assert [one.unable for one in messages if isinstance(one, m.Registration) and one.unable] == [
        "its privacy budget is spent (ε 20.7 of 8; another update would make it 20.9)"
    ]


def test_the_log_counts_no_examples_of_a_survey() -> None:
    script = SessionScript()
    script.do("connected s1", f"admitted part=7/20 task={TASK}")
    assert script.texts("loaded 0")[0] == "say loaded partition 7 for a survey"
    assert script.texts(f"admitted part=7/20 task={TASK}") == ["say registered for run R"]
