"""Whether an edge that cannot take part in a run waits for another one, or ends; `docs/protocol.md`, 4.6 and 4.9."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fl_edge.session.effects import LogNotice
from fl_edge.session.state import Declined, LoadedPartition, Stopped
from tests.support.samples import MANIFEST
from tests.support.session_script import SessionScript


def bye(reason: str) -> list[str]:
    """How an edge leaves: 4.1 has it say why."""
    return [f"send fl/clients/7/presence (retained): offline session=s1: {reason}", "disconnect"]


def failed(fault: str) -> SessionScript:
    script = SessionScript()
    script.do("connected s1", "admitted part=7/20")
    assert script.texts(f"failed 0 a.csv user=yes fault={fault}")[-1].endswith("incarnation=1: a.csv")
    return script


def test_4_9_an_edge_whose_data_cannot_be_read_ends_with_2_once_the_aggregator_knows() -> None:
    script = failed("data")
    assert script.texts("refused unable") == [
        "say error: stopped, since its data cannot be used", *bye("its data cannot be used")
    ]  # fmt: skip
    assert isinstance(script.state, Stopped)
    assert script.state.exit_code == 2


def test_4_9_an_edge_whose_data_do_not_fit_waits_until_the_run_has_a_model() -> None:
    """Before that, the options of the task may be wrong."""
    script = failed("either")
    script.do("refused unable", "model 3 run=S")
    assert isinstance(script.session.registration, Declined)
    last = "say error: stopped, since its data do not fit run R, but those of other edges do"
    assert script.texts("model 0") == [last, *bye("its data do not fit run R")]
    assert isinstance(script.state, Stopped)


def test_4_9_the_model_may_be_older_than_the_edge() -> None:
    script = SessionScript()
    script.do("connected s1", "admitted part=7/20", "model 4", "failed 0 a.csv user=yes fault=either")
    assert script.texts("refused unable")[1:] == bye("its data do not fit run R")


def test_4_9_an_edge_that_lacks_the_data_of_the_task_waits_for_another_run() -> None:
    script = failed("run")
    script.do("refused unable", "model 0")
    assert isinstance(script.session.registration, Declined)


@pytest.mark.parametrize("before", ["admitted part=7/20", "admitted answers=first part=7/20"])
def test_4_6_an_edge_with_other_weights_finds_out_how_they_differ(before: str) -> None:
    script = SessionScript()
    script.do("connected s1", "admitted part=7/20", "loaded 0", before)
    asked = "refused explained wrong-manifest"
    assert script.texts(asked) == [f"load job=1 digits part=7/20 compared with {MANIFEST.digest[:6]}"]
    assert script.do(asked, "time 1000") == (), "it is at it"
    said, told = script.texts("failed 1 a.csv:column-x user=yes fault=either")
    assert (
        said
        == "say error: does not take part in run R: a.csv:column-x; it ends if the data of other edges fit"
    )
    assert told.endswith("unable session=s1 run=R incarnation=1: a.csv:column-x")


def test_a_comparison_that_fails_is_tried_again_as_one() -> None:
    script = SessionScript()
    script.do("connected s1", "admitted part=7/20", "loaded 0", "refused explained wrong-manifest")
    for job in (1, 2):
        assert script.texts(f"failed {job} worker-died")[-1].endswith(f"compared with {MANIFEST.digest[:6]}")
    assert script.texts("failed 3 worker-died")[-1].endswith("incarnation=1: worker-died")


def test_4_6_an_edge_that_is_refused_for_weights_like_its_own_does_not_compare_them() -> None:
    script = SessionScript()
    script.do("connected s1", "admitted part=7/20", "loaded 0")
    loaded = script.session.partition_state
    assert isinstance(loaded, LoadedPartition)
    script.state = replace(script.session, partition_state=replace(loaded, manifest=MANIFEST.digest))
    assert script.texts("refused explained wrong-manifest") == [
        "say error: does not take part in run R: wrong-manifest: because; waiting for another run"
    ]


def test_4_6_before_the_run_has_a_model_nobody_knows_how_the_weights_differ() -> None:
    script = SessionScript()
    script.do("connected s1", "admitted part=7/20", "loaded 0", "admitted part=7/20")
    assert script.texts("refused wrong-manifest") == [
        "say its weights are not those of the run; asking how they differ"
    ]
    again = ["send fl/register/7: register session=s1 run=R incarnation=1 examples=40"]
    assert script.texts("time 3") == again
    assert script.do("refused wrong-manifest") == ()
    assert script.texts("time 9") == again
    script.do("model 0")
    assert script.texts("refused wrong-manifest")[-1].endswith("because; waiting for another run"), (
        "too many arrays"
    )


def test_4_9_an_edge_whose_holdout_does_not_fit_the_model_leaves_the_run() -> None:
    script = SessionScript()
    script.do("connected s1", "admitted part=7/20", "loaded 0", "model 0 evaluate=holdout", "fetched 1")
    assert script.texts("failed 1 a.csv user=yes fault=either")[-1].endswith("incarnation=1: a.csv")


@pytest.mark.parametrize("kind", ["", " private", " masked"])
def test_12_5_a_notice_tells_others_no_more_than_the_run_is_told(kind: str) -> None:
    script = SessionScript()
    script.do("connected s1", "admitted part=7/20" + kind)
    found = script.do("failed 0 John-Doe user=yes fault=data")
    [notice] = [effect for effect in found if isinstance(effect, LogNotice)]
    assert "John-Doe" in notice.text
    assert notice.told is not None
    assert ("John-Doe" in notice.told) == (kind == "")


def test_what_fails_in_each_round_is_said_at_powers_of_ten_until_it_works() -> None:
    script = SessionScript()
    script.do("connected s1", "admitted part=7/20", "loaded 0 examples=40", "admitted part=7/20")
    said = []
    for number in range(1, 14):
        script.do(f"selected {number}", f"fetched {number}")
        ended = f"trained {number}" if number == 12 else f"failed {number} a-bug"
        said += [text for text in script.texts(ended) if "cannot train" in text]
        script.do(f"result {number}")
    assert said == [
        "say warning: round 1: cannot train: a-bug",
        "say warning: round 10: cannot train: a-bug (10 rounds in a row)",
        "say warning: round 13: cannot train: a-bug",
    ]
