"""Assembles the sources of the site: the documents, and pages that are generated from programs and files.

python -m scripts.site.assemble build/docs

A document links to files of the repository as they lie there. Those outside `docs/` are copied to `repository/`, and
the links are mended, so that the site needs nothing else.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable
from os.path import relpath
from pathlib import Path
from typing import Final

import yaml

from scripts.site import asyncapi

ROOT: Final = Path(__file__).parents[2]
DOCS: Final = ROOT / "docs"
GENERATED: Final = ("reference/messages.md", "changelog.md")
"""Pages of the site that are not in `docs/`."""
LISTED: Final = {"adr": "[0-9]*.md", "schema": "*.json", "vectors": "*.json"}
"""Folders whose `README.md` gets a list of their files on the site."""
FENCE: Final = re.compile(r"^( *)(```+).*?^\1\2$", re.MULTILINE | re.DOTALL)
UNSEPARATED: Final = re.compile(r"^(?![-|#\s]|\d+\. )(.+)\n(?=- |\| )", re.MULTILINE)
"""A line of a paragraph, or a comment, right before a list or a table. GitHub ends the paragraph there; the site's
Markdown needs an empty line for that."""
LINK: Final = re.compile(r"(\]\()([^()\s#:]+)((?:#[^()\s]*)?\))")


def assemble(out: Path) -> None:
    """Writes the sources of the site to ``out``, which is made anew."""
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(DOCS, out)
    document = yaml.safe_load((DOCS / "asyncapi.yaml").read_text(encoding="utf-8"))
    (out / "reference" / "messages.md").write_text(asyncapi.render(document), encoding="utf-8")
    for folder, pattern in LISTED.items():
        files = sorted(path.relative_to(out / folder) for path in (out / folder).rglob(pattern))
        with (out / folder / "README.md").open("a", encoding="utf-8") as page:
            page.write("\n" + "".join(f"- [{_title(out / folder / file)}]({file})\n" for file in files))
    todo = [(page, DOCS / page.relative_to(out)) for page in sorted(out.rglob("*.md"))]
    copied = {ROOT / "CHANGELOG.md": out / "changelog.md"}
    for source, copy in copied.items():
        shutil.copy(source, copy)
        todo.append((copy, source))
    while todo:
        copy, source = todo.pop()
        todo += _mend(copy, source, out, copied)


def _mend(page: Path, source: Path, out: Path, copied: dict[Path, Path]) -> list[tuple[Path, Path]]:
    """Mends the links of ``page``, a copy of ``source``, to files outside `docs/`; the further pages that it copies."""
    found: list[tuple[Path, Path]] = []

    def mended(match: re.Match[str]) -> str:
        target = (source.parent / match[2]).resolve()
        if target.is_relative_to(DOCS):
            there = out / target.relative_to(DOCS)
        else:
            there = copied.get(target, out / "repository" / target.relative_to(ROOT))
            if target not in copied:
                there.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(target, there)
                copied[target] = there
                if target.suffix == ".md":
                    found.append((there, target))
        return f"{match[1]}{relpath(there, page.parent)}{match[3]}"

    text = page.read_text(encoding="utf-8")
    parts, end = [], 0
    for fence in FENCE.finditer(text):
        parts += [_mended_prose(text[end : fence.start()], mended), fence[0]]
        end = fence.end()
    page.write_text("".join([*parts, _mended_prose(text[end:], mended)]), encoding="utf-8")
    return found


def _mended_prose(text: str, mended: Callable[[re.Match[str]], str]) -> str:
    return UNSEPARATED.sub(r"\1\n\n", LINK.sub(mended, text))


def _title(file: Path) -> str:
    """What a list calls a file: the heading of a document, the name of another file."""
    return (
        file.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")
        if file.suffix == ".md"
        else file.name
    )


if __name__ == "__main__":
    assemble(Path(sys.argv[1]))
