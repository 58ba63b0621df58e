"""Masked rounds under any order of events: one set a round, no substitutes, and a journal that gives the state back."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fl_aggregator.round import effects as do
from tests.support.round_playbook import Playbook

EDGES = 7
CLIENTS = st.integers(0, EDGES - 1)
OFTEN = ("send", "sign", "open")
SELDOM = (
    "lose", "return", "rejoin", "wait", "late", "decline", "spoil", "fail", "restart", "reconnect", "lost keys",
)  # fmt: skip
WHAT = st.sampled_from((*OFTEN, *OFTEN, *SELDOM))


def line_of(playbook: Playbook, what: str, client: int) -> list[str]:
    match what:
        case "send" | "sign" | "open" | "lose" | "fail":
            return [f"{what} {client}"]
        case "decline":
            return [f"decline {client} another-set"]
        case "return" | "rejoin":
            return [f"rejoin {client}", f"load {client}"]
        case "wait":
            return [f"wait {1 + client * 3}"]
        case "late":
            return ["wait 70"]
        case "spoil":
            return [f"spoil {client}"]
        case "restart":
            return ["resume"] if client % 2 else ["interrupt", "resume"]
        case "lost keys":
            return [
                f"lose {client}",
                f"rejoin {client}",
                f"load {client} keys={'A' * 42}{'BCDEFGH'[client]}{'A' * 43}",
            ]
        case _:
            return [what]


@given(steps=st.lists(st.tuples(WHAT, CLIENTS), max_size=60), over_select=st.integers(0, 2))
def test_any_order(steps: list[tuple[str, int]], over_select: int) -> None:
    playbook = Playbook(
        clients=EDGES,
        per_round=EDGES - over_select,
        over_select=over_select,
        quorum=4,
        rounds=4,
        masked=True,
        masked_min=4,
        unmask_wait=30,
        deadline=60,
        grace=5,
    )
    playbook.play("start")
    for client in range(EDGES):
        playbook.play(f"join {client}", f"load {client}")
    playbook.play(f"send {playbook.cohort[0]}")
    for what, client in steps:
        for line in line_of(playbook, what, client):
            playbook.play(line)
    playbook.invariants.check_replay(playbook.state)
    closings = [
        e.included for _, effects in playbook.told for e in effects if isinstance(e, do.PublishClosing)
    ]
    assert len(closings) == len(playbook.invariants.closings)
