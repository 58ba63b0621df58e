"""A change of the accounts that died is repeated or finished, and only one process makes changes."""

from __future__ import annotations

import fcntl
import itertools
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from fl_aggregator.tools.provision import accounts, authority, broker_files, kits
from fl_aggregator.tools.provision.accounts import BrokerLocation
from fl_aggregator.tools.provision.kits import Provision
from fl_shared.errors import UserError
from fl_shared.security import kit as kit_module
from fl_shared.system import files
from tests.support.provisioning import (
    KITS,
    PLACE,
    WITH_PASSWORDS,
    begin,
    check_whole,
)


class Interrupted(BaseException):
    """As by a signal: whatever happens in the place where it comes from, nothing is tidied up."""


OPERATIONS: dict[str, Callable[[Path], object]] = {
    "add": lambda out: _open(out, lambda made: made.add([("2", ("train",)), ("3", ("train",))], force=False)),
    "rotate": lambda out: _open(out, lambda made: made.rotate(["0", "aggregator"], force=True)),
    "rotate --all": lambda out: _open(
        out, lambda made: made.rotate([one.name for one in made.register.accounts], force=True, new_keys=True)
    ),
    "rotate --broker": lambda out: _open(
        out,
        lambda made: made.rotate([one.name for one in made.register.accounts], force=True, new_broker=True),
    ),
    "revoke": lambda out: _open(out, lambda made: made.revoke(["0"])),
}


def _open(out: Path, do: Callable[[Provision], object]) -> None:
    with kits.open_provision(out) as made:
        do(made)


def _dying_at(number: int, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """From now on the ``number``th file is not written, nor any after it; gives the list of those that were."""
    written: list[Path] = []
    write = files.write_private

    def dying(path: Path, content: bytes) -> None:
        if len(written) >= number:
            raise Interrupted
        write(path, content)
        written.append(path)

    for module in (kit_module, authority, accounts, broker_files):
        monkeypatch.setattr(module, "write_private", dying)
    return written


PLACES = {"certificates": PLACE, "passwords": WITH_PASSWORDS}
DAILY = (
    *(("certificates", operation) for operation in ("add", "rotate", "rotate --broker", "revoke")),
    ("passwords", "rotate --all"),
)


@pytest.mark.parametrize("place", [PLACE, WITH_PASSWORDS], ids=PLACES)
def test_beginning_can_be_repeated_wherever_it_died(
    tmp_path: Path, place: BrokerLocation, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = 0
    while True:
        out = tmp_path / str(number)
        with monkeypatch.context() as patch:
            _dying_at(number, patch)
            try:
                begin(out, place)
                break
            except Interrupted:
                pass
        begin(out, place)
        check_whole(out)
        number += 1
    assert number >= 4 + 1 + 7 + len(KITS) + 1


@pytest.mark.parametrize(
    ("place", "operation"),
    [
        pytest.param(*case, marks=() if case in DAILY else pytest.mark.long)
        for case in itertools.product(PLACES, OPERATIONS)
    ],
)
def test_the_next_command_finishes_what_died(
    tmp_path: Path, operation: str, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = 0
    begin(tmp_path / "begun", PLACES[place])
    while True:
        out = tmp_path / str(number)
        shutil.copytree(tmp_path / "begun", out)
        before = (out / "accounts.json").read_bytes()
        with monkeypatch.context() as patch:
            _dying_at(number, patch)
            try:
                OPERATIONS[operation](out)
                break
            except Interrupted:
                pass
        _open(out, lambda _: None)
        check_whole(out)
        if number == 0:
            assert (out / "accounts.json").read_bytes() == before
        number += 1
    assert number >= 3


def test_one_process_at_a_time(tmp_path: Path) -> None:
    begin(tmp_path)
    with (tmp_path / ".lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with (
            pytest.raises(UserError, match="in use by another fl-aggregator provision"),
            kits.open_provision(tmp_path),
        ):
            pass
        with pytest.raises(UserError, match="in use by another fl-aggregator provision"):
            begin(tmp_path)
    _open(tmp_path, lambda _: None)
