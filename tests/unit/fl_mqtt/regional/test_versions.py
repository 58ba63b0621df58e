"""What each version of the run above means to a region."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fl_aggregator.configuration.settings import parse_settings
from fl_aggregator.round import events as on
from fl_aggregator.round.phases import Collecting
from fl_aggregator.round.state import Run, new_run
from fl_aggregator.storage.checkpoint import MODEL_ENCODINGS, Model
from fl_edge.messaging.model_store import FetchedModel
from fl_mqtt.regional.versions import Versions
from fl_shared.protocol import messages as m
from fl_shared.system.shared_memory import SharedBytes
from fl_shared.tensors.manifest import ArraySpec, Manifest

MANIFEST = Manifest(arrays=(ArraySpec(name="w", shape=(5,)),))
WEIGHTS = np.array([1.0, -2.5, 1 / 3, 0.0, 1e-9], np.float32)


def fetched(encoding: str = "f32") -> FetchedModel:
    model = Model.of(MANIFEST, WEIGHTS, encoding=encoding)
    section = model.section()
    return FetchedModel(model.digest, (section,), SharedBytes.copy_of(section.data))


def reference(version: int, model: FetchedModel) -> m.ModelReference:
    return m.ModelReference(version=version, digest=model.digest)


def result(**changes: Any) -> m.Result:
    usual: dict[str, Any] = {
        "run": "r", "incarnation": 1, "seq": 1, "round": 4, "outcome": "committed", "reason": None, "version": 4,
        "digest": "d" * 64, "participants": ("north", "south"), "missing": {}, "examples": 20, "metrics": {},
        "bytes_up": 0, "bytes_down": 0, "seconds": 1.0,
    }  # fmt: skip
    return m.Result(**usual | changes)


def between_rounds() -> Run:
    return new_run(parse_settings(clients=2, per_round=2, rounds=9))


def in_round_4() -> Run:
    """Its version, if the region's sum is in it, is version 4."""
    phase = Collecting(
        round=4, since=0.0, opened=0.0, deadline=9.0, base=m.ModelReference(version=3, digest="b" * 64),
        encoding="f32", target=2, quorum=2, selection_size=2, cohort=("0", "1"), substitutes=(),
    )  # fmt: skip
    return replace(between_rounds(), phase=phase)


@pytest.mark.parametrize("encoding", MODEL_ENCODINGS)
def test_a_version_is_published_below_as_it_is_above(encoding: str) -> None:
    """The edges of a region train from the weights that those of a flat run have."""
    versions, model = Versions("north"), fetched(encoding)
    versions.hold(reference(1, model), model)
    version = versions.next("r", between_rounds())
    assert version is not None
    below = version.model.section()
    assert (below.encoding, bytes(below.data)) == (encoding, bytes(model.weights.data))
    assert version.model.digest == model.digest


def test_the_version_of_an_open_round_waits_for_the_result() -> None:
    """Only that says whether the region's sum is in it."""
    versions, model = Versions("north"), fetched()
    versions.hold(reference(4, model), model)
    assert versions.next("r", in_round_4()) is None
    versions.heard(result(run="another"))
    assert versions.next("r", in_round_4()) is None
    versions.heard(result())
    version = versions.next("r", in_round_4())
    assert version is not None
    assert isinstance(version.event, on.ModelCreated)
    assert versions.next("r", in_round_4()) is None, "once"


def test_a_version_without_the_region_is_one_that_it_receives() -> None:
    for without in (result(participants=("south",)), result(participants=(), outcome="abandoned")):
        versions, model = Versions("north"), fetched()
        versions.heard(without)
        versions.hold(reference(4, model), model)
        version = versions.next("r", in_round_4())
        assert version is not None
        assert isinstance(version.event, on.VersionReceived)


def test_an_older_version_does_not_take_the_place_of_a_newer_one() -> None:
    versions, model = Versions("north"), fetched()
    versions.hold(reference(6, model), model)
    versions.hold(reference(5, model), model)
    version = versions.next("r", between_rounds())
    assert version is not None
    assert version.number == 6


def test_the_end_of_a_round_without_the_region_says_why() -> None:
    versions = Versions("north")
    assert versions.end_of(result()) is None
    end = versions.end_of(result(participants=("south",), missing={"north": "late"}))
    assert end is not None
    assert end.reason == "round 4 of the run above was committed: late"
