"""A member of masked rounds signs one set of updates in a round, and opens no other (protocol, 10.9 and 10.10)."""

from __future__ import annotations

import dataclasses
import secrets
import shutil
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fl_edge.runtime.masked_member import closing_of
from fl_edge.session.masking import Trust, UnacceptablePlan
from fl_edge.session.policy import RequiredMasking
from fl_edge.session.work import Signature
from fl_edge.storage.run_keys_file import FILE_NAME, RunKeysFile
from fl_shared.masking.masked_update import MaskedSections, mask_update
from fl_shared.masking.run_keys import MemberCredential
from fl_shared.masking.tallies import TALLIES
from fl_shared.masking.unmasking import opened_size
from fl_shared.protocol import messages as m
from fl_shared.security.vouchers import member_bytes
from tests.support.builders import partition, training_request
from tests.support.masked_edges import RUN, MaskedEdges, reason_of, shares_of
from tests.support.masked_rounds import of_array

BODIES = {"7": "7" * 64, "8": "8" * 64}
OTHERS = {"7": "7" * 64, "9": "9" * 64}


@pytest.fixture
def edges(tmp_path: Path) -> MaskedEdges:
    return MaskedEdges(tmp_path)


def updates(edges: MaskedEdges, selected: m.Selected, clients: tuple[str, ...]) -> dict[str, MaskedSections]:
    plan = edges.plan(selected)
    found = {}
    for client in clients:
        keys = RunKeysFile(edges.directory / client, client).keys(RUN)
        assert keys is not None
        integers, tallies = of_array(np.arange(plan.values)), np.zeros(TALLIES, np.int64)
        found[client] = mask_update(plan, client, keys, integers, tallies, secrets.token_bytes)
    return found


def test_10_9_a_member_signs_the_same_set_again_and_no_other_one_of_the_round(edges: MaskedEdges) -> None:
    selected = edges.selected()
    first = edges.answer("7", selected, edges.closing(selected, BODIES))
    assert isinstance(first, Signature)
    assert first.closing == edges.plan(selected).closing(BODIES).hex()
    assert edges.answer("7", selected, edges.closing(selected, BODIES, incarnation=2)) == first
    assert reason_of(edges.answer("7", selected, edges.closing(selected, OTHERS))) == "another-set"
    later = edges.selected(2)
    assert isinstance(edges.answer("7", later, edges.closing(later, OTHERS)), Signature)
    assert reason_of(edges.answer("7", selected, edges.closing(selected, BODIES))) == "another-set"


def test_10_9_what_is_signed_is_on_the_disk_before_the_signature_leaves(edges: MaskedEdges) -> None:
    selected = edges.selected()
    edges.answer("7", selected, edges.closing(selected, BODIES))
    file = edges.directory / "7" / FILE_NAME
    assert edges.plan(selected).closing(BODIES).hex() in file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600


def test_10_9_a_member_whose_disk_cannot_remember_signs_nothing_that_it_may_forget(
    edges: MaskedEdges, monkeypatch: pytest.MonkeyPatch
) -> None:
    selected = edges.selected()
    directory = edges.directory / "7"

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fl_edge.storage.run_keys_file.write_private", full)
    member = edges.member("7")
    answer = edges.answer_of(member, selected, edges.closing(selected, BODIES))
    assert isinstance(answer, Signature)
    assert not (directory / FILE_NAME).exists(), (
        "a restarted edge would have its keys, and not what it has signed"
    )
    assert reason_of(edges.answer_of(member, selected, edges.closing(selected, OTHERS))) == "another-set"
    assert reason_of(edges.answer("7", selected, edges.closing(selected, OTHERS))) == "no-keys"


def test_an_edge_masks_for_one_plan_of_a_round(edges: MaskedEdges) -> None:
    """P7 in docs/privacy.md: the difference of the sums of two plans could be one update."""
    selected = edges.selected()
    other = edges.selected(training=training_request(lr=0.5))
    member = edges.member("7")
    assert member.masking(selected, partition(), edges.manifest) is not None
    for again in (member, edges.member("7")):
        with pytest.raises(UnacceptablePlan, match="has masked or signed something else in round 1"):
            again.masking(other, partition(), edges.manifest)
        assert reason_of(edges.answer_of(again, other, edges.closing(other, BODIES))) == "another-set"
        assert again.masking(selected, partition(), edges.manifest) is not None
    assert member.masking(edges.selected(2), partition(), edges.manifest) is not None


def test_an_edge_without_its_keys_masks_nothing(edges: MaskedEdges) -> None:
    """And sends nothing without masks either."""
    member = edges.member("7")
    member.drop_keys()
    with pytest.raises(UnacceptablePlan, match="no keys of run") as caught:
        member.masking(edges.selected(), partition(), edges.manifest)
    assert caught.value.reason == "no-keys"
    assert member.masking(edges.selected(masked=None), partition(), edges.manifest) is None


