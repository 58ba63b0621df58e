"""The rights of accounts to read and write topics (protocol, section 2), as the text of Mosquitto's ACL file.

Every account has its own lines, and there are no patterns. A name that is no longer in the file therefore has
no rights once the broker has reloaded it, even if its certificate can still open a connection.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from fl_aggregator.tools.provision.accounts import BRIDGE, Account
from fl_aggregator.tools.provision.bridges import bridge_rules
from fl_shared.protocol import topics as t
from fl_shared.protocol.channels import CHANNELS, Channel, Channels, Side
from fl_shared.protocol.home_assistant import discovery_topic

Access = Literal["read", "write", "readwrite"]

ANY_CLIENT: Final = "+"
"""In the place of a client's id in a filter: any client."""


@dataclass(frozen=True, slots=True)
class AclRule:
    """A right to one topic filter, which includes the prefix."""

    access: Access
    filter: str


def acl_text(accounts: Sequence[Account], prefix: str, home_assistant: str | None = None) -> str:
    """The ACL file for Mosquitto 2.0 and 2.1. Clients without an account in it have no rights.

    ``home_assistant``: see `BrokerLocation`.
    """
    lines = ["# Made by `fl-aggregator provision`, which rewrites it with each change."]
    predictors = [account.name for account in accounts if "predict" in account.roles]
    askers = [account.name for account in accounts if "asker" in account.roles]
    for account in accounts:
        lines += ["", f"# {', '.join(account.roles)}", f"user {account.name}"]
        rules = acl_rules(account, prefix, predictors, askers)
        if home_assistant is not None and "aggregator" in account.roles:
            rules.append(AclRule("readwrite", discovery_topic(home_assistant, prefix)))
        lines += [f"topic {rule.access} {rule.filter}" for rule in rules]
    return "\n".join(lines) + "\n"


def acl_rules(
    account: Account,
    prefix: str,
    predictors: Sequence[str] = (),
    askers: Sequence[str] = (),
    channels: Channels = CHANNELS,
) -> list[AclRule]:
    """All rights of ``account``.

    ``predictors``, ``askers``: all of them. Askers write only to predictors, and these answer only to askers, so
    that nobody can make up names whose retained messages would fill the broker.
    """
    roles = account.roles
    if "aggregator" in roles:
        rules = _rules_of(channels, channels.rows, "aggregator", prefix, [ANY_CLIENT], [])
        return [*rules, AclRule("readwrite", t.trials(prefix))]
    if "operator" in roles:
        rules = _rules_of(channels, channels.rows, "operator", prefix, [ANY_CLIENT], [])
        writes = [rule for rule in rules if rule.access != "read"]  # it reads everything
        return [AclRule("read", f"{prefix}/#"), *writes, AclRule("write", t.trials(prefix))]
    if "bridge" in roles:
        return [AclRule(*rule) for rule in bridge_rules(account.name.removeprefix(BRIDGE), prefix)]
    if "asker" in roles:
        return _rules_of(channels, channels.rows, "asker", prefix, predictors, [account.name])
    rows = [row for row in channels.rows if not set(row.roles).isdisjoint(roles)]
    return _rules_of(channels, rows, "edge", prefix, [account.name], askers)


def _rules_of(
    channels: Channels,
    rows: Iterable[Channel],
    side: Side,
    prefix: str,
    edges: Sequence[str],
    askers: Sequence[str],
) -> list[AclRule]:
    by_access: dict[Access, list[Channel]] = {"readwrite": [], "write": [], "read": []}
    for row in rows:
        match row.reads(side), row.writes(side):
            case True, True:
                by_access["readwrite"].append(row)
            case False, True:
                by_access["write"].append(row)
            case True, False:
                by_access["read"].append(row)
    return [
        AclRule(access, topic_filter)
        for access, allowed in by_access.items()
        for topic_filter in _filters(channels, allowed, prefix, edges, askers)
    ]


def _filters(
    channels: Channels, rows: Sequence[Channel], prefix: str, edges: Sequence[str], askers: Sequence[str]
) -> Iterable[str]:
    required = [row for row in rows if not t.is_optional(row.topic)]
    if required:
        yield from (name for name, _ in channels.filters(prefix, required, edges[0]))
    for row in rows:
        if t.is_optional(row.topic):
            first_level = f"{prefix}/{t.first_level(row.topic)}"
            yield from (f"{first_level}/{name}" for name in (askers if row.names_asker else edges))
            if not row.names_sender:
                yield first_level
