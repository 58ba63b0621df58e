"""Secret cohorts are accounted as dp-accounting does it."""

from __future__ import annotations

import math
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from fl_aggregator.privacy.subsampled import (
    LEAST_NOISE,
    Releases,
    Spending,
    composed_epsilon,
    epsilon_of,
    noise_for,
)
from fl_shared.errors import UserError
from fl_shared.privacy import gaussian_mechanism


def oracle(delta: float, *spent: Releases) -> float:
    import dp_accounting  # a second, which only this file's process spends
    from dp_accounting.pld import PLDAccountant

    accountant = PLDAccountant(
        dp_accounting.NeighboringRelation.REPLACE_SPECIAL, value_discretization_interval=1e-3
    )
    for noise, rate, count in spent:
        one = dp_accounting.PoissonSampledDpEvent(rate, dp_accounting.GaussianDpEvent(noise))
        accountant.compose(dp_accounting.SelfComposedDpEvent(one, count))
    return float(accountant.get_epsilon(delta))


@pytest.mark.parametrize(
    ("releases", "delta", "epsilon"),
    [
        (Releases(1.0, 0.1, 100), 1e-5, 7.0466),
        (Releases(0.8, 0.01, 1000), 1e-6, 3.7066),
        (Releases(4.0, 1.0, 10), 1e-5, 3.3414),
    ],
)
def test_epsilon_is_that_of_dp_accounting(releases: Releases, delta: float, epsilon: float) -> None:
    """The figures are also those of Microsoft's prv-accountant, within its bounds."""
    found = epsilon_of(*releases, delta)
    assert found == pytest.approx(oracle(delta, releases), rel=1e-6)
    assert found == pytest.approx(epsilon, abs=2e-4)


def test_releases_of_several_runs_are_composed() -> None:
    spent = (Releases(2.0, 0.1, 20), Releases(1.5, 0.05, 30))
    found = composed_epsilon(spent, 1e-5)
    assert found == pytest.approx(oracle(1e-5, *spent), rel=1e-6)
    assert found > max(epsilon_of(*one, 1e-5) for one in spent)
    half = Releases(2.0, 0.1, 10)
    assert composed_epsilon([half, half], 1e-5) == pytest.approx(epsilon_of(2.0, 0.1, 20, 1e-5), rel=1e-6)


def test_without_a_release_nothing_is_spent() -> None:
    assert composed_epsilon([], 1e-5) == composed_epsilon([Releases(1.0, 0.1, 0)], 1e-5) == 0.0


def test_everybody_in_each_release_is_the_gaussian_mechanism() -> None:
    exact = gaussian_mechanism.epsilon_of(math.sqrt(30) / 5, 1e-6)
    assert epsilon_of(5.0, 1.0, 30, 1e-6) == pytest.approx(exact, rel=1e-4)


@pytest.mark.parametrize(
    ("epsilon", "delta", "rate", "releases"),
    [(2.0, 1e-5, 0.1, 100), (3.0, 1e-5, 0.5, 3), (0.1, 1e-6, 1.0, 10), (1.0, 1e-6, 0.01, 200)],
)
def test_the_noise_is_the_least_within_the_budget(
    epsilon: float, delta: float, rate: float, releases: int
) -> None:
    noise = noise_for(epsilon, delta, rate, releases)
    assert epsilon_of(noise, rate, releases, delta) <= epsilon
    assert epsilon_of(noise * (1 - 1e-4), rate, releases, delta) > epsilon


def test_the_noise_of_the_design() -> None:
    """ε 2 at δ 10⁻⁵ in 100 rounds, a tenth of the edges in each: 2.25, where independent noise for all needs 6.3."""
    assert noise_for(2.0, 1e-5, 0.1, 100) == pytest.approx(2.25, abs=0.01)


def test_a_missing_package_is_named_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dp_accounting", None)
    expected = r"^--dp-against models needs .*: pip install 'fl-mqtt\[dp\]'$"
    with pytest.raises(UserError, match=expected):
        epsilon_of(1.0, 0.1, 10, 1e-5)
    with pytest.raises(UserError, match=expected):
        noise_for(1.0, 1e-5, 0.1, 10)


def test_the_package_is_imported_when_it_is_needed() -> None:
    code = "import sys, fl_aggregator.privacy.subsampled; sys.exit('dp_accounting' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    "call",
    [
        lambda: epsilon_of(0.0, 0.1, 10, 1e-5),
        lambda: epsilon_of(1.0, 0.0, 10, 1e-5),
        lambda: epsilon_of(1.0, 1.1, 10, 1e-5),
        lambda: epsilon_of(1.0, 0.1, -1, 1e-5),
        lambda: epsilon_of(1.0, 0.1, 10, 0.0),
        lambda: noise_for(0.0, 1e-5, 0.1, 10),
        lambda: noise_for(1.0, 1e-5, 0.1, 0),
    ],
)
def test_what_is_no_release_is_refused(call: object) -> None:
    with pytest.raises(ValueError, match="expected"):
        call()  # type: ignore[operator]


def test_what_was_spent_is_composed_once_whoever_asks_at_the_same_time() -> None:
    """The run and its views do, on threads of their own: ε of a later release would be that of an earlier one."""
    spending = Spending(1.0, 1 / 3, 1e-5)
    start = threading.Barrier(4)

    def ask(_: int) -> list[tuple[float, float]]:
        start.wait()
        return [spending.after(number) for number in range(4)]

    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(ask, range(4)))
    expected = [0.0, *(epsilon_of(1.0, 1 / 3, number, 1e-5) for number in (1, 2, 3))]
    for answers in found:
        assert [epsilon for epsilon, _ in answers] == pytest.approx(expected, rel=1e-6)


def test_a_delta_within_the_tails_that_are_left_out_is_refused() -> None:
    """No noise would be enough: the search would find that of an infinite ε."""
    with pytest.raises(UserError, match=r"needs δ of at least 1e-12, but it is 1e-300"):
        noise_for(2.0, 1e-300, 0.1, 10)


def test_less_than_the_least_noise_is_never_found() -> None:
    assert noise_for(100.0, 1e-5, 1e-6, 1) == LEAST_NOISE
