"""A model is published as a manifest and chunks, with one digest."""

from __future__ import annotations

import pytest

from fl_shared.protocol import codec
from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from fl_shared.tensors.sections import ModelSection, model_digest
from fl_shared.transfer.download import ModelDownload
from fl_shared.transfer.publication import TransferError, model_publication
from tests.support.builders import model_section
from tests.support.published_model import fetch, scoped
from tests.support.samples import DATA, DIGEST, MANIFEST


def test_3_4_the_digest_of_a_model_is_that_of_the_golden_vectors() -> None:
    assert model_digest([ModelSection("weights", MANIFEST, DATA)]) == DIGEST


def test_3_6_chunks_are_the_sections_cut_in_pieces() -> None:
    sections = [model_section(10, name="control"), model_section(33, name="weights")]
    model = model_publication(sections, chunk_size=30)
    whole = b"".join(bytes(s.data) for s in sections)
    chunks = [model.chunk(i, run="R", incarnation=1, seq=0) for i in range(model.chunks)]
    assert b"".join(chunk.data for chunk in chunks) == whole
    assert [len(chunk.data) for chunk in chunks[:-1]] == [30] * (len(chunks) - 1)
    assert model.manifest(run="R", incarnation=1, seq=0).size == len(whole)
    with pytest.raises(IndexError):
        model.chunk(model.chunks, run="R", incarnation=1, seq=0)


def test_topics_name_the_manifest_last() -> None:
    model = model_publication([model_section()], 1000)
    short = model.digest[:12]
    assert model.topics() == (*(t.ChunkTopic(short, i) for i in range(4)), t.ManifestTopic(short))


@pytest.mark.parametrize(
    ("sections", "chunk_size", "names"),
    [
        ([model_section()], 0, "chunk_size"),
        ([model_section(name="control")], 100, "weights"),
        ([model_section(name="weights"), model_section(name="control")], 100, "ascending"),
        ([model_section(), model_section()], 100, "unique"),
        ([ModelSection("weights", MANIFEST, DATA[:-1])], 100, "15 bytes, expected 16"),
        ([model_section(300_000)], 1, "more than 1000000 chunks"),
    ],
)
def test_what_is_no_model_is_not_published(sections: list[ModelSection], chunk_size: int, names: str) -> None:
    with pytest.raises(TransferError, match=names):
        model_publication(sections, chunk_size)


def test_a_model_survives_the_wire() -> None:
    model = model_publication([model_section()], 1500)
    download = ModelDownload(model.digest)
    for topic, message in scoped(model).items():
        decoded = codec.decode(topic, codec.encode(message))
        assert isinstance(decoded, m.ModelManifest | m.ModelChunk)
        download.receive(decoded, 0.0)
    # Chunks that come before the manifest are not hoarded, but for the first.
    fetch(model, download)
    assert download.state == "complete"
