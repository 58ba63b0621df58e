"""``fl-aggregator simulate`` serves the page of its run, and with ``--stay`` keeps it and the edges that answer."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support import programs
from tests.support.browser import CheckedPage
from tests.support.wait import wait_until

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = [pytest.mark.broker, pytest.mark.usefixtures("light_edges")]
SMALL = (
    "--task",
    "digits-mlp",
    "--clients",
    "3",
    "--per-round",
    "2",
    "--rounds",
    "2",
    "--epochs",
    "5",
    "--wait",
    "60",
    "--deadline",
    "60",
)


def test_one_address_to_open_that_stays_until_it_is_interrupted(chromium: Browser, tmp_path: Path) -> None:
    """Also with ``--quiet``, since without the address nobody could open what stays."""
    with programs.simulate(tmp_path, *SMALL, "--stay", "--quiet") as run:
        wait_until(lambda: "dashboard: " in run.out, 30, "the page's address")
        found = re.search(r"^dashboard: (http://127\.0\.0\.1:\d+/)$", run.out, re.MULTILINE)
        assert found is not None, run.output
        page = CheckedPage(chromium)
        page.page.goto(found.group(1))
        page.wait_text("#overview-title", "Finished: 2 of 2 versions", 90_000)
        wait_until(lambda: "until Ctrl-C" in run.err, 20, "the run's end")
        address, outcome, result = run.out.splitlines()
        assert address == found.group(0)
        assert outcome.startswith("finished: 2 of 2 versions")
        assert json.loads(result)["rounds"] == 2
        page.draw((14, 5), (14, 23))
        page.page.wait_for_selector("#answer .bars")
        page.close()
        children = programs.descendants(run.pid)
        run.send(signal.SIGINT)
        assert run.wait(30) == 0, run.output
        wait_until(lambda: not programs.alive(children), 10, "the end of broker and edges")
