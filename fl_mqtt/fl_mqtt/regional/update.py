"""The update of a region: the sum of a round of its edges."""

from __future__ import annotations

from fl_aggregator.aggregation.averaging import SummedRound
from fl_aggregator.round.summary import weighted_means
from fl_shared.protocol import messages as m
from fl_shared.tensors.sections import model_digest
from fl_shared.transfer.upload import FinishedUpdate


def update_of(total: SummedRound, seconds: float) -> FinishedUpdate:
    """Returns the update with a sum, or with the first weights; ``seconds``: since the round was ordered.

    Its metrics are means over the edges, weighted by examples.
    """
    contributors, parts, base = total.effect.contributors, total.parts, total.effect.base
    sum_of = None
    if parts:
        sum_of = m.SumOf(
            clients=tuple([part.client for part in parts]),
            examples=tuple([part.examples for part in parts]),
            steps=tuple([part.steps for part in parts]),
            losses=tuple([part.loss for part in parts]),
            norms=tuple([part.norm for part in parts]),
        )
    return FinishedUpdate(
        base=None if base is None else base.digest,
        digest=model_digest(total.sections),
        examples=sum(update.examples for update in contributors),
        steps=sum(update.steps for update in contributors),
        seconds=seconds,
        metrics=m.UpdateMetrics(
            **{
                group: weighted_means([(update.examples, getattr(update, group)) for update in contributors])
                or None
                for group in ("before", "after", "train")
            }
        ),
        sections=total.sections,
        sum_of=sum_of,
    )
