"""What a member of a masked round cannot do: spoil it unseen, or be taken for another."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import pytest

from fl_aggregator.round import effects as do
from fl_aggregator.round.phases import Agreeing, Collecting
from fl_shared.masking.run_keys import RunKeys
from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from fl_shared.tensors.digest import content_digest
from tests.support.masked_federation import MaskedFederation
from tests.support.masked_rounds import fixed_random
from tests.support.simulated_masked_edge import new_keys


def federation(directory: Path, **settings: Any) -> MaskedFederation:
    usual: dict[str, Any] = {"clients": 6, "quorum": 4, "rounds": 1, "deadline": 30.0, "wait": 30.0}
    if settings.get("masked", True):
        usual["masked_min"] = 4
    return MaskedFederation(directory, **usual | settings)


def missing(tested: MaskedFederation) -> dict[str, str]:
    summaries = [e.summary for e in tested.effects if isinstance(e, do.WriteHistory)]
    return dict(summaries[0].missing)


def changed(update: m.Update, **sections: bytes) -> m.Update:
    """The update with other data in these sections, and the digest of that."""
    made = tuple(
        one if one.name not in sections else one.model_copy(update={"data": sections[one.name]})
        for one in update.sections
    )
    digest = content_digest([(s.name, s.encoding, s.manifest, s.data) for s in made])
    return update.model_copy(update={"sections": made, "digest": digest})


def other_seeds(update: m.Update) -> m.Update:
    shares = next(one.data for one in update.sections if one.name == "shares")
    return changed(update, shares=shares[:16] + bytes(6 * 32) + shares[16 + 6 * 32 :])


def in_plain_form(update: m.Update) -> m.Update:
    plain = update.sections[0].model_copy(update={"encoding": "f32", "data": bytes(160)})
    digest = content_digest([(plain.name, plain.encoding, plain.manifest, plain.data)])
    return update.model_copy(update={"sections": (plain,), "plan": None, "digest": digest})


@pytest.mark.parametrize(
    ("spoilt", "why"),
    [
        (in_plain_form, "rejected: not-masked: plan: none, but updates of this round are masked"),
        (lambda one: one.model_copy(update={"plan": "0" * 64}), "rejected: wrong-plan: plan: 000000000000, expected"),
        (other_seeds, "rejected: bad-commitments: shares: other seeds than"),
        (lambda one: changed(one, delta=bytes(8)), "rejected: wrong-size: delta.data: 8 bytes, expected 200"),
        (lambda one: changed(one, shares=bytes(16)), "rejected: wrong-size: shares.data: 16 bytes, expected"),
        (lambda one: one.model_copy(update={"sections": one.sections[:2]}), "rejected: wrong-manifest: sections:"),
    ],
)  # fmt: skip
def test_an_update_that_is_not_masked_as_all_others_is_rejected(
    tmp_path: Path, spoilt: Any, why: str
) -> None:
    tested = federation(tmp_path / "run")
    bad = tested.edges["5"]  # the others are there before it
    bad.tamper = lambda message: (
        spoilt(message) if isinstance(message, m.Update) and message.round == 1 else message
    )
    tested.run()
    assert tested.state.version == 1
    assert missing(tested)["5"].startswith(why)


def test_a_masked_update_has_no_place_in_a_round_without_masks(tmp_path: Path) -> None:
    tested = federation(tmp_path / "run", masked=False)
    tested.edges["5"].tamper = lambda message: (
        message.model_copy(update={"plan": "0" * 64})
        if isinstance(message, m.Update) and message.round == 1
        else message
    )
    tested.run()
    assert missing(tested)["5"] == "rejected: masked: plan: 000000000000, but the round is not masked"


def test_wrong_shares_are_found_and_the_sum_is_unmasked_without_them(tmp_path: Path) -> None:
    tested = federation(tmp_path / "run")

    def lie(message: m.Message) -> m.Message:
        if not isinstance(message, m.Opened):
            return message
        shares = bytes(16) + message.shares[16:]
        return message.model_copy(update={"shares": shares, "digest": hashlib.sha256(shares).hexdigest()})

    tested.edges["0"].tamper = lie
    state = tested.run()
    averages = [effect.holders for effect in tested.effects if isinstance(effect, do.Average)]
    assert averages[1:] == [("0", "1", "2", "3"), ("0", "1", "2", "3", "4")]
    honest = federation(tmp_path / "honest")
    assert state.model == honest.run().model


def test_a_sum_that_cannot_be_is_no_model(tmp_path: Path) -> None:
    tested = federation(tmp_path / "run")
    tested.edges["0"].wrong_tallies = {1: [10**6, 2.0, 0.25, 0.5, 0.75, 0.125, 0.875, 0.0]}
    tested.run()
    summaries = [e.summary for e in tested.effects if isinstance(e, do.WriteHistory)]
    assert [one.outcome for one in summaries] == ["abandoned", "committed"]
    assert (summaries[0].reason or "").startswith(
        "the sum could not be unmasked: the sum is implausible: examples: the sum is 1000"
    )


def sealed_for_another(message: m.Message) -> m.Message:
    """What an edge says whose shares nobody can open."""
    if isinstance(message, m.Update) and message.round > 0:
        return changed(message, tallies=hashlib.sha512(b"any").digest())
    return message


def test_an_update_whose_shares_nobody_opens_is_not_waited_for(tmp_path: Path) -> None:
    """One member is silent, and its shares would not be enough."""
    tested = federation(tmp_path / "run")
    tested.edges["0"].tamper = sealed_for_another
    tested.edges["5"].lost_in[1] = ("open",)
    tested.start()
    tested.deliver()
    assert tested.now == 0.0
    (abandoned,) = [e.summary for e in tested.effects if isinstance(e, do.WriteHistory)]
    assert abandoned.reason == (
        "the sum could not be unmasked: 0 members have opened the shares of 0, expected 4; no other member is left to "
        "open it"
    )
    tested.end()


def test_who_seals_its_shares_for_another_update_is_left_out_after_two_rounds(tmp_path: Path) -> None:
    tested = federation(tmp_path / "run", rounds=2)
    tested.edges["0"].tamper = sealed_for_another
    state = tested.run()
    summaries = [e.summary for e in tested.effects if isinstance(e, do.WriteHistory)]
    assert [one.outcome for one in summaries] == ["abandoned", "abandoned", "committed", "committed"]
    assert all("0" not in one.participants for one in summaries)
    assert state.roster["0"].unable == "its shares were wrong in 2 masked rounds"


def test_bad_and_foreign_signatures_do_not_count(tmp_path: Path) -> None:
    tested = federation(tmp_path / "run")
    for name in "012":
        tested.edges[name].lost_in[1] = ("sign",)
    stranger = RunKeys.generate(fixed_random("stranger"))

    def forge(message: m.Message) -> m.Message:
        if isinstance(message, m.Agreed):
            return message.model_copy(update={"signature": stranger.agree.sign(b"anything")})
        return message

    tested.edges["3"].tamper = forge
    tested.start()
    tested.deliver()
    assert isinstance(tested.state.phase, Agreeing)
    assert sorted(tested.state.phase.signatures) == ["4", "5"]
    assert tested.rejections.by_reason["wrong-signature"] >= 1
    tested.end()


def test_an_edge_that_registers_other_keys_is_no_longer_waited_for(tmp_path: Path) -> None:
    tested = federation(tmp_path / "run")
    lost = tested.edges["5"]
    lost.lost_in[1] = ("update",)
    tested.start()
    tested.deliver()
    assert isinstance(tested.state.phase, Collecting)
    assert "5" in tested.state.phase.awaited
    new_keys(lost)
    lost.starts += 1
    tested.say(t.RegisterTopic("5"), lost.registration())
    tested.deliver()
    assert not isinstance(tested.state.phase, Collecting), "nobody else is waited for"
    assert tested.state.version == 1
    assert missing(tested)["5"].startswith("its keys are no longer those of the round")
    tested.end()


@pytest.mark.parametrize(
    ("keys", "reason", "detail"),
    [
        (None, "no-run-keys", "keys: missing, but updates of this run are masked (--masked)"),
        ("A" * 86, "bad-run-keys", "keys: the first 32 bytes are no canonical X25519 key"),
    ],
)
def test_an_edge_without_keys_is_refused(tmp_path: Path, keys: str | None, reason: str, detail: str) -> None:
    tested = federation(tmp_path / "run")
    bad = tested.edges["5"]
    bad.tamper = lambda message: (
        message.model_copy(update={"keys": keys})
        if isinstance(message, m.Registration) and message.examples is not None
        else message
    )
    tested.run()
    assert (bad.refusals[0].reason, bad.refusals[0].detail[: len(detail)]) == (reason, detail)
    assert tested.state.version == 1


def test_copies_of_a_state_directory_are_not_selected_together(tmp_path: Path) -> None:
    tested = federation(tmp_path / "run")
    tested.edges["5"].keys = tested.edges["4"].keys
    tested.run()
    closings = [message for _, message in tested.published if isinstance(message, m.Closing)]
    assert closings
    assert all("5" not in one.included for one in closings)


def test_an_aggregator_that_is_put_back_gets_no_second_sum(tmp_path: Path) -> None:
    """All have signed a set; the aggregator is put back to a time before that, and would sum another one."""
    tested = federation(tmp_path / "run", rounds=2)
    tested.edges["5"].lost_in[1] = ("update",)
    tested.start()
    tested.deliver()
    assert isinstance(tested.state.phase, Collecting)
    tested.end()
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    tested.edges["5"].lost_in[1] = ("open",)
    for name in "0123":
        tested.edges[name].lost_in[1] = ("open",)
    tested.start()
    tested.deliver()
    tested.end()
    signed = {name: edge.signed[1] for name, edge in tested.edges.items()}
    assert len(set(signed.values())) == 1
    shutil.rmtree(tmp_path / "run")
    shutil.move(tmp_path / "copy", tmp_path / "run")
    for edge in tested.edges.values():
        edge.lost_in.clear()
    tested.edges["5"].lost_in[1] = ("update", "sign")
    state = tested.run()
    assert state.version == 2
    summaries = {e.summary.round: e.summary for e in tested.effects if isinstance(e, do.WriteHistory)}
    assert summaries[1].outcome == "abandoned"
    assert "another-set" in (summaries[1].reason or "")
    assert {name: edge.signed[1] for name, edge in tested.edges.items()} == signed


def test_without_a_spool_the_round_is_abandoned_after_a_kill(tmp_path: Path) -> None:
    tested = federation(tmp_path / "run", durability="memory")
    tested.start()
    for edge in tested.edges.values():
        edge.lost_in[1] = ("open",)
    tested.deliver()
    assert tested.state.phase.name == "unmasking"
    tested.end()
    state = tested.run()
    assert state.version == 1
    summaries = [e.summary for e in tested.effects if isinstance(e, do.WriteHistory)]
    assert [one.outcome for one in summaries] == ["abandoned", "committed"]
    assert "accepted updates were lost" in (summaries[0].reason or "")
