"""A mistake on the command line is one clear line, at once, with exit code 2."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.broker import Mosquitto
from tests.support.command_line import (
    Mistake,
    edge,
    everything,
    is_one_clear_line,
    run,
    run_here,
    simulate,
    start,
)

pytestmark = [pytest.mark.broker, pytest.mark.edge, pytest.mark.usefixtures("forked_children")]

MISTAKES = {
    "too many per round": start("--per-round", "30", says=("--per-round: 30", "20")),
    "unknown strategy": start("--strategy", "fedmax", says=("--strategy", "'fedmax'", "fedavg")),
    "unknown partition": start("--partition", "cake", says=("--partition 'cake'", "dirichlet:ALPHA")),
    "unknown option": start("--round", "3", says=("--round", "--rounds", "(help: fl-aggregator start --help)")),
    "unknown command": Mistake(("fl-aggregator", "sart"), ("'sart'", "start", "(help: fl-aggregator --help)")),
    "option without a value": start("--rounds", says=("--rounds", "requires an argument", "--help")),
    "missing argument": Mistake(("fl-aggregator", "report"), ("'DIR...'", "(help: fl-aggregator report --help)")),
    "environment, a number": start(FL_ROUNDS="many", says=("--rounds", "'many'", "FL_ROUNDS")),
    "environment, a choice": start(FL_DURABILITY="always", says=("--durability", "process", "FL_DURABILITY")),
    "environment, our own check": start(FL_PARTITION="cake", says=("--partition 'cake'",)),
    "configuration, a number": start("--config", "{HERE}/number.toml", says=("--rounds", "'many'", "--config")),
    "configuration, a list": start("--config", "{HERE}/list.toml", says=("rounds: is a list", "one value")),
    "configuration, a name": start("--config", "{HERE}/name.toml", says=("'roundz'", "did you mean 'rounds'")),
    "first weights that are none": start("--init", "{HERE}/number.toml", says=("number.toml",)),
    "host without a name": start("--broker", "mqtt://nowhere.invalid", says=("'nowhere.invalid'", "resolved")),
    "port that nobody listens on": start("--broker", "mqtt://127.0.0.1:1", says=("nothing listens on port 1",)),
    "run directory below a file": start("--run-dir", "{HERE}/number.toml/run", says=("--run-dir", "Not a dir")),
    "run directory a file": start("--run-dir", "{HERE}/number.toml", says=("--run-dir", "Not a directory")),
    "run directory nowhere": start("--run-dir", "/proc/nowhere/run", says=("--run-dir /proc/nowhere/run",)),
    "simulate: too many per round": simulate("--per-round", "9", says=("--per-round: 9", "3")),
    "simulate: run directory a file": simulate("--run-dir", "{HERE}/list.toml", says=("--run-dir",)),
    "simulate: no such task": simulate("--task", "chess", says=("--task: 'chess'", "digits")),
    "simulate: no such device": simulate("--device", "abacus", says=("--device", "'abacus'")),
    "simulate: no GPU": simulate("--device", "cuda", says=("fl-aggregator: --device cuda", "expected cpu or auto")),
    "simulate: no such module": simulate(
        "--task", "nowhere.at_all:Task", says=("fl-aggregator: --task: ", "'nowhere.at_all:Task'", "No module")
    ),
    "simulate: no such class": simulate(
        "--task", "tests.support.library_task:Som", says=("fl-aggregator: --task: ", "'Som'")
    ),
    "simulate: nothing listens": simulate("--broker", "mqtt://127.0.0.1:1", says=("nothing listens",)),
    "simulate: no mosquitto": simulate(FL_MOSQUITTO="/nowhere", says=("FL_MOSQUITTO is '/nowhere'",)),
    "simulate: data without files": simulate(
        "--task", "mnist", "--data", "{HERE}/empty", says=("mnist", "train-images", "{HERE}/empty")
    ),
    "resume of nothing": Mistake(
        ("fl-aggregator", "start", "--resume", "{HERE}/empty"), ("--resume {HERE}/empty", "no run")
    ),
    "resume of what is not there": Mistake(
        ("fl-aggregator", "simulate", "--resume", "{HERE}/no"), ("--resume {HERE}/no", "no run")
    ),
    "resume of a broken run": Mistake(
        ("fl-aggregator", "start", "--resume", "{HERE}/broken"), ("{HERE}/broken/run.json", "started")
    ),
    "resume with other settings": Mistake(
        ("fl-aggregator", "start", "--resume", "{HERE}/broken", "--rounds", "9"), ("--rounds", "--resume")
    ),
    "predict: nothing listens": Mistake(
        ("fl-aggregator", "predict", "{HERE}/list.toml", "--broker", "mqtt://127.0.0.1:1"), ("nothing listens",)
    ),
    "stop: nothing listens": Mistake(
        ("fl-aggregator", "stop", "--broker", "mqtt://127.0.0.1:1"), ("nothing listens",)
    ),
    "stop: no run": Mistake(
        ("fl-aggregator", "stop", "--broker", "{BROKER}", "--prefix", "nobody/here"),
        ("no run is online", "'nobody/here'"),
    ),
    "stop: a run that cannot be": Mistake(("fl-aggregator", "stop", "--run", "a b"), ("--run 'a b'",)),
    "stop: too long a reason": Mistake(("fl-aggregator", "stop", "--reason", "x" * 201), ("--reason", "200")),
    "edge: no id": edge(says=("--id", "(help: fl-edge --help)")),
    "edge: too many arguments": edge("1", "--id", "1", says=("(1)", "(help: fl-edge --help)")),
    "edge: no GPU": edge("--id", "1", "--device", "cuda", says=("--device cuda", "expected cpu or auto")),
    "edge: no data": edge(
        "--id", "1", "--task", "mnist", "--data", "{HERE}/empty", says=("mnist", "train-images", "{HERE}/empty")
    ),
    "edge: no test data for one that only evaluates": edge(
        "--id", "1", "--role", "evaluate", "--task", "mnist", "--data", "{HERE}/empty",
        says=("mnist", "t10k-images", "{HERE}/empty")
    ),
    "edge: file of parts nowhere": edge(
        "--id", "1", "--parts-file", "{HERE}/no/parts", says=("--parts-file {HERE}/no/parts", "No such file")
    ),
    "edge: file of beats nowhere": edge(
        "--id", "1", "--heartbeat", "{HERE}/no/beat", says=("--heartbeat {HERE}/no/beat", "No such file")
    ),
    "edge: no such task": edge("--id", "1", "--task", "chess", says=("'chess'", "digits")),
    "edge: environment, a range": edge(
        FL_ID="7", FL_WORKERS="zwei", says=("'zwei' is not a valid integer; expected 1<=x<=1024. (from FL_WORKERS)",)
    ),
    "edge: environment": edge(FL_ID="a/b", says=("--id", "'a/b'", "FL_ID")),
}  # fmt: skip


AS_PROGRAMS = (
    "unknown option",
    "configuration, a name",
    "stop: no run",
    "simulate: no mosquitto",
    "edge: environment",
)
"""The others are tried in this process, which saves their start."""
COSTLY = ("edge: no GPU", "edge: no data", "edge: no test data for one that only evaluates")
"""A process imports torch or torchvision to find them, as for those of ``simulate``."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.long if name in COSTLY else ()) for name in MISTAKES]
)
def test_a_mistake_is_one_clear_line(name: str, here: Path, shared_mosquitto: Mosquitto) -> None:
    mistake, before = MISTAKES[name], everything(here)
    arguments = tuple(
        a.replace("{BROKER}", shared_mosquitto.url).replace("{HERE}", str(here)) for a in mistake.arguments
    )
    done = (run if name in AS_PROGRAMS else run_here)(here, arguments, mistake.environment)
    is_one_clear_line(done, *(words.replace("{HERE}", str(here)) for words in mistake.says))
    assert everything(here) == before, "nothing is left behind"


def test_a_wrong_partition_is_named_once(here: Path) -> None:
    done = run_here(here, ("fl-aggregator", "start", "--partition", "diriclet:0.1"), {})
    is_one_clear_line(done, "--partition 'diriclet:0.1'")
    assert done.stderr.count("diriclet") == 1, done.stderr
