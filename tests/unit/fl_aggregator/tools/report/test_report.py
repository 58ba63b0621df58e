"""``fl-aggregator report``: what it says of runs of every kind, and that nothing in them breaks out of the page."""

from __future__ import annotations

import csv
import html.parser
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

pytest.importorskip("matplotlib", reason="pip install 'fl-mqtt[report]'")

from fl_aggregator.cli.main import cli
from fl_aggregator.tools.report import comparison, figures
from fl_aggregator.tools.report.markup import Markup, table, tag, text
from fl_aggregator.tools.report.reading import read_run_report
from fl_shared.errors import UserError

EVIL = """<script>alert(1)</script>"'&$x_{$"""
SETTINGS = {"task": "digits", "clients": 4, "rounds": 3, "per_round": 2, "partition": "shards", "lr": 0.05}


def line(number: int, **changes: Any) -> dict[str, Any]:
    """A round's line in the history, as the aggregator writes it."""
    return {
        "round": number,
        "outcome": "committed",
        "reason": None,
        "version": number,
        "digest": "a" * 64,
        "cohort": ["0", "1"],
        "participants": ["0", "1"],
        "missing": {},
        "refused": {},
        "examples": 20,
        "metrics": {"accuracy": 0.2 * number, "loss": 1.0 / number, "train_loss": 0.5},
        "confusion": {"labels": ["cat", "dog"], "counts": [[9, 1], [number, 7]]},
        "seconds": {"selecting": 0.5, "collecting": 1.5, "aggregating": 0.25, "evaluating": 9.0},
        "bytes": {"up": 1_500_000, "down": 500_000},
    } | changes


def accepted(client: str, number: int, accuracy: float) -> str:
    update = {
        "client": client,
        "round": number,
        "examples": 10,
        "size": 2048,
        "after": {"accuracy": accuracy},
    }
    return json.dumps({"event": "UpdateStored", "now": 1.0, "update": update}, separators=(",", ":"))


def write(
    directory: Path, lines: list[Any], *, record: dict[str, Any] | None = None, journal: str = ""
) -> Path:
    """A run's directory. ``lines`` that are text are written as they are."""
    directory.mkdir()
    whole = {
        "run": "3f9a1c0b7e22",
        "incarnation": 1,
        "started": "2030-01-01T00:00:00+00:00",
        "settings": SETTINGS,
    }
    (directory / "run.json").write_text(json.dumps(whole | (record or {})))
    rows = (row if isinstance(row, str) else json.dumps(row) for row in lines)
    (directory / "history.jsonl").write_text("".join(f"{row}\n" for row in rows))
    (directory / "journal.jsonl").write_text(journal)
    return directory


def report(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, ["report", *map(str, arguments)])


def page_of(tmp_path: Path, *directories: Path) -> str:
    done = report(*directories, "--out", tmp_path / "out.html")
    assert done.exit_code == 0, done.output
    return (tmp_path / "out.html").read_text()


