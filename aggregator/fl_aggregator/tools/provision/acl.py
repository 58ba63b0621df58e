"""Who may read and write what (protocol, section 2), as the text of Mosquitto's ACL file.

Every account has lines of its own, and there are no patterns: so a name that is gone from here can do nothing
after the broker has read the file again, though its certificate may still open a connection.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

from fl_aggregator.tools.provision.accounts import Account
from fl_shared.protocol import topics as t

Access = Literal["read", "write", "readwrite"]

ANY: Final = "+"
"""In the place of a client's id: whoever's."""


@dataclass(frozen=True, slots=True)
class Grant:
    """``filter`` is a whole topic filter, with its prefix."""

    access: Access
    filter: str


def text(accounts: Iterable[Account], prefix: str) -> str:
    """The file for Mosquitto 2.0 and 2.1. Who is not in it may do nothing, and there is nothing for everybody."""
    lines = ["# Made by `fl-aggregator provision`, which rewrites it with each change."]
    for account in accounts:
        lines += ["", f"# {', '.join(account.roles)}", f"user {account.name}"]
        lines += [f"topic {grant.access} {grant.filter}" for grant in grants(account, prefix)]
    return "\n".join(lines) + "\n"


def grants(account: Account, prefix: str) -> list[Grant]:
    """All that ``account`` may do."""
    roles = account.roles
    if "aggregator" in roles:
        return _aggregator(prefix)
    if "operator" in roles:
        return [
            Grant("read", f"{prefix}/#"),
            Grant("write", t.build(prefix, t.ControlTopic())),
            Grant("write", t.filter_of(prefix, t.ALL_TRIALS)),
        ]
    if "asker" in roles:
        return [
            Grant("write", t.build(prefix, t.PredictTopic())),
            Grant("write", t.build(prefix, t.PredictTopic(ANY))),
            Grant("read", _answers(prefix)),
        ]
    return _edge(account, prefix)


def _aggregator(prefix: str) -> list[Grant]:
    """What it publishes it also reads: it clears what others have left there, on ``control`` and ``work``
    and on the topics of edges, too.
    """
    return [
        Grant("readwrite", t.build(prefix, t.AggregatorTopic())),
        Grant("readwrite", t.build(prefix, t.StatusTopic())),
        Grant("readwrite", t.build(prefix, t.HistoryTopic())),
        Grant("readwrite", t.build(prefix, t.ControlTopic())),
        Grant("readwrite", t.filter_of(prefix, t.ALL_ROUNDS)),
        Grant("readwrite", t.filter_of(prefix, t.ALL_MODELS)),
        Grant("readwrite", t.filter_of(prefix, t.ALL_WORK)),
        Grant("write", t.build(prefix, t.RepliesTopic(ANY))),
        Grant("readwrite", t.build(prefix, t.RegisterTopic(ANY))),
        Grant("read", t.filter_of(prefix, t.ALL_PRESENCE)),
        Grant("readwrite", t.build(prefix, t.UpdatesTopic(ANY))),
        Grant("readwrite", t.filter_of(prefix, t.ALL_EVALUATIONS)),
        Grant("readwrite", t.filter_of(prefix, t.ALL_TRIALS)),
    ]


def _edge(account: Account, prefix: str) -> list[Grant]:
    name, roles = account.name, account.roles
    found = [
        Grant("write", t.build(prefix, t.RegisterTopic(name))),
        Grant("readwrite", t.build(prefix, t.PresenceTopic(name))),
        Grant("read", t.build(prefix, t.RepliesTopic(name))),
        Grant("read", t.build(prefix, t.AggregatorTopic())),
        Grant("read", t.filter_of(prefix, t.ALL_MODELS)),
    ]
    if "train" in roles:
        found += [
            Grant("read", t.build(prefix, t.WorkTopic(name))),
            Grant("read", t.filter_of(prefix, t.ALL_SELECTED)),
            Grant("read", t.filter_of(prefix, t.ALL_RESULTS)),
            Grant("write", t.build(prefix, t.UpdatesTopic(name))),
        ]
    if "train" in roles or "evaluate" in roles:  # who trains may be asked about its holdout
        found.append(Grant("write", t.build(prefix, t.EvaluationsTopic(name))))
    if "predict" in roles:
        found += [
            Grant("read", t.build(prefix, t.PredictTopic())),
            Grant("read", t.build(prefix, t.PredictTopic(name))),
            Grant("write", _answers(prefix)),
        ]
    return found


def _answers(prefix: str) -> str:
    return f"{t.build(prefix, t.PredictionsTopic())}/#"
