"""``--kit``: our programs with nothing but a provisioned kit, and what does not go beside it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fl_aggregator.tools.provision.kits import Provision
from tests.support import programs
from tests.support.command_line import run_here
from tests.support.programs import Program
from tests.support.provisioned_broker import ProvisionedBroker, provisioned
from tests.support.wait import wait_until

pytestmark = pytest.mark.broker

TASK = "synthetic-5000"


@pytest.fixture(scope="module", params=["certificates", pytest.param("passwords", marks=pytest.mark.long)])
def site(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Provision]:
    made = provisioned(
        tmp_path_factory.mktemp("site") / "kits",
        [("0", ("train",)), ("1", ("train", "predict")), ("judge", ("evaluate",)), ("kiosk", ("asker",))],
        passwords=request.param == "passwords",
        prefix="plant7/fl",
    )
    with ProvisionedBroker(made):
        yield made


def kit(site: Provision, name: str) -> str:
    account = site.register.find(name)
    assert account is not None
    return str(site.out / account.kit_file)


def edge(directory: Path, site: Provision, name: str, *more: str) -> Program:
    state = ("--state-dir", str(directory / name / "state"), "--keepalive", programs.KEEPALIVE)
    return Program(directory / name, "fl-edge", "--kit", kit(site, name), "--task", TASK, *state, *more)


def aggregator(directory: Path, site: Provision, *more: str) -> Program:
    plan = ("--task", TASK, "--clients", "2", "--per-round", "2", "--keepalive", programs.KEEPALIVE)
    run = ("--run-dir", str(directory / "run"), "--kit", kit(site, "aggregator"))
    return Program(directory, "fl-aggregator", "start", *plan, *run, *more)


def test_a_run_in_which_everybody_has_a_kit(site: Provision, tmp_path: Path) -> None:
    with (
        edge(tmp_path, site, "0") as zero,
        edge(tmp_path, site, "1") as one,
        edge(tmp_path, site, "judge") as judge,
        aggregator(tmp_path, site, "--rounds", "2") as run,
    ):
        run.ends_well()
        assert (
            zero.err.count("answers no prediction requests: its kit does not include the role predict") == 1
        )
        assert "its kit does not include" not in one.err
        assert "does not train: its kit does not include the role train" in judge.err
        for each in (zero, one, judge):
            assert each.running(), each.output
    assert [line["outcome"] for line in programs.history(tmp_path) if line.get("outcome")][-1] == "committed"
    for file in (tmp_path / "run").rglob("*"):
        assert not file.is_file() or b"PRIVATE KEY" not in file.read_bytes(), file


def test_an_asynchronous_run_is_signed_and_sealed_as_any_other(site: Provision, tmp_path: Path) -> None:
    tickets = ("--mode", "async", "--buffer", "2", "--concurrency", "2", "--rounds", "3")
    with (
        edge(tmp_path, site, "0", "--seal"),
        edge(tmp_path, site, "1", "--seal"),
        aggregator(tmp_path, site, *tickets, "--require-sealed") as run,
    ):
        run.ends_well()
    lines = programs.history(tmp_path)
    assert [(line["version"], line["participants"]) for line in lines] == [(n, ["0", "1"]) for n in (1, 2, 3)]
    assert all(set(line["seconds"]) >= {"buffering"} and not line["refused"] for line in lines)


def test_an_operator_ends_a_run_with_a_kit(site: Provision, tmp_path: Path) -> None:
    with aggregator(tmp_path, site, "--rounds", "1000") as run:
        wait_until(lambda: "prefix plant7/fl" in run.err, 20, "the run has begun")
        ended = programs.run("fl-aggregator", "stop", "--kit", kit(site, "operator"))
        assert ended.returncode == 0, ended.stderr
        assert run.wait() == 130


def test_what_does_not_go_beside_a_kit(site: Provision, tmp_path: Path) -> None:
    own = kit(site, "0")
    secret = tmp_path / "password"
    secret.write_text("hunter22\n")
    rows = [
        ("fl-edge", ["--kit", own, "--id", "5"], "the kit is for edge '0' only"),
        ("fl-edge", ["--kit", own, "--evaluator", "e"], "the kit is for edge '0' only"),
        (
            "fl-edge",
            ["--kit", own, "--role", "train,predict"],
            "--role predict: the kit of '0' allows only train",
        ),
        (
            "fl-edge",
            ["--kit", kit(site, "1"), "--task", "digits", "--role", "train,predict", "--require-masked", "5"],
            "--role predict cannot be combined with --require-masked",
        ),
        ("fl-edge", ["--kit", own, "--require-masked", "5"], "--require-masked needs --task"),
        ("fl-edge", ["--kit", own, "--prefix", "fl"], "rights only under 'plant7/fl'"),
        ("fl-edge", ["--kit", own, "--broker", "mqtt://h"], "a kit needs mqtts:// or wss://"),
        (
            "fl-edge",
            ["--kit", own, "--broker", "mqtts://u@h"],
            "expected no user in the URL, since the kit names it",
        ),
        ("fl-edge", ["--kit", own, "--ca", own], "--ca cannot be combined with --kit"),
        ("fl-edge", ["--kit", own, "--password-file", str(secret)], "a password (--password-file, FL_PASS"),
        (
            "fl-edge",
            ["--kit", kit(site, "aggregator")],
            "for 'aggregator' (aggregator), expected one for train",
        ),
        ("fl-edge", ["--kit", str(secret)], "not a readable zip file"),
        ("fl-aggregator", ["start", "--kit", own], "for '0' (train), expected one for aggregator"),
        ("fl-aggregator", ["simulate", "--kit", own], "simulate runs a fleet"),
    ]
    for program, arguments, says in rows:
        run = ["--run-dir", str(tmp_path / "run")] if program == "fl-aggregator" else []
        ended = run_here(tmp_path, (program, *arguments, *run), {})
        assert ended.returncode == 2, (arguments, ended.stderr)
        assert says in " ".join(ended.stderr.split()), arguments
        assert "hunter22" not in ended.stderr
    assert not (tmp_path / "run").exists()


def test_another_way_to_the_same_broker(site: Provision) -> None:
    """``--broker`` beside ``--kit``: by another of the names in the broker's certificate, and by none of them."""
    port = site.register.place.port
    command = ("fl-aggregator", "stop", "--kit", kit(site, "operator"), "--broker")
    for host, says in (
        ("localhost", "no run is online"),
        ("127.0.0.2", "certificate is not for '127.0.0.2'"),
    ):
        ended = programs.run(*command, f"mqtts://{host}:{port}")
        assert ended.returncode == 2
        assert says in ended.stderr
