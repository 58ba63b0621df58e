"""Settings: the reference workload by default, and errors that name option, value and what was expected."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from fl_aggregator.configuration.settings import Settings, parse_settings
from fl_shared.errors import UserError


def test_the_defaults_are_the_reference_workload() -> None:
    """Issue 2, item 4."""
    assert parse_settings().model_dump() == {
        "task": "digits",
        "task_option": {},
        "clients": 20,
        "per_round": 10,
        "edges_per_round": None,
        "fold_bits": "auto",
        "sums": {"combine": "", "transforms": (), "norms": False, "needs_each": ""},
        "region": None,
        "mode": "sync",
        "buffer": None,
        "concurrency": None,
        "staleness": None,
        "max_staleness": None,
        "rounds": 10,
        "epochs": None,
        "strategy": "fedavg",
        "combine": None,
        "server_optimizer": None,
        "transform": (),
        "correct": (),
        "clip_gradients": 0.0,
        "logit_adjustment": 0.0,
        "precision": "float32",
        "chunk": 2**20,
        "durability": "process",
        "require_sealed": False,
        "encoding": "f32",
        "model_encoding": "f32",
        "batch_size": None,
        "lr": None,
        "lr_decay": 1.0,
        "momentum": None,
        "deadline": 600.0,
        "pace": "fixed",
        "quorum": None,
        "over_select": 0,
        "grace": 5.0,
        "wait": 600.0,
        "target": None,
        "serve": "newest",
        "similarity": 0,
        "keep_local": (),
        "personalize": 0,
        "train_examples": None,
        "partition": "iid",
        "holdout": 0.2,
        "evaluate_every": 1,
        "seed": 0,
        "prefix": "fl",
        "max_examples": 1_000_000,
        "max_delta": 100.0,
        "max_buffer": 1e12,
        "max_clients": None,
        "masked": False,
        "masked_min": None,
        "masked_colluders": None,
        "unmask_wait": None,
        "privacy": None,
        "survey": None,
        "look": None,
        "dp": None,
        "dp_epsilon": None,
        "dp_noise": None,
        "dp_delta": None,
        "dp_clip": None,
        "dp_against": "wire",
        "dp_apart": None,
        "dp_times": None,
        "dp_bands": None,
        "dp_ledger": None,
        "dp_accuracy": False,
        "dp_insecure_seed": None,
    }


def test_the_roster_has_room_for_many_beyond_the_clients() -> None:
    assert parse_settings(clients=30).roster_limit == 10_030
    assert parse_settings(clients=30, max_clients=40).roster_limit == 40
    with pytest.raises(UserError, match=r"--max-clients: 19 must not be less than --clients \(20\)"):
        parse_settings(max_clients=19)


def test_what_was_not_given_has_its_default() -> None:
    """The command line hands over null for an option that nobody gave."""
    assert parse_settings(clients=None, lr=None, quorum=None) == Settings()


@pytest.mark.parametrize(
    ("given", "option", "value", "expected"),
    [
        ({"clients": 0}, "--clients", "0", "greater than or equal to 1"),
        ({"clients": 1_000_001}, "--clients", "1000001", "less than or equal to 1000000"),
        ({"clients": "many"}, "--clients", "'many'", "valid integer"),
        ({"per_round": 2.5}, "--per-round", "2.5", "valid integer"),
        ({"rounds": -1}, "--rounds", "-1", "greater than or equal to 1"),
        ({"epochs": 0}, "--epochs", "0", "greater than or equal to 1"),
        ({"batch_size": 0}, "--batch-size", "0", "greater than or equal to 1"),
        ({"lr": 0}, "--lr", "0", "greater than 0"),
        ({"lr": math.nan}, "--lr", "nan", "finite number"),
        ({"lr": math.inf}, "--lr", "inf", "finite number"),
        ({"lr_decay": 1.5}, "--lr-decay", "1.5", "less than or equal to 1"),
        ({"momentum": 1}, "--momentum", "1", "less than 1"),
        ({"deadline": 0}, "--deadline", "0", "greater than 0"),
        ({"wait": -1}, "--wait", "-1", "greater than 0"),
        ({"grace": -0.5}, "--grace", "-0.5", "greater than or equal to 0"),
        ({"quorum": 0}, "--quorum", "0", "greater than or equal to 1"),
        ({"over_select": -1}, "--over-select", "-1", "greater than or equal to 0"),
        ({"target": "0.95"}, "--target", "0.95", "METRIC=VALUE"),
        ({"target": "mae=low"}, "--target", "mae=low", "METRIC=VALUE"),
        ({"target": "mae=nan"}, "--target", "mae=nan", "finite number"),
        ({"target": "=1"}, "--target", "=1", "METRIC=VALUE"),
        ({"train_examples": 0}, "--train-examples", "0", "greater than or equal to 1"),
        ({"train_examples": 2**54}, "--train-examples", str(2**54), "less than or equal to 9007199254740992"),
        ({"holdout": 0.95}, "--holdout", "0.95", "less than or equal to 0.9"),
        ({"evaluate_every": 0}, "--evaluate-every", "0", "greater than or equal to 1"),
        ({"seed": -1}, "--seed", "-1", "greater than or equal to 0"),
        ({"seed": 2**53}, "--seed", "9007199254740992", "less than 9007199254740992"),
        ({"max_examples": 0}, "--max-examples", "0", "greater than or equal to 1"),
        ({"chunk": 100}, "--chunk", "100", "greater than or equal to 1024"),
        ({"durability": "always"}, "--durability", "'always'", "'process', 'power' or 'memory'"),
        ({"max_delta": 0}, "--max-delta", "0", "greater than 0"),
        ({"max_buffer": 0}, "--max-buffer", "0", "greater than 0"),
        ({"partition": "dirichlet"}, "--partition", "'dirichlet'", "ALPHA is missing"),
        ({"partition": "dirichlet:-1"}, "--partition", "'dirichlet:-1'", "expected 0.001"),
        ({"partition": "by-name"}, "--partition", "'by-name'", "--partition 'by-name': expected iid, shards"),
        ({"task": "no such task"}, "--task", "'no such task'", "expected the name of a task, such as digits"),
        ({"prefix": "a/+/b"}, "--prefix", "'a/+/b'", "expected topic levels without"),
        ({"prefix": ""}, "--prefix", "''", "expected topic levels without"),
        ({"nonsense": 3}, "--nonsense", "3", "not permitted"),
        # What follows from a wrong value was not given:
        ({"mode": "async", "concurrency": 0}, "--concurrency", "0", "greater than or equal to 1"),
        ({"mode": "async", "buffer": 0}, "--buffer", "0", "greater than or equal to 1"),
        ({"mode": "async", "concurrency": 4_000_000}, "--concurrency", "4000000", "equal to 1000000"),
        # What does not fit together:
        ({"clients": 4, "per_round": 10}, "--per-round", "10", "must not exceed --clients (4)"),
        ({"quorum": 11}, "--quorum", "11", "must not exceed --per-round (10)"),
        ({"over_select": 11}, "--over-select", "11", "must not exceed --clients (20)"),
        ({"train_examples": 19}, "--train-examples", "19", "20 clients"),
        ({"max_delta": 1e12}, "--max-delta", "-2", "expected at least 20"),
        ({"max_delta": 1e-9, "max_examples": 9}, "--max-delta", "1e-09", "expected more"),
        ({"lr_decay": 0.1, "rounds": 1000}, "--lr-decay", "0.1", "expected a larger factor"),
    ],
)
def test_an_error_names_option_value_and_expectation(
    given: dict[str, Any], option: str, value: str, expected: str
) -> None:
    with pytest.raises(UserError) as caught:
        parse_settings(**given)
    text = str(caught.value)
    assert re.match(rf"{re.escape(option)}[ :]", text), text
    assert value in text
    assert expected in text
    assert "\n" not in text
    assert caught.value.exit_code == 2


def test_a_round_collects_ten_updates_or_one_from_each_client() -> None:
    assert [parse_settings(clients=clients).per_round for clients in (1, 3, 10, 11, 20)] == [1, 3, 10, 10, 10]
    assert parse_settings(clients=30, per_round=20).per_round == 20
    assert Settings.model_validate_json(parse_settings(clients=3).model_dump_json()) == parse_settings(
        clients=3
    )


@pytest.mark.parametrize(
    ("per_round", "quorum", "needed"), [(10, None, 5), (9, None, 5), (1, None, 1), (2, None, 1), (10, 10, 10)]
)
def test_the_quorum_is_half_of_per_round_rounded_up(per_round: int, quorum: int | None, needed: int) -> None:
    assert parse_settings(per_round=per_round, quorum=quorum).effective_quorum == needed


def test_what_fits_exactly_is_allowed() -> None:
    exact = parse_settings(clients=4, per_round=3, over_select=1, quorum=3, train_examples=4)
    assert exact.partition_at(3).count == 4


def test_the_learning_rate_decays_by_version() -> None:
    decaying = parse_settings(lr=0.1, lr_decay=0.5)
    assert [decaying.training_request(version).lr_factor for version in range(4)] == [1, 0.5, 0.25, 0.125]
    assert parse_settings().training_request(9).lr_factor == 1


def test_an_edges_part() -> None:
    part = parse_settings(partition="dirichlet:0.5", seed=7, holdout=0.1, train_examples=600).partition_at(3)
    assert part.model_dump() == {
        "index": 3,
        "count": 20,
        "scheme": "dirichlet:0.5",
        "seed": 7,
        "holdout": 0.1,
        "examples": 600,
    }


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError):
        Settings().seed = 3  # type: ignore[misc]


@settings(deadline=None, max_examples=60)
@given(
    max_examples=st.integers(1, 2**40),
    max_delta=st.floats(0, 1e12, exclude_min=True),
    clients=st.integers(1, 10**6),
    data=st.data(),
)
def test_what_is_accepted_can_be_announced_and_cannot_overflow(
    max_examples: int, max_delta: float, clients: int, data: st.DataObject
) -> None:
    per_round = data.draw(st.integers(1, clients))
    try:
        run = parse_settings(
            clients=clients,
            per_round=per_round,
            over_select=data.draw(st.integers(0, clients - per_round)),
            max_examples=max_examples,
            max_delta=max_delta,
        )
    except UserError as error:
        assert str(error).startswith("--max-delta: ")  # noqa: PT017 - any other error is a failure
        return
    assert 20 <= run.fold_settings.scale_bits <= 62
    largest = max_examples * max_delta * (per_round + run.over_select) * 2.0**run.scale_bits
    assert largest < 2**63
    assert largest > 2**60, "no binary place is given away"


def test_the_digest_covers_what_is_learnt_and_not_how_it_is_served() -> None:
    digest = Settings(clients=4).digest
    same: list[dict[str, object]] = [
        {"prefix": "a"},
        {"chunk": 2048},
        {"durability": "power"},
        {"max_clients": 99},
    ]
    others: list[dict[str, object]] = [
        {"lr": 0.1},
        {"task": "mnist"},
        {"partition": "shards"},
        {"holdout": 0.5},
    ]
    assert {Settings.model_validate({"clients": 4, **more}).digest for more in same} == {digest}
    assert len({digest, *(Settings.model_validate({"clients": 4, **more}).digest for more in others)}) == 5
