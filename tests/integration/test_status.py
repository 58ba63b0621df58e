"""``fl-aggregator status --check``, as a container's health check runs it, against a real broker."""

from __future__ import annotations

import contextlib
import json
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from fl_shared.protocol import messages as m
from tests.support import programs
from tests.support.broker import Mosquitto
from tests.support.client import NOT_AUTHORISED, Client, Endpoint
from tests.support.provisioned_broker import ProvisionedBroker, kit_of, provisioned
from tests.support.wait import wait_until

pytestmark = pytest.mark.broker

BIRTH = {"v": 2, "kind": "aggregator", "state": "online", "session": "a1", "run": "r1", "incarnation": 2}
STATUS = {
    "v": 2, "kind": "status", "run": "r1", "incarnation": 2, "seq": 7, "written": "2026-01-01T00:00:00Z",
    "task": "digits",
    "phase": "collecting", "round": 3, "version": 2, "rounds": 10, "have": 4, "need": 10, "present": 20,
    "seconds_left": 9.5, "missing": [], "metrics": {},
}  # fmt: skip


def check(place: Path, broker: str, prefix: str, *more: str) -> tuple[int, str]:
    """Its exit code, and its line on standard error; if all is well it says nothing."""
    command = ("status", "--check", "--broker", broker, "--prefix", prefix, *more)
    with programs.Program(place / "status", "fl-aggregator", *command) as asked:
        code = asked.wait(40)
    assert not asked.out, asked.output
    assert len(asked.err.splitlines()) == (code != 0), asked.output
    return code, asked.err.strip()


def ago(seconds: float) -> str:
    return (datetime.now(UTC) - timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def text(message: object) -> bytes:
    return message if isinstance(message, bytes) else json.dumps(message).encode()


@contextmanager
def lying_there(broker: Mosquitto, prefix: str, *messages: tuple[str, Any]) -> Iterator[Client]:
    """These are retained, and their sender is silent; gives its client, which can send more."""
    with Client(broker.endpoint) as sender:
        for topic, message in messages:
            assert sender.publish(f"{prefix}/{topic}", text(message), retain=True) < 0x80
        yield sender


def test_a_run_is_healthy_until_it_is_killed_or_stands_still(
    tmp_path: Path, shared_mosquitto: Mosquitto
) -> None:
    url, prefix = shared_mosquitto.url, "status/lives"
    code, said = check(tmp_path, url, prefix)
    assert (code, "no run is online" in said) == (1, True), said

    settings = ("--prefix", prefix, "--task", "synthetic-50", "--clients", "2", "--per-round", "2")
    with (
        Client(shared_mosquitto.endpoint, f"{prefix}/#", prefix=prefix) as observer,
        programs.aggregator(tmp_path, url, *settings) as run,
    ):
        ours = observer.expect(m.Status, 30).run
        assert check(tmp_path, url, prefix) == (0, "")
        assert check(tmp_path, url, f"{prefix}/other")[0] == 1

        # It neither says anything nor goodbye; the broker notices within 1.5 times the keepalive of 2 s.
        run.send(signal.SIGSTOP)
        observer.expect(m.AggregatorPresence, state="offline")
        assert "is offline" in check(tmp_path, url, prefix)[1]
        observer.take_all()
        run.send(signal.SIGCONT)
        observer.expect(m.AggregatorPresence, state="online")
        observer.expect(m.Status)
        assert check(tmp_path, url, prefix)[0] == 0

        run.send(signal.SIGKILL)
        run.wait(10)
        observer.expect(m.AggregatorPresence, state="offline")
        code, said = check(tmp_path, url, prefix)
        assert (code, f"the last one, {ours}, is offline" in said) == (1, True), said


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([("aggregator", BIRTH), ("status", STATUS)], "its last status is from 2026-01-01T00:00:00Z"),
        ([("aggregator", BIRTH)], "has published no status"),
        ([("aggregator", BIRTH), ("status", {**STATUS, "run": "r2"})], "has published no status"),
        (
            [("aggregator", BIRTH), ("status", {**STATUS, "incarnation": 1})],
            "has published no status since it was resumed",
        ),
        (
            [("aggregator", BIRTH), ("status", {**STATUS, "written": "2026-77-77T99:99:99Z"})],
            "has published no status",
        ),
        ([("status", STATUS)], "no run is online"),
        ([("aggregator", b"\xff\x00[["), ("status", b"{" * 1000)], "no run is online"),
    ],
    ids=["old", "none", "of-another-run", "of-an-earlier-start", "no-time", "no-birth", "rubbish"],
)
def test_a_birth_alone_or_an_old_word_is_not_enough(
    messages: list[tuple[str, Any]],
    expected: str,
    tmp_path: Path,
    shared_mosquitto: Mosquitto,
    request: pytest.FixtureRequest,
) -> None:
    prefix = f"status/{request.node.callspec.id}"
    with lying_there(shared_mosquitto, prefix, *messages):
        code, said = check(tmp_path, shared_mosquitto.url, prefix, "--wait", "2")
    assert code == 1
    assert expected in said


