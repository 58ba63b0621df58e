"""Prediction requests and their answers."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, JsonValue, StringConstraints

from fl_shared.protocol.kinds.base import ClientId, Count, Digest, Fragment, Scoped, Text
from fl_shared.system.text import one_line


def _finite(value: object) -> object:
    """Raises ``ValueError`` for NaN and infinities, which a JSON parser takes and no JSON can express."""
    json.dumps(value, allow_nan=False)
    return value


FiniteJson = Annotated[JsonValue, AfterValidator(_finite)]


class Prediction(Scoped):
    """The answer to a prediction request, on its Response Topic or ``fl/predictions``: one line of JSON.

    ``sha256``: of the request's payload. An answer has ``label`` and ``probabilities`` if the task predicts classes,
    and ``output`` if there is anything else; otherwise there is ``error``, and in the answer to an empty request
    ``example``, a request that the task can read. ``first_version``: see `ModelAnnouncement`. ``personal``: the
    model is the edge's own, wholly or in part. ``personal_part``: only a part of it is.
    """

    kind: Literal["prediction"] = "prediction"
    client: ClientId
    sha256: Digest
    version: Count
    first_version: Count | None = None
    personal: bool = False
    personal_part: bool = False
    label: Annotated[str, StringConstraints(max_length=256), AfterValidator(one_line)] | None = None
    probabilities: Annotated[dict[str, float], Field(max_length=100_000)] | None = None
    output: dict[str, FiniteJson] | None = None
    error: Text | None = None
    example: FiniteJson = None


class ImageRequest(Fragment):
    """A prediction request in JSON: ``pixels`` is a matrix of grey values or of [r, g, b], or a flat list of a square.

    The values are 0 to 255, or 0 to 1 if none is greater than 1.
    """

    pixels: list[Any]
