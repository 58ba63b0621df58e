"""What the aggregator can see of a run's updates, for people: each one, or only sums of masked ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fl_aggregator.monitoring.views.privacy import promise_lines
from fl_shared.protocol import messages as m

if TYPE_CHECKING:
    from fl_aggregator.storage.run_directory import RunRecord

NOT_CERTIFIED: Final = "the edges' keys are not certified, since there are no kits"
NO_NUMBERS: Final = (
    "Updates are masked: nobody sees how many examples a single edge has, nor its losses and metrics."
)
"""Why there are no numbers of single edges in a masked run."""


def visible_text(masked: m.MaskedSums | None) -> str:
    """What the aggregator sees: ``each update``, or ``only sums of at least 5 updates``. ``masked``: see `Status`."""
    if masked is None:
        return "each update"
    text = f"only sums of at least {masked.least} updates"
    return text if masked.certified else f"{text}; {NOT_CERTIFIED}"


def marks(run: RunRecord) -> dict[str, str]:
    """What must be known of all numbers of a run, by its name: its attackers, masks and promises."""
    found = {} if run.attack is None else {"attack": run.attack}
    if run.masked is not None:
        found["updates"] = masked_line(run.masked)
    if run.settings.privacy is not None:
        found["privacy"] = "; ".join(promise_lines(run.settings.privacy))
    return found


def masked_line(masked: m.MaskedSums) -> str:
    """The same of a masked run, as a line of its own."""
    return f"updates are masked: the aggregator sees {visible_text(masked)}"
