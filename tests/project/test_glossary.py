"""`docs/glossary.md` has each term once, and every noun of ours that is on the wire."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from fl_shared.protocol import messages
from fl_shared.tensors.manifest import ArraySpec

GLOSSARY = Path(__file__).parents[2] / "docs" / "glossary.md"

TERMS = {
    "sealed": "seal",
    "confusion": "confusion matrix",
    "abilities": "ability",
    "against": "adversary",
    "clip_gradients": "training settings",
    "combine": "combination",
    "evaluate": "evaluation",
    "lr": "learning rate",
    "losses": "loss",
    "lr_factor": "learning rate",
    "personal": "personal model",
    "personal_part": "personal model",
    "primary": "primary metric",
    "privacy": "differential privacy",
    "private": "private run",
    "register": "registration",
    "relation": "zero-out",
    "releases": "release",
    "seq": "sequence number",
    "spent_by": "budget",
    "sum_of": "sum",
    "training": "training settings",
}
"""Abbreviations, verbs and short forms on the wire, and the terms for them."""
NO_TERM = {
    "terms of statistics and of learning that any textbook defines": {
        "batch", "label", "loss", "maximum", "metrics", "minimum", "momentum", "probabilities", "train",
    },
    "words of programming, with their usual meaning": {
        "bytes", "count", "data", "error", "index", "level", "lines", "max", "name", "number", "output", "pixels",
        "protocol", "public", "signature", "settings", "sha256", "shape", "size", "text", "time", "unit",
    },
    "software and machines": {"cores", "fl", "library", "memory", "mqtt", "platform", "python"},
    "plain English, with its usual meaning": {
        "after", "awaited", "awaits", "before", "better", "delayed", "detail", "down", "finished", "first", "have",
        "higher", "is", "left", "need", "newest", "out", "outcome", "reason", "recent", "seconds", "started",
        "state", "trusted", "unopened", "up", "via", "withheld", "worst", "written",
    },
    "the format of all messages: which version, which kind": {"kind", "v"},
}  # fmt: skip
"""Why a word on the wire is no term of ours."""
PLAIN = {word for words in NO_TERM.values() for word in words}


def headwords() -> list[str]:
    return re.findall(r"^- \*\*([^*]+)\*\*: ", GLOSSARY.read_text(encoding="utf-8"), re.MULTILINE)


def names_on_the_wire() -> set[str]:
    """Every member of every message, and every kind of message."""
    models = [m for _, m in inspect.getmembers(messages, inspect.isclass) if issubclass(m, BaseModel)]
    models.append(ArraySpec)
    members = {name for model in models for name in model.model_fields}
    kinds = {model.model_fields["kind"].default for model in models if "kind" in model.model_fields}
    return members | {kind for kind in kinds if isinstance(kind, str)}


def spelt(name: str) -> str:
    return TERMS.get(name) or re.sub("[_-]", " ", name)


def forms(word: str) -> set[str]:
    """The word, and its singular if it is a plural."""
    return {word, word.removesuffix("s")}


def undefined(name: str) -> list[str]:
    """The words of a name on the wire that are neither terms nor plain; none if the whole name is a term."""
    phrase, terms = spelt(name), set(headwords())
    return (
        []
        if forms(phrase) & terms
        else [word for word in phrase.split() if not forms(word) & (terms | PLAIN)]
    )


def test_a_term_is_there_once_and_in_alphabetical_order() -> None:
    assert len(headwords()) > 60
    assert headwords() == sorted(set(headwords()), key=str.lower)


def test_every_entry_has_its_form() -> None:
    """One line begins an entry, so that no headword escapes these tests."""
    lines = GLOSSARY.read_text(encoding="utf-8").splitlines()
    assert sum(line.startswith("- ") for line in lines) == len(headwords())


@pytest.mark.parametrize("name", sorted(names_on_the_wire()))
def test_a_name_on_the_wire_is_a_term_or_plain(name: str) -> None:
    assert undefined(name) == [], (
        f"{name}: define it in docs/glossary.md, or say in NO_TERM why it needs none"
    )


def test_an_unknown_name_is_noticed() -> None:
    assert undefined("max_widgets") == ["widgets"]
    assert undefined("delta_size") == []


def test_no_exception_is_superfluous() -> None:
    wire = names_on_the_wire()
    words = {form for name in wire for word in spelt(name).split() for form in forms(word)}
    assert sorted(PLAIN - words) == []
    assert sorted(PLAIN & set(headwords())) == []
    assert sorted(TERMS.keys() - wire) == [], "no longer on the wire: delete it here"
