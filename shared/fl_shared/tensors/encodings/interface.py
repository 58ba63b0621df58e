"""The interface of every encoding, and the errors in the content of a section."""

from __future__ import annotations

from typing import Protocol

from fl_shared.tensors.manifest import Vector

Buffer = bytes | bytearray | memoryview
"""Encoded values. A memoryview must be contiguous, with elements of one byte."""


class Encoding(Protocol):
    """How the values of a section become bytes. An encoding has no state."""

    @property
    def name(self) -> str:
        """The name of the encoding in messages, such as ``f32``."""

    @property
    def lossy(self) -> bool:
        """Whether `decode` may return other values than `encode` was given."""

    @property
    def granularity(self) -> int:
        """A number of bytes: data that is cut at multiples of it can be decoded piece by piece."""

    def size(self, values: int) -> int:
        """The number of bytes that ``values`` values need."""

    def encode(self, vector: Vector, seed: int) -> memoryview:
        """The bytes of ``vector``, shape (values,), perhaps as a view.

        All random choices follow from ``seed``.
        """

    def decode(self, data: Buffer, out: Vector | None = None) -> Vector:
        """The values in ``data``, written to ``out`` if it is given; otherwise perhaps a view of ``data``.

        Raises ``ValueError`` if no vector has as many bytes as ``data``.
        """

    def check(self, data: Buffer, most: float) -> float:
        """The largest magnitude of the values in ``data``.

        Raises `NotFiniteError`, and `TooLargeError` if the magnitude is above ``most``.
        """


class ContentError(ValueError):
    """A section holds a value that must not be used."""


class NotFiniteError(ContentError):
    """The value at ``index`` is NaN or infinite."""

    def __init__(self, index: int, value: float) -> None:
        super().__init__(f"value {index} is {value}, expected a finite number")
        self.index = index
        self.value = value


class TooLargeError(ContentError):
    """A value is larger than allowed; ``magnitude`` is the largest magnitude in the section."""

    def __init__(self, magnitude: float) -> None:
        super().__init__(f"a value of magnitude {magnitude:g}")
        self.magnitude = magnitude
