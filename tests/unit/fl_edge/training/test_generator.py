"""One thread at a time draws from torch's global generator."""

from __future__ import annotations

import threading

import pytest

pytest.importorskip("torch")
import torch

from fl_edge.training.generator import SharedGenerator

pytestmark = pytest.mark.edge


def test_it_is_seeded_and_restored() -> None:
    generator, before = SharedGenerator(), torch.random.get_rng_state()
    with generator.seeded(7):
        drawn = torch.rand(3)
    assert torch.equal(torch.random.get_rng_state(), before)
    with generator.seeded(7):
        assert torch.equal(torch.rand(3), drawn)


def test_another_thread_draws_between_two_steps_and_changes_nothing() -> None:
    """A model for a prediction is built while another thread trains."""
    generator = SharedGenerator()
    with generator.seeded(1):
        alone = [torch.rand(4) for _ in range(3)]
    begun, built = threading.Event(), []

    def build() -> None:
        begun.set()
        with generator.seeded(2):
            built.append(torch.rand(4))

    builder = threading.Thread(target=build)
    with generator.seeded(1):
        drawn = [torch.rand(4)]
        builder.start()
        begun.wait(10)
        while not built:  # as a training asks at every step whether it was cancelled
            generator.give_way()
        drawn += [torch.rand(4) for _ in range(2)]
    builder.join(10)
    assert all(map(torch.equal, drawn, alone))
    with generator.seeded(2):
        assert torch.equal(built[0], torch.rand(4))


def test_whoever_fails_gives_it_back() -> None:
    generator = SharedGenerator()
    with pytest.raises(KeyError), generator.seeded(1):
        raise KeyError
    with generator.seeded(1):
        pass
