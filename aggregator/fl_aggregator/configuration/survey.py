"""The settings of a survey: a run of one round, whose updates are sums of the edges' data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field

from fl_shared.errors import UserError
from fl_shared.protocol import messages as m
from fl_shared.survey.digits import MOST_SUMMED
from fl_shared.survey.layout import MOST_VALUES
from fl_shared.survey.terms import FEWEST, SurveyTerms
from fl_shared.tensors.encodings.float32 import FLOAT32
from fl_shared.tensors.encodings.shuffle import SHUFFLE_DEFLATE

if TYPE_CHECKING:
    from fl_aggregator.configuration.settings import Settings

LEAST: Final = 5
CLIP: Final = 1.0
"""The greatest L2 norm of an edge's `proportions`: no vector of an honest edge is shortened."""
OWN: Final = frozenset(
    {
        "task", "task_option", "clients", "seed", "partition", "train_examples", "deadline", "grace", "wait", "chunk",
        "durability", "require_sealed", "max_clients", "masked", "masked_colluders", "unmask_wait", "dp", "dp_epsilon",
        "dp_noise", "dp_delta", "dp_ledger", "dp_insecure_seed",
    }
)  # fmt: skip
"""The settings of a training that a survey has, too."""


class Survey(BaseModel):
    """What is surveyed, and what is shown. Its sums have at least ``least`` edges.

    ``ranges``, ``private``: see `SurveyTerms`. ``cells``: fewer examples with something in common are not shown; it has
    no meaning in a private survey.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    least: Annotated[int, Field(ge=FEWEST)] = LEAST
    ranges: dict[str, tuple[float, float]] = {}
    cells: Annotated[int, Field(ge=1)] = LEAST
    private: bool = False

    @property
    def terms(self) -> SurveyTerms:
        """What the edges are told of it."""
        return SurveyTerms(self.least, self.ranges, self.private)


def survey_settings(survey: Survey, **values: Any) -> Settings:
    """Returns the settings of a run that makes the survey, with ``values`` for some of `OWN`; null: the default.

    Raises ``UserError`` that names the option and what was expected.
    """
    from fl_aggregator.configuration.settings import Settings, parse_settings

    clients = values.get("clients")
    clients = Settings.model_fields["clients"].default if clients is None else clients
    if not survey.least <= clients <= MOST_SUMMED:
        raise UserError(
            f"--clients {clients}: a survey has at least --least ({survey.least}) edges, and at most {MOST_SUMMED}"
        )
    masked = bool(values.get("masked"))
    common = {
        "rounds": 1,
        "holdout": 0.0,
        "per_round": min(clients, m.MAX_MEMBERS) if masked else clients,
        "quorum": survey.least,
        "masked_min": survey.least if masked else None,
        "max_examples": 1,
        "server_optimizer": "accumulate",
    }
    if values.get("dp") is not None:  # a mean of bounded vectors, with noise
        private = survey.model_copy(update={"private": True})
        return parse_settings(**values, **common, survey=private, dp_clip=f"{CLIP:g}")
    return parse_settings(
        **values,
        **common,
        survey=survey,
        combine="sum",
        encoding=(FLOAT32 if masked else SHUFFLE_DEFLATE).name,
        max_delta=float(MOST_VALUES),
        max_buffer=float(MOST_VALUES),
    )
