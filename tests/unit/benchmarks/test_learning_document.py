"""``docs/learning.md`` and its pictures are what the committed lines say."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import learning_cells as plan
import learning_curves
import learning_document as document
import learning_pictures
import pytest

ROOT = Path(__file__).parents[3]
LINES = [
    json.loads(line)
    for line in (ROOT / "benchmarks" / "results" / "learning.jsonl").read_text(encoding="utf-8").splitlines()
]


def test_the_document_is_what_the_lines_say() -> None:
    text = (ROOT / "docs" / "learning.md").read_text(encoding="utf-8")
    assert text == document.filled(text, LINES), "write it: python benchmarks/learning.py --document"
    for part in document.PARTS:
        assert f"<!-- begin {part} -->" in text


def test_the_pictures_are_what_the_lines_say() -> None:
    pictures = learning_pictures.curves(document.current(LINES))
    for name, picture in pictures.items():
        assert (ROOT / "docs" / "learning" / name).read_text(encoding="utf-8") == picture, name
    assert {path.name for path in (ROOT / "docs" / "learning").iterdir()} == set(pictures)


def measured(*names: str, last: float = 0.7, seed: int = 0) -> list[dict[str, Any]]:
    """Lines of these cells with a learning rate that was chosen."""
    cells = [
        cell for name in names for cell in plan.all_cells(0.01) if (cell.name, cell.seed) == (name, seed)
    ]
    return [
        {"cell": cell.name, "seed": seed, "settings": cell.digest, "last": last, "spread": 0.012, "rounds": 2,
         "curve": [[1, 0.5], [2, last]]}
        for cell in cells
    ]  # fmt: skip


CHOICE = {"cell": "lr", "seed": 9, "settings": "", "lr": 0.01}


def test_a_hole_is_said_to_be_one() -> None:
    assert document.entry("A/iid/fedavg", []) == document.NOT_RUN
    assert document.entry("A/iid/fedavg", [{"cell": "A/iid/fedavg", "seed": 0, "failed": "…"}]) == "failed"
    failed = {"cell": "A/iid/fedavg", "seed": 0, "failed": "…", "reached": [[1, 0.3], [2, 0.1]]}
    assert document.entry("A/iid/fedavg", [failed]) == "failed / 10.0"
    lines = [failed, *measured("A/iid/fedavg", seed=1)]
    assert document.entry("A/iid/fedavg", lines) == "**70.0** ±1.2 [1] 1 failed", "it is counted"
    for name, part in document.PARTS.items():
        assert part([]) or name in {"served", "server"}


def test_a_table_has_no_row_and_no_column_without_a_run() -> None:
    rows = [["one", "1", document.NOT_RUN, "–"], ["two", document.NOT_RUN, document.NOT_RUN, "–"]]
    assert document.compact(["", "a", "b", "c"], rows) == "|  | a |\n| --- | --- |\n| one | 1 |"
    assert document.compact(["", "a", "b", "c"], rows[1:]) == "Not run yet."


def test_a_block_without_a_run_has_no_heading_and_no_introduction() -> None:
    assert document.served([]) == document.server([]) == ""
    text = document.server(measured("B/fedadam/lr 0.01"))
    assert text.startswith("## B: server optimizers\n")
    assert "| fedadam | 0.01 (default) | **70.0** ±1.2 [1] |" in text


def test_differences_are_of_the_same_seeds() -> None:
    base, name = "A/iid/fedavg", "A/iid/fednova"
    lines = [
        *measured(base, name, last=0.7),
        *measured(base, last=0.1, seed=1),
        *measured(name, last=0.9, seed=2),
    ]
    assert document.entry(name, lines, base) == "**80.0** (+0.0) ±1.2 [2]"
    assert document.entry(base, lines, base) == "**40.0** ±1.2 [2]"


def test_what_is_seen_is_ordered_and_counts_its_seeds() -> None:
    lines = [CHOICE, *measured("A/dirichlet:0.1/fedavg"), *measured("A/dirichlet:0.1/fednova", last=0.65)]
    lines += measured("B/fedadam/lr 0.01", last=0.75)
    text = document.seen(document.current(lines))
    assert text.splitlines()[2:] == [
        "| Dirichlet 0.1 | last five | last twenty | seeds |",
        "| --- | --- | --- | --- |",
        "| fedadam, lr 0.01 | +5.0 | +2.5 | 1 |",
        "| fednova | -5.0 | -2.5 | 1 |",
    ]


def test_a_line_of_earlier_settings_does_not_count() -> None:
    lines = [{**CHOICE, "lr": 0.02}, *measured("A/iid/fedavg")]
    assert [line["cell"] for line in document.current(lines)] == ["lr"]


def test_paces_are_compared_by_time_and_thirds() -> None:
    base, name = "D/phones/IID/rounds", "D/phones/IID/FedBuff, K 5"
    of_run = {
        "times": [[50.0, 0.5], [100.0, 0.7]],
        "virtual_seconds": 100.0,
        "worst_third": 0.6,
        "slow_third": 0.65,
    }
    fast = {"times": [[20.0, 0.5], [30.0, 0.7]], "virtual_seconds": 30.0}
    lines = [{**line, **of_run} for line in measured(base, name)]
    lines[1] |= fast
    assert document.time(lines).splitlines()[2:] == [
        "| phones | IID | rounds | **70.0** ±1.2 [1] | 60.0 | 65.0 | 100 | 1.00 of their time |",
        "| phones | IID | FedBuff, K 5 | **70.0** (+0.0) ±1.2 [1] | 60.0 | 65.0 | 30 | 0.30 of their time |",
    ]
    assert learning_pictures.time_curves(lines) == {
        "phones, IID": {"rounds": [(50.0, 0.5), (100.0, 0.7)], "FedBuff, K 5": [(20.0, 0.5), (30.0, 0.7)]}
    }
    lines[1]["times"] = [[20.0, 0.5], [30.0, 0.6]]
    assert document.time(lines).endswith("| reached by 0 of 1 |")


def test_a_mark_that_nobody_makes_is_an_error() -> None:
    with pytest.raises(KeyError, match="gird"):
        document.filled("<!-- begin gird -->\n<!-- end gird -->", [])


def test_a_picture_is_an_svg_with_a_line_for_each_name() -> None:
    points = [(1.0, 0.1), (2.0, 0.9)]
    picture = learning_curves.svg({"a <b>": {"x": points, "y": points}, "c": {"y": points}}, 2, "what & why")
    root = ElementTree.fromstring(picture)
    texts = [element.text for element in root.iter() if element.tag.endswith(("text", "title"))]
    assert {"a <b>", "c", "x", "y", "what & why"} <= set(texts)
    assert picture.count('fill="none"') == 3
    assert ElementTree.fromstring(learning_curves.svg({}, 2, "nothing")) is not None
