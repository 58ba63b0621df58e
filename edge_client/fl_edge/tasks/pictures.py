"""Decodes the pictures in prediction requests, and makes them look like a data set's. Imports no torch.

`decode_picture` reads a PNG, a JPEG or JSON (``messages.ImageRequest``). Only JSON of 8 × 8 or 28 × 28 pixels needs no
Pillow. The ``preprocess_…`` functions treat a
picture as the makers of a data set treated theirs, so that the photograph of a pencilled 7 looks like one of its
sevens.
"""

from __future__ import annotations

import importlib.util
import math
import struct
import warnings
import zlib
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from fl_edge.errors import DataCorruptError, PayloadError
from fl_edge.tasks import picture_files
from fl_shared.protocol.limits import MAX_REQUEST
from fl_shared.protocol.messages import ImageRequest
from fl_shared.system.invocation import install_command
from fl_shared.system.validation import first_error

if TYPE_CHECKING:
    from PIL import Image

Picture = NDArray[np.float32]
"""Values of 0 to 255, shape (height, width) if grey, or (height, width, 3)."""

MAX_JSON: Final = 4 * 2**20
"""Bytes. In Python, numbers take ten times the memory of their text."""
MAX_HEADER_PIXELS: Final = 32_000_000
"""Pixels of a JPEG, as the header says, if it can be decoded at a reduced size."""
MAX_PIXELS: Final = 4_000_000
"""Pixels that are decoded; of a large JPEG, these are fewer than the header says."""
MAX_SIDE: Final = 4096
"""Pixels of the longer side that are decoded."""
WORKING_SIDE: Final = 1024
"""Pixels. Larger pictures are averaged down to about this side before they become floating-point numbers."""

FOREGROUND_THRESHOLD: Final = 0.15
"""As a fraction of the strongest contrast to the background: a weaker contrast is paper, not ink."""


def decode_picture(payload: bytes) -> Picture:
    """Returns the picture in a request, in any colour mode, rotated as EXIF says.

    A transparent picture is put on white, or on black if all of it is light.

    Raises ``PayloadError``, which says what is wrong with the request.
    """
    if not payload:
        raise PayloadError('the payload is empty, expected a PNG, a JPEG, or JSON {"pixels": …}')
    if len(payload) > MAX_REQUEST:
        raise PayloadError(f"the payload has {len(payload)} bytes, expected at most {MAX_REQUEST}")
    if payload.startswith((picture_files.PNG, picture_files.JPEG)):
        return _decode_file(payload, MAX_PIXELS)
    return _decode_json(payload)


def read_picture(path: Path) -> Picture:
    """Returns the picture in a file. Raises ``DataCorruptError``, which names the file."""
    try:
        size = path.stat().st_size
        if size > MAX_REQUEST:
            raise DataCorruptError(f"{path}: has {size} bytes, expected at most {MAX_REQUEST}")
        payload = path.read_bytes()
    except OSError as error:
        raise DataCorruptError(f"{path}: cannot be read: {error.strerror}") from error
    if not payload.startswith((picture_files.PNG, picture_files.JPEG)):
        raise DataCorruptError(f"{path}: is {'no PNG or JPEG' if payload else 'empty'}")
    try:
        return _decode_file(payload, MAX_HEADER_PIXELS)
    except PayloadError as error:
        raise DataCorruptError(f"{path}: {error}") from None


def _need_pillow(form: str) -> None:
    if importlib.util.find_spec("PIL") is None:
        raise PayloadError(
            f"{form} needs Pillow, which this edge has not installed: {install_command('lite')}"
        )


def _decode_file(payload: bytes, most_in_scans: int) -> Picture:
    """``most_in_scans``: pixels of a JPEG in several scans, as the header says. All of them are decoded."""
    kind = "PNG" if payload.startswith(picture_files.PNG) else "JPEG"
    _need_pillow(f"a {kind}")
    from PIL import ExifTags, Image, ImageOps

    try:
        file = (picture_files.reduced_png if kind == "PNG" else picture_files.reduced_jpeg)(payload)
        with warnings.catch_warnings():
            # Pillow only warns of sizes that are refused below.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(BytesIO(file.data), formats=[kind])
        with image:
            width, height = image.size
            if kind == "JPEG" and width * height <= (
                most_in_scans if file.several_scans else MAX_HEADER_PIXELS
            ):
                scale = WORKING_SIDE / max(width, height)
                wanted = max(1, round(scale * width)), max(1, round(scale * height))
                image.draft(None, wanted)  # lets the decoder skip detail
            if math.prod(image.size) > MAX_PIXELS or max(image.size) > MAX_SIDE:
                scans = " in several scans" if file.several_scans else ""
                raise PayloadError(
                    f"the {kind} has {width} × {height} pixels{scans}, "
                    f"expected at most {MAX_PIXELS}, and {MAX_SIDE} on a side"
                )
            image.getexif()[ExifTags.Base.Orientation] = file.orientation
            ImageOps.exif_transpose(image, in_place=True)
            return _pixels(image)
    except PayloadError:
        raise
    # The errors that Pillow raises for damaged files.
    except (
        OSError, ValueError, SyntaxError, EOFError, TypeError, KeyError, IndexError, OverflowError,
        struct.error, zlib.error, Image.DecompressionBombError, AssertionError,
    ) as error:  # fmt: skip
        raise PayloadError(f"the {kind} cannot be read: {str(error) or 'it is incomplete'}") from error


