"""An edge evaluates announced models, and offers them for predictions (protocol, 5.11)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fl_edge.session.effects import Fetch
from fl_edge.session.work import OwnState, StateReference
from fl_shared.protocol import messages as m
from tests.support.session_script import RUN, SessionScript, identity, version_digest
from tests.support.session_steps import ready, sent


def test_5_11_an_evaluate_edge_reports_each_version_once() -> None:
    script = SessionScript(identity(roles=("evaluate",)))
    script.do("connected s1", "admitted")
    assert script.texts("model 1 evaluate=test") == [f"fetch job=0 {version_digest(1)[:12]} within 600 s"]
    assert script.texts("fetched 0") == [f"evaluate job=0 {version_digest(1)[:12]} on test"]
    assert script.texts("evaluated 0")[-1] == (
        "send fl/evaluations/7: evaluation incarnation=1 version=1 test accuracy=0.75"
    )
    assert script.do("model 1 evaluate=test") == ()
    assert script.do("model 2") == (), "nobody asks"


def test_5_11_only_the_newest_of_those_that_came_meanwhile_is_evaluated() -> None:
    script = SessionScript(identity(roles=("evaluate",)))
    script.do("connected s1", "admitted", "model 1 evaluate=test", "fetched 0")
    assert script.do("model 2 evaluate=test", "model 3 evaluate=test") == ()
    assert script.texts("evaluated 0")[-1] == f"fetch job=1 {version_digest(3)[:12]} within 600 s"


def test_5_11_what_was_found_is_said_again_in_a_new_session_without_doing_it_again() -> None:
    script = SessionScript(identity(roles=("evaluate",)))
    script.do("connected s1", "admitted", "model 1 evaluate=test", "fetched 0", "evaluated 0", "lost")
    script.do("connected s2")
    assert len(sent(script.do("admitted"))) == 1
    assert script.do("model 1 evaluate=test") == ()


def test_15_4_a_candidate_is_measured_while_predictions_go_on_with_the_announced_version() -> None:
    script = ready()
    texts = script.texts("model 0 evaluate=holdout candidate=3")
    assert texts[0] == "offer version 0"
    assert texts[-1] == f"fetch job=1 {version_digest(3)[:12]} within 600 s"
    assert script.texts("fetched 1") == [f"evaluate job=1 {version_digest(3)[:12]} on holdout"]
    [report] = evaluations(script.do("evaluated 1"))
    assert (report.version, report.digest) == (3, version_digest(3))


def evaluations(effects: object) -> list[m.Evaluation]:
    return [message for message in sent(effects) if isinstance(message, m.Evaluation)]


def test_5_11_holdouts_are_for_edges_that_train_and_have_one() -> None:
    script = ready()
    assert script.texts("model 1 evaluate=test")[-1] == "offer version 1"
    assert script.texts("model 1 evaluate=holdout")[-1].startswith("fetch job=1")
    without = SessionScript()
    without.do("connected s1", "admitted part=7/20", "loaded 0 holdout=0")
    effects = without.do("model 1 evaluate=holdout")
    assert not any(isinstance(effect, Fetch) for effect in effects)
    assert [(report.version, report.examples) for report in evaluations(effects)] == [(1, 0)], (
        "not waited for"
    )
    assert sent(without.do("model 1 evaluate=holdout")) == [], "once"
    assert sent(without.do("model 2 evaluate=test")) == []


def test_an_evaluation_that_fails_is_not_tried_for_ever() -> None:
    script = SessionScript(identity(roles=("evaluate",)))
    script.do("connected s1", "admitted", "model 1 evaluate=test")
    assert [report.examples for report in evaluations(script.do("failed 0 it was superseded"))] == [0]
    assert script.do("model 1 evaluate=test") == ()
    assert isinstance(script.do("model 2 evaluate=test")[-1], Fetch)


def test_models_are_offered_for_predictions_before_any_admission_but_not_those_of_ghosts_after_it() -> None:
    script = SessionScript()
    script.do("connected s1")
    assert script.texts("model 4 run=old") == ["offer version 4"]
    script.do("admitted part=7/20")
    assert script.do("model 5 run=old") == ()
    assert script.texts("model 1") == ["offer version 1"]
    assert SessionScript(identity(roles=("train",))).do("model 1") == ()


def test_5_18_a_model_of_its_own_is_kept_before_its_scores_are_sent() -> None:
    script = ready()
    script.do("model 1 evaluate=holdout", "fetched 1", "evaluated 1")
    texts = script.texts("model 1 evaluate=personal")
    assert texts[-1].startswith("fetch job=2")
    assert script.texts("fetched 2") == ["personalize job=2 version 1 part=7/20"]
    texts = script.texts("trained 2 own before=0.5 after=0.75")
    assert texts[0] == "keep a model of its own of version 1"
    assert "accuracy 0.5000 → 0.7500 on its holdout" in texts[1]
    assert texts[-1].startswith(
        "send fl/evaluations/7: evaluation incarnation=1 version=1 personal accuracy=0.75"
    )
    assert script.session.own_state.personal == StateReference(RUN, 1, version_digest(1))
    assert sent(script.do("model 1 evaluate=personal")) == [], "once"


@pytest.mark.parametrize("split", ["holdout", "personal"])
def test_p8_an_edge_with_masks_makes_no_model_of_its_own_and_scores_none_on_its_data(split: str) -> None:
    script = SessionScript()
    script.do("connected s1", "admitted part=7/20 masked", "loaded 0", "keys")
    effects = script.do(f"model 1 evaluate={split}")
    assert [(report.split, report.examples) for report in evaluations(effects)] == [(split, 0)]
    assert not any(isinstance(effect, Fetch) for effect in effects)


def test_5_18_an_edge_without_a_holdout_makes_one_as_well() -> None:
    script = SessionScript()
    script.do("connected s1", "admitted part=7/20", "loaded 0 holdout=0")
    script.do("model 1 evaluate=personal", "fetched 1")
    effects = script.do("trained 1 own")
    assert [(report.split, report.examples) for report in evaluations(effects)] == [("personal", 0)]
    assert script.session.own_state.personal is not None


def test_a_model_of_another_run_is_dropped() -> None:
    script = SessionScript()
    own = OwnState(personal=StateReference("elsewhere", 4, version_digest(4)))
    script.state = replace(script.session, own_state=own)
    script.do("connected s1")
    assert "drop its own model" in script.texts("admitted part=7/20")
    assert script.session.own_state == OwnState()
