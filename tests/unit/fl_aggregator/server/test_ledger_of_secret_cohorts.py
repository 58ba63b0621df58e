"""A budget over runs of which some have secret cohorts: all that was told of an edge is composed."""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from fl_aggregator.privacy.ledger import Earlier, LedgerRelease, spent_before
from fl_aggregator.privacy.plan import make_plan
from fl_aggregator.privacy.subsampled import Releases, composed_epsilon
from fl_aggregator.round import effects as do
from fl_aggregator.round.phases import Finished
from fl_aggregator.round.privacy import spent_by
from fl_aggregator.server import interpreter
from fl_aggregator.tools.privacy.cli import privacy
from fl_shared.errors import UserError
from fl_shared.privacy import gaussian_mechanism
from tests.support.private_federation import Begin, runs_with

DELTA = 1e-5
SECRET = {"dp_against": "models", "dp_apart": None, "per_round": 2, "quorum": 1}


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    return tmp_path / "ledger.jsonl"


@pytest.fixture
def begin(tmp_path: Path, ledger: Path) -> Begin:
    """Makes a run of five edges with the ledger. Its cohorts are known, and all edges are in them."""
    return runs_with(tmp_path, dp_noise=3.0, dp_ledger=str(ledger), dp_delta=DELTA, rounds=2)


def oracle(delta: float, events: Iterable[tuple[float, float]]) -> float:
    """ε of releases, each with a noise multiplier and a rate, by dp-accounting."""
    import dp_accounting
    from dp_accounting.pld import PLDAccountant

    accountant = PLDAccountant(
        dp_accounting.NeighboringRelation.REPLACE_SPECIAL, value_discretization_interval=5e-4
    )
    for (noise, rate), count in Counter(events).items():
        gaussian = dp_accounting.GaussianDpEvent(noise)
        accountant.compose(
            gaussian if rate == 1 else dp_accounting.PoissonSampledDpEvent(rate, gaussian), count
        )
    return float(accountant.get_epsilon(delta))


def said(state: Any) -> Any:
    """What the run says at its end."""
    return spent_by(state.settings.privacy, state.releases)


def lines(ledger: Path) -> list[dict[str, Any]]:
    """The lines about sums."""
    return [line for line in map(json.loads, ledger.read_text().splitlines()) if not line["published"]]


def test_two_runs_spend_as_much_as_the_same_releases_in_one(begin: Begin, ledger: Path) -> None:
    first, second = (begin(name, **SECRET).run() for name in "ab")
    whole = begin("whole", rounds=4, **SECRET, dp_ledger=None).run()
    assert said(first).epsilon < said(second).epsilon
    assert said(second).epsilon == pytest.approx(said(whole).epsilon, rel=1e-6)
    assert said(second).advantage == pytest.approx(said(whole).advantage, rel=1e-6)
    assert said(second).wire_epsilon == pytest.approx(said(whole).wire_epsilon, rel=1e-9)
    assert [(one["contributors"], one["rate"]) for one in lines(ledger)] == [([], 0.4)] * 4, "no names"


def test_secret_cohorts_after_known_ones_are_composed_with_what_edges_have_spent_at_most(
    begin: Begin,
) -> None:
    begin("known", clients=2, rounds=1).run()
    begin("more", rounds=2).run()
    state = begin("secret", rounds=3, **SECRET, dp_noise=2.0).run()
    assert said(state).epsilon == pytest.approx(oracle(DELTA, [(3.0, 1.0)] * 3 + [(2.0, 0.4)] * 3), rel=1e-3)
    mu = math.sqrt(3 / 9 + 3 / 4)
    assert said(state).wire_epsilon == pytest.approx(gaussian_mechanism.epsilon_of(mu, DELTA), rel=1e-9)


def test_known_cohorts_after_secret_ones_count_all_edges_in_these(begin: Begin) -> None:
    """Who was in a secret cohort must not show in who may take part later."""
    begin("secret", **SECRET).run()
    state = begin("known", rounds=3, dp_noise=2.0).run()
    assert said(state).epsilon == pytest.approx(oracle(DELTA, [(3.0, 1.0)] * 2 + [(2.0, 1.0)] * 3), rel=1e-3)
    assert state.settings.privacy.limits == {}


def test_the_noise_is_the_least_with_which_all_runs_are_within_the_budget(begin: Begin) -> None:
    first = begin("first", **SECRET).run()
    budget = 2 * said(first).epsilon
    secret = begin("secret", **SECRET, rounds=3, dp_noise=None, dp_epsilon=budget).run()
    assert 0.999 * budget < said(secret).epsilon <= budget
    assert secret.version == 3
    budget = 2 * said(secret).wire_epsilon
    known = begin("known", rounds=2, dp_noise=None, dp_epsilon=budget).run()
    assert known.version == 2
    assert said(known).epsilon == pytest.approx(budget, rel=1e-9)


def test_a_run_ends_before_the_release_that_would_exceed_the_budget(begin: Begin) -> None:
    budget = said(begin("whole", rounds=5, **SECRET, dp_ledger=None).run()).epsilon * 1.001
    assert begin("first", **SECRET, dp_epsilon=budget, rounds=3).run().version == 3
    second = begin("second", **SECRET, dp_epsilon=budget, rounds=4).run()
    assert isinstance(second.phase, Finished)
    assert (second.phase.reason, second.version) == ("privacy-budget", 2)
    assert said(second).epsilon <= budget


