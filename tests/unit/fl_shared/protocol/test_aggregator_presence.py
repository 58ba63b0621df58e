"""Which of two aggregators under one prefix goes on (protocol, 8.12)."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fl_shared.protocol import messages as m

births = st.builds(
    m.AggregatorPresence,
    state=st.just("online"),
    session=st.sampled_from("abc"),
    run=st.sampled_from("xy"),
    incarnation=st.integers(1, 3),
    started=st.integers(0, 3),
)


def birth(run: str, incarnation: int, started: int) -> m.AggregatorPresence:
    return m.AggregatorPresence(
        state="online", session="s", run=run, incarnation=incarnation, started=started
    )


@given(births, births)
def test_of_two_exactly_one_goes_on(one: m.AggregatorPresence, other: m.AggregatorPresence) -> None:
    if one.session == other.session and (one.run, one.incarnation) == (other.run, other.incarnation):
        return  # a session is random, and belongs to one aggregator
    if (one.started, one.session) == (other.started, other.session) and one.run != other.run:
        return
    assert one.outranks(other) is not other.outranks(one)


def test_the_later_incarnation_of_a_run_goes_on_whatever_its_clock_says() -> None:
    assert birth("x", 2, 5).outranks(birth("x", 1, 9))


def test_the_later_of_two_runs_goes_on_whatever_their_incarnations() -> None:
    assert birth("x", 1, 9).outranks(birth("y", 7, 5))
