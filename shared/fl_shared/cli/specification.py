"""Reads ``NAME:FIELD=VALUE,…``: the name of a class that is a dataclass, and the values of its fields."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from fl_shared.errors import UserError

_SPECIFICATION: Final = re.compile(
    r"(?P<name>[A-Za-z_][\w.]*:[A-Za-z_]\w*|[a-z][a-z0-9-]*)(:(?P<fields>[^:]+))?"
)
_ADAPTERS: Final[dict[type[Any], TypeAdapter[Any]]] = {}
"""By class; to make one takes a thousand times as long as to use it."""


def split(option: str, text: str) -> tuple[str, dict[str, str]]:
    """Returns the name in a specification, and the values of fields. Raises ``UserError``."""
    match = _SPECIFICATION.fullmatch(text)
    fields = {}
    for pair in (match["fields"] or "").split(",") if match else ():
        if pair:
            name, separator, value = pair.partition("=")
            if not (name and separator and value) or name in fields:
                match = None
                break
            fields[name.strip()] = value.strip()
    if match is None:
        raise UserError(f"--{option} {text!r}: expected NAME or NAME:FIELD=VALUE,…, each field once")
    return match["name"], fields


def make(option: str, name: str, kind: type[Any], fields: Mapping[str, str]) -> Any:
    """Returns an object of ``kind`` with these values of its fields. Raises ``UserError``, which names the field."""
    known = {field.name: field for field in dataclasses.fields(kind)}
    unknown = sorted(fields.keys() - known.keys())
    if unknown:
        has = ", ".join(known) or "no fields"
        raise UserError(f"--{option} {name}: field {unknown[0]!r} is unknown; it has: {has}")
    missing = [n for n, f in known.items() if f.default is dataclasses.MISSING and n not in fields]
    if missing:
        raise UserError(f"--{option} {name}: needs {missing[0]}: {name}:{missing[0]}=…")
    try:
        if kind not in _ADAPTERS:
            _ADAPTERS[kind] = TypeAdapter(kind)
        made = _ADAPTERS[kind].validate_python(dict(fields))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        message = str(first["msg"])
        raise UserError(
            f"--{option} {name}: {first['loc'][0]}={first['input']}: {message[0].lower()}{message[1:]}"
        ) from None
    for field in known:  # a range without a maximum has infinity in it, one without limits NaN
        value = getattr(made, field)
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"--{option} {name}: {field}={value}: input should be a finite number")
    return made
