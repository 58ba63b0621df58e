"""The strategies that have a name, each as parts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Preset:
    """A strategy: what it is, and the specifications of its parts."""

    summary: str
    paper: str
    combine: str = "mean"
    correct: str | None = None
    optimize: str = "sgd"
    transforms: tuple[str, ...] = ()


PRESETS: Final[Mapping[str, Preset]] = {
    "fedavg": Preset("the mean, weighted by examples", "McMahan et al. 2017, arXiv:1602.05629"),
    "fedavgm": Preset(
        "FedAvg with momentum at the aggregator",
        "Hsu et al. 2019, arXiv:1909.06335",
        optimize="sgd:momentum=0.9,lr=0.1",
    ),
    "fedadam": Preset("Adam at the aggregator", "Reddi et al. 2021, arXiv:2003.00295", optimize="adam"),
    "fedyogi": Preset("Yogi at the aggregator", "Reddi et al. 2021, arXiv:2003.00295", optimize="yogi"),
    "fedadagrad": Preset(
        "Adagrad at the aggregator", "Reddi et al. 2021, arXiv:2003.00295", optimize="adagrad"
    ),
    "fedexp": Preset(
        "longer steps where edges disagree",
        "Jhunjhunwala et al. 2023, arXiv:2301.09604",
        combine="mean:equal=true",
        optimize="extrapolation",
    ),
    "fednova": Preset(
        "the mean per local step, for edges that take different numbers of steps",
        "Wang et al. 2020, arXiv:2007.07481",
        combine="normalized",
    ),
    "q-fedavg": Preset(
        "edges with a large loss count more",
        "Li et al. 2020, arXiv:1905.10497",
        combine="fair",
    ),
    "fedprox": Preset(
        "edges stay near the model that they begin with", "Li et al. 2020, arXiv:1812.06127", correct="prox"
    ),
    "scaffold": Preset(
        "edges go where all go, not only they",
        "Karimireddy et al. 2020, arXiv:1910.06378",
        correct="scaffold",
    ),
    "median": Preset("the median of each coordinate", "Yin et al. 2018, arXiv:1803.01498", combine="median"),
    "trimmed-mean": Preset(
        "the mean of each coordinate without its extremes",
        "Yin et al. 2018, arXiv:1803.01498",
        combine="trimmed-mean",
    ),
    "krum": Preset(
        "the update that is nearest to the others",
        "Blanchard et al. 2017, arXiv:1703.02757",
        combine="krum:keep=1",
    ),
    "multi-krum": Preset(
        "the mean of the updates that are nearest to others",
        "Blanchard et al. 2017, arXiv:1703.02757",
        combine="krum",
    ),
    "bulyan": Preset(
        "Krum's choice, then a trimmed mean", "El Mhamdi et al. 2018, arXiv:1802.07927", combine="bulyan"
    ),
    "geometric-median": Preset(
        "the point nearest to all updates",
        "Pillutla et al. 2022, arXiv:1912.13445",
        combine="geometric-median",
    ),
    "centered-clip": Preset(
        "no update pulls further than a radius",
        "Karimireddy et al. 2021, arXiv:2012.10333",
        combine="centered-clip",
    ),
}
"""By name. A preset with a field that has no default, such as ``bad``, needs it: ``krum:bad=2``."""
