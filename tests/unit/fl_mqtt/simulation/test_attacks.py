"""What simulated attackers send, and which attacks are refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest

from fl_aggregator.aggregation.similarity import compare
from fl_edge.errors import EdgeError
from fl_edge.tasks.digits_mlp import DigitsMlpTask
from fl_edge.training.light_executor import LightExecutor
from fl_mqtt.simulation.attacking import AttackingExecutor
from fl_mqtt.simulation.attacks import ATTACKS, attack_record, parse_attack
from fl_shared.errors import UserError
from fl_shared.tensors.manifest import Vector
from tests.support.builders import partition, training_request, update_metadata

CLIENTS = 6


def new_vector(values: int) -> Vector:
    return np.empty(values, np.float32)


@pytest.fixture(scope="module")
def executor() -> LightExecutor:
    return LightExecutor(DigitsMlpTask(), None)


@pytest.fixture(scope="module")
def delta_of(executor: LightExecutor) -> Callable[..., Vector]:
    """Returns a function that trains edge ``client`` under an attack, and returns what it sends."""
    first: list[Vector] = []

    def allocate(values: int) -> Vector:
        first.append(np.empty(values, np.float32))
        return first[-1]

    manifest = executor.initial_weights(0, allocate)

    def train(attack: str | None, client: int, number: int = 1) -> Vector:
        chosen: Any = executor
        if attack is not None:
            chosen = AttackingExecutor(executor, parse_attack(attack, CLIENTS, "digits"), CLIENTS)
        part = partition(index=client, count=CLIENTS, examples=300)
        update = chosen.train(
            *(first[0].copy(), manifest, part, training_request(epochs=1), number, str(client)),
            *(lambda: False, new_vector),
        )
        delta: Vector = update.delta
        return delta

    return train


def test_who_is_no_attacker_trains_as_ever(delta_of: Callable[..., Vector]) -> None:
    for kind in ATTACKS:
        assert np.array_equal(delta_of(f"{kind}:edges=2", 2), delta_of(None, 2)), kind
    assert np.array_equal(delta_of("scaled:edges=1+3", 2), delta_of(None, 2))


@pytest.mark.parametrize(("attack", "factor"), [("sign-flip:factor=5", -5.0), ("scaled", 20.0)])
def test_an_update_is_multiplied(delta_of: Callable[..., Vector], attack: str, factor: float) -> None:
    text = f"{attack}{',' if ':' in attack else ':'}edges=1+3"
    assert np.array_equal(delta_of(text, 3), delta_of(None, 3) * np.float32(factor))


def test_noise_has_its_deviation_and_differs_by_edge_and_round(delta_of: Callable[..., Vector]) -> None:
    attack = "gaussian:std=0.5,edges=2"
    first = delta_of(attack, 0)
    assert np.std(first) == pytest.approx(0.5, rel=0.1)
    assert np.array_equal(first, delta_of(attack, 0))
    assert not np.array_equal(first, delta_of(attack, 1))
    assert not np.array_equal(first, delta_of(attack, 0, number=2))


def test_labels_are_flipped_in_the_training_part_alone(
    executor: LightExecutor, delta_of: Callable[..., Vector]
) -> None:
    attack = parse_attack("label-flip:edges=1", CLIENTS, "digits")
    part = partition(index=0, count=CLIENTS, examples=300)
    honest = executor.load("0", part)
    seen = []
    original = type(executor.task).train

    class Watched(DigitsMlpTask):
        def train(self, network: Any, data: Any, *rest: Any) -> Any:
            seen.append(data)
            return original(self, network, data, *rest)

    watched = LightExecutor(Watched(), None)
    attacking = AttackingExecutor(watched, attack, CLIENTS)
    manifest = attacking.own_manifest()
    attacking.train(
        *(np.zeros(manifest.values, np.float32), manifest, part, training_request(epochs=1), 1, "0"),
        *(lambda: False, new_vector),
    )
    assert np.array_equal(seen[0].train.labels, 9 - honest.train.labels)
    assert honest.holdout is not None
    assert np.array_equal(seen[0].holdout.labels, honest.holdout.labels)
    assert attacking.summarize("0", part).labels == executor.summarize("0", part).labels
    assert not np.array_equal(delta_of("label-flip:edges=1", 0), delta_of(None, 0))


def test_alie_stays_just_inside_the_spread_of_the_attackers_own(delta_of: Callable[..., Vector]) -> None:
    first, second = delta_of("alie:edges=2", 0), delta_of("alie:edges=2", 1)
    own = np.stack([delta_of(None, 0), delta_of(None, 1)]).astype(np.float64)
    supporters = math.floor(CLIENTS / 2 + 1) - 2
    z = NormalDist().inv_cdf((CLIENTS - 2 - supporters) / (CLIENTS - 2))
    np.testing.assert_allclose(first, own.mean(0) - z * own.std(0), atol=1e-6)
    assert np.array_equal(first, second)
    farther = delta_of("alie:edges=2,z=3", 0)
    np.testing.assert_allclose(farther, own.mean(0) - 3 * own.std(0), atol=1e-6)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("flip:edges=1", "--attack 'flip': expected one of sign-flip, label-flip, scaled, gaussian, alie"),
        ("sign-flip", "--attack sign-flip: needs edges: sign-flip:edges=…"),
        ("sign-flip:edges=0", "--attack sign-flip:edges=0: expected 1 to 6 (--clients), or ids such as 0+2"),
        ("sign-flip:edges=7", "--attack sign-flip:edges=7: expected 1 to 6 (--clients), or ids such as 0+2"),
        ("sign-flip:edges=1+6", "--attack sign-flip:edges=1+6: edge 6 is not one of 0 to 5"),
        ("sign-flip:edges=lab", "--attack sign-flip: edges=lab: string should match pattern"),
        ("sign-flip:edges=1,factor=0", "--attack sign-flip: factor=0: input should be greater than 0"),
        ("sign-flip:edges=1,std=1", "--attack sign-flip: field 'std' is unknown; it has: edges, factor"),
        ("gaussian:edges=1,std=nan", "--attack gaussian: std=nan: "),
        ("alie:edges=1", "--attack alie:edges=1: expected at least 2 attackers"),
        ("alie:edges=3", "--attack alie:edges=3: expected at least 2 attackers and less than half"),
    ],
)
def test_a_bad_attack_is_refused_and_the_field_is_named(text: str, said: str) -> None:
    with pytest.raises(UserError) as refused:
        parse_attack(text, CLIENTS, "digits")
    assert str(refused.value).startswith(said)


def test_a_run_says_in_words_who_attacks_it() -> None:
    record = attack_record("sign-flip:factor=5,edges=4", 20, "digits")
    assert record is not None
    assert record.summary == "4 of 20 edges attack (0, 1, 2, 3): sign-flip × 5"
    assert record.edges == ("0", "1", "2", "3")
    many = attack_record("gaussian:edges=1000", 1000, "digits")
    assert many is not None
    assert many.summary.startswith("1000 of 1000 edges attack (0, 1, 2")
    assert len(many.summary) < 150
    assert attack_record(None, 20, "digits") is None


def test_labels_can_be_flipped_only_where_there_are_classes() -> None:
    class Unnamed(DigitsMlpTask):
        labels = ()

    attack = parse_attack("label-flip:edges=1", CLIENTS, "digits")
    with pytest.raises(EdgeError, match=r"--attack label-flip: .* has no classes to flip"):
        AttackingExecutor(LightExecutor(Unnamed(), None), attack, CLIENTS)
    with pytest.raises(UserError, match=r"--attack label-flip:edges=1: task synthetic-10 has no classes"):
        parse_attack("label-flip:edges=1", CLIENTS, "synthetic-10")


def test_a_mislabelled_site_is_named_as_unlike_the_others(delta_of: Callable[..., Vector]) -> None:
    updates = {str(k): delta_of("label-flip:edges=3+5" if k == 3 else None, k) for k in range(CLIENTS)}
    manifest = DigitsMlpTask().layers().manifest
    metadata = [update_metadata(client=name) for name in updates]
    found = compare(metadata, updates.__getitem__, manifest)
    assert found is not None
    assert list(found.outliers) == ["3"]


def test_every_attack_states_its_source_and_its_fields() -> None:
    for name, kind in ATTACKS.items():
        assert kind.__doc__ is not None
        assert "20" in kind.__doc__, name