def _pixels(image: Image.Image) -> Picture:
    from PIL import Image

    image.load()
    if image.mode.startswith("I"):  # 16 bits; Pillow's own conversion to 8 would clip the values
        return _shrink(Image.fromarray(np.asarray(image, dtype=np.float32) / 257))
    if image.has_transparency_data:
        image = _on_paper(image.convert("RGBA"))
    return _shrink(image.convert("L" if image.mode in {"1", "L"} else "RGB"))


def _on_paper(rgba: Image.Image) -> Image.Image:
    from PIL import Image

    background = Image.new("RGBA", rgba.size, "black" if _is_light_ink(rgba) else "white")
    return Image.alpha_composite(background, rgba).convert("RGB")


def _is_light_ink(rgba: Image.Image) -> bool:
    """Whether all that can be seen of a transparent picture is so light that it would vanish on white."""
    grey, alpha = np.asarray(rgba.convert("RGB").convert("L")), np.asarray(rgba.getchannel("A"))
    ink = grey[alpha > 0]
    return len(ink) > 0 and int(ink.min()) > 255 * (1 - FOREGROUND_THRESHOLD)


def _shrink(image: Image.Image) -> Picture:
    factor = max(image.size) // WORKING_SIDE
    if factor > 1:
        image = image.reduce(min(factor, *image.size))
    picture = np.array(image, dtype=np.float32)
    return np.clip(picture, 0, 255, out=picture)


def _decode_json(payload: bytes) -> Picture:
    if len(payload) > MAX_JSON:
        raise PayloadError(
            f"the payload has {len(payload)} bytes and is not a PNG or JPEG; expected at most {MAX_JSON} of JSON"
        )
    try:
        request = ImageRequest.model_validate_json(payload)
    except ValidationError as error:
        raise PayloadError(
            f'the payload is neither a PNG, a JPEG, nor JSON of the form {{"pixels": …}} ({first_error(error)})'
        ) from error
    return _from_pixels(request.pixels)


def _from_pixels(pixels: list[Any]) -> Picture:
    expected = "a matrix of numbers, a matrix of [r, g, b], or the flat list of a square"
    if not _numbers_only(pixels):
        # Checked before NumPy: an array of texts takes the size of the longest one for each.
        raise PayloadError(f"pixels: contains something other than numbers, expected {expected}")
    try:
        raw = np.array(pixels)
    except (ValueError, OverflowError) as error:
        raise PayloadError(f"pixels: rows of different lengths, expected {expected}") from error
    if raw.size == 0:
        raise PayloadError(f"pixels: is empty, expected {expected}")
    if raw.dtype.kind not in "iuf":  # integers that do not fit into 64 bits
        raise PayloadError(f"pixels: values are too large, expected {expected}")
    low, high = float(raw.min()), float(raw.max())
    if not (math.isfinite(low) and math.isfinite(high) and low >= 0 and high <= 255):
        raise PayloadError(f"pixels: values from {low:g} to {high:g}, expected 0 to 255 or 0 to 1")
    values = raw.astype(np.float32)
    if high <= 1:
        values *= 255
    if values.ndim == 1:
        side = math.isqrt(len(values))
        if side * side != len(values):
            raise PayloadError(f"pixels: {len(values)} values do not form a square, expected {expected}")
        return values.reshape(side, side)
    if values.ndim == 3 and values.shape[2] == 1:
        return values[:, :, 0]
    if values.ndim == 2 or (values.ndim == 3 and values.shape[2] == 3):
        return values
    raise PayloadError(f"pixels: has the shape {values.shape}, expected {expected}")


def _numbers_only(pixels: list[Any], depth: int = 4) -> bool:
    """Returns whether all items are numbers, in lists of at most ``depth`` levels."""
    return all(
        type(item) in (int, float) or (type(item) is list and depth > 1 and _numbers_only(item, depth - 1))
        for item in pixels
    )


def preprocess_digit(picture: Picture) -> Picture:
    """Returns the picture as in MNIST, shape (28, 28): the digit scaled into 20 × 20, its centre of mass central.

    (LeCun, Cortes and Burges, http://yann.lecun.com/exdb/mnist/.) A picture of 28 × 28 is not changed, except that
    dark on light is inverted.
    """
    grey = to_grey(picture)
    if grey.shape == (28, 28):
        return _light_on_dark(grey)
    foreground = _crop(_foreground(grey))
    scale = 20 / max(foreground.shape)
    resized = _full_contrast(_resize(foreground, *(max(1, round(scale * side)) for side in foreground.shape)))
    rows, columns = np.indices(resized.shape)
    mass = max(float(resized.sum()), 1e-6)
    top = round(13.5 - float((rows * resized).sum()) / mass)
    left = round(13.5 - float((columns * resized).sum()) / mass)
    return _paste(resized, (28, 28), top, left)


