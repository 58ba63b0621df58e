"""The report of one run: its page, and what it shows of incomplete or damaged runs."""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("matplotlib", reason="pip install 'fl-mqtt[report]'")

from fl_aggregator.round.events import Registered
from fl_aggregator.server.compaction import MIN_BYTES
from fl_aggregator.storage.journal import SNAPSHOT_PREFIX
from fl_aggregator.tools.report import figures
from fl_aggregator.tools.report.markup import Markup, table, tag, text
from fl_aggregator.tools.report.reading import read_run_report
from fl_shared.errors import UserError
from tests.support.observation_samples import ENVIRONMENT
from tests.support.recorded_runs import directory_of
from tests.support.round_playbook import round_done, training
from tests.support.run_files import SETTINGS, Outline, accepted, line, page_of, report, write

EVIL = """<script>alert(1)</script>"'&$x_{$"""


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
        "Learning", "accuracy of each edge", "Confusion", "Labels on the edges", "Participation",
        "What the aggregator could see", "Time and traffic", "Refused", "Rounds", "Settings",
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
    assert any("from 0.2000 to 0.6000" in said for said in drawings)
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


@pytest.mark.usefixtures("undrawn")
def test_a_run_without_rounds_says_so(tmp_path: Path) -> None:
    page = Outline(page_of(tmp_path, write(tmp_path / "run", []))).text
    assert "No round has ended yet: the history is empty." in page
    assert "not finished: 0 of 3 versions" in page
    assert "shards" in page, "its settings are told"


@pytest.mark.usefixtures("undrawn")
def test_a_setting_that_is_not_set_says_what_it_means(tmp_path: Path) -> None:
    record = {"settings": {**SETTINGS, "lr": None, "train_examples": None, "target": None, "task_option": {}}}
    page = Outline(page_of(tmp_path, write(tmp_path / "run", [line(1)], record=record))).text
    words = [part.strip() for part in page.splitlines() if part.strip()]
    shown = {name: words[words.index(name) + 1] for name in ("lr", "train-examples", "target", "task-option")}
    assert shown == {"lr": "the task's", "train-examples": "all", "target": "–", "task-option": "–"}


@pytest.mark.usefixtures("undrawn")
def test_a_run_in_which_nothing_was_measured(tmp_path: Path) -> None:
    lines = [line(n, metrics={}, confusion=None, participants=[], cohort=[]) for n in (1, 2)]
    page = Outline(page_of(tmp_path, write(tmp_path / "run", lines))).text
    assert "Nothing was measured" in page


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(("rounds", "said"), [(1, "of 1 version"), (3, "of 3 versions")])
def test_versions_are_counted_as_people_count(tmp_path: Path, rounds: int, said: str) -> None:
    run = write(tmp_path / "run", [line(1)], record={"settings": {**SETTINGS, "rounds": rounds}})
    assert f">{said}<" in page_of(tmp_path, run)


@pytest.mark.usefixtures("undrawn")
def test_a_run_that_was_taken_up_again(tmp_path: Path) -> None:
    run = write(tmp_path / "run", [line(1), line(2)], record={"incarnation": 3})
    page = Outline(page_of(tmp_path, run)).text
    assert "resumed 2 times" in page
    assert "not finished: 2 of 3 versions" in page


@pytest.mark.usefixtures("undrawn")
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


def test_a_compacted_journal_has_the_latest_result_of_each_edge(tmp_path: Path) -> None:
    playbook = training(clients=3, per_round=1, rounds=500, holdout=0)
    loaded = playbook.event("load 1")
    assert isinstance(loaded, Registered)
    playbook.play(replace(loaded, environment=ENVIRONMENT))
    while playbook.round <= 100:
        round_done(playbook)
    for name, min_bytes in (("whole", MIN_BYTES), ("compacted", 1)):
        directory_of(playbook, tmp_path / name, min_bytes=min_bytes).close()
    assert (tmp_path / "compacted" / "journal.jsonl").read_bytes().startswith(SNAPSHOT_PREFIX)
    whole, compacted = (read_run_report(tmp_path / name) for name in ("whole", "compacted"))
    assert len(whole.latest_results) == 3
    assert (compacted.latest_results, compacted.faults) == (whole.latest_results, [])
    assert compacted.environments == whole.environments == {"1": ENVIRONMENT}


