"""The mean of the last versions: its values, its files, and which versions it is of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from fl_aggregator.aggregation import serving
from fl_aggregator.configuration.settings import Settings, parse_settings
from fl_aggregator.storage.checkpoint import Checkpoints, Model, read_safetensors
from fl_shared.errors import RunFailed, UserError
from fl_shared.tensors.manifest import manifest_of

MANIFEST = manifest_of({"a": np.zeros((3, 5), "<f4"), "variance": np.zeros(4, "<f4")}, ["variance"])
SETTINGS = Settings(serve="average:3")
METADATA = {"task": "digits", "attack": "1 of 4 edges attack: label-flip"}


def version(number: int) -> Model:
    weights = np.random.default_rng(number).normal(size=MANIFEST.values).astype("<f4")
    weights[-4:] = np.abs(weights[-4:])
    return Model.of(MANIFEST, weights)


def written(directory: Path, last: int, kept: int = 5) -> Checkpoints:
    checkpoints = Checkpoints(directory, kept=kept)
    checkpoints.begin_writing()
    for number in range(last + 1):
        checkpoints.write(number, version(number))
    return checkpoints


def test_it_is_the_mean_in_float64_rounded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = [version(number).weights for number in range(7)]
    exact = np.mean([vector.astype(np.float64) for vector in vectors], axis=0)
    mean = serving.mean_of(vectors)
    np.testing.assert_allclose(mean, exact, rtol=1e-7)
    assert (mean[-4:] >= 0).all(), "a mean of variances"
    monkeypatch.setattr(serving, "BLOCK", 3)
    assert serving.mean_of(vectors).tobytes() == mean.tobytes(), "blocks change no bit"


def test_the_last_versions_are_in_it_and_initial_weights_never_are() -> None:
    assert [SETTINGS.first_served(number) for number in range(6)] == [None, None, 1, 1, 2, 3]
    assert [Settings().first_served(number) for number in range(3)] == [None] * 3


@pytest.mark.parametrize("text", ["average", "average:1", "average:101", "average:x", "newest:2", "best"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(UserError, match=f"--serve '{text}': expected newest, or average:K with K from 2"):
        parse_settings(serve=text)


def test_its_file_says_of_which_versions_it_is(tmp_path: Path) -> None:
    checkpoints = written(tmp_path, 4)
    made = serving.make_mean(checkpoints, 2, 4, version(4), {"task": "digits"})
    assert made.weights.tobytes() == serving.mean_of([version(n).weights for n in (2, 3, 4)]).tobytes()
    for path in (checkpoints.mean_path(4), checkpoints.served_path):
        assert read_safetensors(path).digest == made.digest
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata()
        assert (metadata["first_version"], metadata["version"], metadata["task"]) == ("2", "4", "digits")
    assert checkpoints.store_best(4)
    assert read_safetensors(checkpoints.best_path).digest == made.digest, "what was measured is the best"
    checkpoints.add_metrics({4: {"accuracy": 0.5}})
    with safe_open(checkpoints.served_path, framework="numpy") as file:
        assert file.metadata()["metrics"] == '{"accuracy": 0.5}'
    with safe_open(checkpoints.model_path, framework="numpy") as file:
        assert "metrics" not in file.metadata(), "the newest version itself was not measured"


def test_a_file_that_is_damaged_is_made_again_with_the_same_bits(tmp_path: Path) -> None:
    checkpoints = written(tmp_path, 4)
    digest = serving.make_mean(checkpoints, 2, 4, version(4), {}).digest
    checkpoints.mean_path(4).write_bytes(b"damage")
    assert serving.read_mean(checkpoints, SETTINGS, 4, version(4), digest, METADATA).digest == digest
    assert read_safetensors(checkpoints.mean_path(4)).digest == digest
    with safe_open(checkpoints.mean_path(4), framework="numpy") as file:
        assert METADATA.items() <= file.metadata().items()
    checkpoints.mean_path(4).unlink()
    checkpoints.version_path(3).unlink()
    with pytest.raises(RunFailed, match=r"the mean of versions 2 to 4 cannot be made: .*version-000003"):
        serving.read_mean(checkpoints, SETTINGS, 4, version(4), digest, METADATA)
    checkpoints.write(3, version(8))
    with pytest.raises(RunFailed, match="have another mean"):
        serving.read_mean(checkpoints, SETTINGS, 4, version(4), digest, METADATA)


def test_a_return_to_an_earlier_version_serves_the_mean_of_then(tmp_path: Path) -> None:
    checkpoints = written(tmp_path, 4)
    digests = {last: serving.make_mean(checkpoints, 1, last, version(last), {}).digest for last in (2, 3, 4)}
    checkpoints.drop_after(3)
    assert not checkpoints.mean_path(4).exists()
    assert read_safetensors(checkpoints.served_path).digest == digests[3]
    checkpoints.drop_after(1)
    assert not checkpoints.served_path.exists()
