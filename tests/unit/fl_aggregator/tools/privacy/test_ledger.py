"""What a run has spent is read from its journal, whoever has killed it, and is what the run itself has said."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from rich.console import Console

from fl_aggregator.cli.main import cli
from fl_aggregator.cli.summary import outcome_line, privacy_line
from fl_aggregator.monitoring.terminal.render import View
from fl_aggregator.monitoring.terminal.snapshot import Snapshot
from fl_aggregator.monitoring.terminal.text import round_line, summary_lines
from fl_aggregator.monitoring.tracking.prometheus import privacy_families
from fl_aggregator.monitoring.tracking.tensorboard import scalars
from fl_aggregator.monitoring.views.history_row import columns_of, summary_fields
from fl_aggregator.monitoring.views.status import status_message
from fl_aggregator.round import effects as do
from fl_aggregator.server.outcome import Outcome
from fl_aggregator.storage.journal import FILE_NAME, snapshot_line
from fl_aggregator.storage.replay import replay
from fl_aggregator.storage.run_directory import RunDirectory, read_run
from fl_mqtt.library.result import result_of
from fl_shared.errors import UserError
from fl_shared.privacy.gaussian_mechanism import epsilon_of
from fl_shared.protocol import messages as m
from tests.support.private_federation import RARELY, private_federation
from tests.support.schemas import checked


def command(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, ["privacy", *map(str, arguments)])


def refusal(directory: Path) -> str:
    error = command(directory).exception
    assert isinstance(error, UserError)
    return str(error)


def ledger(directory: Path) -> dict[str, Any]:
    done = command(directory, "--json")
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = checked("fl-aggregator privacy spent", done.output)
    return found


def test_epsilon_is_the_same_in_all_places_and_follows_from_the_journal(tmp_path: Path) -> None:
    run = private_federation(tmp_path / "run", rounds=3, dp_epsilon=50.0, **RARELY)
    state = run.run()
    spent = [one.privacy for _, one in run.published if isinstance(one, m.Result)][-1]
    assert spent is not None
    history = [json.loads(line) for line in (tmp_path / "run" / "history.jsonl").read_text().splitlines()]
    found = ledger(tmp_path / "run")
    assert found["privacy"] == history[-1]["privacy"] == spent.model_dump()
    assert state.privacy == spent
    assert status_message(state, run.scope, run.now).privacy == spent.status
    columns = columns_of(run.runner.history.rows())
    assert columns.epsilon[-1] == spent.epsilon
    said = [epsilon for epsilon in columns.epsilon if epsilon is not None]
    assert said == sorted(said), "it never falls"
    assert f"ε {spent.epsilon:.3g} of 50 at δ = " in (privacy_line(state) or "")
    assert (
        result_of(Outcome(state, 1.0), RunDirectory(tmp_path / "run", resume=True), {}).privacy
        == spent.model_dump()
    )
    record = run.runner.history.recent()[3]
    assert scalars(record)["privacy/epsilon"] == spent.epsilon
    assert summary_fields(record)["privacy"] == spent.model_dump()
    gauges = {family.name: family.samples[0].value for family in privacy_families(spent)}
    assert (gauges["fl_privacy_epsilon"], gauges["fl_privacy_epsilon_budget"]) == (spent.epsilon, 50.0)
    snapshot = Snapshot(status_message(state, run.scope, run.now), recent={3: record})
    console = Console(file=io.StringIO(), width=160)
    console.print(View(snapshot))
    words = f"ε {spent.epsilon:.3g} of 50 at δ = 1e-05"
    assert f"{words}, to whoever sees all models and knows who took part" in console.file.getvalue()  # type: ignore[attr-defined]
    assert any(words in one for one in summary_lines(snapshot))
    assert words in round_line(record, 3)
    assert state.privacy is state.privacy, "it is asked for twice a second, and found out once a release"
    mu = max(edge["mu"] for edge in found["edges"].values())
    assert epsilon_of(mu, spent.delta) == spent.epsilon


def test_the_last_line_says_that_the_budget_is_spent(tmp_path: Path) -> None:
    state = private_federation(tmp_path / "run", rounds=10, dp_epsilon=3.0).run()
    assert outcome_line(Outcome(state, 1.0), "").endswith(" (the privacy budget is spent)")
    assert ledger(tmp_path / "run")["privacy"]["epsilon"] <= 3.0


def test_it_names_each_release_and_each_edge(tmp_path: Path) -> None:
    run = private_federation(tmp_path / "run", rounds=3, dp_bands="1", **RARELY)
    state = run.run()
    found = ledger(tmp_path / "run")
    assert [
        [one[name] for name in ("release", "round", "version", "contributors")] for one in found["releases"]
    ] == [[number, number, number, 2] for number in (1, 2, 3)]
    assert {(one["clip"], one["noise"]) for one in found["releases"]} == {(0.5, 2.0)}
    edges = found["edges"]
    assert {name: tuple(edge["releases"]) for name, edge in edges.items()} == state.releases.taken
    for edge in edges.values():
        assert edge["mu"] == pytest.approx(math.sqrt(len(edge["releases"])) / 2)
    mus = [edge["mu"] for edge in edges.values()]
    assert mus == sorted(mus, reverse=True), "who has spent most comes first"
    lines = command(tmp_path / "run").output.splitlines()
    assert lines[0].endswith("digits, 3 releases of 3")
    assert lines[1].startswith(f"privacy: ε {found['privacy']['epsilon']:.3g} at δ = ")
    assert "can guess whether one edge's data was used" in lines[2]


def test_a_run_that_is_killed_or_goes_on_is_read_and_not_changed(tmp_path: Path) -> None:
    undisturbed = private_federation(tmp_path / "other", rounds=2, dp_insecure_seed=1)
    expected = undisturbed.run().privacy
    commits = [place for place, one in enumerate(undisturbed.effects) if isinstance(one, do.PublishModel)]
    run = private_federation(tmp_path / "run", rounds=2, dp_insecure_seed=1)
    run.kill_at = commits[1]
    seen: list[dict[str, Any]] = []
    start, directory = run.start, tmp_path / "run"

    def look_and_start() -> None:
        if (directory / "run.json").exists():
            with (directory / FILE_NAME).open("ab") as file:
                file.write(b'{"event":"Regis')  # what the kill has cut off
            before = {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}
            seen.append(ledger(directory))
            assert before == {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}
        start()
        if seen:
            assert ledger(directory)["privacy"] == seen[0]["privacy"], (
                "of a run that goes on, with its lock held"
            )

    run.start = look_and_start  # type: ignore[method-assign]
    assert run.run().privacy == expected
    assert [len(one["releases"]) for one in seen] == [1]
    assert seen[0]["privacy"]["insecure"]
    assert "not private" in command(directory).output


def test_a_journal_that_was_compacted_says_the_same(tmp_path: Path) -> None:
    run = private_federation(tmp_path / "run", rounds=3, **RARELY)
    run.run()
    found = ledger(tmp_path / "run")
    for snapshot, _ in replay(read_run(tmp_path / "run"), tmp_path / "run"):  # noqa: B007 (it is the last one)
        pass
    (tmp_path / "run" / FILE_NAME).write_text(snapshot_line(snapshot) + "\n")
    assert ledger(tmp_path / "run") == found


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (None, "contains no run (no run.json), expected a run directory"),
        ({"dp": None, "dp_clip": None, "dp_noise": None, "dp_apart": None}, "has no differential privacy"),
    ],
)
def test_what_is_no_private_run_is_named(tmp_path: Path, settings: dict[str, Any] | None, said: str) -> None:
    (tmp_path / "run").mkdir()
    if settings is not None:
        private_federation(tmp_path / "run", rounds=1, **settings).run()
    assert said in refusal(tmp_path / "run")


def test_a_damaged_journal_is_named(tmp_path: Path) -> None:
    private_federation(tmp_path / "run", rounds=1).run()
    file = tmp_path / "run" / FILE_NAME
    file.write_bytes(b"nothing\n" + file.read_bytes())
    assert "line 1 is not an event" in refusal(tmp_path / "run")


def test_what_another_release_recorded_is_not_guessed(tmp_path: Path) -> None:
    private_federation(tmp_path / "run", rounds=1).run()
    file = tmp_path / "run" / "run.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"machine": 1}))
    assert "recorded by version 1 of the round machine" in refusal(tmp_path / "run")
