"""Two machines with one id and copies of one state directory are found, and an edge that reconnects is not."""

from __future__ import annotations

import pytest

from fl_aggregator.monitoring.views import edge_states
from fl_aggregator.monitoring.views.two_machines import log_two_machines
from fl_aggregator.round import events as on
from fl_aggregator.round.two_machines import TWO_MACHINES, are_two
from fl_shared.protocol.messages import Environment
from fl_shared.system.frozen import replace
from tests.support.round_playbook import Playbook, training

WARNING = (
    "edge 0: two machines use this id with copies of one state directory (device D): session B and session A take "
    "turns; stop one of them, delete its state directory, and give it an id of its own"
)


def joined(*sessions: str) -> Playbook:
    playbook = Playbook(clients=2, per_round=1).play("start")
    return playbook.play(*(f"join 0 device=D session={session}" for session in sessions))


@pytest.mark.parametrize("sessions", ["A", "AAAA", "ABCDEF", "AABBCC", "ABA", "ABBAA"])
def test_an_edge_that_reconnects_is_one_machine(sessions: str) -> None:
    assert not are_two(joined(*sessions).state.roster["0"])


def test_sessions_that_take_turns_are_two_machines() -> None:
    playbook = joined(*"ABAB")
    assert are_two(playbook.state.roster["0"])
    assert (
        edge_states.open_round_views(playbook.state, (), {})["0"].reason
        == f"{TWO_MACHINES}; loading its data"
    )
    playbook.play("join 0 device=D session=C")
    assert are_two(playbook.state.roster["0"]), "also once the session is another one"
    declined = joined(*"ABA").play("join 0 device=D session=B unable=no-data")
    assert are_two(declined.state.roster["0"])


def test_another_device_that_takes_the_id_begins_anew() -> None:
    playbook = joined(*"ABAB").play("lose 0 session=B", "wait 60", "join 0 device=E session=F")
    assert not are_two(playbook.state.roster["0"])


def test_updates_of_an_earlier_session_count_too() -> None:
    playbook = training(clients=1, per_round=1, rounds=5, holdout=0)
    first = playbook.state.roster["0"].session
    playbook.play("join 0 session=B", "load 0 session=B", f"send 0 session={first}")
    assert not are_two(playbook.state.roster["0"])
    playbook.play(f"send 0 session={first}")
    assert are_two(playbook.state.roster["0"])


def test_it_is_said_once_with_both_machines(caplog: pytest.LogCaptureFixture) -> None:
    before, after = joined(*"ABA").state, joined(*"ABAB").state
    event = on.Registered(now=1.0, client="0", session="B", device="D", roles=("train",), encodings=("f32",))
    log_two_machines(event, before, after)
    log_two_machines(event, after, after)
    assert caplog.messages == [WARNING]
    caplog.clear()
    environments = (Environment(platform="Linux aarch64", cores=4), Environment(platform="Linux x86_64"))
    before, after = (replace(state, environments=environments) for state in (before, after))
    before = replace(
        before, roster=before.roster.with_client("0", replace(before.roster["0"], environment=1))
    )
    after = replace(after, roster=after.roster.with_client("0", replace(after.roster["0"], environment=0)))
    log_two_machines(event, before, after)
    assert "session B (Linux aarch64, 4 cores) and session A (Linux x86_64) take turns" in caplog.messages[0]
