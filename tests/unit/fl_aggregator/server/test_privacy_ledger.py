"""A budget over runs: the ledger of private runs, and aggregators that are killed while they write it."""

from __future__ import annotations

import json
import logging
import math
import shutil
from pathlib import Path
from typing import Any

import pytest

from fl_aggregator.configuration.settings import Settings
from fl_aggregator.privacy.accounting import spent
from fl_aggregator.privacy.ledger import Earlier, LedgerRelease, spent_before
from fl_aggregator.round import effects as do
from fl_aggregator.round.phases import Finished
from fl_aggregator.round.privacy import spent_by
from fl_aggregator.server import launch
from fl_aggregator.storage.append_log import AppendLog
from fl_aggregator.storage.checkpoint import Checkpoints
from fl_shared.errors import UserError
from tests.support.masked_federation import Killed, MaskedFederation
from tests.support.private_federation import Begin, runs_with
from tests.support.simulated_masked_edge import PARAMETERS_ONLY


class Torn(Exception):
    """The aggregator has ended in the middle of a line."""


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    return tmp_path / "ledger.jsonl"


@pytest.fixture
def begin(tmp_path: Path, ledger: Path) -> Begin:
    """Makes a run with five edges, and with the ledger, unless it is told otherwise."""
    return runs_with(tmp_path, dp_noise=4.0, dp_ledger=str(ledger))


def lines(ledger: Path) -> list[dict[str, Any]]:
    """The lines about sums, without those about publication."""
    found = [json.loads(line) for line in ledger.read_text().splitlines()]
    return [one for one in found if not one["published"]]


def said(state: Any) -> float:
    """ε as the run says it at its end."""
    return float(spent_by(state.settings.privacy, state.releases).epsilon)


@pytest.mark.parametrize("bands", ["1", "3"])
def test_two_runs_of_five_releases_spend_as_much_as_the_same_in_one(
    begin: Begin, ledger: Path, bands: str
) -> None:
    first = begin("first", rounds=5, dp_bands=bands, dp_apart="2", clients=6, per_round=3, quorum=3).run()
    second = begin("second", rounds=5, dp_bands=bands, dp_apart="2", clients=6, per_round=3, quorum=3).run()
    alone = first.settings.privacy
    assert (alone.earlier, second.settings.privacy.model_copy(update={"earlier": Earlier()})) == (
        Earlier(),
        alone,
    )
    mu = [spent(alone, each.releases.taken, each.releases.noises).mu for each in (first, second)]
    assert spent_by(second.settings.privacy, second.releases).mu == pytest.approx(math.hypot(*mu), rel=1e-9)
    if bands == "1":
        whole = begin("whole", rounds=10, dp_ledger=None).run()
        five = [begin(name, rounds=5, dp_ledger=f"{ledger}2").run() for name in "ab"]
        assert said(five[1]) == pytest.approx(said(whole), rel=1e-9)
        assert said(five[0]) < said(whole)
    else:
        assert first.settings.privacy.bands == 3, "else the noise is not correlated"


def test_a_budget_holds_over_runs(begin: Begin) -> None:
    """Of a budget for six releases, four are spent by the first run, and two are left for the second."""
    enough = {"dp_epsilon": said(begin("all", rounds=6, dp_ledger=None).run())}
    assert begin("first", rounds=4, **enough).run().version == 4
    second = begin("second", rounds=4, **enough).run()
    assert isinstance(second.phase, Finished)
    assert (second.phase.reason, second.version) == ("privacy-budget", 2)
    assert said(second) == pytest.approx(enough["dp_epsilon"], rel=1e-9)
    third = begin("third", rounds=4, **enough).run()
    assert (third.phase.reason, third.version) == ("privacy-budget", 0)
    other = begin("other", rounds=4, dp_epsilon=enough["dp_epsilon"] * 1.1).run()
    assert other.version >= 1, "a larger budget has something left"


def test_who_has_spent_less_may_contribute_more_often(begin: Begin) -> None:
    enough = {"dp_epsilon": said(begin("all", rounds=4, dp_ledger=None).run())}
    begin("first", clients=2, rounds=4, **enough).run()
    state = begin("second", clients=5, per_round=3, quorum=3, rounds=9, **enough).run()
    assert state.settings.privacy.limits == {"0": 0, "1": 0}
    assert sorted(state.releases.taken) == ["2", "3", "4"]
    assert state.version == 4


