"""Messages and values of the protocol with common members; keyword arguments replace members."""

from __future__ import annotations

from typing import Any

import numpy as np

from fl_aggregator.round.events import UpdateMetadata
from fl_aggregator.round.state import Summary
from fl_shared.protocol import messages as m
from fl_shared.tensors.digest import content_digest
from fl_shared.tensors.manifest import ArraySpec, Manifest
from fl_shared.tensors.sections import ModelSection, model_digest
from fl_shared.transfer.upload import FinishedUpdate

ACCURACY = m.MetricDeclaration(name="accuracy", unit="%", minimum=0.0, maximum=1.0)
MAE = m.MetricDeclaration(name="mae", higher_is_better=False, unit="kWh", minimum=0.0)
Raw = dict[str, Any]
"""A message as the map that is sent, which may be invalid."""


def partition(index: int = 0, /, **changes: Any) -> m.Partition:
    return m.Partition(**{"index": index, "count": 20, "scheme": "iid", "seed": 0, "holdout": 0.2, **changes})


def training_settings(**changes: Any) -> m.TrainingSettings:
    usual = {"epochs": 2, "batch_size": 32, "lr": 0.05, "momentum": 0.9, "seed": 0}
    return m.TrainingSettings(**usual | changes)


def training_request(**changes: Any) -> m.TrainingRequest:
    return m.TrainingRequest(**training_settings().model_dump() | changes)


def fold_settings(**changes: Any) -> m.FoldSettings:
    return m.FoldSettings(**{"max_examples": 1000, "max_delta": 100.0, "scale_bits": 32, **changes})


def session_of(client: str) -> str:
    return f"session-of-{client}"[:64]


def registration(client: str, /, **changes: Any) -> m.Registration:
    """The first registration of a connection; ``changes`` replace members."""
    usual: dict[str, Any] = {
        "seq": 0, "client": client, "session": session_of(client), "device": f"device-of-{client}",
        "roles": ("train",), "encodings": ("f32",),
    }  # fmt: skip
    return m.Registration(**usual | changes)


# --- updates as messages ----------------------------------------------------------------------------------


def digest_of(manifest: Manifest | str, data: bytes) -> str:
    """Of an update with this section alone."""
    return content_digest([("delta", "f32", _digest(manifest), data)])


def model_digest_of(manifest: Manifest | str, data: bytes) -> str:
    """Of a model with these weights."""
    return content_digest([("weights", "f32", _digest(manifest), data)])


def section(
    data: bytes,
    manifest: Manifest | str,
    name: str = "delta",
    arrays: tuple[ArraySpec, ...] | None = None,
) -> m.Section:
    return m.Section(name=name, encoding="f32", manifest=_digest(manifest), arrays=arrays, data=data)


def update(*sections: m.Section, **changes: Any) -> m.Update:
    """An update with the digest of ``sections``; ``changes`` replace members."""
    usual: dict[str, Any] = {
        "run": "r", "incarnation": 1, "seq": 1, "client": "7", "session": "s", "round": 3, "base": "0" * 64,
        "digest": content_digest([(s.name, s.encoding, s.manifest, s.data) for s in sections]),
        "examples": 10, "steps": 1, "seconds": 0.5, "metrics": m.UpdateMetrics(), "sections": sections,
    }  # fmt: skip
    return m.Update(**usual | changes)


def offer_of(whole: m.Update, chunk_size: int, /, **changes: Any) -> m.Offer:
    size = sum(len(one.data) for one in whole.sections)
    usual = {
        **whole.model_dump(exclude={"kind", "sections", "metrics"}),
        "metrics": whole.metrics,
        "sections": tuple(
            m.OfferedSection(
                **one.model_dump(exclude={"data", "arrays"}), arrays=one.arrays, size=len(one.data)
            )
            for one in whole.sections
        ),
        "size": size,
        "chunk_size": chunk_size,
        "chunks": max(1, -(-size // chunk_size)),
    }
    return m.Offer(**usual | changes)


def chunk_of(whole: m.Update, chunk_size: int, index: int, /, **changes: Any) -> m.UpdateChunk:
    """A chunk; ``changes`` replace members."""
    content = b"".join(one.data for one in whole.sections)
    usual: dict[str, Any] = {
        **whole.model_dump(include={"run", "incarnation", "seq", "client", "session", "round", "digest"}),
        "index": index,
        "data": content[index * chunk_size : (index + 1) * chunk_size],
    }
    return m.UpdateChunk(**usual | changes)


def raw_offer_of(whole: Raw, chunk_size: int, /, **changes: Any) -> Raw:
    """The offer of an update that is a map."""
    sections = [
        {name: value for name, value in one.items() if name != "data"} | {"size": len(one["data"])}
        for one in whole["sections"]
    ]
    size = sum(one["size"] for one in sections)
    cut = {"size": size, "chunk_size": chunk_size, "chunks": max(1, -(-size // chunk_size))}
    return whole | {"kind": "offer", "sections": sections} | cut | changes


def _digest(manifest: Manifest | str) -> str:
    return manifest if isinstance(manifest, str) else manifest.digest


# --- updates and models inside the programs ---------------------------------------------------------------


def model_section(values: int = 1000, seed: int = 0, name: str = "weights") -> ModelSection:
    """A section with one array of normally distributed values."""
    data = np.random.default_rng(seed).standard_normal(values).astype("<f4").tobytes()
    return ModelSection(name, Manifest(arrays=(ArraySpec(name="w", shape=(values,)),)), data)


def finished_update(*sections: ModelSection, **changes: Any) -> FinishedUpdate:
    usual: dict[str, Any] = {
        "base": "b" * 64, "digest": model_digest(sections), "examples": 40, "steps": 20, "seconds": 1.5,
        "metrics": m.UpdateMetrics(train={"loss": 0.25}), "sections": sections,
    }  # fmt: skip
    return FinishedUpdate(**usual | changes)


def facts_of(whole: m.Update, /, **changes: Any) -> UpdateMetadata:
    usual: dict[str, Any] = {
        **whole.model_dump(include={"client", "session", "round", "base", "digest", "examples", "steps"}),
        "manifest": whole.sections[0].manifest,
        "size": sum(len(one.data) for one in whole.sections),
    }
    return UpdateMetadata(**usual | changes)


def update_metadata(**changes: Any) -> UpdateMetadata:
    """Of an update of round 1 on version 0; ``changes`` replace its fields."""
    usual: dict[str, Any] = {
        "client": "0", "session": "s1", "round": 1, "base": "a" * 64, "digest": "b" * 64, "manifest": "c" * 64,
        "examples": 10, "steps": 3, "size": 4,
    }  # fmt: skip
    return UpdateMetadata(**usual | changes)


def round_summary(number: int, /, **changes: Any) -> Summary:
    """A committed round that edge 0 took part in, and edge 1 did not."""
    usual: dict[str, Any] = {
        "round": number, "outcome": "committed", "reason": None,
        "model": m.ModelReference(version=number, digest="a" * 64), "cohort": ("0", "1"), "participants": ("0",),
        "missing": {"1": "offline: for 0.5 s"}, "examples": 10, "metrics": {},
        "seconds": {"selecting": 0.25, "collecting": 1.0},
    }  # fmt: skip
    return Summary(**usual | changes)


def never() -> bool:
    """For ``cancelled``: the job is not."""
    return False
