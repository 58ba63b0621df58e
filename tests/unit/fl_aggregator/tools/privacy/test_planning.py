"""``fl-aggregator privacy plan``: what a budget costs, in three ways, before anybody trains."""

from __future__ import annotations

from typing import Any

import pytest
from click.testing import CliRunner, Result

from fl_aggregator.cli.main import cli
from fl_aggregator.privacy import subsampled
from fl_shared.errors import UserError
from tests.support.schemas import checked

GATEWAYS = ["--clients", "1000", "--per-round", "100", "--rounds", "100", "--epsilon", "2"]
MISSING = "--dp-against models needs dp-accounting: pip install 'fl-mqtt[dp]'"


def plan(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["privacy", "plan", *arguments])


def ways(*arguments: str) -> dict[str, Any]:
    done = plan(*arguments, "--json")
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = checked("fl-aggregator privacy plan", done.output)["ways"]
    return found


@pytest.fixture(autouse=True)
def _not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def library() -> Any:
        raise UserError(MISSING)

    monkeypatch.setattr(subsampled, "library", library)


def test_the_ways_are_beside_each_other() -> None:
    found = ways(*GATEWAYS, "--apart", "10", "--shared-parameters", "21000", "--clip", "0.5")
    independent, correlated = found["independent noise"], found["correlated noise"]
    assert independent["noise"] == pytest.approx(6.30, abs=0.005)
    assert correlated["effective_noise"] == pytest.approx(2.8, abs=0.05)
    assert independent["noise_per_update"] == pytest.approx(6.30 * 21000**0.5 / 100, rel=1e-3)
    assert independent["noise_per_run"] == pytest.approx(independent["noise_per_update"] / 10)
    assert independent["learns"] == "little"
    assert independent["deviation"] == pytest.approx(6.30 * 0.5 / 100, rel=1e-3)
    assert correlated["noise_per_update"] < 0.5 * independent["noise_per_update"]
    assert found["secret cohorts"]["missing"] == MISSING
    assert MISSING in plan(*GATEWAYS).output


def test_with_the_library_cohorts_are_planned_that_are_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("dp_accounting", reason="pip install 'fl-mqtt[dp]'")
    monkeypatch.undo()
    assert ways(*GATEWAYS)["secret cohorts"]["noise"] == pytest.approx(2.25, abs=0.01)


def test_it_says_that_nothing_can_be_learnt() -> None:
    few = ["--clients", "20", "--per-round", "20", "--rounds", "10", "--epsilon", "1"]
    shown = plan(*few, "--shared-parameters", "10000").output
    assert "noise multiplier 11.8" in shown
    assert "the noise of a version is 59 times as long as the longest possible mean update" in shown
    assert (
        "nothing can be learnt: more edges a round, fewer shared parameters, or a larger ε would help"
        in shown
    )
    assert (
        "correlated noise: against whoever sees all models and knows who took part\n  does not help" in shown
    )
    assert "nothing can be learnt with 29 shared parameters or more" in plan(*few).output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--clients", "20", "--per-round", "30"], "--per-round: 30 must not exceed --clients (20)"),
        (["--clients", "0", "--per-round", "1"], "--clients"),
        (["--clients", "20", "--per-round", "3", "--delta", "1"], "--delta"),
        (["--clients", "20", "--per-round", "3", "--shared-parameters", "0"], "--shared-parameters"),
        (["--clients", "20"], "--per-round"),
    ],
)
def test_bad_input_is_named(arguments: list[str], said: str) -> None:
    done = plan(*arguments, "--rounds", "10", "--epsilon", "1")
    assert done.exit_code == 2 or isinstance(done.exception, UserError)
    assert said in str(done.exception) + done.output
