"""Links between documents resolve, and the sentences of the README are short."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from scripts.site.assemble import GENERATED

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(
    [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        ROOT / "broker" / "README.md",
        ROOT / "benchmarks" / "README.md",
    ]
)
MOST_WORDS = 25
LINK = re.compile(r"\]\(([^()\s]+)\)|<img src=\"([^\"]+)\"")
CODE_BLOCK = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def anchors(document: Path) -> set[str]:
    """The anchors that GitHub gives to a document's headings: lower case, no punctuation, spaces as hyphens."""
    text = CODE_BLOCK.sub("", document.read_text(encoding="utf-8"))
    headings = re.findall(r"^#{1,6} +(.+?)\s*$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(document: Path) -> list[str]:
    """The links of a document that name no file in the repository, or no heading in that file."""
    broken = []
    text = CODE_BLOCK.sub("", document.read_text(encoding="utf-8"))
    for target in (of_text or of_image for of_text, of_image in LINK.findall(text)):
        if target.startswith(("http://", "https://")):
            continue
        name, _, anchor = target.partition("#")
        file = (document.parent / name).resolve() if name else document
        if file in [ROOT / "docs" / page for page in GENERATED]:  # the site's strict build checks these links
            continue
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(target)
    return broken


def sentences(text: str) -> list[str]:
    """The sentences of Markdown prose, without code blocks, tables, HTML, headings and the targets of links.

    Inline code counts as one word. A paragraph, a list item and a line before a code block end a sentence.
    """
    text = CODE_BLOCK.sub("\n", text)
    text = re.sub(r"^(?:\||#|</?\w).*$", "\n", text, flags=re.MULTILINE)
    text = re.sub(r"`[^`]+`", "code", text)
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
    blocks = re.split(r"\n\s*\n|^\s*- ", text, flags=re.MULTILINE)
    found = [sentence for block in blocks for sentence in re.split(r"(?<=[.!?])\s+", " ".join(block.split()))]
    return [sentence for sentence in found if sentence]


def words(sentence: str) -> int:
    """Words with at least one letter or digit, so that an arrow or a dash is none."""
    return sum(any(c.isalnum() for c in word) for word in sentence.split())


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_between_documents_resolve(document: Path) -> None:
    assert broken_links(document) == []


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    (tmp_path / "there.md").write_text("## One, two & `three`\n")
    document = tmp_path / "document.md"
    document.write_text(
        "[a](there.md) [b](there.md#one-two--three) [c](there.md#four) [d](gone.md) ![e](gone.png)\n"
        "[![f](lost.png)](https://example.org) <img src=\"gone.svg\" alt=\"\">\n```\n[g](code.md)\n```\n"
    )  # fmt: skip
    assert broken_links(document) == ["there.md#four", "gone.md", "gone.png", "lost.png", "gone.svg"]


def test_sentences_are_told_apart() -> None:
    text = (
        "# A heading\n\nOne `a b c` [two three](x.md). Four\nfive?\n\n- six\n- seven:\n\n"
        "```sh\ncode block. here\n```\n\n| a | b |\n<img src=x>\n"
    )
    assert sentences(text) == ["One code two three.", "Four five?", "six", "seven:"]
    assert words("edge → broker, twice") == 3


def test_sentences_of_the_readme_are_short() -> None:
    found = sentences((ROOT / "README.md").read_text(encoding="utf-8"))
    assert len(found) > 50
    assert [s for s in found if words(s) > MOST_WORDS] == []


def test_the_readme_names_every_example_and_each_program_has_its_test() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    examples = [path for path in (ROOT / "examples").iterdir() if not path.name.startswith(".")]
    assert [path.name for path in examples if f"examples/{path.name}" not in readme] == []
    programs = {path.stem.replace("-", "_") for path in examples if path.suffix in ("", ".conf", ".ipynb")}
    assert programs == {path.stem[5:] for path in (ROOT / "tests" / "examples").glob("test_*.py")}
