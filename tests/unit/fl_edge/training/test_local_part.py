"""What stays on an edge of a task's model (``--keep-local``), in torch and in NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fl_edge.errors import TaskOptionsError
from fl_edge.training.executor import Executor, TrainedUpdate
from fl_edge.training.factory import executor_for
from fl_edge.training.local_part import LOCAL
from fl_shared.protocol.task_spec import KEEP_LOCAL, LOCAL_SEED, format_task
from fl_shared.tensors.manifest import Manifest, Vector
from tests.support.batchnorm_task import NAME, OF_BATCHNORM
from tests.support.builders import never, partition, training_request

SHARED = ["first.bias", "first.weight", "last.bias", "last.weight"]


def executor(patterns: str, task: str = NAME, *, light: bool = False) -> Executor:
    return executor_for(format_task(task, {KEEP_LOCAL: patterns, LOCAL_SEED: "5"}), None, "cpu", light=light)


def first(it: Executor) -> tuple[Manifest, Vector]:
    made: list[Vector] = []

    def allocate(values: int) -> Vector:
        made.append(np.empty(values, np.float32))
        return made[0]

    return it.initial_weights(5, allocate), made[0]


def trained(it: Executor, local: Vector | None = None, **settings: Any) -> TrainedUpdate:
    manifest, base = first(it)
    return it.train(
        base, manifest, partition(), training_request(seed=5, **settings), 1, "7", never,
        lambda values: np.empty(values, np.float32), None, local,
    )  # fmt: skip


def names(manifest: Manifest) -> list[str]:
    return [one.name for one in manifest.arrays]


@pytest.mark.parametrize(
    ("patterns", "shared"),
    [
        ("batchnorm", SHARED),
        ("norm.*", SHARED),
        ("last.*", sorted([*SHARED[:2], *OF_BATCHNORM])),
        ("batchnorm,last.*", SHARED[:2]),
        ("*.bias", sorted({*SHARED, *OF_BATCHNORM} - {"first.bias", "last.bias", "norm.bias"})),
    ],
)
def test_what_matches_stays_and_the_rest_is_shared(patterns: str, shared: list[str]) -> None:
    assert names(first(executor(patterns))[0]) == shared
    summary = executor(patterns).summarize("", None)
    assert names(summary.manifest) == shared
    counter = "norm.num_batches_tracked"  # no float, so it is never shared
    assert summary.local == tuple(sorted({*SHARED, *OF_BATCHNORM, counter} - {*shared}))


@pytest.mark.parametrize("light", [False, True])
def test_what_stays_is_summarized_without_torch_too(light: bool) -> None:
    kept = executor("fc2.*", "digits-mlp", light=light)
    assert kept.summarize("0", partition()).local == ("fc2.bias", "fc2.weight")


@pytest.mark.parametrize(
    ("patterns", "task", "problem"),
    [
        ("conv*", NAME, "conv*: matches no array of the model"),
        ("last.*,conv*", NAME, "conv*: matches no array of the model"),
        ("*", NAME, "*: matches all arrays of the model"),
        ("batchnorm,first*,last*", NAME, "batchnorm,first*,last*: matches all arrays"),
        ("batchnorm", "digits-mlp", "batchnorm: the model has no batch normalization"),
    ],
)
def test_patterns_of_nothing_and_of_everything_are_refused_with_the_names_there_are(
    patterns: str, task: str, problem: str
) -> None:
    for light in {False, task != NAME}:
        it = executor(patterns, task, light=light)
        with pytest.raises(TaskOptionsError) as error:
            it.summarize("", None)
        assert problem in str(error.value)
        assert ("first.bias" if task == NAME else "fc1.bias, fc1.weight") in str(error.value)


def test_a_synthetic_task_has_nothing_to_keep() -> None:
    with pytest.raises(TaskOptionsError, match="synthetic-10, has nothing to keep"):
        executor("body", "synthetic-10")


def test_training_goes_on_from_the_local_part_and_leaves_the_next_one() -> None:
    it = executor("batchnorm")
    manifest, base = first(it)
    once = trained(it)
    assert len(once.delta) == len(base)
    local = once.own[LOCAL]
    arrays = it.model_from(base, manifest, local).state_dict()  # type: ignore[attr-defined]
    assert arrays["norm.num_batches_tracked"] == once.steps, "what is no float stays with its layer"
    assert float(arrays["norm.running_mean"].abs().sum()) > 0
    twice = trained(it, local.copy())
    assert not np.array_equal(twice.delta, once.delta)
    assert not np.array_equal(twice.own[LOCAL], local)
    assert np.array_equal(trained(it, local.copy()).own[LOCAL], twice.own[LOCAL])


def test_an_edge_without_a_local_part_has_that_of_version_0() -> None:
    it = executor("last.*")
    manifest, base = first(it)
    whole = executor_for(NAME, None, "cpu")
    whole_manifest, whole_base = first(whole)
    ours = it.evaluate(base, manifest, "holdout", "7", partition())
    assert ours == whole.evaluate(whole_base, whole_manifest, "holdout", "7", partition())
    own = trained(it).own[LOCAL]
    assert it.evaluate(base, manifest, "holdout", "7", partition(), own).loss != ours.loss


def test_a_light_edge_keeps_and_shares_the_same() -> None:
    full, light = (executor("fc2.*", "digits-mlp", light=light) for light in (False, True))
    assert first(full)[0] == first(light)[0]
    assert names(first(light)[0]) == ["fc1.bias", "fc1.weight"]
    ours, theirs = trained(full), trained(light)
    np.testing.assert_allclose(theirs.delta, ours.delta, atol=1e-4)
    np.testing.assert_allclose(theirs.own[LOCAL], ours.own[LOCAL], atol=1e-4)
    np.testing.assert_allclose(
        trained(light, theirs.own[LOCAL]).delta, trained(full, ours.own[LOCAL]).delta, atol=1e-3
    )


def test_a_local_part_of_another_size_is_refused() -> None:
    for light in (False, True):
        with pytest.raises(ValueError, match="vector has shape"):
            trained(executor("fc2.*", "digits-mlp", light=light), np.zeros(3, np.float32))
