"""Prediction requests: what is a picture, and how it becomes one of the data set's own."""

from __future__ import annotations

import importlib.util
import io
import re
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("PIL")

from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from fl_edge.errors import PayloadError
from fl_edge.tasks import picture_files
from fl_edge.tasks import pictures as p
from fl_shared.protocol.limits import MAX_REQUEST
from tests.support.pictures import pixels, ring

pytestmark = pytest.mark.edge

GREY = np.array([[0, 50, 100], [150, 200, 250]], dtype=np.uint8)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


# --- decoding


def test_without_pillow_only_json_of_the_data_sets_size_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    digit = p.decode_picture(b'{"pixels": [%s]}' % b",".join([b"16"] * 64))
    assert p.preprocess_coarse_digit(digit).shape == (8, 8)
    said = r"needs Pillow, .* pip install 'fl-mqtt\[lite\]'$"
    with pytest.raises(PayloadError, match=said):
        p.decode_picture(encoded(Image.fromarray(GREY)))
    with pytest.raises(PayloadError, match=said):
        p.preprocess_digit(digit)


def test_a_grey_png_is_itself() -> None:
    np.testing.assert_array_equal(p.decode_picture(encoded(Image.fromarray(GREY))), GREY)


def test_an_interlaced_png_is_the_same() -> None:
    """Pillow cannot write one, so it is made here: the seven passes of Adam7, each a picture of its own."""
    picture = np.arange(13 * 11, dtype=np.uint8).reshape(13, 11)
    passes = (
        (0, 0, 8, 8),
        (0, 4, 8, 8),
        (4, 0, 8, 4),
        (0, 2, 4, 4),
        (2, 0, 4, 2),
        (0, 1, 2, 2),
        (1, 0, 2, 1),
    )
    rows = [row.tobytes() for y, x, dy, dx in passes for row in picture[y::dy, x::dx]]
    png = grey_png(11, 13, zlib.compress(b"".join(b"\0" + row for row in rows)), interlaced=True)
    np.testing.assert_array_equal(p.decode_picture(png), picture)


def test_a_colour_png_stays_in_colour() -> None:
    colour = np.arange(18, dtype=np.uint8).reshape(2, 3, 3)
    np.testing.assert_array_equal(p.decode_picture(encoded(Image.fromarray(colour))), colour)


def test_a_jpeg_is_read() -> None:
    picture = p.decode_picture(encoded(Image.new("RGB", (40, 30), (200, 10, 10)), "JPEG"))
    assert picture.shape == (30, 40, 3)
    np.testing.assert_allclose(picture, np.broadcast_to([200, 10, 10], (30, 40, 3)), atol=3)


@pytest.mark.parametrize(
    ("mode", "kind"),
    [("1", "PNG"), ("L", "PNG"), ("LA", "PNG"), ("P", "PNG"), ("RGB", "PNG"), ("RGBA", "PNG"), ("I;16", "PNG"),
     ("L", "JPEG"), ("RGB", "JPEG"), ("CMYK", "JPEG"), ("YCbCr", "JPEG")],
)  # fmt: skip
def test_every_colour_mode_shows_the_same_picture(mode: str, kind: str) -> None:
    """A white square on black, seen through each mode."""
    array = np.zeros((32, 32), dtype=np.uint8)
    array[8:24, 8:24] = 255
    image = Image.fromarray(array)
    if mode == "I;16":
        image = Image.fromarray(array.astype(np.uint16) * 257)
    elif mode in {"LA", "P"}:
        image = image.convert(mode)
    else:
        image = image.convert("RGB").convert(mode)
    seen = p.to_grey(p.decode_picture(encoded(image, kind)))
    np.testing.assert_allclose(seen, array, atol=40 if kind == "JPEG" else 1)


def test_sixteen_bits_are_scaled_and_not_clipped() -> None:
    deep = Image.fromarray(np.array([[0, 257 * 100, 257 * 255]], dtype=np.uint16))
    np.testing.assert_allclose(p.decode_picture(encoded(deep)), [[0, 100, 255]], atol=0.5)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_what_is_transparent_is_white(mode: str) -> None:
    image = Image.new(mode, (4, 4), (0,) * len(mode))
    assert (p.decode_picture(encoded(image)) == 255).all()


