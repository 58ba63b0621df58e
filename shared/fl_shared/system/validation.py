"""Errors of pydantic as the one clear line of ours."""

from __future__ import annotations

from pydantic import ValidationError


def first_error(error: ValidationError, whole: str = "") -> str:
    """Says which member is wrong, and why, without its value, which may be secret.

    ``whole``: how to name what was read, if the error is of no single member; empty to leave that out.
    """
    first = error.errors(include_input=False, include_url=False, include_context=False)[0]
    member = ".".join(str(key) for key in first["loc"]) or whole
    return f"{member + ': ' if member else ''}{first['msg']}"
