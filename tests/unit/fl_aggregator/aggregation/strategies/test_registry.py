"""Strategies and their parts are found by name, and get the values of their fields."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from fl_aggregator.aggregation.combining import Combiner, first_state
from fl_aggregator.aggregation.strategies import registry
from fl_aggregator.aggregation.strategies.coordinates import Median
from fl_aggregator.aggregation.strategies.corrections import Prox, Scaffold
from fl_aggregator.aggregation.strategies.distances import Bulyan, Krum
from fl_aggregator.aggregation.strategies.optimizers import Adam, Extrapolation, Sgd, Yogi
from fl_aggregator.aggregation.strategies.parts import Block, ClosedRound, Contribution, Strategy
from fl_aggregator.aggregation.strategies.presets import PRESETS
from fl_aggregator.aggregation.strategies.sums import Fair, Mean, Normalized
from fl_aggregator.aggregation.strategies.transforms import Clip
from fl_aggregator.configuration.settings import Settings
from fl_shared.errors import RunFailed, UserError
from fl_shared.tensors.manifest import manifest_of
from tests.support.builders import update_metadata


@dataclass(frozen=True, slots=True)
class Lion:
    """An optimizer of another package."""

    wants_norms: ClassVar[bool] = False
    lr: float = 0.01

    def state(self) -> dict[str, float]:
        return {"momentum": 0.0}

    def step(self, block: Block, closed: ClosedRound) -> None: ...


@dataclass(frozen=True, slots=True)
class Weightless(Mean):
    """A sum whose own largest weight cannot be folded."""

    def max_weight(self, max_examples: int) -> float:  # noqa: ARG002
        return 0.0


@dataclass(frozen=True, slots=True)
class Silent:
    """An optimizer that does not say whether it wants norms."""

    def state(self) -> dict[str, float]:
        return {"control": 0.0}

    def step(self, block: Block, closed: ClosedRound) -> None: ...


@dataclass(frozen=True, slots=True)
class Rival(Silent):
    """An optimizer that keeps a vector of the name of SCAFFOLD's."""

    wants_norms: ClassVar[bool] = False


@dataclass(frozen=True, slots=True)
class Rivals(Rival):
    """One that keeps a vector of the name of what a combination that remembers keeps."""

    def state(self) -> dict[str, float]:
        return {"change": 7.0}


@dataclass(frozen=True, slots=True)
class Heavy(Mean):
    """A sum whose weights may be anything."""

    own: float = 1.0

    def weight(self, update: Contribution) -> float:  # noqa: ARG002
        return self.own

    def max_weight(self, max_examples: int) -> float:  # noqa: ARG002
        return 6.0


MANIFEST = manifest_of({"a": np.zeros(3, np.float32)})


OBJECT = Strategy(Median(), Lion(lr=0.5), (Clip(norm=3),), Prox(mu=0.5))
INFINITE = Strategy(Mean(), Adam(tau=math.inf))
SILENT = Strategy(Mean(), Silent())  # type: ignore[arg-type]


def load(**values: Any) -> Any:
    return registry.load(Settings(**{"clients": 20, **values}))


def test_a_preset_is_its_parts() -> None:
    assert (load().combine, load().optimize, load().transforms) == (Mean(), Sgd(), ())
    assert load(strategy="fedavgm").optimize == Sgd(momentum=0.9, lr=0.1)
    assert load(strategy="krum:bad=2", quorum=7).combine == Krum(bad=2, keep=1)
    assert load(strategy="fednova", momentum=0.9, epochs=1).combine == Normalized(momentum=0.9)
    assert load(strategy="q-fedavg:q=0.5", lr=0.1).combine == Fair(lr=0.1, q=0.5)


def test_a_part_takes_from_training_what_its_preset_does() -> None:
    assert load(combine="normalized", momentum=0.9, epochs=1).combine == Normalized(momentum=0.9)
    assert load(combine="normalized:momentum=0.5", momentum=0.9, epochs=1).combine == Normalized(momentum=0.5)
    assert load(combine="fair", lr=0.1).combine == Fair(lr=0.1)
    assert load(strategy="q-fedavg:lr=0.2").combine == Fair(lr=0.2)