class Outline(html.parser.HTMLParser):
    """The elements of a page and its visible text; complains of what is not well nested."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(page)
        self.close()
        assert not self._open, self._open

    def handle_starttag(self, name: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((name, dict(attrs)))
        if name not in ("meta", "br"):
            self._open.append(name)

    def handle_startendtag(self, name: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((name, dict(attrs)))

    def handle_endtag(self, name: str) -> None:
        assert self._open.pop() == name

    def handle_data(self, data: str) -> None:
        self.text += f"{data}\n"


def test_a_finished_run_is_told_in_full(tmp_path: Path) -> None:
    lines = [
        line(1),
        line(
            2,
            outcome="abandoned",
            version=None,
            reason="2 of at least 3",
            metrics={},
            confusion=None,
            participants=[],
        ),
        line(
            3,
            version=2,
            missing={"3": "offline: for 4.0 s", "2": "surplus: enough"},
            refused={"3": {"late": 2}},
        ),
    ]
    ended = {"ended": "2030-01-01T00:05:00+00:00"}
    run = write(
        tmp_path / "run", lines, record=ended, journal=f"{accepted('0', 1, 0.5)}\n{accepted('0', 3, 0.875)}\n"
    )
    parts = [{"client": name, "examples": 8, "holdout": 2, "labels": {"cat": 7, "dog": 3}} for name in "01"]
    (run / "parts.jsonl").write_text("".join(json.dumps(part) + "\n" for part in parts))
    whole = page_of(tmp_path, run)
    page, headings = Outline(whole), re.findall("<h2>(.*?)</h2>", whole)
    assert headings == [
        "Learning", "Accuracy of each edge", "Confusion", "Labels on the edges", "Participation", "Time and traffic",
        "Refused", "Rounds", "Settings",
    ]  # fmt: skip
    for said in (
        "0.6000",
        "abandoned",
        ": 2 of at least 3",
        "3 (offline: for 4.0 s)",
        "4.5 MB",
        "6.8 s",
        "ended",
    ):
        assert said in page.text, said
    assert "surplus: enough" not in page.text, "whoever was not needed is not missing"
    assert "not finished" not in page.text
    drawings = [attributes["aria-label"] or "" for name, attributes in page.tags if name == "svg"]
    assert len(drawings) == 7
    assert any("from 0.2 to 0.6" in said for said in drawings)
    assert any("4 times an edge's update was in, 1 times it was missing" in said for said in drawings)
    assert any("lowest 0.8750, highest 0.8750" in said for said in drawings), "the newest update counts"
    titles = [attributes.get("title") for name, attributes in page.tags if name == "td"]
    assert "dog predicted as cat: 3" in titles, "the newest matrix is shown"


def test_the_page_needs_no_network_and_runs_nothing(tmp_path: Path) -> None:
    page = page_of(tmp_path, write(tmp_path / "run", [line(1), line(2)]))
    outline = Outline(page)
    names = {name for name, _ in outline.tags}
    assert not names & {"script", "link", "iframe", "img", "image", "object", "embed", "base", "form"}
    for _, attributes in outline.tags:
        assert not any(key.startswith("on") for key in attributes)
        for key in ("src", "href", "xlink:href", "action"):
            assert (attributes.get(key) or "#").startswith("#")
    assert not re.search(r"https?://|url\((?!#)|@import", page)
    policy = next(a["content"] for n, a in outline.tags if n == "meta" and a.get("http-equiv"))
    assert policy == "default-src 'none'; style-src 'unsafe-inline'"


def test_drawings_take_the_colours_of_the_page(tmp_path: Path) -> None:
    page = page_of(tmp_path, write(tmp_path / "run", [line(1), line(2)]))
    drawn = "".join(re.findall(r"<svg.*?</svg>", page, re.DOTALL))
    assert set(re.findall(r"#[0-9a-f]{6}", drawn)) == set()
    assert {"var(--series-1)", "var(--ink)", "var(--muted)", "var(--grid)"} <= set(
        re.findall(r"var\([^)]*\)", drawn)
    )
    assert "prefers-color-scheme: dark" in page
    assert "@media print" in page


def test_the_same_run_gives_the_same_page(tmp_path: Path) -> None:
    run = write(tmp_path / "run", [line(1), line(2)])
    assert page_of(tmp_path, run) == page_of(tmp_path, run)


def test_nothing_in_a_run_breaks_out_of_the_page(tmp_path: Path) -> None:
    hostile = line(
        1, cohort=[EVIL, "0"], participants=["0"], missing={EVIL: EVIL}, refused={EVIL: {EVIL: 1}},
        metrics={"accuracy": 0.5, EVIL: 1.0}, seconds={"collecting": 1.0, EVIL: 1.0},
        confusion={"labels": [EVIL, "$"], "counts": [[1, 2], [3, 4]]},
    )  # fmt: skip
    abandoned = line(2, outcome="abandoned", version=None, reason=EVIL)
    run = write(
        tmp_path / "$a_{<b>&", [hostile, abandoned, EVIL], record={"settings": {**SETTINGS, EVIL: EVIL, "task": EVIL}},
        journal=accepted(EVIL, 1, 0.5) + "\n",
    )  # fmt: skip
    (run / "parts.jsonl").write_text(json.dumps({"client": EVIL, "labels": {EVIL: 3, "$\\frac": 1}}) + "\n")
    other = write(tmp_path / "other", [line(1)])
    for directories in ([run], [run, other]):
        page = page_of(tmp_path, *directories)
        assert "<script" not in page
        outline = Outline(page)
        assert not any(key.startswith("on") for _, attributes in outline.tags for key in attributes)
        assert EVIL in outline.text, "and it can be read"


def test_a_run_without_rounds_says_so(tmp_path: Path) -> None:
    page = Outline(page_of(tmp_path, write(tmp_path / "run", []))).text
    assert "No round has ended yet: the history is empty." in page
    assert "not finished: 0 of 3 versions" in page
    assert "shards" in page, "its settings are told"


def test_a_run_in_which_nothing_was_measured(tmp_path: Path) -> None:
    lines = [line(n, metrics={}, confusion=None, participants=[], cohort=[]) for n in (1, 2)]
    page = Outline(page_of(tmp_path, write(tmp_path / "run", lines))).text
    assert "Nothing was measured" in page


def test_a_run_that_was_taken_up_again(tmp_path: Path) -> None:
    run = write(tmp_path / "run", [line(1), line(2)], record={"incarnation": 3})
    page = Outline(page_of(tmp_path, run)).text
    assert "resumed 2 times" in page
    assert "not finished: 2 of 3 versions" in page


def test_broken_lines_are_named_and_left_out(tmp_path: Path) -> None:
    torn = json.dumps(line(4))[:50]
    lines = [line(1), "{", line(2, seconds={"collecting": -1}), {"round": "?"}, line(3), torn]
    run = write(tmp_path / "run", lines, journal='{"event":"UpdateStored","update":7}\n')
    done = report(run, "--out", tmp_path / "out.html")
    assert done.exit_code == 0
    for number, where in ((2, "the line"), (3, "seconds.collecting"), (4, "round"), (6, "the line")):
        assert f"history.jsonl: line {number}: {where}: " in done.stderr
    assert "journal.jsonl: line 1: update: " in done.stderr
    assert [found.round for found in read_run_report(run).rounds] == [1, 3]
    assert "history.jsonl: line 3" in Outline((tmp_path / "out.html").read_text()).text


def test_a_broken_record_is_named_and_the_rounds_are_shown(tmp_path: Path) -> None:
    run = write(tmp_path / "run", [line(1)])
    (run / "run.json").write_text("[" * 100_000)
    done = report(run, "--out", tmp_path / "out.html")
    assert done.exit_code == 0
    assert "run.json: " in done.stderr
    assert "version 1" in Outline((tmp_path / "out.html").read_text()).text


@pytest.mark.parametrize("record", [{"settings": 7}, {"settings": {"rounds": None, "target_accuracy": "high"}},
                                    {"incarnation": "x", "versions": 3}])  # fmt: skip
def test_a_record_of_another_shape_is_no_reason_to_fail(tmp_path: Path, record: dict[str, Any]) -> None:
    runs = [write(tmp_path / name, [line(1)], record=record) for name in "ab"]
    page_of(tmp_path, *runs)


def test_numbers_that_are_hard_to_draw(tmp_path: Path) -> None:
    wild = [
        line(
            1,
            metrics={"loss": 1e300, "accuracy": 0.0},
            seconds={"collecting": 0.0},
            bytes={"up": 0, "down": 0},
        ),
        line(2**53, metrics={"loss": -1e300, "accuracy": 1.0}),
        line(3, metrics={"loss": float("nan")}),
    ]
    run = write(tmp_path / "run", wild)
    assert "1e+300" in page_of(tmp_path, run)
    assert any("line 3: metrics.loss" in fault for fault in read_run_report(run).faults)


def test_where_nothing_can_be_read_is_the_users_mistake(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for directory, said in ((tmp_path / "empty", "contains no run"), (tmp_path / "none", "does not exist")):
        with pytest.raises(UserError, match=said) as caught:
            read_run_report(directory)
        assert caught.value.exit_code == 2
        assert isinstance(report(directory).exception, UserError)


def test_runs_are_compared(tmp_path: Path) -> None:
    slow = write(
        tmp_path / "slow", [line(n, metrics={"accuracy": 0.1 * n, "loss": 2.0}) for n in range(1, 8)]
    )
    fast = write(tmp_path / "fast", [line(1), line(2), line(3)], record={"settings": {**SETTINGS, "lr": 0.5}})
    page = Outline(page_of(tmp_path, slow, fast))
    assert "The target is an accuracy of 0.6." in page.text, (
        "the highest multiple of 0.05 that both have reached"
    )
    words = page.text.split("\n")
    assert "6 versions" in words
    assert "3 versions" in words
    differ = page.text[page.text.index("Settings that differ") :]
    assert re.search(r"lr\s+0\.05\s+0\.5\s", differ)
    assert "per-round" not in differ[: differ.index("on its own")], "what is the same is not listed"
    overlaid = [a["aria-label"] or "" for n, a in page.tags if n == "svg"][:4]
    assert all("slow: " in said and "fast: " in said for said in overlaid)


def test_a_target_that_was_set_is_the_one_to_compare_by(tmp_path: Path) -> None:
    runs = [
        read_run_report(
            write(
                tmp_path / name,
                [line(1), line(2)],
                record={"settings": {**SETTINGS, "target_accuracy": target}},
            )
        )
        for name, target in (("a", 0.4), ("b", 0.9))
    ]
    assert comparison.comparison_target(runs) == 0.4
    assert [comparison.versions_to_reach(run, 0.4) for run in runs] == [2, 2]
    assert comparison.versions_to_reach(runs[0], 0.9) is None
    runs[0].rounds = []
    runs[0].record = runs[1].record = {}
    assert comparison.comparison_target(runs) is None


def test_runs_of_the_same_name_are_told_apart(tmp_path: Path) -> None:
    for parent in ("one", "two"):
        (tmp_path / parent).mkdir()
    runs = [read_run_report(write(tmp_path / parent / "run", [line(1)])) for parent in ("one", "two")]
    comparison.assign_unique_names(runs)
    assert [run.name for run in runs] == ["one/run", "two/run"]
    assert isinstance(report(runs[0].path, runs[0].path).exception, UserError)


def test_csv_has_a_row_a_round(tmp_path: Path) -> None:
    a = write(
        tmp_path / "a", [line(1), line(2, outcome="abandoned", version=None, reason="=1+1", metrics={})]
    )
    b = write(tmp_path / "b", [line(1, missing={"3": "late"}, metrics={"accuracy": 0.9, "f1": 0.8})])
    done = report(a, b, "--out", "-", "--csv", tmp_path / "out.csv")
    assert done.exit_code == 0, done.output
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out.csv").read_text())))
    assert [(row["run"], row["round"], row["version"]) for row in rows] == [
        ("a", "1", "1"),
        ("a", "2", ""),
        ("b", "1", "1"),
    ]
    assert rows[0]["accuracy"] == "0.2"
    assert rows[0]["f1"] == rows[1]["accuracy"] == ""
    assert rows[2]["f1"] == "0.8"
    assert rows[1]["reason"] == "'=1+1", "no spreadsheet computes it"
    assert rows[2]["missing_ids"] == "3"
    assert rows[0]["seconds_collecting"] == "1.5"
    assert not (tmp_path / "-").exists()


def test_a_page_that_cannot_be_written_is_the_users_mistake(tmp_path: Path) -> None:
    run = write(tmp_path / "run", [line(1)])
    done = report(run, "--out", tmp_path / "none" / "out.html")
    assert isinstance(done.exception, UserError)
    assert "No such file" in str(done.exception)
    assert isinstance(report(run, "--out", "-").exception, UserError)


def test_large_runs_stay_within_bounds(tmp_path: Path) -> None:
    """1,000 edges and 1,500 rounds: a page that a browser opens."""
    names = [f"edge-{n}" for n in range(1000)]
    lines = [line(n, cohort=names[n % 990 : n % 990 + 10], participants=names[n % 990 : n % 990 + 9],
                  missing={names[n % 990 + 9]: "offline: for 1.0 s"}, metrics={"accuracy": 0.5, "loss": 1.0})
             for n in range(1, 1501)]  # fmt: skip
    run = write(tmp_path / "run", lines, journal="".join(accepted(name, 1, 0.5) + "\n" for name in names))
    (run / "parts.jsonl").write_text(
        "".join(json.dumps({"client": n, "labels": {"a": 1, "b": 2}}) + "\n" for n in names)
    )
    page = page_of(tmp_path, run)
    assert len(page) < 4_000_000
    said = Outline(page).text
    assert "80 of 1000 edges, evenly chosen." in said
    assert "500 earlier ones" in said


def test_evenly_chosen_names_hold_both_ends() -> None:
    names = [str(n) for n in range(1000)]
    chosen = figures.evenly_spaced(names)
    assert len(set(chosen)) == len(chosen) == figures.MAX_FIGURE_EDGES
    assert (chosen[0], chosen[-1]) == ("0", "999")
    assert figures.evenly_spaced(names[:5]) == names[:5]


def test_markup_escapes_whatever_is_not_markup() -> None:
    assert tag("p", "<b>", Markup("<i>"), 7, None, class_='"x') == '<p class="&quot;x">&lt;b&gt;<i>7</p>'
    assert text("a\x00\u202eb\n") == "a��b\n"
    assert "<td>&lt;i&gt;</td>" in table(["a", "b"], [["x", "<i>"]], caption="t")