@pytest.mark.parametrize("against", [{}, SECRET])
def test_where_nothing_is_left_no_run_begins(begin: Begin, against: dict[str, Any]) -> None:
    begin("first", **SECRET).run()
    run = begin("second", **against, dp_noise=None, dp_epsilon=0.1)
    with pytest.raises(
        UserError, match=r"^--dp-epsilon: 0.1: earlier runs .* of each edge, which leaves nothing"
    ):
        run.start()
    assert not run.directory.exists()


def test_what_is_too_much_to_compose_is_said(begin: Begin) -> None:
    begin("first", dp_noise=0.1, rounds=1).run()
    with pytest.raises(
        UserError, match=r"^--dp-ledger: earlier runs have told more of an edge than one release"
    ):
        begin("second", **SECRET).start()


def test_killed_before_any_kind_of_effect_it_counts_each_release_once(
    begin: Begin, ledger: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interpreter, "draw", lambda *_: ("0", "1"))
    undisturbed = begin("undisturbed", **SECRET)
    expected = said(undisturbed.run()).epsilon
    kinds = {type(effect): place for place, effect in enumerate(undisturbed.effects)}
    for place in sorted({kinds[kind] for kind in (do.Average, do.PublishModel, do.WriteHistory)}):
        own = ledger.with_name(f"{place}.jsonl")
        killed = begin(f"killed-{place}", **SECRET, dp_ledger=str(own))
        killed.kill_at = place
        assert said(killed.run()).epsilon == pytest.approx(expected, rel=1e-12)
        assert killed.kills == 1
        assert [one["round"] for one in lines(own)] == [1, 2]


def test_the_command_shows_all_that_was_told(begin: Begin) -> None:
    before = said(begin("first", **SECRET).run()).epsilon
    run = begin("second", **SECRET)
    total = said(run.run()).epsilon
    shown = CliRunner().invoke(privacy, [str(run.directory)]).output.splitlines()
    assert f"ε {total:.3g} at δ = 1e-05" in shown[1]
    assert shown[2] == f"earlier runs with the same ledger: ε {before:.3g} of it"
    found = json.loads(CliRunner().invoke(privacy, [str(run.directory), "--json"]).output)
    assert found["earlier_epsilon"] == pytest.approx(before)
    assert found["privacy"]["epsilon"] == total


@pytest.mark.parametrize(
    "seed", [*range(4), *(pytest.param(seed, marks=pytest.mark.long) for seed in range(4, 60))]
)
def test_epsilon_is_that_of_dp_accounting_for_the_same_releases(seed: int) -> None:
    """Random ledgers of up to three runs, of both kinds, before a run of either kind."""
    draw = random.Random(seed)
    releases: list[LedgerRelease] = []
    models: list[tuple[float, float]] = []
    wire: list[tuple[float, float]] = []
    for run in range(draw.randrange(4)):
        is_secret, noise = draw.random() < 0.5, draw.uniform(1.5, 8)
        rate = draw.choice([draw.uniform(0.01, 0.5), 1.0]) if is_secret else None
        for number in range(1, draw.randrange(2, 12)):
            names = () if is_secret else ("a", "b") if draw.random() < 0.5 else ("b",)
            releases.append(
                LedgerRelease(
                    run=f"r{run}", round=number, version=number, clip=1.0, noise=noise, contributors=names,
                    rate=rate,
                )
            )  # fmt: skip
            models.append((noise, 1.0 if rate is None else rate))
            wire.append((noise, 1.0))
    earlier = spent_before(releases)
    delta, noise, count = 10 ** draw.uniform(-8, -3), draw.uniform(1.5, 8), draw.randrange(1, 12)
    common: dict[str, Any] = {
        "mechanism": "central", "clip": 1.0, "noise": noise, "times": None, "delta": delta, "epsilon": None,
        "apart": 1, "bands": 1, "releases": count, "earlier": earlier,
    }  # fmt: skip
    secret = make_plan(**common, against="models", rate=0.2)
    assert secret.planned_epsilon == pytest.approx(oracle(delta, models + [(noise, 0.2)] * count), rel=1e-3)
    known = make_plan(**common)
    assert known.planned_epsilon == pytest.approx(oracle(delta, wire + [(noise, 1.0)] * count), rel=1e-3)
    assert secret.earlier_epsilon <= known.earlier_epsilon * (1 + 1e-3)


def test_a_round_with_two_lines_is_one_release() -> None:
    common: dict[str, Any] = {
        "run": "r",
        "version": 1,
        "clip": 1.0,
        "noise": 2.0,
        "contributors": (),
        "rate": 0.5,
    }
    found = spent_before(
        LedgerRelease(**common, round=number, published=published)
        for number, published in ((1, False), (1, True), (2, False))
    )
    assert found == Earlier(secret=(Releases(2.0, 0.5, 2),))
    assert found.of_models == found.secret
    assert composed_epsilon(found.of_models, DELTA) > 0
