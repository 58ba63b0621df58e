"""The strategies that have a name, each as parts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final


@dataclass(frozen=True, slots=True)
class Preset:
    """A strategy: what it is, and the specifications of its parts.

    ``from_training``: fields of its combination that are options of the run, by name.
    """

    summary: str
    combine: str = "mean"
    correct: str | None = None
    optimize: str = "sgd"
    transforms: tuple[str, ...] = ()
    from_training: Mapping[str, str] = field(default_factory=dict)


PRESETS: Final[Mapping[str, Preset]] = {
    "fedavg": Preset("the mean, weighted by examples"),
    "fedavgm": Preset("FedAvg with momentum at the aggregator", optimize="sgd:momentum=0.9"),
    "fedadam": Preset("Adam at the aggregator", optimize="adam"),
    "fedyogi": Preset("Yogi at the aggregator", optimize="yogi"),
    "fedadagrad": Preset("Adagrad at the aggregator", optimize="adagrad"),
    "fedexp": Preset(
        "longer steps where edges disagree", combine="mean:equal=true", optimize="extrapolation"
    ),
    "fednova": Preset(
        "the mean per local step, for edges that take different numbers of steps",
        combine="normalized",
        from_training={"momentum": "momentum"},
    ),
    "q-fedavg": Preset("edges with a large loss count more", combine="fair", from_training={"lr": "lr"}),
    "fedprox": Preset("edges stay near the model that they begin with", correct="prox"),
    "scaffold": Preset("edges go where all go, not only they", correct="scaffold"),
    "median": Preset("the median of each coordinate", combine="median"),
    "trimmed-mean": Preset("the mean of each coordinate without its extremes", combine="trimmed-mean"),
    "krum": Preset("the update that is nearest to the others", combine="krum:keep=1"),
    "multi-krum": Preset("the mean of the updates that are nearest to others", combine="krum"),
    "bulyan": Preset("Krum's choice, then a trimmed mean", combine="bulyan"),
    "geometric-median": Preset("the point nearest to all updates", combine="geometric-median"),
    "centered-clip": Preset("no update pulls further than a radius", combine="centered-clip"),
}
"""By name. A preset with a field that has no default, such as ``bad``, needs it: ``krum:bad=2``."""
