"""Builds HTML in which everything that is not `Markup` is text and is escaped."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Final

Child = object
"""A part of an element: `Markup` is inserted unchanged, null adds nothing, anything else becomes text."""

_EMPTY: Final = frozenset({"meta", "br", "col"})


class Markup(str):
    """HTML that is not escaped again. Only this module, the figures and the style sheet make it."""

    __slots__ = ()


def text(child: Child) -> Markup:
    """A child as HTML, escaped unless it is `Markup`.

    Control characters, which HTML forbids, become ``�``.
    """
    if child is None:
        return Markup()
    if isinstance(child, Markup):
        return child
    visible = "".join(c if c.isprintable() or c in "\n\t" else "�" for c in str(child))
    return Markup(escape(visible))


def tag(name: str, /, *children: Child, **attributes: object) -> Markup:
    """An element.

    Attributes ``class_`` and ``aria_label`` become ``class`` and ``aria-label``; null ones are left out.
    """
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{text(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    opened = f"<{name}{given}>"
    return Markup(opened if name in _EMPTY else f"{opened}{''.join(map(text, children))}</{name}>")


def join(children: Iterable[Child]) -> Markup:
    """Children one after another, without an element around them."""
    return Markup("".join(map(text, children)))


def meter(share: float, label: str | None = None) -> Markup:
    """A bar that shows a ``share`` of 1, which ``label`` says beside it."""
    bar = tag("span", style=f"width: {100 * share:.1f}%")
    return tag(
        "div",
        tag("div", bar, class_="track", aria_hidden="true"),
        None if label is None else tag("span", label),
        class_="meter",
    )


def table(
    headings: Iterable[Child],
    rows: Iterable[Iterable[Child]],
    *,
    caption: str,
    text_columns: frozenset[int] = frozenset({0}),
) -> Markup:
    """A table that scrolls if it is large.

    ``text_columns``: the columns with text, which are aligned to the left.
    """

    def cells(kind: str, row: Iterable[Child]) -> Markup:
        return join(
            tag(
                kind,
                cell,
                class_="w" if index in text_columns else None,
                scope="col" if kind == "th" else None,
            )
            for index, cell in enumerate(row)
        )

    return tag(
        "div",
        tag(
            "table",
            tag("caption", caption),
            tag("thead", tag("tr", cells("th", headings))),
            tag("tbody", *(tag("tr", cells("td", row)) for row in rows)),
        ),
        class_="scroll",
        tabindex="0",
        role="region",
        aria_label=caption,
    )