def test_each_version_has_a_line_before_its_sum_is_made(
    begin: Begin, ledger: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, append = begin("run", rounds=3), AppendLog.append
    seen: list[int] = []

    def watched(log: AppendLog, record: str, *, sync: bool = False) -> None:
        append(log, record, sync=sync)
        if '"published":' in record and not json.loads(record)["published"]:
            seen.append(json.loads(record)["version"])
            assert sync, "it must be on the disk"
            assert not Checkpoints(run.directory).version_path(seen[-1]).exists()

    monkeypatch.setattr(AppendLog, "append", watched)
    state = run.run()
    assert seen == [1, 2, 3]
    assert ledger.stat().st_mode & 0o777 == 0o600
    assert not list(ledger.parent.glob("ledger.jsonl.*")), "the lock is gone"
    for line in lines(ledger):
        assert sorted(line["contributors"]) == sorted(
            name for name, versions in state.releases.taken.items() if line["version"] in versions
        )


def test_killed_before_any_kind_of_effect_it_counts_each_release_once(begin: Begin, ledger: Path) -> None:
    undisturbed = begin("undisturbed", rounds=2)
    undisturbed.run()
    expected = [(one["version"], one["round"], one["contributors"]) for one in lines(ledger)]
    kinds = {type(effect): place for place, effect in enumerate(undisturbed.effects)}
    for place in sorted({kinds[kind] - before for kind in kinds for before in (0, 1)} - {-1}):
        own = ledger.with_name(f"{place}.jsonl")
        killed = begin(f"killed-{place}", rounds=2, dp_ledger=str(own))
        killed.kill_at = place
        killed.run()
        assert killed.kills == 1
        found = [(one["version"], one["round"], one["contributors"]) for one in lines(own)]
        assert found == expected, undisturbed.effects[place]


def test_a_line_that_is_not_whole_is_not_counted_since_its_version_is_nowhere(
    begin: Begin, ledger: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The aggregator is killed in the middle of the line of version 2."""
    run, append = begin("run", rounds=3), AppendLog.append
    torn: list[str] = []

    def tear(log: AppendLog, record: str, *, sync: bool = False) -> None:
        if not torn and record.startswith('{"run"') and json.loads(record).get("version") == 2:
            torn.append(record)
            with ledger.open("a") as file:
                file.write(record[: len(record) // 2])
            raise Torn
        append(log, record, sync=sync)

    monkeypatch.setattr(AppendLog, "append", tear)
    with pytest.raises(Torn):
        run.run()
    run.end()
    assert {one.model.version for one in run.effects if isinstance(one, do.PublishModel)} == {0, 1}
    assert not Checkpoints(run.directory).version_path(2).exists()
    assert not ledger.read_text().endswith("\n")
    with caplog.at_level(logging.WARNING):
        assert run.run().version == 3
    assert f"--dp-ledger {ledger}: line 3 is incomplete and is not counted" in caplog.text
    assert [one["version"] for one in lines(ledger)] == [1, 2, 3]


def test_two_aggregators_cannot_have_one_ledger(begin: Begin, tmp_path: Path, ledger: Path) -> None:
    run = begin("run", rounds=2)
    run.start()
    with pytest.raises(UserError, match=r"--dp-ledger .*ledger.jsonl: in use by another aggregator"):
        launch.new(run.settings, tmp_path / "other")
    assert not (tmp_path / "other").exists()
    run.end()
    launch.new(run.settings, tmp_path / "other").close()


def killed_after(version: int, run: MaskedFederation) -> MaskedFederation:
    """Lets a run go on until it has published a version."""
    run.start()
    perform = run.runner.interpreter.perform

    def watched(effect: do.Effect, state: Any) -> None:
        perform(effect, state)
        if isinstance(effect, do.PublishModel) and effect.model.version == version:
            raise Killed

    run.runner.interpreter.perform = watched  # type: ignore[method-assign]
    with pytest.raises(Killed):
        run.deliver()
    run.end()
    return run


def test_a_run_does_not_go_on_if_another_has_spent_since(begin: Begin) -> None:
    run = killed_after(2, begin("run", rounds=3))
    begin("other", rounds=1).run()
    with pytest.raises(UserError, match="other runs have spent budget since run"):
        launch.resume(run.directory, simulated=False)


def test_a_run_whose_line_is_lost_does_not_go_on(begin: Begin, ledger: Path) -> None:
    run = killed_after(2, begin("run", rounds=3))
    ledger.write_text(ledger.read_text().splitlines()[0] + "\n")
    with pytest.raises(UserError, match="has no line of version 2"):
        launch.resume(run.directory, simulated=False)


@pytest.mark.parametrize("version", [2, 3])
def test_an_older_copy_of_a_run_does_not_go_on(begin: Begin, tmp_path: Path, version: int) -> None:
    """It would make another version 2 of other updates, and nobody would be charged for it."""
    run = killed_after(1, begin("run", rounds=3))
    shutil.copytree(run.directory, tmp_path / "copy")
    if version == 2:
        killed_after(2, begin("run", rounds=3))
    else:
        begin("run", rounds=3).run()
    with pytest.raises(UserError, match="journal ends after version 1: the run directory is an older copy"):
        launch.resume(tmp_path / "copy", simulated=False)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ('{"run": "r"}\n', r"line 1: round: Field required: restore the file"),
        ("[]\n", r"line 1: .*restore the file"),
        ("{\n", r"line 1: .*restore the file"),
    ],
)
def test_a_damaged_ledger_is_refused(begin: Begin, ledger: Path, damage: str, message: str) -> None:
    ledger.write_text(damage)
    run = begin("run")
    with pytest.raises(UserError, match=message):
        run.start()
    assert not run.directory.exists()
    assert ledger.read_text() == damage


def test_a_ledger_must_outlive_its_run(begin: Begin, tmp_path: Path) -> None:
    run = begin("run", dp_ledger=str(tmp_path / "run" / "ledger.jsonl"))
    with pytest.raises(UserError, match="is in the run's directory"):
        run.start()


def test_noise_from_a_known_seed_is_in_no_ledger() -> None:
    given = {"dp": "central", "dp_clip": "1", "dp_noise": 1.0, "dp_ledger": "f", "dp_insecure_seed": 1}
    with pytest.raises(ValueError, match=r"--dp-ledger f: noise from a known seed"):
        Settings.model_validate(given)


def test_a_round_with_two_lines_is_charged_to_all_in_them() -> None:
    """Its aggregator was killed after the first line, and has lost an update."""
    common: dict[str, Any] = {"run": "r", "round": 3, "version": 1, "clip": 1.0, "noise": 2.0}
    found = spent_before(
        [
            LedgerRelease(**common, contributors=("a", "b")),
            LedgerRelease(**common, contributors=("a", "c")),
            LedgerRelease(**{**common, "round": 4, "version": 2, "noise": 4.0}, contributors=("a",)),
        ]
    )
    assert found.squares == {"a": 1 / 4 + 1 / 16, "b": 1 / 4, "c": 1 / 4}


def test_a_masked_sum_is_charged_before_it_is_opened(tmp_path: Path, ledger: Path) -> None:
    """Also if the round is abandoned then: who opened it may have seen it."""
    settings: dict[str, Any] = {
        "dp": "distributed",
        "dp_clip": "0.5",
        "dp_noise": 20.0,
        "dp_ledger": str(ledger),
    }
    run = MaskedFederation(
        tmp_path / "run", clients=5, rounds=2, manifest=PARAMETERS_ONLY, dp_apart="1", **settings
    )
    at_opening: list[list[int]] = []
    run.start()
    perform = run.runner.interpreter.masked.ask_to_open

    def watched(effect: do.PublishReveal) -> None:
        at_opening.append([one["round"] for one in lines(ledger)])
        perform(effect)

    run.runner.interpreter.masked.ask_to_open = watched  # type: ignore[method-assign]
    run.deliver()
    run.end()
    assert at_opening == [[1], [1, 2]]
    privacy = run.state.settings.privacy
    told = spent_before(LedgerRelease.model_validate(one) for one in lines(ledger))
    for client, square in told.squares.items():
        assert square == pytest.approx(
            spent(privacy, {client: run.state.releases.taken[client]}, run.state.releases.noises).mu ** 2,
            rel=1e-12,
        )