@pytest.mark.usefixtures("undrawn")
def test_edges_that_compute_differently_are_told(tmp_path: Path) -> None:
    def registered(client: str, library: str) -> str:
        environment = {"library": library, "platform": "Linux <x>", "cores": 4, "memory": 8_000_000_000}
        return json.dumps(
            {"event": "Registered", "client": client, "environment": environment}, separators=(",", ":")
        )

    alike = [registered(name, "torch 2.9.0") for name in ("0", "1")]
    shown = Outline(page_of(tmp_path, write(tmp_path / "alike", [line(1)], journal="\n".join(alike)))).text
    assert "Where the edges run" in shown
    assert "compute with different software" not in shown
    differ = [*alike, registered("2", "torch 2.5.1"), registered("1", "torch 2.5.1")]
    shown = Outline(page_of(tmp_path, write(tmp_path / "differ", [line(1)], journal="\n".join(differ)))).text
    assert "compute with different software" in shown
    assert "torch 2.9.0 on Linux <x>, torch 2.5.1 on Linux <x>. Their updates may differ" in shown
    assert "1, 2" in shown, "the newest registration counts"


@pytest.mark.usefixtures("undrawn")
def test_a_broken_record_is_named_and_the_rounds_are_shown(tmp_path: Path) -> None:
    run = write(tmp_path / "run", [line(1)])
    (run / "run.json").write_text("[" * 100_000)
    done = report(run, "--out", tmp_path / "out.html")
    assert done.exit_code == 0
    assert "run.json: " in done.stderr
    assert "version 1" in Outline((tmp_path / "out.html").read_text()).text


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("record", [{"settings": 7}, {"settings": {"rounds": None, "target": "high"}},
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


@pytest.mark.usefixtures("undrawn")
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


def test_a_table_that_goes_on_below_shows_it(tmp_path: Path) -> None:
    """A shade at the lower edge, which the surface covers when the last row is seen."""
    page = page_of(tmp_path, write(tmp_path / "run", [line(number) for number in range(1, 60)]))
    rule = page.partition(".scroll {")[2].partition("}")[0]
    assert "overflow: auto" in rule
    assert re.findall(r"bottom / 100% 14px no-repeat (\w+)", rule) == ["local", "scroll"]
    assert '<div class="scroll" tabindex="0"' in page


def test_evenly_chosen_names_hold_both_ends() -> None:
    names = [str(n) for n in range(1000)]
    chosen = figures.evenly_spaced(names)
    assert len(set(chosen)) == len(chosen) == figures.MAX_FIGURE_EDGES
    assert (chosen[0], chosen[-1]) == ("0", "999")
    assert figures.evenly_spaced(names[:5]) == names[:5]


@pytest.mark.parametrize(
    "record",
    [
        {
            "settings": {"target": 10**400, "clients": [[]], "task": 7, "partition": {}},
            "incarnation": 10**400,
        },
        {"settings": {"target": True, "rounds": "\x1b[2J"}, "versions": {"\x1b]0;x\x07": None}},
        {"run": {}, "started": ["\x1b"], "ended": 1, "settings": []},
    ],
)
def test_nothing_that_a_stranger_wrote_ends_it_or_reaches_the_terminal(
    tmp_path: Path, record: dict[str, Any]
) -> None:
    numbers: list[dict[str, Any]] = [
        {"round": 10**400},
        {"bytes": {"up": 10**400}},
        {"seconds": {"collecting": 1e300}},
        {"metrics": {f"m{n}": 0.5 for n in range(1000)}},
        {"cohort": ["9" * 5000]},
        {"confusion": {"labels": ["x"] * 1000, "counts": [[0] * 1000] * 1000}},
        {"refused": {"\x1b[2J": {"late": -1}}},
    ]
    run = write(tmp_path / "run", [line(1), *(line(2) | change for change in numbers)], record=record)
    (run / "parts.jsonl").symlink_to("/dev/zero")
    done = report(run, "--out", tmp_path / "out.html", "--csv", tmp_path / "out.csv")
    assert done.exit_code == 0, done.output
    assert (
        "\x1b" not in done.output + (tmp_path / "out.html").read_text() + (tmp_path / "out.csv").read_text()
    )
    assert "parts.jsonl: is a symbolic link" in done.output
    assert "7 more" not in done.output
    assert all(f"history.jsonl: line {number}: " in done.output for number in range(2, 9))


@pytest.mark.usefixtures("undrawn")
def test_a_directory_may_have_any_name(tmp_path: Path) -> None:
    run = write(tmp_path / os.fsdecode(b"run\xff"), [line(1)])
    done = report(run, "--out", tmp_path / "out.html", "--csv", tmp_path / "out.csv")
    assert done.exit_code == 0, done.output
    assert "run\\xff" in (tmp_path / "out.html").read_text()
    assert "run\\xff" in (tmp_path / "out.csv").read_text()


def test_markup_escapes_whatever_is_not_markup() -> None:
    assert tag("p", "<b>", Markup("<i>"), 7, None, class_='"x') == '<p class="&quot;x">&lt;b&gt;<i>7</p>'
    assert text("a\x00\u202eb\n") == "a��b\n"
    assert "<td>&lt;i&gt;</td>" in table(["a", "b"], [["x", "<i>"]], caption="t")