def test_a_preset_whose_combination_is_replaced_needs_nothing_for_it() -> None:
    assert load(strategy="fednova", combine="mean").combine == Mean()
    assert load(strategy="krum", combine="median").combine == Median()


def test_a_field_that_is_given_twice_alike_is_not_lost() -> None:
    assert load(strategy="fedadam:lr=0.1", server_optimizer="yogi:lr=0.1").optimize == Yogi(lr=0.1)


def test_extrapolation_goes_with_the_mean_of_equal_edges() -> None:
    alone = load(combine="mean:equal=true", server_optimizer="extrapolation", transform=("clip:norm=3",))
    assert (alone.combine, alone.optimize) == (Mean(equal=True), Extrapolation())


def test_a_field_of_a_preset_belongs_to_the_part_that_has_it() -> None:
    fedadam = load(strategy="fedadam:equal=true,lr=0.1,beta1=0.5")
    assert (fedadam.combine, fedadam.optimize) == (Mean(equal=True), Adam(lr=0.1, beta1=0.5))


def test_single_parts_replace_those_of_a_preset() -> None:
    mixed = load(
        combine="bulyan:bad=1", server_optimizer="yogi:lr=0.1", transform=("clip:norm=3",), quorum=10
    )
    assert (mixed.combine, mixed.optimize, mixed.transforms) == (Bulyan(bad=1), Yogi(lr=0.1), (Clip(norm=3),))


def test_a_part_of_another_package() -> None:
    assert load(server_optimizer=f"{__name__}:Lion:lr=0.5").optimize == Lion(lr=0.5)
    assert load(server_optimizer=f"{__name__}:Lion").optimize == Lion()


def test_a_strategy_of_another_package_is_an_object() -> None:
    option = f"{__name__}:OBJECT"
    assert load(strategy=option) == OBJECT
    mixed = load(strategy=option, combine="mean", transform=("clip:norm=2",))
    assert (mixed.combine, mixed.optimize, mixed.transforms) == (
        Mean(),
        Lion(lr=0.5),
        (Clip(norm=3), Clip(norm=2)),
    )
    found = registry.resolved(Settings(strategy=option))
    assert found.correct == ("prox:mu=0.5",), "edges are told its name and its fields"
    assert (registry.resolved(found), load(strategy=option, correct=found.correct)) == (found, OBJECT)
    assert registry.describe(OBJECT)["server-optimizer"] == {"part": f"{__name__}:Lion", "lr": 0.5}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("INFINITE", "tau=inf: "),
        ("SILENT", "its server-optimizer is no part of this kind, as it has no wants_norms"),
        ("OBJECT:lr=1", "is an object, which takes no fields, but lr is given"),
        ("MANIFEST", r"is no Strategy\(…\)"),
        ("NOWHERE", "cannot be imported: AttributeError"),
    ],
)
def test_a_strategy_object_that_cannot_be_used_is_refused(text: str, said: str) -> None:
    name = f"{__name__}:{text.partition(':')[0]}"
    with pytest.raises(UserError, match=f"^--strategy '?{name}'?: {said}"):
        load(strategy=f"{__name__}:{text}")


