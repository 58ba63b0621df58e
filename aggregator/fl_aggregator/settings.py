"""Everything a run is told at its start, parsed once and passed down frozen."""

from __future__ import annotations

import math
from typing import Annotated, Final, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from fl_shared.errors import UserError
from fl_shared.protocol import messages as m
from fl_shared.protocol import partition_scheme, topics

SPARE_CLIENTS: Final = 10_000
"""So many clients are remembered beyond those that the run has parts for, unless it is said otherwise. A flood of
made-up names must fill neither the memory nor the time: much of what is done with a roster looks at all of it."""


class Settings(BaseModel):
    """A run's settings. Times are seconds; ``holdout`` and ``target_accuracy`` are fractions."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    task: m.TaskName = "digits"
    clients: Annotated[int, Field(ge=1, le=1_000_000)] = 20
    per_round: Annotated[int, Field(ge=1, le=1_000_000)] = 10
    rounds: Annotated[int, Field(ge=1, le=1_000_000)] = 10
    epochs: Annotated[int, Field(ge=1, le=1_000_000)] = 10
    strategy: str = "fedavg"
    batch_size: Annotated[int, Field(ge=1, le=1_000_000)] = 32
    lr: Annotated[float, Field(gt=0, le=1e6)] = 0.05
    lr_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    deadline: Annotated[float, Field(gt=0, le=1e8)] = 600.0
    quorum: Annotated[int, Field(ge=1)] | None = None
    over_select: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    grace: Annotated[float, Field(ge=0, le=1e6)] = 5.0
    wait: Annotated[float, Field(gt=0, le=1e8)] = 600.0
    target_accuracy: Annotated[float, Field(gt=0, le=1)] | None = None
    train_examples: Annotated[int, Field(ge=1, le=2**53)] | None = None
    partition: str = "iid"
    holdout: Annotated[float, Field(ge=0, le=0.9)] = 0.2
    evaluate_every: Annotated[int, Field(ge=1)] = 1
    seed: Annotated[int, Field(ge=0, lt=2**53)] = 0
    prefix: str = "fl"
    max_examples: Annotated[int, Field(ge=1, le=2**40)] = 1_000_000
    max_delta: Annotated[float, Field(gt=0, le=1e12)] = 100.0
    max_clients: Annotated[int, Field(ge=1, le=2_000_000)] | None = None

    @field_validator("partition")
    @classmethod
    def _scheme_is_known(cls, text: str) -> str:
        partition_scheme.parse_scheme(text)
        return text

    @field_validator("prefix")
    @classmethod
    def _prefix_is_usable(cls, text: str) -> str:
        if not topics.valid_prefix(text):
            raise ValueError(
                "expected topic levels without +, #, $, spaces, empty levels or too many slashes"
            )
        return text

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if self.per_round > self.clients:
            raise ValueError(f"per_round: {self.per_round} must not exceed --clients ({self.clients})")
        if self.quorum is not None and self.quorum > self.per_round:
            raise ValueError(f"quorum: {self.quorum} must not exceed --per-round ({self.per_round})")
        if self.per_round + self.over_select > self.clients:
            raise ValueError(
                f"over_select: {self.per_round} + {self.over_select} must not exceed --clients ({self.clients})"
            )
        if self.train_examples is not None and self.train_examples < self.clients:
            raise ValueError(
                f"train_examples: {self.train_examples} cannot be split among {self.clients} clients"
            )
        if self.max_clients is not None and self.max_clients < self.clients:
            raise ValueError(
                f"max_clients: {self.max_clients} must not be less than --clients ({self.clients})"
            )
        if self.scale_bits < 20:
            raise ValueError(
                f"max_delta: max_examples × max_delta × (per_round + over_select) leaves {self.scale_bits} "
                "binary places for the exact fold, expected at least 20: lower one of them"
            )
        if self.scale_bits > 62:
            raise ValueError(
                f"max_delta: {self.max_delta:g} × max_examples × (per_round + over_select) is at most 0.5, "
                "expected more: raise one of them"
            )
        if self.lr * self.lr_decay**self.rounds == 0:
            raise ValueError(
                f"lr_decay: {self.lr_decay:g} makes the learning rate 0 before version {self.rounds}, "
                "expected a larger factor"
            )
        return self

    @property
    def needed(self) -> int:
        """Contributors a round needs at least."""
        return math.ceil(self.per_round / 2) if self.quorum is None else self.quorum

    @property
    def known_at_most(self) -> int:
        """Clients on the roster, of whatever role."""
        return self.clients + SPARE_CLIENTS if self.max_clients is None else self.max_clients

    @property
    def scale_bits(self) -> int:
        """Binary places of the exact fold (design: 62 − ⌈log2(max_examples × max_delta × slots)⌉)."""
        slots = self.per_round + self.over_select
        return 62 - math.ceil(math.log2(self.max_examples * self.max_delta * slots))

    @property
    def fold(self) -> m.FoldSettings:
        return m.FoldSettings(
            max_examples=self.max_examples, max_delta=self.max_delta, scale_bits=self.scale_bits
        )

    def training(self, version: int) -> m.TrainingSettings:
        """How the round that starts from ``version`` trains."""
        return m.TrainingSettings(
            epochs=self.epochs,
            batch_size=self.batch_size,
            lr=self.lr * self.lr_decay**version,
            momentum=self.momentum,
            seed=self.seed,
        )

    def part(self, index: int) -> m.Partition:
        """The edge's part number ``index``."""
        return m.Partition(
            index=index,
            count=self.clients,
            scheme=self.partition,
            seed=self.seed,
            holdout=self.holdout,
            examples=self.train_examples,
        )


def parse(**values: object) -> Settings:
    """``Settings`` from command-line values. Raises ``UserError`` naming the option and what was expected."""
    try:
        return Settings.model_validate({name: v for name, v in values.items() if v is not None})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        message = str(first["msg"]).removeprefix("Value error, ")
        if not first["loc"]:  # the options do not fit together; the message names them
            name, _, rest = message.partition(": ")
            raise UserError(f"--{name.replace('_', '-')}: {rest}") from None
        option = "--" + str(first["loc"][0]).replace("_", "-")
        raise UserError(f"{option} {first['input']!r}: {message[0].lower()}{message[1:]}") from None