def test_a_fresh_word_is_enough_whoever_is_on_the_line(tmp_path: Path, shared_mosquitto: Mosquitto) -> None:
    fresh = {**STATUS, "written": ago(3)}
    with lying_there(shared_mosquitto, "status/fresh", ("aggregator", BIRTH), ("status", fresh)):
        assert check(tmp_path, shared_mosquitto.url, "status/fresh") == (0, "")


@pytest.mark.parametrize("offset", [3600.0, -3600.0], ids=["behind", "ahead"])
def test_clocks_may_differ_when_the_next_word_comes(
    offset: float, tmp_path: Path, shared_mosquitto: Mosquitto, request: pytest.FixtureRequest
) -> None:
    prefix = f"status/{request.node.callspec.id}"
    late = ("status", {**STATUS, "written": ago(offset)})
    with lying_there(shared_mosquitto, prefix, ("aggregator", BIRTH), late) as aggregator:
        command = ("status", "--check", "--broker", shared_mosquitto.url, "--prefix", prefix)
        with programs.Program(tmp_path, "fl-aggregator", *command) as asked:
            time.sleep(1.5)
            assert asked.running(), asked.output
            # The check may be connected later than we think.
            while asked.running():
                aggregator.publish(f"{prefix}/status", text(late[1]), retain=True)
                time.sleep(0.2)
            assert asked.wait() == 0, asked.output


def test_an_ended_run_is_not_healthy(tmp_path: Path, shared_mosquitto: Mosquitto) -> None:
    over = {**STATUS, "written": ago(0), "phase": "finished"}
    with lying_there(shared_mosquitto, "status/over", ("aggregator", BIRTH), ("status", over)):
        assert check(tmp_path, shared_mosquitto.url, "status/over") == (
            1,
            "fl-aggregator: run r1 has ended: finished",
        )


def test_whatever_stands_in_the_way_is_unhealthy_and_no_other_code(tmp_path: Path) -> None:
    """Docker knows 0 and 1."""
    assert check(tmp_path, "mqtt://127.0.0.1:1", "fl")[0] == 1
    directory = tmp_path / "broker"
    directory.mkdir()
    closed = Mosquitto(directory, allow_anonymous=False)
    try:
        code, said = check(tmp_path, closed.url, "fl")
    finally:
        closed.stop()
    assert code == 1
    assert "not authori" in said.lower()


