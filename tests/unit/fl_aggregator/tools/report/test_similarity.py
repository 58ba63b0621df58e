"""Who is unlike the others, in a report: all edges that were compared have a row, also those of earlier rounds."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("matplotlib", reason="pip install 'fl-mqtt[report]'")

from fl_aggregator.round.events import Similarity
from fl_aggregator.tools.report import similarity as section
from fl_mqtt.simulation.attacks import attack_record
from tests.support.compared_updates import compared
from tests.support.run_files import SETTINGS, Outline, line, page_of, write

pytestmark = pytest.mark.usefixtures("undrawn")


def round_line(number: int, found: Similarity | None) -> dict[str, Any]:
    names = list("0123456789") if found is None else list(found.clients)
    recorded = None if found is None else dataclasses.asdict(found)
    return line(number, cohort=names, participants=names, similarity=recorded)


def without(found: Similarity, bad: int) -> Similarity:
    """The comparison of the others' updates alone; names stay."""
    rest = compared(len(found.clients) - bad, 0)
    return dataclasses.replace(rest, clients=found.clients[bad:])


def page(tmp_path: Path, *lines: dict[str, Any], **record: Any) -> str:
    whole = page_of(tmp_path, write(tmp_path / "run", list(lines), record=record))
    (found,) = re.findall(r"<section><h2>Who is unlike the others.*?</section>", whole, re.DOTALL)
    return str(found)


def rows_of(html: str) -> list[list[str]]:
    body = html.partition("<tbody>")[2]
    return [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in re.findall(r"<tr>(.*?)</tr>", body)]


def flat(html: str) -> str:
    return " ".join(Outline(html).text.split())


def test_an_edge_that_the_newest_round_lacks_has_the_row_of_an_earlier_one(tmp_path: Path) -> None:
    """Round 2 is of ten edges, of which three are the opposite of the others; round 4 lacks these three."""
    second = compared(10, 3, "{}")
    html = page(tmp_path, round_line(1, None), round_line(2, second), round_line(4, without(second, 3)))
    rows = rows_of(html)
    assert sorted((row[0], row[1]) for row in rows) == [
        (str(number), "2" if number < 3 else "4") for number in range(10)
    ]
    cosines = [float(row[2]) for row in rows]
    assert cosines == sorted(cosines), "the least alike come first"
    assert all(row[-1].startswith("⚠ cosine -") for row in rows[:3])
    assert all(row[-1] == "" for row in rows[3:])
    text = flat(html)
    assert "Unlike the others in round 4: nobody" in text
    assert (
        "Unlike the others in any compared round: 0 in 1 of 1 (round 2), 1 in 1 of 1 (round 2), 2 in 1 of 1 (round 2)"
        in text
    )
    fourth = without(second, 3)
    assert (
        f"an L2 norm of {fourth.median_length:g} in round 4, {second.median_length:g} in round 2." in text
    ), "lengths have the unit of their round"


def test_the_outliers_of_all_rounds_are_named_with_their_rounds(tmp_path: Path) -> None:
    bad, good = compared(8, 1, "{}"), compared(8, 0, "{}")
    html = page(tmp_path, round_line(2, bad), round_line(4, good), round_line(6, bad), round_line(8, bad))
    text = flat(html)
    assert "Unlike the others in round 8: edge 0: cosine" in text
    assert "any compared round: 0 in 3 of 4 (rounds 2, 6, 8)" in text
    (row,) = [row for row in rows_of(html) if row[0] == "0"]
    assert row[1] == "8"
    assert row[-1].endswith("; also in rounds 2, 6")
    (tmp_path / "later").mkdir()
    html = page(tmp_path / "later", round_line(2, bad), round_line(4, good))
    (row,) = [row for row in rows_of(html) if row[0] == "0"]
    assert (row[1], row[-1]) == ("4", "⚠ in round 2"), "it is like the others in the newest round"


def test_attackers_are_marked_beside_what_was_found(tmp_path: Path) -> None:
    record = attack_record("sign-flip:edges=1", 8, "digits")
    assert record is not None
    fleet = {"attack": record.model_dump(mode="json")}
    html = page(
        tmp_path, round_line(2, compared(8, 2, "{}")), settings=SETTINGS | {"clients": 8}, fleet=fleet
    )
    assert "edge 0 (attacks): cosine" in html
    assert "edge 1: cosine" in html
    assert "⚠ 0 (attacks)</text>" in html, "in the map"
    assert "0 (attacks) and 1: " in html
    rows = rows_of(html)
    assert {row[0] for row in rows} == {"0 (attacks)", *"1234567"}
    (honest,) = [row for row in rows if row[0] == "1"]
    assert honest[3].startswith("0 (attacks): "), "the nearest edge"


def test_a_table_of_many_edges_is_cut_where_they_are_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(section, "MAX_REPORT_ROWS", 5)
    html = page(tmp_path, round_line(2, compared(12, 2, "{}")))
    assert {row[0] for row in rows_of(html)[:2]} == {"0", "1"}
    assert len(rows_of(html)) == 5
    assert "5 of 12 edges" in html


def test_a_run_without_the_lengths_of_updates_has_the_section(tmp_path: Path) -> None:
    found = dataclasses.replace(compared(6, 1, "{}"), median_length=None, cosines=())
    text = flat(page(tmp_path, round_line(2, found)))
    assert "Length: the median is 1. An edge's share" in text
    assert "Groups" not in text
