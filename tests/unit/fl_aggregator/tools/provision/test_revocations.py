"""`provision` writes the list of revoked kits with each change (protocol, 14)."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from fl_aggregator.tools.provision import kits
from fl_aggregator.tools.provision.accounts import AccountRegister, BrokerLocation
from fl_shared.cli.broker_access import BrokerOptions
from fl_shared.errors import UserError
from fl_shared.security.kit import Kit
from fl_shared.security.revocations import FILE_NAME, RevocationList
from fl_shared.security.signatures import Verifier
from tests.support.provisioning import PLACE, WITH_PASSWORDS, begin


def listed(out: Path) -> RevocationList:
    kit = Kit.read(out / "aggregator.zip")
    return RevocationList.read((out / FILE_NAME).read_bytes(), Verifier(kit.enrolment_public))


def keys_in(path: Path) -> set[str]:
    return {key.hex() for key in Kit.read(path).public_keys}


@pytest.mark.parametrize("place", [PLACE, WITH_PASSWORDS], ids=["certificates", "passwords"])
def test_it_names_the_keys_of_revoked_and_of_replaced_kits(tmp_path: Path, place: BrokerLocation) -> None:
    begin(tmp_path, place)
    first = listed(tmp_path)
    assert (first.accounts, first.keys) == ((), ())
    edge_0, edge_1 = keys_in(tmp_path / "edge-0.zip"), keys_in(tmp_path / "edge-1.zip")
    operator = keys_in(tmp_path / "operator.zip")
    assert (len(edge_0), len(edge_1), len(operator)) == (2, 2, 1)
    with kits.open_provision(tmp_path) as made:
        made.revoke(["0", "web"])
    second = listed(tmp_path)
    assert (second.accounts, set(second.keys)) == (("0",), edge_0)
    with kits.open_provision(tmp_path) as made:
        made.rotate(["1", "operator", "aggregator"], force=True)
    third = listed(tmp_path)
    assert (third.accounts, set(third.keys)) == (("0",), edge_0 | edge_1 | operator)
    with kits.open_provision(tmp_path) as made:
        made.add([("0", ("train",))], force=False)
    fourth = listed(tmp_path)
    assert (fourth.accounts, fourth.keys) == ((), third.keys), "the new kit of 0 has other keys"
    assert first.number < second.number < third.number < fourth.number


def test_keys_whose_vouchers_have_expired_leave_it(tmp_path: Path) -> None:
    begin(tmp_path)
    with kits.open_provision(tmp_path) as made:
        made.revoke(["0"])
        made._now += timedelta(days=29)
        made.finish()
        assert listed(tmp_path).accounts == ("0",)
        made._now += timedelta(days=2)
        made.finish()
        assert (listed(tmp_path).accounts, listed(tmp_path).keys) == ((), ())


def test_its_number_grows_though_the_register_comes_from_a_backup(tmp_path: Path) -> None:
    begin(tmp_path)
    backup = (tmp_path / "accounts.json").read_bytes()
    with kits.open_provision(tmp_path) as made:
        made._now += timedelta(hours=1)
        made.revoke(["0"])
    newest = listed(tmp_path)
    (tmp_path / "accounts.json").write_bytes(backup)
    with kits.open_provision(tmp_path) as made:
        made._now += timedelta(hours=2)
        made.revoke(["1"])
    assert listed(tmp_path).number > newest.number


def test_without_the_enrolment_key_the_broker_still_learns_of_a_revocation(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    begin(tmp_path)
    before = listed(tmp_path)
    (tmp_path / "authority" / "enrolment.pem").unlink()
    with kits.open_provision(tmp_path) as made:
        made.revoke(["0"])
    register = AccountRegister.read(tmp_path)
    assert register is not None
    assert register.find("0") is None
    assert listed(tmp_path) == before
    assert "revoked.json is not renewed, since the authority has no enrolment key" in caplog.text


def test_the_aggregator_reads_the_list_beside_its_kit_or_where_it_is_told(tmp_path: Path) -> None:
    begin(tmp_path / "kits")
    kit, elsewhere = tmp_path / "kits" / "aggregator.zip", tmp_path / "elsewhere.json"
    assert BrokerOptions(kit=kit).access().revoked == tmp_path / "kits" / FILE_NAME
    told = BrokerOptions(kit=kit, revoked=elsewhere)
    assert told.access().revoked == elsewhere
    assert told.resume_arguments() == ["--kit", str(kit), "--revoked", str(elsewhere)]
    with pytest.raises(UserError, match=r"--revoked .*elsewhere\.json needs --kit"):
        BrokerOptions(revoked=elsewhere).access()
