"""Reads what a run has written for TensorBoard."""

from __future__ import annotations

from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def scalars(directory: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard itself finds in a run's directory, by tag: step and value."""
    found = EventAccumulator(str(directory / "tensorboard"))
    found.Reload()
    return {tag: [(e.step, e.value) for e in found.Scalars(tag)] for tag in found.Tags()["scalars"]}