def test_10_9_a_wiped_edge_cannot_answer_for_the_round(edges: MaskedEdges) -> None:
    selected = edges.selected()
    edges.answer("7", selected, edges.closing(selected, BODIES))
    shutil.rmtree(edges.directory / "7")
    (edges.directory / "7").mkdir()
    assert reason_of(edges.answer("7", selected, edges.closing(selected, OTHERS))) == "no-keys"
    member = edges.member("7")
    assert member.make_keys(RUN, 0.0).keys != edges.keys["7"]
    assert reason_of(edges.answer_of(member, selected, edges.closing(selected, OTHERS))) == "not-a-member"


@pytest.mark.parametrize(
    ("bodies", "changes", "reason"),
    [
        ({"7": "7" * 64}, {}, "too-small"),
        ({"7": "7" * 64, "x": "8" * 64}, {}, "not-a-member"),
        (BODIES, {"plan": "0" * 64}, "wrong-plan"),
        (BODIES, {"round": 2}, "wrong-plan"),
        ({"7": "1" * 64, "8": "8" * 64}, {}, "another-set"),
    ],
)
def test_10_9_a_member_declines_a_set_with_the_reason(
    edges: MaskedEdges, bodies: dict[str, str], changes: dict[str, object], reason: str
) -> None:
    selected = edges.selected()
    asked = edges.closing(selected, bodies, **changes)
    answer = edges.answer("7", selected, asked, body="7" * 64)
    assert reason_of(answer) == reason
    assert answer.closing == closing_of(asked)
    file = RunKeysFile(edges.directory / "7", "7")
    assert file.commit(1, edges.plan(selected).digest.hex(), "f" * 64), "what it declines it has not signed"


def test_10_10_members_open_what_enough_of_them_have_signed(edges: MaskedEdges) -> None:
    selected = edges.selected()
    made = updates(edges, selected, ("7", "8"))
    bodies = {client: one.body for client, one in made.items()}
    shares = {client: one.shares for client, one in made.items()}
    signatures = edges.signatures(selected, bodies, of=("7", "8"))
    opened = shares_of(edges.answer("9", selected, edges.reveal(selected, "9", bodies, signatures, shares)))
    assert len(opened.shares) == opened_size(edges.plan(selected), bodies)
    assert opened.unopened == ()
    assert reason_of(edges.answer("9", selected, edges.closing(selected, OTHERS))) == "another-set"
    few = {"7": signatures["7"]}
    assert (
        reason_of(edges.answer("7", selected, edges.reveal(selected, "7", bodies, few, shares)))
        == "wrong-signatures"
    )
    broken = edges.reveal(selected, "8", bodies, signatures, {**shares, "7": bytes(len(shares["7"]))})
    assert shares_of(edges.answer("8", selected, broken)).unopened == ("7",)


# --- what an edge demands ---------------------------------------------------------------------------------


def credential(enrolment: Ed25519PrivateKey, client: str, until: int = 2000) -> MemberCredential:
    member = Ed25519PrivateKey.generate()
    voucher = enrolment.sign(member_bytes(client, member.public_key().public_bytes_raw(), until))
    return MemberCredential(member.private_bytes_raw(), until, voucher)


def certified(tmp_path: Path, **credentials: MemberCredential) -> MaskedEdges:
    """Edges of which those that are not named have good certificates."""
    enrolment = Ed25519PrivateKey.generate()
    names = ("7", "8", "9")
    given = {name: credentials.get(f"_{name}") or credential(enrolment, name) for name in names}
    return MaskedEdges(tmp_path, names, given, Trust(enrolment.public_key().public_bytes_raw()))


def test_a_member_takes_part_with_certified_members_only(tmp_path: Path) -> None:
    good = certified(tmp_path / "good")
    selected = good.selected()
    assert isinstance(good.answer("7", selected, good.closing(selected, BODIES)), Signature)
    stranger = certified(tmp_path / "stranger", _9=credential(Ed25519PrivateKey.generate(), "9"))
    selected = stranger.selected()
    assert reason_of(stranger.answer("7", selected, stranger.closing(selected, BODIES))) == "policy"
    bare = MaskedEdges(tmp_path / "bare", trust=good.trust)
    selected = bare.selected()
    assert reason_of(bare.answer("7", selected, bare.closing(selected, BODIES))) == "policy"


def test_a_member_takes_no_part_with_one_whose_certificate_is_out_of_date(tmp_path: Path) -> None:
    enrolment = Ed25519PrivateKey.generate()
    given = {name: credential(enrolment, name, 999 if name == "8" else 2000) for name in ("7", "8", "9")}
    edges = MaskedEdges(tmp_path, ("7", "8", "9"), given, Trust(enrolment.public_key().public_bytes_raw()))
    selected = edges.selected()
    answer = edges.answer("7", selected, edges.closing(selected, BODIES))
    assert reason_of(answer) == "policy"


def test_what_is_required_holds_for_signatures_too(edges: MaskedEdges) -> None:
    edges = dataclasses.replace(edges, trust=Trust(required=RequiredMasking(3, 1)))
    selected = edges.selected()
    assert reason_of(edges.answer("7", selected, edges.closing(selected, BODIES))) == "policy"
