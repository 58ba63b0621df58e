"""Errors of pydantic as the one clear line of ours."""

from __future__ import annotations

from pydantic import ValidationError


def first_error(error: ValidationError) -> str:
    """Says which member is wrong, and why, without its value, which may be secret."""
    first = error.errors(include_input=False, include_url=False, include_context=False)[0]
    member = ".".join(str(key) for key in first["loc"])
    return f"{member + ': ' if member else ''}{first['msg']}"
