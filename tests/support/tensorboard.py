"""Reads what a run has written for TensorBoard, which takes a second to import."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def events(directory: Path) -> Any:
    """What TensorBoard itself finds in a run's directory."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(directory / "tensorboard"))
    found.Reload()
    return found


def scalars(directory: Path) -> dict[str, list[tuple[int, float]]]:
    """The scalars of a run, by tag: step and value."""
    found = events(directory)
    return {tag: [(e.step, e.value) for e in found.Scalars(tag)] for tag in found.Tags()["scalars"]}
