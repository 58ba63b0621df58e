"""Log lines at the beginning of a run: where it is, who attacks it, what is seen of updates, and what it promises."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Final

from fl_aggregator.configuration.settings import Settings
from fl_aggregator.monitoring.views.privacy import promise_lines
from fl_aggregator.monitoring.views.visibility import masked_line
from fl_aggregator.storage.run_directory import RunRecord

LOG: Final = logging.getLogger(__name__)

MOST_EXPOSED: Final = 0.1
"""Edges of a private run of which its δ may promise nothing, in the mean, without a warning."""


def log_beginning(record: RunRecord) -> None:
    """Logs what must be known of a run before its first round."""
    virtual = None if record.fleet is None else record.fleet.virtual
    if virtual is None:
        LOG.info("run %s at %s, prefix %s", record.run, record.broker, record.prefix)
    else:
        LOG.info("run %s in virtual time, devices: %s", record.run, virtual.heterogeneity)
    if record.attack is not None:
        LOG.warning("%s; this is a test, and its model is of no use", record.attack)
    if (masked := record.masked) is not None:
        LOG.log(logging.INFO if masked.certified else logging.WARNING, masked_line(masked))
    log_promise(record.settings)
    if record.settings.dp == "central" and virtual is None and not record.certified:
        LOG.warning(
            "updates are not sealed: who runs the broker, or listens to it, reads them without noise "
            "(kits and --seal are against that)"
        )


def log_fresh_state(names: Iterable[str]) -> None:
    """Logs that a new run takes from ``--init`` no vectors that a strategy keeps. ``names``: theirs."""
    if kept := ", ".join(sorted(names)):
        LOG.info("--init takes weights alone: what the strategy keeps begins anew (%s)", kept)


def log_promise(settings: Settings) -> None:
    """Logs what a private run promises, before its first round."""
    if (plan := settings.privacy) is None:
        return
    for line in promise_lines(plan):
        LOG.log(logging.WARNING if plan.insecure else logging.INFO, "%s", line)
    if plan.delta * settings.clients > MOST_EXPOSED:
        LOG.warning(
            "δ = %.3g is large for %d edges: nothing is promised of an edge with this probability; expected "
            "--dp-delta of at most %.3g, a tenth of 1 ÷ --clients",
            plan.delta,
            settings.clients,
            MOST_EXPOSED / settings.clients,
        )
