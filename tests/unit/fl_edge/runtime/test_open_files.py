"""Too few open files are said before anything is started."""

from __future__ import annotations

import errno
import logging
import threading
from pathlib import Path

import pytest

from fl_edge.runtime import open_files
from fl_edge.runtime.open_files import check_file_limit
from fl_edge.runtime.thread_failures import thread_failures
from fl_edge.runtime.worker_setup import EdgeSettings
from fl_shared.errors import UserError

TRAINERS = (EdgeSettings("7", ("train",), Path("7")),) * 10_000


def checked(
    monkeypatch: pytest.MonkeyPatch, limit: float, edges: tuple[EdgeSettings, ...] = TRAINERS
) -> None:
    monkeypatch.setattr(open_files, "raise_file_limit", lambda: limit)
    check_file_limit(edges)


def test_a_fleet_without_room_for_its_connections_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        UserError, match=r"10000 edges need 20200 open files, but the limit is 20000: .*ulimit -n 20200"
    ):
        checked(monkeypatch, 20_000)


def test_who_answers_predictions_has_a_connection_more(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="2 edges need 206 open files"):
        checked(monkeypatch, 205, (EdgeSettings("7", ("train", "predict"), Path("7")),) * 2)


@pytest.mark.parametrize(("limit", "warns"), [(20_200, True), (60_200, False), (float("inf"), False)])
def test_a_fleet_without_room_for_all_its_updates_is_warned(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, limit: float, warns: bool
) -> None:
    with caplog.at_level(logging.WARNING):
        checked(monkeypatch, limit)
    assert ("up to 60200 are needed" in caplog.text) == warns


def test_a_thread_that_has_run_out_of_files_leaves_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    def receive() -> None:
        raise OSError(errno.EMFILE, "too many open files in this program")

    with thread_failures() as check:
        thread = threading.Thread(target=receive)
        thread.start()
        thread.join()
        with pytest.raises(OSError, match="too many open files"):
            check()
    assert capsys.readouterr().err == ""
