"""Our own programs, each with an account that may do as little as it can: a run, a prediction, an operator's stop."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.support import programs
from tests.support.broker import Mosquitto
from tests.support.provisioned_broker import kit_of, provisioned
from tests.support.wait import wait_until

SEVEN = Path(__file__).parents[2] / "examples" / "seven.png"
RUN = ("--clients", "2", "--per-round", "2", "--rounds", "500", "--epochs", "1", "--wait", "60")

pytestmark = [pytest.mark.broker, pytest.mark.edge]


def test_the_acl_leaves_our_programs_all_that_they_need(tmp_path: Path) -> None:
    """Without TLS, to hold the rights alone to the test; passwords travel over this machine only."""
    made = provisioned(
        tmp_path / "kits",
        [("0", ("train",)), ("1", ("train", "predict")), ("judge", ("evaluate",)), ("web", ("asker",))],
        passwords=True,
    )
    files = (f"acl_file {made.broker_directory / 'acl'}", f"password_file {made.broker_directory / 'passwd'}")
    (tmp_path / "broker").mkdir()
    broker = Mosquitto(tmp_path / "broker", extra=[*files, "log_type all"], allow_anonymous=False)

    def account(name: str) -> tuple[str, str, str]:
        file = tmp_path / f"password-of-{name}"
        file.write_text(kit_of(made, name).password or "")
        return f"mqtt://{name}@127.0.0.1:{broker.port}", "--password-file", str(file)

    def edge(name: str, *roles: str) -> programs.Program:
        url, *password = account(name)
        words = [word for role in roles for word in ("--role", role)]
        return programs.edges(tmp_path / name, url, name, *password, *words)

    try:
        url, *password = account("aggregator")
        with (
            edge("0", "train"),
            edge("1", "train", "predict"),
            edge("judge", "evaluate"),
            programs.aggregator(tmp_path, url, *password, *RUN) as run,
        ):
            wait_until(lambda: len(_committed(tmp_path)) >= 2, 90, run.output)
            url, *password = account("web")
            words = ("--broker", url, *password, str(SEVEN))
            with programs.Program(tmp_path / "predict", "fl-aggregator", "predict", *words) as predict:
                predict.ends_well(60)
            assert "by edge 1 " in predict.out
            # Whoever may not write there is not obeyed, and the operator is.
            words = ("--broker", url, *password, "--timeout", "3")
            with programs.Program(tmp_path / "not", "fl-aggregator", "stop", *words) as refused:
                assert refused.wait(30) != 0
            assert run.running()
            url, *password = account("operator")
            with programs.Program(
                tmp_path / "stop", "fl-aggregator", "stop", "--broker", url, *password
            ) as stop:
                stop.ends_well(60)
            assert run.wait(30) == 130, run.output
        # By the one edge that has the test split; the holdouts of both others have 144 examples together.
        metrics = programs.history(tmp_path)[0]["metrics"]
        assert metrics["evaluated_examples"] > metrics["after_examples"] > 0
        url, _, password_file = account("web")
        password_of_web = Path(password_file).read_text()
        subprocess.run(
            ["mosquitto_pub", "-p", str(broker.port), "-u", "web", "-P", password_of_web, "-q", "1",
             "-t", "fl/status", "-m", "forbidden"],
            check=False, timeout=120,
        )  # fmt: skip
    finally:
        broker.stop()
    # What is denied is in the log, as the one forbidden message shows; nothing of our programs was.
    (denied,) = re.findall(r"Denied PUBLISH.*", broker.log())
    assert "'fl/status'" in denied


def _committed(directory: Path) -> list[object]:
    if not (directory / "run" / "history.jsonl").exists():
        return []
    return [line for line in programs.history(directory) if line.get("version")]
