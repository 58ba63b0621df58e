"""What watchers are told of each edge, in every phase (protocol, 8.10)."""

from __future__ import annotations

from fl_aggregator.monitoring.terminal.snapshot import EdgeCounts
from fl_aggregator.monitoring.views import edge_states
from fl_aggregator.round.effects import PublishResult
from fl_aggregator.round.phases import Aggregating
from fl_aggregator.round.roster import REVOKED
from fl_shared.protocol import messages as m
from fl_shared.system.frozen import replace
from tests.support.round_playbook import Playbook, gathered


def states(views: dict[str, m.EdgeView]) -> dict[str, tuple[str, str | None]]:
    return {name: (view.state, view.reason) for name, view in views.items()}


def test_who_loads_has_loaded_and_is_gone() -> None:
    playbook = Playbook(clients=6, per_round=2).play(
        "start", "join 0", "join 1", "join 2", "join 3", "join cam", "load 0", "load 3 examples=0", "lose 1"
    )
    assert states(edge_states.open_round_views(playbook.state, (), {})) == {
        "0": ("present", None),
        "1": ("offline", edge_states.LOST_REASON),
        "2": ("present", edge_states.LOADING_REASON),
        "3": ("present", edge_states.NO_EXAMPLES_REASON),
        "cam": ("present", edge_states.UNASSIGNED_REASON),
    }
    playbook.play("reconnect", "rejoin 0")
    found = states(edge_states.open_round_views(playbook.state, (), {}))
    assert found["2"] == ("offline", edge_states.UNCONFIRMED_REASON)
    assert found["0"][0] == "present"


def test_who_only_evaluates_is_not_counted_among_those_who_train() -> None:
    playbook = Playbook(clients=2, per_round=1).play("start", "join 10", "join 9", "join e roles=evaluate")
    assert states(edge_states.open_round_views(playbook.state, (), {}))["e"] == ("present", "only evaluates")
    counts = EdgeCounts.of(edge_states.edge_states_of(playbook.state, ()), None, {})
    assert counts["present"] == 2
    assert counts.evaluators_text == ", 1 only evaluating"
    assert counts.describe("present") == f"9, 10 ({edge_states.LOADING_REASON})"


def test_in_round_0_one_is_selected_and_nobody_trains() -> None:
    playbook = gathered(clients=3, per_round=2)
    (first,) = playbook.cohort
    found = states(edge_states.open_round_views(playbook.state, (), {}))
    assert found == {name: ("selected" if name == first else "present", None) for name in "012"}


def test_an_open_round_and_how_it_ended() -> None:
    playbook = gathered(auto=False, first_weights=True, clients=5, per_round=5, quorum=1, grace=1000)
    one, two, three, four, five = playbook.cohort
    playbook.play(f"send {one}", f"kept {one}", f"fail {two} detail=no_memory", f"lose {four}")
    newest = {one: edge_states.LatestUpdate(57, 0.25, 100, {"accuracy": 0.75})}
    views = edge_states.open_round_views(playbook.state, {three, one}, newest)
    assert states(views) == {
        one: ("in", None),
        two: ("missing", "failed: no_memory"),
        three: ("uploading", None),
        four: ("offline", edge_states.LOST_REASON),
        five: ("training", None),
    }
    assert views[one].model_dump(exclude={"state", "reason"}) == {
        "examples": 57, "seconds": 0.25, "bytes": 100, "primary": 0.75, "loss": None, "environment": None,
    }  # fmt: skip
    assert views[three].examples is None

    playbook.play(f"lose {five} reason=stopped")
    left = edge_states.open_round_views(playbook.state, (), newest)[five]
    assert (left.state, left.reason) == ("offline", "left: stopped")
    playbook.play(f"rejoin {five}")
    playbook.play(f"load {five}")

    playbook.play(f"send {three}", f"kept {three}", f"send {five}", f"kept {five}", "wait 1001")
    assert isinstance(playbook.state.phase, Aggregating)
    found = states(edge_states.open_round_views(playbook.state, (), newest))
    assert found[four][0] == "missing"
    assert (found[four][1] or "").startswith("offline: for ")
    playbook.play("made")
    effects = [effect for _, step in playbook.told for effect in step]
    summary = [effect.summary for effect in effects if isinstance(effect, PublishResult)][-1]
    ended = edge_states.closed_round_views(playbook.state, summary, newest)
    assert states(ended) == found
    assert ended[one].primary == 0.75


def test_a_run_that_was_stopped_shows_the_round_that_it_kept() -> None:
    playbook = gathered(first_weights=True, clients=2, per_round=2)
    playbook.play("send 0", "interrupt")
    assert states(edge_states.open_round_views(playbook.state, (), {})) == {
        "0": ("in", None),
        "1": ("training", None),
    }


def test_an_edge_that_words_its_refusal_like_a_revocation_is_not_revoked() -> None:
    state = Playbook(clients=2, per_round=1).play("start", "join 0", "join 1").state
    says_so = replace(state.roster["0"], unable=REVOKED)
    revoked = replace(state.roster["1"], unable=REVOKED, revoked=True, lost_at=0.0)
    state = replace(state, roster=state.roster.with_client("0", says_so).with_client("1", revoked))
    assert states(edge_states.open_round_views(state, (), {})) == {
        "0": ("present", f"does not take part: {REVOKED}"),
        "1": ("offline", REVOKED),
    }


def test_a_long_reason_is_cut() -> None:
    playbook = gathered(first_weights=True, clients=2, per_round=2)
    playbook.play(f"fail 0 detail={'x' * 230}")
    why = edge_states.open_round_views(playbook.state, (), {})["0"].reason
    assert why is not None
    assert len(why) == edge_states.MAX_STATE_REASON
    assert why.endswith("x…")


def test_where_there_is_no_room_the_idle_are_left_out() -> None:
    views = {
        **{str(n): m.EdgeView(state="present") for n in range(10)},
        "a": m.EdgeView(state="training"),
        "b": m.EdgeView(state="missing", reason="x"),
        "c": m.EdgeView(state="offline"),
    }
    assert list(edge_states.select_views(views, 3)) == ["0", "a", "b"]
    assert list(edge_states.select_views(views, 2)) == ["a", "b"]
    assert edge_states.select_views(views, 0) == {}
    assert edge_states.select_views(views, 99) == views