def test_run_json_gets_all_fields() -> None:
    described = registry.describe(load(strategy="fedavgm"))
    assert described["server-optimizer"] == {
        "part": "fl_aggregator.aggregation.strategies.optimizers:Sgd",
        "lr": 0.1,
        "momentum": 0.9,
    }


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_can_be_loaded(name: str) -> None:
    needs = ":bad=1" if "krum" in name or name == "bulyan" else ""
    load(strategy=name + needs, lr=0.1, momentum=0.0, epochs=1, quorum=10)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"strategy": "fedprx"}, "--strategy 'fedprx': expected one of bulyan, centered-clip"),
        ({"strategy": "fedavg:"}, "--strategy 'fedavg:': expected NAME or NAME:FIELD=VALUE,…"),
        ({"strategy": "fedavgm:lr=1,lr=2"}, "each field once"),
        ({"strategy": "fedadam:rate=1"}, "field 'rate' is unknown; it has: equal, lr, beta1, tau, beta2"),
        ({"strategy": "scaffold:bond=1"}, "field 'bond' is unknown; it has: equal, bound, lr, momentum"),
        ({"strategy": "krum"}, "--strategy krum: needs bad: krum:bad=…"),
        ({"strategy": "fedadam:lr=fast"}, "--strategy fedadam: lr=fast: input should be a valid number"),
        ({"strategy": "trimmed-mean:beta=0.5"}, "beta=0.5: input should be less than 0.5"),
        ({"strategy": "fednova"}, r"--strategy fednova: needs --momentum, the edges' \(or fednova:momentum=…\)"),
        ({"strategy": "fednova", "momentum": 0.9}, "--strategy fednova: needs --epochs"),
        ({"combine": "normalized", "momentum": 0.9}, "--combine normalized: needs --epochs"),
        ({"combine": "normalized"}, r"--combine normalized: needs --momentum, the edges' \(or normalized:momentum=…\)"),
        (
            {"strategy": "fedadam:lr=0.03", "server_optimizer": "yogi"},
            "--strategy fedadam:lr=0.03: lr=0.03 has no effect, as --server-optimizer yogi takes the place",
        ),
        ({"strategy": "fedavg:equal=true", "combine": "sum"}, "equal=true has no effect, as --combine sum takes"),
        ({"strategy": "fedprox:mu=1", "correct": ("prox",)}, "mu=1 has no effect, as --correct prox takes"),
        ({"strategy": "krum:bad=3"}, "krum:bad=3: needs 9 updates, but --quorum is 5: raise --quorum to 9 or more"),
        (
            {"strategy": "krum:bad=4"},
            "krum:bad=4: needs 11 updates, but --quorum is 5: raise --quorum and --per-round to 11 or more",
        ),
        (
            {"strategy": "median", "clients": 2, "per_round": 2, "quorum": 2},
            "needs 3 updates, but --quorum is 2: raise --quorum and --per-round and --clients to 3 or more",
        ),
        (
            {"strategy": "bulyan:bad=1", "mode": "async", "concurrency": 5, "buffer": 5},
            "needs 7 updates, but --buffer is 5: raise --buffer to 7 or more",
        ),
        (
            {"strategy": "geometric-median", "clients": 6000, "per_round": 6000},
            "compares all pairs of updates, but --per-round is 6000: expected at most 5000",
        ),
        ({"combine": "sum"}, "--combine sum: adds changes up without a mean, for surveys"),
        ({"server_optimizer": "accumulate"}, "--server-optimizer accumulate: never changes the model, for surveys"),
        ({"strategy": "krum:bad"}, "--strategy 'krum:bad': field 'bad' has no value: expected krum:bad=…"),
        ({"correct": ("prox:mu",)}, "--correct 'prox:mu': field 'mu' has no value: expected prox:mu=…"),
        ({"server_optimizer": "adam:lr"}, "--server-optimizer 'adam:lr': field 'lr' has no value"),
        (
            {"strategy": "q-fedavg", "lr": 0.1, "lr_decay": 0.9},
            "--strategy q-fedavg: .* does not go together with --lr-decay 0.9",
        ),
        (
            {"strategy": "q-fedavg:min_loss=10,max_loss=1", "lr": 0.1},
            "min_loss=10 is not below max_loss=1, so that all losses would count the same",
        ),
        (
            {"combine": "krum:bad=2,keep=6", "quorum": 7},
            "--combine krum:bad=2,keep=6: keep=6 of the 7 updates of --quorum .* expected at most 5",
        ),
        (
            {"combine": "krum:bad=2", "server_optimizer": "extrapolation", "quorum": 7},
            "--server-optimizer extrapolation: .* --combine krum:bad=2: expected --combine mean:equal=true",
        ),
        ({"server_optimizer": "extrapolation"}, "--server-optimizer extrapolation: .* --strategy fedavg: expected"),
        ({"strategy": "fedexp", "combine": "median"}, "--strategy fedexp: .* --combine median: expected"),
        ({"strategy": "fedexp", "mode": "async"}, "--strategy fedexp: .* --mode async, where stale ones count less"),
        ({"strategy": "median", "durability": "memory"}, "needs updates on the disk .*, but --durability is memory"),
        ({"strategy": "q-fedavg", "lr": 0.1, "holdout": 0.0}, "the edges' loss on their holdout, but --holdout is 0"),
        (
            {"strategy": "q-fedavg:q=8", "lr": 0.05},
            r"--strategy q-fedavg:q=8: .* 2e\+17 \(lr=0.05, q=8.0, .*max_loss=100.0\), .* leaves -6 binary places",
        ),
        ({"combine": "fair:lr=1e-300"}, r"--combine fair:lr=1e-300: .*leaves -\d+ binary places"),
        ({"combine": f"{__name__}:Weightless"}, r"may weigh 0 \(equal=False\), .* leaves no binary places"),
        ({"combine": "mode"}, "--combine 'mode': expected one of bulyan, .*, or package.module:Class"),
        ({"combine": "adam"}, "--combine 'adam': expected one of"),
        ({"combine": f"{__name__}:Lion"}, "is no part of this kind"),
        ({"server_optimizer": "no.such:Part"}, "--server-optimizer 'no.such:Part': cannot be imported"),
        ({"server_optimizer": f"{__name__}:Silent"}, "is no part of this kind, as it has no wants_norms"),
        ({"server_optimizer": "json:JSONDecoder"}, "is no dataclass"),
        ({"transform": ("clip",)}, "--transform clip: needs norm: clip:norm=…"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_the_users_mistake(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load(**values)


def test_a_part_that_no_text_means_has_none() -> None:
    """A regional aggregator reads its parts from texts: a value must come back as it was."""
    assert registry._specification("combine", Mean(equal=True)) == "mean:equal=true"
    assert registry._specification("combine", Krum(bad=1)) == "krum:bad=1"
    assert registry._specification("combine", Heavy()) == ""


def test_a_part_is_found_in_the_current_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_part_here.py").write_text(
        "from fl_aggregator.aggregation.strategies.optimizers import Sgd as Own\n"
    )
    assert load(server_optimizer="own_part_here:Own:lr=0.5").optimize == Sgd(lr=0.5)


@pytest.mark.parametrize("value", ["inf", "-inf", "nan"])
@pytest.mark.parametrize(
    "text",
    [
        f"{kind} {name}:{field}"
        for kind, members in registry.PARTS.items()
        for name in members
        for field, default in registry.fields_of(registry.part_class(kind, name)).items()
        if isinstance(default, float)
    ]
    + ["combine fair:lr", "transform clip:norm", f"server-optimizer {__name__}:Lion:lr"],
)
def test_no_number_of_a_part_is_infinite_or_nan(text: str, value: str) -> None:
    kind, _, part = text.partition(" ")
    needed = "lr=1," if part.startswith("fair") and not part.endswith(":lr") else ""
    name, _, field = part.rpartition(":")
    with pytest.raises(UserError, match=f"^--{kind} '?{name}'?: {field}={value}: "):
        registry.named_part(kind, f"{name}:{needed}{field}={value}")


def test_two_parts_must_not_keep_a_vector_of_the_same_name() -> None:
    for name, optimizer, other in (
        ("control", "Rival", "--strategy scaffold"),
        ("change", "Rivals", "--strategy centered-clip"),
    ):
        option = f"{__name__}:{optimizer}"
        with pytest.raises(
            UserError, match=f"^--server-optimizer {option}: keeps a vector '{name}'.*{other}"
        ):
            load(strategy=other.split()[1], server_optimizer=option)


def test_a_vector_is_the_last_change_only_if_the_combination_remembers() -> None:
    strategy = load(server_optimizer=f"{__name__}:Rivals")
    settings = Settings(clients=1)
    combiner = Combiner(strategy, MANIFEST, settings)
    base = np.zeros(3, np.float32)
    combiner.add(update_metadata(examples=5), base + 1, 1.0)
    _, state = combiner.next_model(1, base, first_state(strategy, 3), lambda _: base)
    assert state["change"].tolist() == [7, 7, 7], "nobody has changed it"


@pytest.mark.parametrize(("weight", "said"), [(7.0, "is 7.0"), (0.0, "is 0.0"), (math.nan, "is nan")])
def test_a_weight_beyond_what_the_sum_has_room_for_fails_the_run(weight: float, said: str) -> None:
    heavy = Heavy(own=weight)
    combiner = Combiner(Strategy(heavy, Sgd()), MANIFEST, Settings(clients=1))
    with pytest.raises(
        RunFailed, match=rf"^Heavy\.weight\(\) of the update of edge \S+ {said}, expected above 0 and at"
    ):
        combiner.add(update_metadata(examples=5), np.ones(3, np.float32), 1.0)


@pytest.mark.parametrize("source", ["raise ValueError('two\\nlines')", "1 / 0", "import no_such_module"])
def test_a_part_whose_module_fails_is_named_in_one_line(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "breaks_at_import.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        UserError, match=r"^--server-optimizer 'breaks_at_import:Lion': cannot be imported: \w+: .+$"
    ):
        load(server_optimizer="breaks_at_import:Lion")


def test_fedprox_is_a_correction_that_the_edges_must_have() -> None:
    assert load(strategy="fedprox").correct == Prox()
    assert load(strategy="fedprox:mu=0.5,lr=0.1").correct == Prox(mu=0.5)
    assert load(strategy="fedprox:mu=0.5,lr=0.1").optimize == Sgd(lr=0.1)
    assert load(strategy="fedadam", correct=("prox:mu=1",)).correct == Prox(mu=1)
    assert registry.describe(load(strategy="fedprox"))["correct"]["mu"] == 0.01
    found = registry.resolved(Settings(strategy="fedprox:mu=0.5,lr=0.1", logit_adjustment=1))
    assert (found.correct, found.abilities) == (("prox:mu=0.5",), ("prox", "logit-adjustment"))
    assert registry.resolved(found) == found
    assert load(strategy="fedprox:mu=0.5,lr=0.1", correct=found.correct).correct == Prox(mu=0.5)


def test_scaffold_keeps_a_control_beside_what_its_optimizer_keeps() -> None:
    found = load(strategy="scaffold:bound=2", server_optimizer="sgd:momentum=0.9")
    assert (found.correct, found.state) == (Scaffold(bound=2), {"momentum": 0.0, "control": 0.0})
    assert (found.sections, load().sections) == (("control", "delta"), ("delta",))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"correct": ("prox", "prox:mu=1")}, "--correct prox --correct prox:mu=1: expected one of them"),
        (
            {"correct": ("prox",), "strategy": "fednova", "momentum": 0.9},
            "--strategy fednova.*--correct prox",
        ),
        (
            {"correct": ("prox",), "combine": "normalized", "momentum": 0.9},
            "--combine normalized.*--correct prox",
        ),
        ({"strategy": "scaffold", "combine": "median"}, "--strategy scaffold.*--combine median"),
        (
            {"strategy": "trimmed-mean", "correct": ("scaffold",)},
            "--correct scaffold.*--strategy trimmed-mean",
        ),
        ({"strategy": "fedexp", "correct": ("scaffold",)}, "--correct scaffold.*--strategy fedexp"),
        ({"correct": ("scaffold:bound=-1",)}, "--correct scaffold: bound=-1: "),
        ({"correct": ("mime",)}, "--correct 'mime': expected one of prox"),
        ({"correct": ("a.b:C",)}, "--correct 'a.b:C': expected one of prox"),
        ({"correct": ("prox:mu=-1",)}, "--correct prox: mu=-1: "),
    ],
)
def test_what_does_not_go_together_with_a_correction_is_refused(values: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        load(**values)
