"""Programs do only what their kits allow, and a resumed run still requires sealed messages."""

from __future__ import annotations

import json
import re
import signal

import pytest

from fl_shared.protocol import codec
from fl_shared.protocol import messages as m
from tests.support.provisioned_broker import kit_of
from tests.support.provisioned_site import Site, heard, rounds
from tests.support.wait import wait_until

pytestmark = pytest.mark.broker


def test_only_the_operators_kit_ends_a_run_and_its_word_is_good_once(site: Site) -> None:
    """Clause 9.14."""
    forger = site.forger("fl/control")
    for name in ("0", "1"):
        site.edge(name, "--seal")
    run = site.aggregator("run", "--require-sealed", rounds=100_000)
    name = wait_until(lambda: re.search(r"run ([0-9a-f]+) at", run.err), 20, "it has begun")[1]
    plain = codec.encode(m.Stop(run=name, incarnation=1, reason="forged"))
    wait_until(lambda: "round 2: version" in run.err, 30, "rounds are made")
    forger.publish("fl/control", plain)
    forger.publish("fl/control", kit_of(site.made, "0").sealer().seal("fl/control", plain))
    wait_until(lambda: "not-sealed" in run.err and "not-opened" in run.err, 20, "both are refused")
    assert run.running()

    heard(forger)
    stop = site.program("stop", "fl-aggregator", "stop", "--kit", site.kit("operator"), "--reason", "lunch")
    stop.ends_well()
    assert run.wait() == 130, run.output
    assert "stopped by the operator: lunch" in run.output
    orders = [payload for topic, payload in heard(forger) if topic == "fl/control"]
    assert orders
    assert all(codec.is_sealed(payload) for payload in orders)

    again = site.program(
        "again", "fl-aggregator", "start", "--kit", site.kit("aggregator"), "--require-sealed",
        "--resume", str(site.directory / "run" / "run"),
    )  # fmt: skip
    # Not the history: a resume may repair it before the aggregator has subscribed.
    wait_until(lambda: re.search(r"round \d+: version", again.err), 30, "it goes on")
    for payload in orders:
        forger.publish("fl/control", payload)
    wait_until(lambda: "other-incarnation" in again.err, 20, "it is refused")
    before = len(rounds(site, "run"))
    wait_until(lambda: len(rounds(site, "run")) > before + 3, 30, "it goes on all the same")
    assert again.running()


@pytest.mark.parametrize(
    ("program", "arguments", "said"),
    [
        (
            "fl-aggregator",
            ("start", "--kit", "edge-0.zip"),
            "is for '0' (train), expected one for aggregator",
        ),
        ("fl-aggregator", ("start", "--require-sealed"), "--require-sealed needs --kit"),
        (
            "fl-aggregator",
            ("stop", "--kit", "edge-0.zip"),
            "is for '0' (train), expected one for operator",
        ),
        ("fl-edge", ("--id", "0", "--seal"), "--seal needs --kit"),
    ],
)
def test_a_mistake_is_told_at_once(
    site: Site, program: str, arguments: tuple[str, ...], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(site.made.out)
    before = {path.name for path in site.made.out.iterdir()}
    started = site.program("mistake", program, *arguments)
    assert started.wait(30) == 2, started.output
    assert said in started.err
    assert {path.name for path in site.made.out.iterdir()} == before, "nothing was begun"


def test_a_run_that_takes_only_what_is_sealed_does_so_when_it_is_taken_up_again(site: Site) -> None:
    """And its last line says with which kit."""
    run = site.aggregator("first", "--require-sealed", rounds=50)
    wait_until(lambda: "watch it: " in run.err, 20, "the run")
    run.send(signal.SIGTERM)
    assert run.wait(20) == 130, run.output
    assert run.out.rstrip().endswith(f"/run --kit {site.kit('aggregator')}"), run.out
    directory = str(site.directory / "first" / "run")
    assert (
        json.loads((site.directory / "first" / "run" / "run.json").read_text())["settings"]["require_sealed"]
        is True
    )

    words = ("start", "--resume", directory, "--kit", site.kit("aggregator"))
    again = site.program("again", "fl-aggregator", *words)
    unsealed = site.edge("0")
    wait_until(lambda: "this edge does not seal" in unsealed.err, 30, "the edge says why it is not heard")
    wait_until(lambda: "not-sealed" in again.err, 20, "that the edge's registration is refused")
    again.send(signal.SIGTERM)
    assert again.wait(20) == 130, again.output
