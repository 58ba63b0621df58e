"""What observers see of an asynchronous run: how full its buffer is, who works, and how old the bases are."""

from __future__ import annotations

from fl_aggregator.monitoring.terminal.text import round_line
from fl_aggregator.monitoring.views import edge_states, status
from fl_aggregator.monitoring.views.round_record import RoundRecord
from fl_aggregator.round import effects as do
from fl_shared.protocol.envelope import EnvelopeSource
from tests.support.round_playbook import Playbook

SCOPE = EnvelopeSource(run="R", incarnation=1)


def playbook() -> Playbook:
    """Four edges, of which three are at work; two updates make a version."""
    play = Playbook(
        first_weights=True, mode="async", clients=4, concurrency=3, buffer=2, deadline=60.0, holdout=0.0, seed=2
    )  # fmt: skip
    play.play("start", *(f"{verb} {client}" for client in range(4) for verb in ("join", "load")))
    return play


def test_the_status_says_how_full_the_buffer_is_and_who_works() -> None:
    play = playbook()
    at_work = sorted(play.state.phase.tickets)  # type: ignore[union-attr]
    play.play(f"send {at_work[0]}")
    found = status.status_message(play.state, SCOPE, play.now)
    assert (found.phase, found.round, found.have, found.need) == ("buffering", 1, 1, 2)
    assert set(found.missing) == set(play.state.phase.tickets)  # type: ignore[union-attr]
    missing = status.missing_message(play.state, SCOPE, play.now + 3)
    assert missing is not None
    assert {name: (one.state, one.seconds) for name, one in missing.clients.items()} == dict.fromkeys(
        found.missing, ("online", 3.0)
    )


def test_each_edge_has_its_state_with_the_age_of_its_base() -> None:
    play = playbook()
    a, b, c = sorted(play.state.phase.tickets)  # type: ignore[union-attr]
    play.play(f"send {a}", f"send {b}", f"lose {c}")
    (d,) = {"0", "1", "2", "3"} - {a, b, c}
    play.play(f"fail {d} round=1")
    states = {name: (state, reason) for name, state, reason in edge_states.edge_states_of(play.state, ())}
    assert states[a] == states[b] == ("training", None)
    assert states[c][0] == "offline"
    assert states[d] == ("missing", "failed: out of memory")
    play.play(f"rejoin {c}", f"load {c}")
    states = {name: (state, reason) for name, state, reason in edge_states.edge_states_of(play.state, ())}
    assert states[c] == ("training", "from 1 version ago")
    play.play(f"send {c}")
    states = {name: (state, reason) for name, state, reason in edge_states.edge_states_of(play.state, ())}
    assert states[c] == ("in", "from 1 version ago")


def test_the_line_of_a_round_has_its_staleness() -> None:
    play = playbook()
    a, b, c = sorted(play.state.phase.tickets)  # type: ignore[union-attr]
    play.play(f"send {a}", f"send {b}", f"send {c}", f"send {a}")
    results = [
        effect for _, effects in play.told for effect in effects if isinstance(effect, do.PublishResult)
    ]
    record = RoundRecord.of(results[-1].summary, 0, 0)
    assert "staleness 0.5 (at most 1)" in round_line(record, 10)