def test_white_ink_on_a_transparent_picture_is_seen() -> None:
    """Sketch apps make such files in dark mode."""
    white = np.zeros((40, 40, 4), np.uint8)
    white[10:30, 18:22] = 255
    black = white.copy()
    black[10:30, 18:22, :3] = 0
    light, dark = (p.decode_picture(encoded(Image.fromarray(ink, "RGBA"))) for ink in (white, black))
    np.testing.assert_array_equal(p.preprocess_digit(light), p.preprocess_digit(dark))
    assert p.preprocess_digit(light).max() > 200


@pytest.mark.parametrize("size", [(1, 32_000_000), (4097, 1), (2001, 2000)])
def test_a_picture_is_refused_by_its_header(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    header = struct.pack(">IIBBBBB", *size, 8, 0, 0, 0, 0)
    payload = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in ((b"IHDR", header), (b"IDAT", b""), (b"IEND", b""))
    )
    monkeypatch.setattr(Image.Image, "load", lambda _: pytest.fail("it must not be decoded"))
    with pytest.raises(PayloadError, match="expected at most 4000000, and 4096 on a side"):
        p.decode_picture(payload)


def test_a_transparent_palette_colour_is_white() -> None:
    image = Image.new("P", (4, 4), 0)
    image.putpalette([0, 0, 0, 255, 0, 0])
    image.putpixel((0, 0), 1)
    picture = p.decode_picture(encoded(image, transparency=0))
    assert picture[0, 0].tolist() == [255, 0, 0]
    assert (picture[1:] == 255).all()


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_photograph_is_turned_as_its_camera_says(kind: str, order: str) -> None:
    exif = Image.Exif()
    exif.endian = order
    exif[0x010F], exif[0x0112] = "the camera", 6  # lies on its side
    upright = p.decode_picture(encoded(Image.new("L", (40, 20)), kind, exif=exif))
    assert upright.shape == (40, 20)


def test_a_photograph_with_damaged_exif_is_read_as_it_is() -> None:
    for exif in (b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"):
        assert p.decode_picture(encoded(Image.new("L", (40, 20)), "JPEG", exif=exif)).shape == (20, 40)


@pytest.mark.parametrize(("kind", "size"), [("PNG", (2800, 1400)), ("JPEG", (7900, 3950))])
def test_a_large_picture_is_averaged_down(kind: str, size: tuple[int, int]) -> None:
    picture = p.decode_picture(encoded(Image.new("L", size, 77), kind))
    assert picture.shape[1] in range(p.WORKING_SIDE, 2 * p.WORKING_SIDE)
    assert abs(picture.shape[1] - 2 * picture.shape[0]) <= 2
    np.testing.assert_allclose(picture, 77, atol=2)


def test_a_long_thin_picture_is_read() -> None:
    assert p.decode_picture(encoded(Image.new("L", (4000, 1), 9))).size > 0


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def segment(kind: int, data: bytes) -> bytes:
    """A segment of a JPEG."""
    return struct.pack(">BBH", 0xFF, kind, len(data) + 2) + data


def grey_png(width: int, height: int, compressed: bytes, *, interlaced: bool = False) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, interlaced)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", compressed) + chunk(b"IEND", b"")


def png_bomb(side: int) -> bytes:
    """A well-formed PNG of side × side black pixels, a few hundred bytes a megapixel."""
    compressor = zlib.compressobj(9)
    rows = b"".join(compressor.compress(bytes(side + 1)) for _ in range(side)) + compressor.flush()
    return grey_png(side, side, rows)


@pytest.mark.parametrize("side", [6000, 10_000])
def test_a_decompression_bomb_is_refused_by_its_header(side: int) -> None:
    bomb = png_bomb(side)
    assert len(bomb) < 200_000
    with pytest.raises(PayloadError, match=f"{side} × {side} pixels, expected at most"):
        p.decode_picture(bomb)


def with_size(jpeg: bytes, width: int, height: int) -> bytes:
    """The same JPEG with another size in its header."""
    at = re.search(rb"\xff[\xc0-\xc2]\x00[\x0b\x11\x14]\x08", jpeg)
    assert at is not None
    return jpeg[: at.end()] + struct.pack(">HH", height, width) + jpeg[at.end() + 4 :]