def test_with_a_kit_only_what_the_aggregator_has_signed_is_believed(tmp_path: Path) -> None:
    made = provisioned(tmp_path / "kits", [("0", ("train",))])

    def ask(account: str) -> tuple[int, str]:
        kit = str(made.out / f"{account}.zip")
        with programs.Program(
            tmp_path / "status", "fl-aggregator", "status", "--check", "--kit", kit
        ) as asked:
            return asked.wait(40), asked.out + asked.err

    with ProvisionedBroker(
        made, extra_acl="\nuser operator\ntopic write fl/status\ntopic write fl/aggregator\n"
    ):
        kit = str(made.out / "aggregator.zip")
        command = ("--kit", kit, "--clients", "1", "--per-round", "1", "--run-dir", str(tmp_path / "run"))
        with programs.Program(tmp_path, "fl-aggregator", "start", *command) as run:
            wait_until(lambda: ask("aggregator")[0] == 0, 30, "healthy")
            assert ask("operator")[0] == 0
            run.send(signal.SIGTERM)
            assert run.wait(20) == 130, run.output
        assert ask("operator")[0] == 1
        with Client(Endpoint.of(kit_of(made, "operator"))) as forger:
            for topic, message in (("aggregator", BIRTH), ("status", {**STATUS, "written": ago(0)})):
                assert forger.publish(f"fl/{topic}", text(message), retain=True) < NOT_AUTHORISED
            code, said = ask("operator")
            assert code == 1, said
            assert "no run is online" in said


def test_a_kit_that_cannot_be_read_is_unhealthy_too(tmp_path: Path) -> None:
    junk = tmp_path / "junk.zip"
    junk.write_bytes(b"PK")
    with programs.Program(
        tmp_path / "status", "fl-aggregator", "status", "--check", "--kit", str(junk)
    ) as asked:
        assert asked.wait(20) == 1
    assert str(junk) in asked.err


def test_a_time_that_there_is_not_is_no_status(tmp_path: Path, shared_mosquitto: Mosquitto) -> None:
    junk = {**STATUS, "written": "2026-99-99T00:00:00Z"}
    with lying_there(shared_mosquitto, "status/junk", ("aggregator", BIRTH), ("status", junk)):
        url = shared_mosquitto.url
        command = ("status", "--wait", "1", "--broker", url, "--prefix", "status/junk")
        with programs.Program(tmp_path / "status", "fl-aggregator", *command) as asked:
            assert asked.wait(20) == 1
    assert "no status arrived within 1" in asked.err
    assert "may this account read status/junk/status?" in asked.err
    assert "Traceback" not in asked.err


def test_a_watch_with_a_wait_does_not_end_with_the_run_before(
    tmp_path: Path, shared_mosquitto: Mosquitto
) -> None:
    """It waits for a run that has not ended; without ``--wait``, it shows the one that has."""
    url, prefix = shared_mosquitto.url, "status/again"
    over = {**STATUS, "phase": "finished", "seconds_left": None}
    command = ("fl-aggregator", "watch", "--broker", url, "--prefix", prefix)
    gone = {**BIRTH, "state": "offline"}
    with lying_there(shared_mosquitto, prefix, ("aggregator", gone), ("status", over)) as sender:
        with programs.Program(tmp_path / "plain", *command) as plain:
            assert plain.wait(20) == 0, plain.output
        with programs.Program(tmp_path / "short", *command, "--wait", "1") as short:
            assert short.wait(20) == 1, short.output
        assert "has begun within 1.0 s (--wait); the last one, r1, has ended: finished" in short.err
        with programs.Program(tmp_path / "watch", *command, "--wait", "60") as waiting:
            new = {"run": "r2", "incarnation": 1}
            sender.publish(f"{prefix}/aggregator", text({**BIRTH, **new, "session": "b1"}), retain=True)
            sender.publish(f"{prefix}/status", text({**STATUS, **new, "written": ago(0)}), retain=True)
            wait_until(lambda: "run r2" in waiting.out, 20, "the new run")
            ended = {**over, **new, "written": ago(0)}
            sender.publish(f"{prefix}/status", text(ended), retain=True)
            assert waiting.wait(20) == 0, waiting.output
    assert "r1" not in waiting.out


def test_an_account_that_is_refused_hears_what_was_missing(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        broker = Mosquitto(tmp_path, allow_anonymous=False)
        stack.callback(broker.stop)
        for user, hint in (
            ("", "it requires an account"),
            ("ann@", "no password was given for the user 'ann'"),
        ):
            url = broker.url.replace("mqtt://", f"mqtt://{user}")
            with programs.Program(tmp_path / "status", "fl-aggregator", "status", "--broker", url) as asked:
                assert asked.wait(20) == 2
            assert hint in asked.err
