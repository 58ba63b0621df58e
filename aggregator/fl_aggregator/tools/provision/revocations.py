"""Writes the list of revoked kits, which the aggregator reads beside its kit."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from fl_aggregator.tools.provision.accounts import AccountRegister
from fl_aggregator.tools.provision.authority import Authority
from fl_shared.security.revocations import FILE_NAME, RevocationList
from fl_shared.system.files import write_private

LOG: Final = logging.getLogger(__name__)


def revocation_list(register: AccountRegister, now: datetime) -> RevocationList:
    """The list of what the register has revoked, without the keys whose vouchers have expired meanwhile."""
    validity = timedelta(days=register.place.days)
    listed = [revoked for revoked in register.revoked_keys if now <= revoked.when + validity]
    valid = {account.name for account in register.accounts}
    keys = {key for revoked in listed for key in revoked.keys}
    return RevocationList(
        number=max(1, register.list_number),
        accounts=tuple(sorted({revoked.name for revoked in listed} - valid)),
        keys=tuple(sorted(keys - {key for account in register.accounts for key in account.keys})),
    )


def write(out: Path, register: AccountRegister, authority: Authority, now: datetime) -> None:
    """Writes the list into the directory of the kits. Raises ``OSError``.

    Without the enrolment key, which signs it, it keeps the old one and warns.
    """
    if authority.can_enrol:
        write_private(out / FILE_NAME, authority.enrolment.issue_list(revocation_list(register, now)))
    else:
        LOG.warning(
            "%s is not renewed, since the authority has no enrolment key: the broker alone refuses what is revoked now",
            out / FILE_NAME,
        )
