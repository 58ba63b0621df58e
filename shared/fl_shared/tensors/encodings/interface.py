"""The interface of every encoding, and the errors in the content of a section."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Final, Protocol

from fl_shared.tensors.manifest import Vector

Buffer = bytes | bytearray | memoryview
"""Encoded values. A memoryview must be contiguous, with elements of one byte."""

BLOCK: Final = 2**15
"""Values that an encoding should handle at a time, so that they and what is made of them stay in the cache."""


def exactly(size: int) -> range:
    """The range of this size alone."""
    return range(size, size + 1)


def sizes_text(sizes: range) -> str:
    """The sizes, as the text of an error says them: ``12``, or ``8 to 24``."""
    return str(sizes[0]) if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"


class Encoding(Protocol):
    """How values become bytes. An encoding has no state, and knows nothing of arrays (`sections`)."""

    @property
    def name(self) -> str:
        """The name of the encoding in messages, with its parameters, such as ``f32`` or ``topk:0.01``."""

    @property
    def lossy(self) -> bool:
        """Whether other values may be decoded than were encoded. Buffers are not encoded by such an encoding."""

    @property
    def feedback(self) -> bool:
        """Whether an edge adds what was lost of its last update to the next one (error feedback)."""

    def sizes(self, values: int) -> range:
        """The numbers of bytes that ``values`` values may take: one, or a range if their content decides."""

    def encode(self, vector: Vector, seed: int) -> memoryview:
        """The bytes of ``vector``, shape (values,), perhaps as a view.

        All random choices follow from ``seed``. Values that are not finite are encoded so that `check` finds them.
        """

    def decode_block(self, data: Buffer, values: int, start: int, out: Vector) -> None:
        """Writes the values from ``start`` on to ``out``, of ``values`` values in all.

        ``data`` has been checked. Nothing of the size of the whole vector is allocated.
        """

    def check(self, data: Buffer, values: int, most: float) -> float:
        """An upper bound of the magnitudes in ``data``, whose length is one of ``sizes(values)``.

        It is the largest magnitude, or so little more that rounding explains it. Raises `MalformedError`,
        `NotFiniteError`, and `TooLargeError` if it is above ``most``.
        """


class Family(ABC):
    """Encodings that differ in a parameter, under one name: ``NAME:PARAMETER``."""

    name: str
    """The name without the parameter, which edges offer."""
    example: str
    """A parameter."""
    expected: str
    """What the parameter must be, as the text of an error says it."""

    @abstractmethod
    def of(self, parameter: str) -> Encoding:
        """The encoding with this parameter. Raises ``ValueError``."""


class ContentError(ValueError):
    """A section holds what must not be used."""


class MalformedError(ContentError):
    """The bytes are not those of any values."""


class NotFiniteError(ContentError):
    """The value at ``index`` is NaN or infinite."""

    def __init__(self, index: int, value: float) -> None:
        super().__init__(f"value {index} is {value}, expected a finite number")
        self.index = index
        self.value = value


class TooLargeError(ContentError):
    """A value is larger than allowed; ``magnitude`` bounds the magnitudes in the section."""

    def __init__(self, magnitude: float) -> None:
        super().__init__(f"a value of magnitude {magnitude:g}")
        self.magnitude = magnitude
