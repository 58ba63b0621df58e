"""A worker masks what it has trained: the sum of a round says what plain updates would have, and one alone nothing."""

from __future__ import annotations

import math
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fl_edge.errors import CancelledError, UnmaskableError
from fl_edge.session.masking import UnacceptablePlan
from fl_edge.training.executor import TrainedUpdate
from fl_edge.training.factory import executor_for
from fl_edge.training.tallies import tallies_of
from fl_edge.workers.cached_model import CachedModel
from fl_edge.workers.jobs import Masking, TrainJob, TrainOutcome
from fl_edge.workers.masked_result import MaskedRound
from fl_edge.workers.protocol import CacheModel
from fl_edge.workers.worker import Worker
from fl_shared.masking.shares import SharesSection
from fl_shared.masking.streams import DELTA_STREAM, TALLIES_STREAM, add_masks
from fl_shared.masking.unmasking import Opened, find_masks
from fl_shared.protocol.messages import RoundPrivacy, Selected, UpdateMetrics
from fl_shared.system.shared_memory import MemoryPool, SharedBytes
from fl_shared.tensors.encodings.float32 import FLOAT32
from fl_shared.tensors.encodings.integers import Int64s
from fl_shared.tensors.encodings.masked import MASKED
from fl_shared.tensors.manifest import ArraySpec, Manifest, Vector
from fl_shared.tensors.sections import model_digest
from tests.support.builders import fold_settings, partition, training_request
from tests.support.clipped_updates import clip_to_grid
from tests.support.masked_edges import MANIFEST, MaskedEdges, shares_of
from tests.support.masked_rounds import quantized

SETTINGS = training_request(epochs=1, batch_size=64, lr=0.05, momentum=0.9, seed=7)
BASE = "b" * 64


@pytest.fixture(params=[("synthetic-1000", True), ("digits-mlp", True), ("digits-mlp", False)])
def given(request: pytest.FixtureRequest) -> Iterator[tuple[str, Worker]]:
    """A task and a worker, for each executor that makes updates."""
    task, light = request.param
    ends = socket.socketpair()
    yield task, Worker(ends[0], None, "cpu", cold=True, light=light)
    for end in ends:
        end.close()


def model_of(task: str, *, light: bool) -> CachedModel:
    weights: list[Vector] = []

    def allocate(values: int) -> Vector:
        weights.append(np.empty(values, np.float32))
        return weights[0]

    manifest = executor_for(task, None, "cpu", light=light).initial_weights(7, allocate)
    return CachedModel(CacheModel(BASE, manifest, SharedBytes.copy_of(weights[0].tobytes())))


def masking_of(edges: MaskedEdges, client: str, selected: Selected) -> Masking:
    found = edges.member(client).masking(selected, edges.partition(client), edges.manifest)
    assert found is not None
    return found


def unmasked(edges: MaskedEdges, selected: Selected, made: dict[str, TrainOutcome]) -> tuple[Int64s, Int64s]:
    """The sums of the values and of the tallies, as an aggregator finds them with the help of all members."""
    plan = edges.plan(selected)
    bodies, shares, counts = {}, {}, np.zeros(8, np.uint64)
    total = np.zeros(plan.values, MASKED[plan.bits].dtype)
    for client, outcome in made.items():
        assert outcome.masked is not None
        assert outcome.encoding == f"masked{plan.bits}"
        bodies[client], shares[client] = outcome.masked.body, outcome.masked.shares
        total += MASKED[plan.bits].unpack(outcome.delta.view)
        counts += MASKED[64].unpack(outcome.masked.tallies)
    signatures = edges.signatures(selected, bodies)
    opened = {}
    for holder in edges.clients:
        asked = edges.reveal(selected, holder, bodies, signatures, shares)
        found = shares_of(edges.answer(holder, selected, asked))
        opened[holder] = Opened(found.shares, found.unopened)
    sections = {client: SharesSection.of(plan, data) for client, data in shares.items()}
    masks = find_masks(plan, sections, opened).masks
    add_masks(total, masks, DELTA_STREAM)
    add_masks(counts, masks, TALLIES_STREAM)
    return MASKED[plan.bits].signed(total), MASKED[64].signed(counts)


