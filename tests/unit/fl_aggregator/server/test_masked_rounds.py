"""A masked run makes the models of a plain one, whoever is lost, and wherever the aggregator is killed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fl_aggregator.round import effects as do
from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from tests.support.masked_federation import MaskedFederation, digests_of

LOST: dict[int, dict[str, tuple[str, ...]]] = {
    1: {"6": ("update",), "0": ("update", "sign"), "3": ("sign",), "1": ("open",)},
    2: {"2": ("update", "sign", "open"), "4": ("sign", "open")},
    3: {"5": ("open",)},
}


def federation(
    directory: Path, *, masked: bool = True, lost: bool = False, **settings: Any
) -> MaskedFederation:
    usual: dict[str, Any] = {"quorum": 5, "fold_bits": "64", **settings}
    made = MaskedFederation(directory, masked=masked, clients=7, **usual)
    for number, names in LOST.items() if lost else ():
        for name, silent in names.items():
            made.edges[name].lost_in[number] = silent
    return made


@pytest.mark.parametrize(("lost", "bits"), [(False, "40"), (True, "64")])
def test_a_masked_run_makes_the_models_of_a_plain_one(tmp_path: Path, lost: bool, bits: str) -> None:
    """P18 in docs/privacy.md."""
    plain, masked = (
        federation(tmp_path / str(kind), masked=kind, lost=lost, deadline=30.0, fold_bits=bits)
        for kind in (False, True)
    )
    plain_state, masked_state = plain.run(), masked.run()
    assert digests_of(masked_state, masked) == digests_of(plain_state, plain)
    assert masked_state.version == 3
    reveals = [message for _, message in masked.published if isinstance(message, m.Reveal)]
    assert {message.round for message in reveals} == {1, 2, 3}
    assert not any(isinstance(topic, t.UnmaskTopic) for topic in masked.retained), "cleared at the end"
    states = [message for _, message in masked.published if isinstance(message, m.Edges)]
    assert states
    numbers = {edge.examples for one in states for edge in one.edges.values()}
    assert numbers == {None}, "no message has numbers of one edge"
    phases = {message.phase for _, message in masked.published if isinstance(message, m.Status)}
    assert phases >= {"agreeing", "unmasking"}
    results = [message for _, message in masked.published if isinstance(message, m.Result)]
    assert {one.round: one.masked for one in results} == {0: False, 1: True, 2: True, 3: True}
    assert not any(one.worst_edges for one in results)


def test_the_means_are_those_of_the_plain_run(tmp_path: Path) -> None:
    plain, masked = (federation(tmp_path / str(kind), masked=kind) for kind in (False, True))
    plain.run()
    masked.run()
    of_plain, of_masked = (
        {e.summary.round: e.summary for e in one.effects if isinstance(e, do.WriteHistory)}
        for one in (plain, masked)
    )
    assert of_plain.keys() == of_masked.keys() == {1, 2, 3}
    for number, summary in of_masked.items():
        known = of_plain[number]
        assert summary.examples == known.examples
        assert summary.participants == known.participants
        assert summary.masked
        assert not known.masked
        for name in ("before_loss", "before_accuracy", "after_loss", "after_accuracy", "train_loss"):
            assert summary.metrics[name] == pytest.approx(known.metrics[name], abs=2**-20)
        if number < 3:  # by the tallies of the next round
            assert summary.split == "holdout"
            assert summary.metrics["accuracy"] == pytest.approx(0.75)
        assert not summary.edges


def test_killed_before_any_kind_of_effect_it_makes_the_same_models(tmp_path: Path) -> None:
    """P17 in docs/privacy.md."""

    def again(name: str) -> MaskedFederation:
        return federation(tmp_path / name, lost=True, rounds=2, deadline=30.0)

    undisturbed = again("undisturbed")
    expected = digests_of(undisturbed.run(), undisturbed)
    kinds = {type(effect): place for place, effect in enumerate(undisturbed.effects)}
    masked = (do.PublishClosing, do.PublishReveal, do.KeepShares, do.Average)
    places = [kinds[kind] - before for kind in masked for before in (0, 1)]  # also before it is recorded
    for place in sorted({*places, kinds[do.Fold], kinds[do.PublishModel], kinds[do.WithdrawRound]}):
        killed = again(f"killed-{place}")
        killed.kill_at = place
        state = killed.run()
        assert killed.kills == 1
        assert state.model.digest == expected[-1], undisturbed.effects[place]
        shares = list((tmp_path / f"killed-{place}").glob("spool/*/*"))
        assert not shares, "nothing stays in the spool"
