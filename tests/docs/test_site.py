"""The sources of the site: each page is in the navigation, and every link leads to a file of the site."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from scripts.site.assemble import GENERATED, LINK, assemble
from tests.support.snippets import ROOT

NAVIGATION = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:\n")[2]
CODE = re.compile(r"^ *```.*?^ *```$|`[^`\n]+`", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site") / "docs"
    assemble(out)
    return out


def test_every_page_is_in_the_navigation_once(site: Path) -> None:
    listed = re.findall(r": (\S+\.md)$", NAVIGATION, re.MULTILINE)
    decisions = set((site / "adr").glob("[0-9]*.md"))
    pages = {page for page in site.rglob("*.md") if not page.is_relative_to(site / "repository")} - decisions
    assert sorted(listed) == sorted(str(page.relative_to(site)) for page in pages)
    assert set(GENERATED) <= set(listed)


def test_every_link_leads_to_a_file_of_the_site(site: Path) -> None:
    pages = list(site.rglob("*.md"))
    links = [
        (page.relative_to(site), link[2])
        for page in pages
        for link in LINK.finditer(CODE.sub("", page.read_text(encoding="utf-8")))
    ]
    assert len(links) > 200
    assert [(page, target) for page, target in links if not (site / page.parent / target).exists()] == []
    assert [
        target for page, target in links if not (site / page.parent / target).resolve().is_relative_to(site)
    ] == []


def test_decisions_and_messages_are_listed(site: Path) -> None:
    decisions = (site / "adr" / "README.md").read_text(encoding="utf-8")
    assert (
        "- [1. The journal records events, not decisions](0001-the-journal-records-events.md)\n" in decisions
    )
    messages = (site / "reference" / "messages.md").read_text(encoding="utf-8")
    assert re.search(
        r"^\| `fl/updates/\{client\}` \|.*\| edge \| aggregator \| 1 \| no \| \[update\]\(#update\)",
        messages,
        re.MULTILINE,
    )
    assert re.search(r"^### update$.*?^\| `round` \| integer, ≥ `0`", messages, re.MULTILINE | re.DOTALL)


def test_lists_and_tables_are_separated_from_the_text_before_them(site: Path) -> None:
    tour = (site / "architecture.md").read_text(encoding="utf-8")
    assert "`\n\n- Runs in: " in tour
    assert "`\n- Runs in: " not in tour
    assert "<!-- begin skew -->\n\n|  | IID |" in (site / "learning.md").read_text(encoding="utf-8")