@pytest.mark.parametrize("bits", [64, 48])
def test_10_5_the_sum_of_masked_updates_is_that_of_the_plain_ones(
    given: tuple[str, Worker], bits: int, tmp_path: Path
) -> None:
    task, worker = given
    model = model_of(task, light=worker._light)
    edges = MaskedEdges(tmp_path, manifest=model.model.manifest)
    fold = fold_settings(max_examples=1000, max_delta=1.0, scale_bits=bits - 2 - 12)
    selected = edges.selected(bits=bits, fold=fold)
    expected, tallies = np.zeros(model.model.manifest.values, np.int64), np.zeros(8, np.int64)
    made: dict[str, TrainOutcome] = {}
    for client in ("7", "8"):  # the third is lost
        job = TrainJob(client, task, edges.partition(client), BASE, SETTINGS, 1, "f32")
        plain = worker._perform(job, {BASE: model}, lambda: False)
        masked = worker._perform(
            replace(job, masking=masking_of(edges, client, selected)), {BASE: model}, lambda: False
        )
        assert isinstance(plain, TrainOutcome)
        assert isinstance(masked, TrainOutcome)
        made[client] = masked
        integers = np.empty_like(expected)
        quantized(FLOAT32.decode(plain.delta.view), plain.examples * 2.0**fold.scale_bits, integers)
        expected += integers
        tallies[0] += plain.examples
        tallies[1] += int((plain.metrics.after or {}).get("examples", 0))
        assert masked.masked is not None
        assert masked.masked.plan == edges.plan(selected).digest.hex()
        assert (masked.examples, masked.steps, masked.seconds, masked.metrics) == (1, 0, 0.0, UpdateMetrics())
        sections = masked.update_sections()
        assert [one.name for one in sections] == ["delta", "shares", "tallies"]
        assert masked.digest == model_digest(sections)
    values, counts = unmasked(edges, selected, made)
    assert np.array_equal(values, expected)
    assert counts[:2].tolist() == tallies[:2].tolist()


PRIVATE = RoundPrivacy(mechanism="distributed", clip=0.5, noise=2.0)
PLACES = 24


def private_round(edges: MaskedEdges, **changes: Any) -> Selected:
    usual = {"bits": 32, "fold": fold_settings(scale_bits=PLACES), "privacy": PRIVATE, "colluders": 1}
    return edges.selected(**{**usual, **changes})


def test_11_5_the_sum_of_a_private_round_is_that_of_clipped_updates_with_noise(tmp_path: Path) -> None:
    """Neither examples nor caps play a role, and nothing is said but how many updates there are."""
    manifest = Manifest(arrays=(ArraySpec(name="w", shape=(100_000,)),))
    edges = MaskedEdges(tmp_path, manifest=manifest)
    selected = private_round(edges)
    delta = np.random.default_rng(1).normal(0, 1, manifest.values).astype(np.float32)
    made = {}
    for client, examples in (("7", 10), ("8", 0), ("9", 5000)):
        masked = MaskedRound(masking_of(edges, client, selected), client, edges.partition(client), manifest)
        metrics = UpdateMetrics(
            train={"loss": 3.0}, before={"loss": 1.0}, after={"loss": 1.0, "examples": 4.0}
        )
        update = TrainedUpdate(delta, examples, 5, 1.5, metrics)
        made[client] = masked.outcome(update, "accuracy", MemoryPool(), lambda: False)
        assert made[client].masked is not None
    values, counts = unmasked(edges, selected, made)
    assert counts.tolist() == [3, *[0] * 7]
    noise = values - 3 * clip_to_grid(delta, PRIVATE.clip, PLACES)
    masks = selected.masked
    assert masks is not None
    part = PRIVATE.noise * PRIVATE.clip * 2.0**PLACES / math.sqrt(masks.least - masks.colluders)
    assert np.std(noise) == pytest.approx(part * math.sqrt(3), rel=0.02)
    assert abs(np.mean(noise)) < 5 * part * math.sqrt(3 / manifest.values)


def test_each_masking_has_noise_of_its_own(tmp_path: Path) -> None:
    edges = MaskedEdges(tmp_path)
    found = []
    for number in (1, 2, 3):
        selected = private_round(edges, number=number)
        made = {
            client: outcome_of(edges, selected, [0.01] * 8, client=client, examples=0)
            for client in edges.clients
        }
        found.append(unmasked(edges, selected, made)[0].tolist())
    assert len({value for values in found for value in values}) == 24


def test_two_masked_updates_of_the_same_training_have_nothing_in_common(tmp_path: Path) -> None:
    edges = MaskedEdges(tmp_path)
    selected = edges.selected()
    one, other = (outcome_of(edges, selected, [0.0] * 8) for _ in range(2))
    assert one.delta.view != other.delta.view
    words = MASKED[64].unpack(one.delta.view)
    assert (words > 2**32).all(), "masks are as wide as the words"


