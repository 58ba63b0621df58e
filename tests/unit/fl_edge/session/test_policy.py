"""An edge that requires masks sends nothing else of its data, whatever it has on its disk (P19 in docs/privacy.md)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fl_edge.session.effects import DeleteUpdate, Effect, LogNotice
from fl_edge.session.events import SelectionSeen
from fl_edge.session.masking import MaskedRun
from fl_edge.session.policy import RequiredMasking
from fl_edge.session.work import Idle, PendingUpdate
from fl_shared.protocol import messages as m
from tests.support.session_script import KEYS, SessionScript, identity, update
from tests.support.session_steps import sent

REQUIRED = RequiredMasking(5, 1)
ONLY = "this edge trains in masked rounds only (--require-masked)"
MASKED = ("connected s1", "admitted part=7/20 masked", "loaded 0", "keys", "admitted part=7/20 masked")
ROUND = "selected 1 cohort=7,8,9 masked least=5 colluders=1"
PLAN = "c" * 64


@pytest.mark.parametrize(
    ("selection", "detail"),
    [
        ("selected 1 cohort=7,8,9", ONLY),
        ("selected 1 work ticket", ONLY),
        (
            "selected 1 cohort=7,8,9 masked least=4 colluders=1",
            f"{ONLY}: least: 4 updates in a sum, expected at least 5",
        ),
        (
            "selected 1 cohort=7,8,9 masked least=5 colluders=0",
            f"{ONLY}: colluders: 0, expected at least 1",
        ),
        ("selected 1 cohort=7,8,9 masked least=5 colluders=1", None),
        ("selected 0", None),
    ],
)
def test_an_edge_that_requires_masks_trains_in_no_other_round(selection: str, detail: str | None) -> None:
    """P19 in docs/privacy.md."""
    script = SessionScript(identity(requires=REQUIRED, task="digits"))
    script.do(*MASKED)
    messages = sent(script.do(selection))
    if detail is None:
        assert messages == []
    else:
        [failed] = messages
        assert isinstance(failed, m.TrainingFailed)
        assert failed.detail == detail


TABLE = "tabular?kind=classification&target=age"


@pytest.mark.parametrize(
    ("own", "declines"),
    [
        (None, True),
        ("tabular", True),
        ("tabular?target=age", True),
        ("tabular?target=dose&kind=classification", True),
        ("tabular?target=age&kind=classification", False),
    ],
)
def test_p19_an_edge_that_requires_masks_takes_part_in_the_task_that_its_user_has_named(
    own: str | None, declines: bool
) -> None:
    """P19: the arrays of a model may have the names of classes, which are the values of a column."""
    run = f"{TABLE}&keep-local=batchnorm&local-seed=7"
    script = SessionScript(identity(requires=REQUIRED, task=own, tasks=("tabular",)))
    script.do("connected s1")
    messages = sent(script.do(f"admitted part=7/20 task={run} masked"))
    unable = [one.unable for one in messages if isinstance(one, m.Registration) and one.unable]
    said = "an edge with --require-masked takes part in the task only that its user has named: "
    assert unable == ([f"{said}--task '{TABLE}'"] if declines else [])


def test_an_edge_that_requires_masks_says_nothing_of_its_data_in_a_plain_run() -> None:
    script = SessionScript(identity(requires=REQUIRED, task="digits"))
    script.do("connected s1", "admitted part=7/20")
    [second] = sent(script.do("loaded 0"))
    assert isinstance(second, m.Registration)
    assert second.examples == 1
    script.do("admitted part=7/20")
    [evaluation] = sent(script.do("model 0 evaluate=holdout"))
    assert isinstance(evaluation, m.Evaluation)
    assert evaluation.examples == 0


def restarted(
    selection: str, plan: str | None, **changes: object
) -> tuple[SessionScript, tuple[Effect, ...]]:
    """An edge that is admitted, with an update of that round on its disk."""
    script = SessionScript(identity(**{"task": "digits", **changes}))
    event = script.event(selection)
    assert isinstance(event, SelectionSeen)
    base = None if event.selected.base is None else event.selected.base.digest
    saved = replace(update(base=base), plan=plan)
    script.state = replace(
        script.session,
        restored_update=PendingUpdate(event.selected, saved),
        masked_run=MaskedRun("R", KEYS),
    )
    script.do("connected s1")
    return script, script.do("admitted part=7/20 masked")


def updates(done: tuple[Effect, ...]) -> list[m.Update]:
    return [one for one in sent(done) if isinstance(one, m.Update)]


@pytest.mark.parametrize(
    ("selection", "plan", "said"),
    [
        ("selected 1 cohort=7,8,9", None, ONLY),
        ("selected 1 work ticket", None, ONLY),
        (ROUND.replace("least=5", "least=4"), PLAN, f"{ONLY}: least: 4"),
        (ROUND, None, "it contradicts its selection"),
        ("selected 0", PLAN, "it contradicts its selection"),
    ],
)
def test_a_saved_update_is_not_sent_by_an_edge_that_would_not_make_it(
    selection: str, plan: str | None, said: str
) -> None:
    """P19: it was started again, with ``--require-masked``."""
    script, done = restarted(selection, plan, requires=REQUIRED)
    assert updates(done) == []
    assert DeleteUpdate() in done
    assert isinstance(script.session.work, Idle)
    [dropped] = [one.text for one in done if isinstance(one, LogNotice) and one.level == "warning"]
    assert f"is dropped: {said}" in dropped


@pytest.mark.parametrize(("selection", "plan"), [(ROUND, PLAN), ("selected 0", None)])
def test_a_saved_update_is_sent_if_it_keeps_what_the_edge_requires(selection: str, plan: str | None) -> None:
    [found] = updates(restarted(selection, plan, requires=REQUIRED)[1])
    assert (found.plan, found.examples) == (plan, 1), "it may be of a process that said more"


def test_a_plain_update_of_a_masked_run_is_not_sent_after_a_restart() -> None:
    assert updates(restarted("selected 1 cohort=7,8,9", None)[1]) == []


def test_an_edge_that_requires_masks_sends_no_update_without_a_plan() -> None:
    """P19: whatever has come to make it."""
    script = SessionScript(identity(requires=REQUIRED, task="digits"))
    script.do(*MASKED, ROUND, "fetched 1")
    [failed] = sent(script.do("trained 1"))
    assert isinstance(failed, m.TrainingFailed)
    assert failed.detail == ONLY


@pytest.mark.parametrize(
    ("run", "selection", "detail"),
    [
        ("private", "selected 1 cohort=7,8,9", "the run has differential privacy, but not this round"),
        (
            "",
            "selected 1 cohort=7,8,9 dp=distributed",
            "hides masked updates only, and this round has no masks",
        ),
        ("private", "selected 1 cohort=7,8,9 dp=distributed", "and this round has no masks"),
        ("private", "selected 1 cohort=7,8,9 dp=central", None),
        ("private", "selected 0", None),
    ],
)
def test_11_5_an_edge_trains_in_no_round_that_lacks_the_noise_of_its_run(
    run: str, selection: str, detail: str | None
) -> None:
    """D17 in docs/differential-privacy.md."""
    admitted = f"admitted part=7/20 {run}"
    script = SessionScript(identity())
    script.do("connected s1", admitted, "loaded 0", admitted)
    messages = sent(script.do(selection))
    if detail is None:
        assert messages == []
    else:
        [failed] = messages
        assert isinstance(failed, m.TrainingFailed)
        assert failed.detail.endswith(detail)
