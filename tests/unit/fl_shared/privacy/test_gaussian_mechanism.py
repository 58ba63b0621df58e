"""ε, δ and advantage of Gaussian noise, against dp-accounting's numerical composition."""

from __future__ import annotations

import math
from random import Random
from typing import Final

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fl_shared.privacy.gaussian_mechanism import advantage_of, delta_of, epsilon_of, mu_of

deltas = st.floats(-12, -0.1).map(lambda power: 10**power)
mus = st.floats(1e-3, 100)
epsilons = st.floats(0, 500)

Setting = tuple[float, int, float]


def drawn(chance: Random) -> Setting:
    """Noise multiplier, releases and δ, each evenly by its logarithm."""
    noise = math.exp(chance.uniform(math.log(0.3), math.log(20)))
    return noise, round(1000 ** chance.random()), 10 ** chance.uniform(-9, -2)


def epsilon(setting: Setting) -> float:
    noise, releases, delta = setting
    return epsilon_of(math.sqrt(releases) / noise, delta)


OVERFLOW: Final = 700
"""dp-accounting's exponential of ε overflows a little above it."""
SETTINGS: Final = [one for one in map(drawn, map(Random, range(250))) if epsilon(one) < OVERFLOW][:200]
TOLERANCE: Final = 1e-4
INTERVAL: Final = 5e-3
"""Of dp-accounting's privacy losses, over their deviation: its error is a tenth of the tolerance then."""


def check(setting: Setting) -> None:
    """ε is within 1 in 10,000 of dp-accounting's: its δ falls through ours within that distance."""
    from dp_accounting.pld import privacy_loss_distribution  # a second, which only this file's process spends

    noise, releases, delta = setting
    one = privacy_loss_distribution.from_gaussian_mechanism(
        noise, value_discretization_interval=INTERVAL * min(1.0, 1 / noise)
    )
    found = epsilon(setting)
    near = [found * (1 - TOLERANCE), found * (1 + TOLERANCE)]
    at_less, at_more = one.self_compose(releases).get_delta_for_epsilon(near)
    assert at_more <= delta * (1 + TOLERANCE)
    assert at_more <= delta <= at_less or found == 0


def test_there_are_200_settings_and_few_without_any_loss() -> None:
    assert len(SETTINGS) == 200
    assert sum(epsilon(one) == 0 for one in SETTINGS) < 20


@pytest.mark.parametrize("setting", SETTINGS[:20])
def test_epsilon_is_that_of_dp_accounting(setting: Setting) -> None:
    check(setting)


@pytest.mark.long
@pytest.mark.parametrize("setting", SETTINGS[20:])
def test_epsilon_is_that_of_dp_accounting_in_more_settings(setting: Setting) -> None:
    check(setting)


@pytest.mark.parametrize(
    ("epsilon", "mu", "delta"),
    [
        (0.0, 1.0, 0.3829249225480262),
        (1.0, 1.0, 0.12693673750664383),
        (20.0, 1.0, 2.664706705365236e-86),
        (36.0, 1.0, 6.723189923089847e-278),
        (0.36, 0.01, 1.388819377449047e-287),
        (840.0, 30.0, 4.257976323270744e-39),
    ],
)
def test_delta_with_60_digits(epsilon: float, mu: float, delta: float) -> None:
    """Calculated with mpmath, far into the tails."""
    assert delta_of(epsilon, mu) == pytest.approx(delta, rel=1e-9)


@given(mu=mus, delta=deltas)
def test_delta_of_epsilon_is_delta(mu: float, delta: float) -> None:
    found = epsilon_of(mu, delta)
    assert delta_of(found, mu) <= delta
    if found:
        assert delta_of(found, mu) == pytest.approx(delta, rel=1e-9)


@given(epsilon=epsilons, delta=deltas)
def test_mu_of_inverts_epsilon_of(epsilon: float, delta: float) -> None:
    mu = mu_of(epsilon, delta)
    assert delta_of(epsilon, mu) <= delta
    assert epsilon_of(mu, delta) == pytest.approx(epsilon, rel=1e-9, abs=1e-9)
    assert epsilon_of(mu * (1 + 1e-9), delta) >= epsilon * (1 - 1e-9) - 1e-12


@given(one=mus, other=mus, delta=deltas)
def test_epsilon_grows_with_mu(one: float, other: float, delta: float) -> None:
    assume(other > one * (1 + 1e-9))
    assert epsilon_of(one, delta) <= epsilon_of(other, delta)
    assert advantage_of(one) <= advantage_of(other)


@given(mu=mus, one=deltas, other=deltas)
def test_epsilon_falls_with_delta(mu: float, one: float, other: float) -> None:
    assume(other > one * (1 + 1e-9))
    assert epsilon_of(mu, other) <= epsilon_of(mu, one)


@given(mu=mus)
def test_the_advantage_is_delta_at_epsilon_0(mu: float) -> None:
    assert advantage_of(mu) == pytest.approx(delta_of(0.0, mu), rel=1e-9)
    assert mu_of(0.0, min(advantage_of(mu), 0.9)) == pytest.approx(min(mu, mu_of(0.0, 0.9)), rel=1e-9)


def test_without_a_release_nothing_is_spent() -> None:
    assert (epsilon_of(0.0, 1e-5), delta_of(0.0, 0.0), advantage_of(0.0)) == (0.0, 0.0, 0.0)


def test_little_noise_costs_much() -> None:
    assert epsilon_of(1000.0, 1e-9) > 500_000


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: epsilon_of(1.0, 0.0), "delta: 0.0, expected"),
        (lambda: mu_of(1.0, 1.0), "delta: 1.0, expected"),
        (lambda: mu_of(-1.0, 1e-5), "epsilon: -1.0, expected"),
        (lambda: delta_of(math.nan, 1.0), "epsilon: nan, expected"),
        (lambda: epsilon_of(math.inf, 1e-5), "mu: inf, expected"),
        (lambda: advantage_of(-1.0), "mu: -1.0, expected"),
    ],
)
def test_what_is_no_parameter_is_refused(call: object, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        call()  # type: ignore[operator]