PROGRESSIVE = encoded(Image.new("RGB", (64, 64), (200, 10, 10)), "JPEG", progressive=True)
BASELINE = encoded(Image.new("RGB", (64, 64), (200, 10, 10)), "JPEG")
LAST_SCAN = PROGRESSIVE[PROGRESSIVE.rindex(b"\xff\xda") : -2]
FIRST_SCAN = BASELINE.index(b"\xff\xda")
NOT_INTERLEAVED = (
    BASELINE[:FIRST_SCAN] + segment(0xDA, b"\x01\x01\x00\x00\x3f\x00") + BASELINE[FIRST_SCAN + 14 :]
)
"""Its first scan has one of three components."""


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (
            with_size(PROGRESSIVE, 5600, 5600),
            "the JPEG has 5600 × 5600 pixels in several scans, expected at most 4000000",
        ),
        (
            with_size(NOT_INTERLEAVED, 5600, 5600),
            "the JPEG has 5600 × 5600 pixels in several scans, expected at most 4000000",
        ),
        (PROGRESSIVE[:-2] + 99 * LAST_SCAN, "the JPEG has 109 scans, expected at most 64"),
        (NOT_INTERLEAVED[:-2] + 99 * LAST_SCAN, "the JPEG has 100 scans, expected at most 64"),
        (BASELINE.replace(b"\xff\xc0", b"\xff\xc9"), "coded as SOF9, expected SOF0, SOF1 or SOF2"),
        (BASELINE[:2] + 10_001 * segment(0xFE, b"") + BASELINE[2:], "more segments .* at most 10000"),
        (BASELINE[:2] + 10_001 * segment(0xE1, b"Exif\0\0") + BASELINE[2:], "more segments .* at most 10000"),
        (grey_png(1, 1, b"")[:33] + 10_001 * chunk(b"prIv", b""), "more chunks .* at most 10000"),
        (grey_png(1, 1, b"")[:33] + 10_001 * chunk(b"IDAT", b""), "more chunks .* at most 10000"),
    ],
    ids=["progressive", "not interleaved", "scans", "baseline scans", "arithmetic", "comments", "EXIF", "private",
         "IDAT"],
)  # fmt: skip
def test_what_costs_a_decoder_much_is_refused_before_it_begins(
    payload: bytes, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image.Image, "load", lambda _: pytest.fail("it must not be decoded"))
    with pytest.raises(PayloadError, match=message):
        p.decode_picture(payload)


@pytest.mark.parametrize("size", [(40, 30), (1990, 2000)])
def test_a_progressive_jpeg_is_read(size: tuple[int, int]) -> None:
    picture = p.decode_picture(encoded(Image.new("RGB", size, (200, 10, 10)), "JPEG", progressive=True))
    np.testing.assert_allclose(picture, np.broadcast_to([200, 10, 10], picture.shape), atol=3)


def test_a_large_progressive_file_of_ones_own_is_read(tmp_path: Path) -> None:
    file = tmp_path / "large.jpg"
    file.write_bytes(encoded(Image.new("L", (2400, 2000), 77), "JPEG", progressive=True))
    assert p.read_picture(file).shape == (1000, 1200)


def test_the_scans_of_a_preview_or_of_a_second_picture_do_not_count() -> None:
    preview = segment(0xE1, b"a preview" + 99 * LAST_SCAN)
    picture = p.decode_picture(BASELINE[:2] + preview + BASELINE[2:] + 99 * PROGRESSIVE)
    np.testing.assert_array_equal(picture, p.decode_picture(BASELINE))


def test_a_decoder_sees_only_what_the_pixels_need() -> None:
    """Each of these parts has cost seconds or hundreds of MB when there were many, or warnings without end."""
    png = grey_png(1, 1, zlib.compress(b"\0\7"))
    zeros = zlib.compress(bytes(2**20 - 1))
    beside = chunk(b"iCCP", b"a\0\0" + zeros) + chunk(b"zTXt", b"a\0\0" + zeros) + chunk(b"prIv", b"")
    assert picture_files.reduced_png(png[:33] + beside + png[33:-12] + beside + png[-12:]).data == png
    profile, comment = segment(0xE2, b"ICC_PROFILE\0\1\1"), segment(0xFE, b"a comment")
    padded = BASELINE[:2] + profile + comment + b"\xff" * 1000 + BASELINE[2:]
    assert picture_files.reduced_jpeg(padded).data == BASELINE


