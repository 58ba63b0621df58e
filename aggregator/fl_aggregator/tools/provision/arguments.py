"""What the options of ``fl-aggregator provision`` mean. Raises ``UserError``, which names the option."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from fl_shared.errors import UserError

if TYPE_CHECKING:
    from fl_shared.security.kit import AccountRole

_HOST_PATTERN: Final = re.compile(
    r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*"
)


def parse_names(value: str, option: str) -> list[str]:
    """The names in ``none`` or ``NAME,…``."""
    from fl_aggregator.tools.provision.accounts import check_name

    return [] if value == "none" else [check_name(name.strip(), option) for name in value.split(",")]


def _parse_chosen(value: str, option: str, names: list[str]) -> set[str]:
    if value == "all":
        return set(names)
    selected = parse_names(value, option)
    for name in selected:
        if name not in names:
            raise UserError(f"{option} {name!r}: not one of the edges to create")
    return set(selected)


def edge_accounts(
    names: list[str], train: str, evaluate: str, predict: str, region: str
) -> list[tuple[str, tuple[AccountRole, ...]]]:
    """The edges ``names``, each with the roles that the options give it."""
    names_by_role: dict[AccountRole, set[str]] = {
        "train": _parse_chosen(train, "--train", names),
        "evaluate": _parse_chosen(evaluate, "--evaluate", names),
        "predict": _parse_chosen(predict, "--predict", names),
        "region": _parse_chosen(region, "--region", names),
    }
    requested = [
        (name, tuple(role for role in names_by_role if name in names_by_role[role])) for name in names
    ]
    for name, roles in requested:
        if not roles:
            raise UserError(
                f"edge {name!r} would have no role: expected it in --train, --evaluate or --predict"
            )
        if "region" in roles and "train" not in roles:
            raise UserError(f"--region {name!r}: its sums are updates; expected it in --train, too")
    return requested


def parse_host(value: str) -> str:
    """A host name or an address of a broker."""
    import ipaddress

    try:
        return str(ipaddress.ip_address(value.strip("[]")))
    except ValueError:
        if not _HOST_PATTERN.fullmatch(value) or len(value) > 253:
            raise UserError(f"--broker-host {value[:80]!r}: expected a host name or an address") from None
        return value.lower()


def parse_brokers(value: str) -> tuple[tuple[str, ...], list[str]]:
    """Returns the hosts, the hub's first, and the names of the brokers that are bridged to it. Raises ``UserError``."""
    from fl_aggregator.tools.provision.accounts import check_name

    hosts, names = [], []
    for item in value.split(","):
        name, separator, host = item.strip().partition("=")
        hosts.append(parse_host(host if separator else name))
        names.append(check_name(name if separator else name.partition(".")[0], "--brokers"))
    if len(hosts) < 2:
        raise UserError(
            f"--brokers {value!r}: expected at least two, the hub first (one broker: --broker-host)"
        )
    for name in names:
        if names.count(name) > 1:
            raise UserError(
                f"--brokers: {name!r} is the name of two brokers; expected NAME=HOST for one of them"
            )
    return tuple(dict.fromkeys(hosts)), names[1:]


def parse_broker_dir(value: str | None) -> str | None:
    """The directory of the broker's files."""
    if value is not None and not (value.startswith("/") and value.isprintable()):
        raise UserError(f"--broker-dir {value!r}: expected an absolute path, as the broker sees it")
    return value
