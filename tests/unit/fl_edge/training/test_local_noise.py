"""``--dp-local``: the noise is there before anything leaves, whatever the update, and costs what is charged."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fl_edge.errors import TaskError
from fl_edge.session.privacy import Charge, LocalNoise, OwnPrivacy
from fl_edge.training.executor import TrainedUpdate
from fl_edge.training.local_noise import add_noise
from fl_edge.workers.jobs import Masking, TrainJob, TrainOutcome
from fl_edge.workers.private_result import PrivateResult
from fl_shared.privacy.gaussian_noise import KEY
from fl_shared.protocol import messages as m
from fl_shared.system.shared_memory import SharedBytes
from fl_shared.tensors.manifest import Vector
from tests.support.builders import partition, training_request
from tests.support.masked_edges import MaskedEdges
from tests.support.samples import MANIFEST

VALUES = 100_000
LOCAL = LocalNoise(2.0, 0.5)


def noisy(delta: Vector, local: LocalNoise = LOCAL, key: bytes = bytes(KEY)) -> Vector:
    changed = delta.copy()
    add_noise(changed, local, key)
    return changed


def test_the_noise_has_the_deviation_that_is_charged() -> None:
    noise = noisy(np.zeros(VALUES, np.float32)).astype(np.float64)
    assert np.std(noise) == pytest.approx(1.0, rel=0.02)
    assert abs(np.mean(noise)) < 5 / math.sqrt(VALUES)
    assert not np.array_equal(noise, noisy(np.zeros(VALUES, np.float32), key=b"k" * KEY))


@pytest.mark.parametrize("size", [1e-6, 1.0, 1e6])
def test_a_long_update_is_clipped_and_a_short_one_is_kept(size: float) -> None:
    """The noise of one key is the same whatever is under it, so it can be taken off again."""
    delta = (size * np.random.default_rng(3).standard_normal(VALUES)).astype(np.float32)
    change = noisy(delta).astype(np.float64) - noisy(np.zeros_like(delta))
    norm = float(np.linalg.norm(delta.astype(np.float64)))
    rounding = math.sqrt(VALUES) * 1e-7
    assert np.linalg.norm(change) == pytest.approx(min(norm, LOCAL.clip), abs=3 * rounding)
    np.testing.assert_allclose(change, delta * min(1.0, LOCAL.clip / norm), atol=2e-6)


def test_what_is_sent_is_a_value_of_the_grid() -> None:
    """It follows from the noisy integer alone: a float32 that is nearest to a whole multiple of 2^-k."""
    found = noisy(np.full(VALUES, 0.1 / math.sqrt(VALUES), np.float32))
    other = noisy(np.full(VALUES, 0.1 / math.sqrt(VALUES), np.float32) + np.float32(1e-13))
    small = np.abs(found) < 2**-10
    assert small.any()
    integers = np.ldexp(found[small].astype(np.float64), 34)
    np.testing.assert_array_equal(integers, np.rint(integers))
    assert np.mean(found == other) > 0.9, "what is below the grid is not sent"


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_value_that_is_not_finite_is_not_sent(value: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        noisy(np.array([1.0, value], np.float32))


def job(masking: Masking | None = None, *, personal: bool = False) -> TrainJob:
    return TrainJob(
        "7", "t", partition(), "b", training_request(), 1, "f32", personal=personal, masking=masking
    )


def trained(**sections: Vector) -> TrainedUpdate:
    metrics = m.UpdateMetrics(train={"loss": 0.5})
    return TrainedUpdate(np.zeros(4, np.float32), 40, 3, 1.0, metrics, sections)


def outcome() -> TrainOutcome:
    return TrainOutcome(MANIFEST, SharedBytes.new(16), "d", 1, 1, 0.0, m.UpdateMetrics())


def test_the_worker_adds_it_and_charges_it() -> None:
    private = PrivateResult(OwnPrivacy(local=LOCAL), job())
    assert private.noised(trained()).delta.all()
    assert private.charged(outcome()).charges == (Charge("edge", 2.0),)
    nothing = PrivateResult(OwnPrivacy(), job())
    assert not nothing.noised(trained()).delta.any()
    assert nothing.charged(outcome()).charges == ()


def test_a_model_that_stays_at_home_has_no_noise() -> None:
    private = PrivateResult(OwnPrivacy(local=LOCAL), job(personal=True))
    assert not private.noised(trained()).delta.any()


def test_what_has_no_noise_is_not_sent_beside_it() -> None:
    private = PrivateResult(OwnPrivacy(local=LOCAL), job())
    with pytest.raises(TaskError, match="has also control"):
        private.noised(trained(control=np.ones(4, np.float32)))


def test_a_masked_update_has_no_number_without_noise(tmp_path_factory: pytest.TempPathFactory) -> None:
    selected = MaskedEdges(tmp_path_factory.mktemp("edges")).selected()
    private = PrivateResult(OwnPrivacy(local=LOCAL), job(Masking(selected, b"", b"")))
    update = private.noised(trained())
    assert (update.examples, update.metrics) == (1, m.UpdateMetrics())


@pytest.mark.parametrize(("given", "charged"), [(1.0, 2.0), (3.0, 3.0)])
def test_noise_of_the_sum_counts_only_if_it_is_required(
    given: float, charged: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    told = m.RoundPrivacy(mechanism="distributed", clip=1.0, noise=given)
    selected = MaskedEdges(tmp_path_factory.mktemp("edges")).selected(privacy=told)
    masked = job(Masking(selected, b"", b""))
    own, both = OwnPrivacy(local=LOCAL), OwnPrivacy(local=LOCAL, least_noise=1.0)
    assert PrivateResult(own, masked).charged(outcome()).charges == (Charge("edge", 2.0),)
    assert PrivateResult(both, masked).charged(outcome()).charges == (Charge("edge", charged),)