def test_a_header_that_claims_the_impossible_is_refused() -> None:
    huge = encoded(Image.new("L", (4, 4)))
    claim = struct.pack(">II", 2**31 - 1, 2**31 - 1)
    body = b"IHDR" + claim + huge[24:29]
    broken = huge[:12] + body + struct.pack(">I", zlib.crc32(body)) + huge[33:]
    with pytest.raises(PayloadError):
        p.decode_picture(broken)


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (b"", "payload is empty"),
        (b"hello", "neither a PNG, a JPEG, nor JSON"),
        (b"\xff\xfe\x00", "neither a PNG, a JPEG, nor JSON"),
        (b"GIF89a" + bytes(40), "neither a PNG, a JPEG, nor JSON"),
        (b"\x89PNG\r\n\x1a\n" + bytes(40), "PNG cannot be read"),
        (encoded(Image.fromarray(ring()))[:90], "PNG cannot be read"),
        (
            encoded(Image.new("P", (9, 9))).replace(b"PLTE", b"teXt", 1),
            "PNG cannot be read: it is incomplete",
        ),
        (encoded(Image.fromarray(ring()), "JPEG")[:300], "JPEG cannot be read"),
        (b"x" * (MAX_REQUEST + 1), "expected at most 16777216"),
        (b"[" * (p.MAX_JSON + 1), "at most 4194304 of JSON"),
        (b"[" * 100_000, "neither"),
        (b"{}", "pixels: Field required"),
        (b"[1, 2]", "neither"),
        (b'{"pixels": "abc"}', "pixels: Input should be a valid array"),
        (b'{"pixels": [NaN]}', "pixels|JSON"),
        (b'{"pixels": [1e999]}', "pixels: values"),
        (b'{"pixels": [1' + b"0" * 400 + b"]}", "pixels"),
        (pixels([]), "pixels: is empty"),
        (pixels([[], []]), "pixels: is empty"),
        (pixels([1, 2, 3]), "3 values do not form a square"),
        (pixels([[1, 2], [3]]), "rows of different lengths"),
        (pixels([[1, "2"], [3, 4]]), "something other than numbers"),
        (pixels([[True, False]]), "something other than numbers"),
        (pixels([[None, 1]]), "something other than numbers"),
        (pixels([[{"r": 1}]]), "something other than numbers"),
        (pixels([[0, 256]]), "values from 0 to 256, expected 0 to 255"),
        (pixels([[-1, 20]]), "values from -1 to 20"),
        (pixels([[[1, 2, 3, 4]]]), r"shape \(1, 1, 4\)"),
        (pixels([[[[1]]]]), r"shape \(1, 1, 1, 1\)"),
        (pixels(7), "pixels: Input should be a valid array"),
    ],
    ids=lambda value: repr(value[:30]),
)
def test_what_is_no_picture_is_refused_and_says_why(payload: bytes, message: str) -> None:
    with pytest.raises(PayloadError, match=message) as caught:
        p.decode_picture(payload)
    assert len(str(caught.value)) < 500


@given(st.binary(max_size=200), st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b'{"pixels": ']))
def test_no_bytes_make_it_raise_anything_else(noise: bytes, start: bytes) -> None:
    try:
        picture = p.decode_picture(start + noise)
    except PayloadError:
        return
    assert picture.ndim in (2, 3)


@given(st.integers(0, 2**32), st.integers(1, 40), st.sampled_from(["PNG", "JPEG"]))
@example(552, 19, "JPEG")  # 53,820 × 7 pixels: it was to be read with no row
def test_a_damaged_file_is_read_or_refused(seed: int, damages: int, kind: str) -> None:
    rng = np.random.default_rng(seed)
    file = bytearray(encoded(Image.fromarray(ring()), kind))
    for position in rng.integers(3, len(file), damages):
        file[position] = rng.integers(0, 256)
    try:
        picture = p.decode_picture(bytes(file))
    except PayloadError:
        return
    assert np.isfinite(picture).all()


# --- JSON


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ([[0, 50, 100], [150, 200, 250]], GREY),
        ([0, 64, 128, 255], [[0, 64], [128, 255]]),
        ([0, 0.5, 1, 0.25], [[0, 127.5], [255, 63.75]]),
        ([[[1, 2, 3], [4, 5, 6]]], [[[1, 2, 3], [4, 5, 6]]]),
        ([[[9], [8]]], [[9, 8]]),
    ],
)
def test_pixels_in_json(value: object, expected: Any) -> None:
    np.testing.assert_allclose(p.decode_picture(pixels(value)), expected)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [1e300, -1e300])
def test_a_number_beyond_32_bits_is_an_error_without_a_warning_at_the_terminal(value: float) -> None:
    with pytest.raises(PayloadError, match="expected 0 to 255"):
        p.decode_picture(pixels([[value, 0], [0, 0]]))
