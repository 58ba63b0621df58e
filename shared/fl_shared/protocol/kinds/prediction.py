"""Prediction requests and their answers."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, StringConstraints

from fl_shared.protocol.kinds.base import ClientId, Count, Digest, Fragment, Scoped, Text
from fl_shared.system.text import one_line


class Prediction(Scoped):
    """The answer to a prediction request, on its Response Topic or ``fl/predictions``: one line of JSON.

    ``sha256``: of the request's payload. Either ``label`` and ``probabilities`` are given, or ``error``.
    """

    kind: Literal["prediction"] = "prediction"
    client: ClientId
    sha256: Digest
    version: Count
    label: Annotated[str, StringConstraints(max_length=256), AfterValidator(one_line)] | None = None
    probabilities: Annotated[dict[str, float], Field(max_length=100_000)] | None = None
    error: Text | None = None


class ImageRequest(Fragment):
    """A prediction request in JSON: ``pixels`` is a matrix of grey values or of [r, g, b], or a flat list of a square.

    The values are 0 to 255, or 0 to 1 if none is greater than 1.
    """

    pixels: list[Any]
