"""A report about a run with simulated attackers: they are named, and marked wherever edges are listed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("matplotlib", reason="pip install 'fl-mqtt[report]'")

from fl_aggregator.tools.report.attackers import naming_of
from fl_aggregator.tools.report.reading import RunReport
from fl_mqtt.simulation.attacks import attack_record
from tests.support.run_files import SETTINGS, Outline, accepted, line, page_of, write

CLIENTS = 20


def attacked(specification: str, clients: int = CLIENTS) -> dict[str, Any]:
    """What ``run.json`` has of a run with this attack."""
    record = attack_record(specification, clients, "digits")
    assert record is not None
    return {
        "settings": SETTINGS | {"clients": clients},
        "fleet": {"attack": record.model_dump(mode="json")},
    }


def report_of(record: dict[str, Any]) -> RunReport:
    return RunReport(Path("run"), "run", record)


@pytest.mark.parametrize("edges", [None, 7, "", {}])
def test_who_attacks_may_be_unknown(edges: Any) -> None:
    """The report reads the files of any version, and of anybody."""
    run = report_of(
        {"settings": SETTINGS, "fleet": {"attack": {"summary": "some edges attack", "edges": edges}}}
    )
    assert (run.attack, run.attackers) == ("some edges attack", ())
    assert naming_of(run)("0") == "0"


def test_attackers_are_marked_in_tables_and_figures(tmp_path: Path) -> None:
    chosen = {"numbers": {"change_norm": 1.0}, "chosen": ["1"]}
    edges = {"0": 0.3, "1": 0.6}
    personal = {"before": edges, "after": edges}
    lines = [
        line(
            1,
            refused={"0": {"too-large": 2}},
            strategy=chosen,
            edges=edges,
            edges_version=0,
            personal=personal,
        )
    ]
    journal = f"{accepted('0', 1, 0.5)}\n{accepted('1', 1, 0.5)}\n"
    run = write(tmp_path / "run", lines, record=attacked("sign-flip:edges=1", 4), journal=journal)
    parts = "".join(f'{{"client": "{name}", "labels": {{"cat": 3}}}}\n' for name in "01")
    (run / "parts.jsonl").write_text(parts)
    page = page_of(tmp_path, run)
    text = Outline(page).text
    assert "A test: 1 of 4 edges attack (0): sign-flip × 1." in text
    assert "0 (attacks) in 0 of 1 rounds, 1 in 1 of 1 rounds" in text
    assert "0 (attacks) (0.3000), 1 (0.6000)" in text
    for caption in (
        "Examples of each label on each edge",
        "Edges: how often each took part",
        "Refused",
        "Personal models",
    ):
        (rows,) = re.findall(rf"<caption>{caption}.*?</table>", page, re.DOTALL)
        named = [name for name in re.findall(r'<td class="w">(.*?)</td>', rows) if name[:1] in "01"]
        assert named == (["0 (attacks)"] if caption == "Refused" else ["0 (attacks)", "1"]), caption
    figures = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    for title in ("Examples of each label", "Participation of", "on their holdouts"):
        drawn = [one for one in figures if title in one[:600]]
        assert drawn, title
        for one in drawn:
            assert ">0 (attacks)<" in one, title
            assert ">1 (attacks)<" not in one, title