def outcome_of(
    edges: MaskedEdges,
    selected: Selected,
    delta: list[float],
    cancelled: Callable[[], bool] = lambda: False,
    client: str = "7",
    **changes: Any,
) -> TrainOutcome:
    update = TrainedUpdate(np.array(delta, np.float32), 10, 5, 1.5, UpdateMetrics(train={"loss": 0.5}))
    masked = MaskedRound(masking_of(edges, client, selected), client, edges.partition(client), MANIFEST)
    return masked.outcome(replace(update, **changes), "accuracy", MemoryPool(), cancelled)


def test_10_5_what_cannot_be_masked_fails_the_round_and_the_array_is_named(tmp_path: Path) -> None:
    edges = MaskedEdges(tmp_path)
    selected = edges.selected(fold=fold_settings(max_delta=2.0))
    outcome_of(edges, selected, [0, -2, 0, 0, 0, 0, 0, 2])
    with pytest.raises(UnmaskableError, match=r"array 'w': a value has changed by more than 2: it cannot"):
        outcome_of(edges, selected, [0, -2, 0, -2.5, 0, 0, 0, 2])
    with pytest.raises(UnmaskableError, match="more than 1000 examples, which cannot be masked"):
        outcome_of(edges, selected, [0] * 8, examples=1001)
    with pytest.raises(UnmaskableError, match="no sections but its delta, and this one has control"):
        outcome_of(edges, selected, [0] * 8, sections={"control": np.zeros(8, np.float32)})


def test_masking_ends_when_the_job_is_cancelled(tmp_path: Path) -> None:
    edges = MaskedEdges(tmp_path)
    with pytest.raises(CancelledError, match="while the update was masked"):
        outcome_of(edges, edges.selected(), [0.0] * 8, lambda: True)


def test_an_edge_trains_nothing_for_a_plan_that_it_does_not_accept(tmp_path: Path) -> None:
    edges = MaskedEdges(tmp_path)
    masking, part = masking_of(edges, "7", edges.selected()), partition()
    with pytest.raises(UnacceptablePlan, match="contradicts itself: threshold"):
        MaskedRound(replace(masking, selected=edges.selected(threshold=1, least=1)), "7", part, MANIFEST)
    with pytest.raises(UnacceptablePlan, match="not certified"):
        MaskedRound(replace(masking, enrolment=bytes(32)), "7", part, MANIFEST)
    for changes, why in (
        ({"mechanism": "central"}, "nobody can clip a masked update except its edge"),
        ({"noise": 1e-7}, "noise: a deviation of .* units of the grid"),
        ({"noise": 1e6}, "noise: a deviation of .* units of the grid"),
    ):
        private = private_round(edges, privacy=PRIVATE.model_copy(update=changes), colluders=0)
        with pytest.raises(UnacceptablePlan, match=f"contradicts itself: .*{why}"):
            MaskedRound(replace(masking, selected=private), "7", part, MANIFEST)
    with pytest.raises(UnacceptablePlan, match="are not its own"):
        MaskedRound(masking, "8", part, MANIFEST)


def test_a_part_that_stays_on_the_edge_is_kept_as_in_other_rounds(tmp_path: Path) -> None:
    edges = MaskedEdges(tmp_path)
    outcome = outcome_of(edges, edges.selected(), [0] * 8, own={"@local": np.ones(3, np.float32)})
    assert outcome.own is not None
    assert FLOAT32.decode(outcome.own.parts()["@local"]).tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("metrics", "expected"),
    [
        (UpdateMetrics(), [0, 0, 0, 0, 0]),
        (UpdateMetrics(train={"loss": 0.5}), [5, 0, 0, 0, 0]),
        (
            UpdateMetrics(
                before={"examples": 4.0, "loss": 2.0, "accuracy": 0.25},
                after={"examples": 4.0, "loss": 5000.0, "accuracy": 0.5},
                train={"loss": -1.0},
            ),
            [0, 8, 1, 4000, 2],
        ),
    ],
)
def test_10_5_tallies_are_sums_of_an_edge_s_numbers(metrics: UpdateMetrics, expected: list[float]) -> None:
    update = TrainedUpdate(np.zeros(1, np.float32), 10, 1, 1.0, metrics)
    found = tallies_of(update, "accuracy").integers().tolist()
    assert found[:2] == [10, 4 if metrics.after else 0]
    assert found[2:] == [*(round(one * 2**20) for one in expected), 0]
