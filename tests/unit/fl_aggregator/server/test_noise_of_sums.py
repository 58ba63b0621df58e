"""Each sum of a run with differential privacy has one noise, whose key nothing but its file has."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fl_aggregator.round import effects as do
from fl_aggregator.storage import noise_keys
from fl_aggregator.storage.checkpoint import Checkpoints
from fl_aggregator.storage.noise_keys import FILE_NAME
from fl_shared.privacy.gaussian_noise import noise
from fl_shared.system.files import write_private
from fl_shared.tensors.encodings.integers import Int64s
from fl_shared.tensors.manifest import Vector
from tests.support.clipped_updates import clip_to_grid
from tests.support.masked_federation import MaskedFederation, digests_of
from tests.support.private_federation import CLIP, RARELY, keys_on_disk, private_federation
from tests.support.simulated_masked_edge import VALUES


def exact_sum(run: MaskedFederation, number: int, names: list[str]) -> Int64s:
    """The sum of the clipped updates of a round, in units of the fold."""
    places = run.state.settings.scale_bits
    total = np.zeros(VALUES, np.int64)
    for name in names:
        total += clip_to_grid(run.edges[name].delta(number), CLIP, places)
    return total


def weights(run: MaskedFederation, version: int) -> Vector:
    digest = digests_of(run.state, run)[version]
    assert digest is not None
    return Checkpoints(run.directory).read(version, digest).weights


def test_one_sum_has_one_noise_also_if_the_average_is_made_twice(tmp_path: Path) -> None:
    """Killed before it is recorded that a version is on the disk, the run adds the noise whose key it had written."""
    other = private_federation(tmp_path / "other", rounds=1)
    other.run()
    run = private_federation(tmp_path / "run", rounds=1)
    run.kill_at = [place for place, one in enumerate(other.effects) if isinstance(one, do.PublishModel)][
        1
    ] - 1
    assert isinstance(other.effects[run.kill_at], do.Record)
    written: list[dict[str, str]] = []
    run.before_start = lambda: written.append(keys_on_disk(run))
    settings = run.run().settings
    assert run.kills == 1
    plan, places = settings.privacy, settings.scale_bits
    key = bytes.fromhex(written[-1]["1"])
    added = noise([(key, plan.noise * plan.clip * 2.0**places)], 0, VALUES)
    change = (exact_sum(run, 1, sorted(run.edges)) + added) / (len(run.edges) * 2.0**places)
    np.testing.assert_array_equal(weights(run, 1), (weights(run, 0) + change).astype(np.float32))


def test_a_full_disk_costs_no_second_noise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The key of the noise finds no space at first: the average is made once there is some, and of the same sum."""
    settings: dict[str, Any] = {"rounds": 1, "dp_clip": "adaptive:0.5"}
    run = private_federation(tmp_path / "run", **settings)
    full = iter([True])

    def write(path: Path, content: bytes) -> None:
        if next(full, False):
            raise OSError(errno.ENOSPC, "no space left on device", str(path))
        write_private(path, content)

    monkeypatch.setattr(noise_keys, "write_private", write)
    used: list[str] = []
    run.before_effect = lambda effect: used.extend(
        keys_on_disk(run).values() if isinstance(effect, do.PublishModel) else ()
    )
    settings_of_run = run.run().settings
    assert next(full, None) is None, "the disk was full"
    plan, places = settings_of_run.privacy, settings_of_run.scale_bits
    (key,) = used
    added = noise([(bytes.fromhex(key), plan.deviations[0] * plan.clip * 2.0**places)], 0, VALUES)
    change = (exact_sum(run, 1, sorted(run.edges)) + added) / (len(run.edges) * 2.0**places)
    np.testing.assert_array_equal(weights(run, 1), (weights(run, 0) + change).astype(np.float32))


def test_another_sum_of_the_same_version_has_another_key(tmp_path: Path) -> None:
    """With the same noise, the difference of the two models would be that of the updates."""
    other = private_federation(tmp_path / "other", rounds=1)
    other.run()
    run = private_federation(tmp_path / "run", rounds=1)
    run.kill_at = [place for place, one in enumerate(other.effects) if isinstance(one, do.PublishModel)][
        1
    ] - 1
    used: list[str] = []

    def lose_updates() -> None:
        if keys := keys_on_disk(run):
            used.append(keys["1"])
            shutil.rmtree(run.directory / "spool" / "1")

    def watch(effect: do.Effect) -> None:
        if isinstance(effect, do.PublishModel) and effect.model.version == 1:
            used.append(keys_on_disk(run)["1"])

    run.before_start, run.before_effect = lose_updates, watch
    run.run()
    assert len(used) == len(set(used)) == 2


def test_no_two_versions_and_no_two_runs_share_a_key(tmp_path: Path) -> None:
    used: list[str] = []
    for name in ("a", "b"):
        run = private_federation(tmp_path / name, **RARELY, dp_bands="3", rounds=3)

        def watch(effect: do.Effect, run: MaskedFederation = run) -> None:
            if isinstance(effect, do.PublishModel) and effect.model.version:
                used.append(keys_on_disk(run)[str(effect.model.version)])

        run.before_effect = watch
        run.run()
        assert sorted(keys_on_disk(run)) == ["2", "3"], "those with which the next noise would be correlated"
    assert len(used) == len(set(used)) == 6


def test_nothing_but_its_file_has_a_key(tmp_path: Path) -> None:
    run = private_federation(tmp_path / "run", **RARELY, dp_bands="2", rounds=2)
    run.run()
    directory = tmp_path / "run"
    assert directory.stat().st_mode & 0o777 == 0o700
    assert (directory / FILE_NAME).stat().st_mode & 0o777 == 0o600
    keys = [one["key"] for one in json.loads((directory / FILE_NAME).read_text())["keys"].values()]
    assert keys
    others = [file for file in directory.rglob("*") if file.is_file() and file.name != FILE_NAME]
    assert others
    for key in keys:
        assert not any(key.encode() in file.read_bytes() for file in others)
        assert not any(bytes.fromhex(key) in file.read_bytes() for file in others)
        assert not any(key in str(message) for _, message in run.published)
