"""What every encoding offers, and what may be wrong with the content of a section."""

from __future__ import annotations

from typing import Protocol

from fl_shared.tensors.manifest import Vector

Buffer = bytes | bytearray | memoryview
"""Of a memoryview: contiguous, one byte an element."""


class Encoding(Protocol):
    """How the values of a section become bytes. An encoding has no state."""

    @property
    def name(self) -> str:
        """On the wire."""

    @property
    def lossy(self) -> bool:
        """Whether `decode` may give other values than `encode` was given."""

    @property
    def granularity(self) -> int:
        """Bytes. Data that is cut at multiples of it can be decoded piece by piece."""

    def size(self, values: int) -> int:
        """Bytes of so many values."""

    def encode(self, vector: Vector, seed: int) -> memoryview:
        """The bytes of ``vector``, shape (values,); may be a view of it. All randomness comes from ``seed``."""

    def decode(self, data: Buffer, out: Vector | None = None) -> Vector:
        """The values in ``data``, in ``out`` if that is given; else perhaps a view of ``data``.

        Raises ``ValueError`` if ``data`` has a length that no vector has.
        """

    def check(self, data: Buffer, most: float) -> float:
        """The largest magnitude of the values in ``data``.

        Raises `NotFiniteError`, and `TooLargeError` if the magnitude is above ``most``.
        """


class ContentError(ValueError):
    """A section has a value that may not be used."""


class NotFiniteError(ContentError):
    """The value with this ``index`` is NaN or infinite."""

    def __init__(self, index: int, value: float) -> None:
        super().__init__(f"value {index} is {value}, expected a finite number")
        self.index = index
        self.value = value


class TooLargeError(ContentError):
    """``magnitude``: the largest one."""

    def __init__(self, magnitude: float) -> None:
        super().__init__(f"a value of magnitude {magnitude:g}")
        self.magnitude = magnitude