def preprocess_coarse_digit(picture: Picture) -> Picture:
    """Returns the picture as in the task's digits, shape (8, 8), values 0 to 16: the digit fills the height.

    There, a value counts the ink in 4 × 4 cells of a bitmap of 32 × 32. A picture of 8 × 8 is not changed, except
    that dark on light is inverted. If none of its values is above 16, it is taken to be in the data set's scale.
    """
    grey = to_grey(picture)
    if grey.shape == (8, 8):
        if grey.max() <= 16:
            grey = grey * np.float32(255 / 16)
        return _light_on_dark(grey) * np.float32(16 / 255)
    foreground = _crop(_foreground(grey))
    height, width = foreground.shape
    columns = min(26, max(1, round(32 * width / height)))
    bitmap = _paste(_resize(foreground, 32, columns), (32, 32), 0, (32 - columns) // 2)
    cells: Picture = bitmap.reshape(8, 4, 8, 4).mean(axis=(1, 3), dtype=np.float32)
    return _full_contrast(cells) * np.float32(16 / 255)


def preprocess_garment(picture: Picture) -> Picture:
    """Returns the picture as in Fashion-MNIST, shape (28, 28): trimmed, the longer side 28, centred, light on dark.

    (Xiao, Rasul and Vollgraf 2017, arXiv:1708.07747, figure 1, without the sharpening.) A picture of 28 × 28 is not
    changed, except that dark on light is inverted.
    """
    grey = to_grey(picture)
    if grey.shape == (28, 28):
        return _light_on_dark(grey)
    foreground = _crop(_foreground(grey))
    scale = 28 / max(foreground.shape)
    resized = _resize(foreground, *(max(1, round(scale * side)) for side in foreground.shape))
    return _paste(resized, (28, 28), (28 - resized.shape[0]) // 2, (28 - resized.shape[1]) // 2)


def preprocess_colour(picture: Picture, side: int) -> Picture:
    """Returns the whole picture scaled to the shape (side, side, 3)."""
    colour = np.repeat(picture[:, :, np.newaxis], 3, axis=2) if picture.ndim == 2 else picture
    if colour.shape[:2] == (side, side):
        return colour
    return np.stack([_resize(colour[:, :, channel], side, side) for channel in range(3)], axis=2)


def preprocess_grey(picture: Picture, side: int) -> Picture:
    """Returns the whole picture in grey, scaled to the shape (side, side)."""
    grey = to_grey(picture)
    return grey if grey.shape == (side, side) else _resize(grey, side, side)


def to_grey(picture: Picture) -> Picture:
    """Returns the luma, shape (height, width), by ITU-R BT.601, as Pillow does."""
    if picture.ndim == 2:
        return picture
    return picture @ np.array([0.299, 0.587, 0.114], dtype=np.float32)


def _border(grey: Picture) -> float:
    ring = np.concatenate([grey[0], grey[-1], grey[1:-1, 0], grey[1:-1, -1]])
    return float(np.median(ring))


def _is_dark_on_light(grey: Picture) -> bool:
    """Returns whether the border is light, since most of it is background (as in all 1,797 digits)."""
    return _border(grey) > (float(grey.min()) + float(grey.max())) / 2


def _light_on_dark(grey: Picture) -> Picture:
    return np.float32(255) - grey if _is_dark_on_light(grey) else grey


def _foreground(grey: Picture) -> Picture:
    """Returns the distance of each pixel from the background, scaled to 0 to 255."""
    background = np.float32(_border(grey))
    distance = background - grey if _is_dark_on_light(grey) else grey - background
    return _full_contrast(np.maximum(distance, 0))


def _full_contrast(grey: Picture) -> Picture:
    high = float(grey.max())
    return grey * np.float32(255 / high) if high > 0 else grey


def _crop(picture: Picture) -> Picture:
    """Returns the bounding box of the foreground; the whole picture if there is none."""
    foreground = picture > FOREGROUND_THRESHOLD * 255
    rows, columns = np.flatnonzero(foreground.any(axis=1)), np.flatnonzero(foreground.any(axis=0))
    if not len(rows):
        return picture
    return picture[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _resize(grey: Picture, height: int, width: int) -> Picture:
    _need_pillow("a picture of this size")
    from PIL import Image

    shrinks = height <= grey.shape[0] and width <= grey.shape[1]
    resampling = Image.Resampling.BOX if shrinks else Image.Resampling.BILINEAR
    image = Image.fromarray(np.ascontiguousarray(grey)).resize((width, height), resampling)
    return np.asarray(image, dtype=np.float32)


def _paste(resized: Picture, shape: tuple[int, int], top: int, left: int) -> Picture:
    """Returns ``resized`` on a black background of ``shape``, moved so that it fits."""
    top = min(max(top, 0), shape[0] - resized.shape[0])
    left = min(max(left, 0), shape[1] - resized.shape[1])
    canvas: Picture = np.zeros(shape, dtype=np.float32)
    canvas[top : top + resized.shape[0], left : left + resized.shape[1]] = resized
    return canvas
