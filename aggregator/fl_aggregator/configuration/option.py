"""How the command line offers a setting of a run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Option:
    """How the command line offers a setting; its name, type and default are those of the field.

    ``default`` says in words what the default is, if it is not one value. ``metavar`` stands for the value in
    the help. ``at_resume``: whether it may be combined with ``--resume``.
    """

    heading: str
    help: str
    default: str | None = None
    metavar: str | None = None
    at_resume: bool = False
