"""The digests of models and updates: BLAKE3, with the vectors of its authors."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl_shared.tensors.digest import ContentHash, content_digest, digest_of
from fl_shared.tensors.manifest import ArraySpec, Manifest

VECTORS = {
    0: "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262",
    1: "2d3adedff11b61f14c886e35afa036736dcd87a74d27b5c1510225d0f592e213",
    1023: "10108970eeda3eb932baac1428c7a2163b0e924c9a9e25b35bba72b28f70bd11",
    1024: "42214739f095a406f3fc83deb889744ac00df831c10daa55189b5d121c855af7",
    1025: "d00278ae47eb27b34faecf67b4fe263f82d5412916c1ffd97c8cb7fb814b8444",
}
"""By the length of the input, whose bytes are 0 to 250 again and again (BLAKE3-team/BLAKE3, test_vectors.json)."""


@pytest.mark.parametrize("length", VECTORS)
def test_3_3_digests_are_blake3(length: int) -> None:
    data = bytes(index % 251 for index in range(length))
    assert digest_of(data) == digest_of(data[:7], memoryview(data)[7:]) == VECTORS[length]


def test_3_3_the_digest_of_a_manifest() -> None:
    manifest = Manifest(
        arrays=(ArraySpec(name="a", shape=(2, 3)), ArraySpec(name="b", shape=(), role="buffer"))
    )
    assert manifest.digest == digest_of(b'[["a",[2,3],"parameter"],["b",[],"buffer"]]')


@given(sizes=st.lists(st.integers(0, 40), min_size=1, max_size=4), step=st.integers(1, 50))
def test_3_4_the_digest_of_content_in_any_pieces(sizes: list[int], step: int) -> None:
    sections = [(f"s{number}", "f32", "ab" * 32, bytes([number]) * size) for number, size in enumerate(sizes)]
    whole = b"".join(data for *_, data in sections)
    expected = digest_of(*(f"{a}\0{b}\0{c}\0{len(data)}\0".encode() + data for a, b, c, data in sections))
    assert content_digest(sections) == expected
    pieces = ContentHash((a, b, c, len(data)) for a, b, c, data in sections)
    for start in range(0, len(whole), step):
        pieces.update(whole[start : start + step])
    assert pieces.hexdigest() == expected
    assert pieces.first == content_digest(sections[:1])
    assert pieces.hexdigest() == expected


def test_without_the_package_one_line_says_what_to_do() -> None:
    code = "import sys; sys.modules['blake3'] = None; import fl_shared.tensors.digest"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "UserError: the package blake3 is missing" in done.stderr
    assert "pip install blake3" in done.stderr
