"""``fl-aggregator doctor`` on a real Mosquitto in many configurations: what it finds, and what it leaves behind."""

from __future__ import annotations

import queue
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from fl_aggregator.tools.doctor import bench, delivery, rights
from fl_aggregator.tools.doctor.bench import ProbeSession
from fl_aggregator.tools.doctor.examination import run_check
from fl_aggregator.tools.doctor.findings import Finding
from fl_shared.cli.broker_access import BrokerAccess
from fl_shared.mqtt import events as mqtt
from fl_shared.mqtt.events import ConnectionSettings
from fl_shared.mqtt.network import Network
from fl_shared.protocol import messages as m
from tests.support import programs
from tests.support.broker import Mosquitto
from tests.support.examined_broker import ALL_NAMES, LONGEST, Examined
from tests.support.ports import free_port
from tests.support.programs import Program
from tests.support.provisioned_broker import provisioned
from tests.support.simulated_aggregator import retain_birth
from tests.support.wait import wait_until

pytestmark = pytest.mark.broker


@pytest.fixture
def broker(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Mosquitto]:
    """With the lines of its configuration that the test is parametrized with."""
    running = Mosquitto(tmp_path, extra=getattr(request, "param", ()))
    try:
        yield running
    finally:
        running.stop()


def configured(*lines: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("broker", [lines], indirect=True, ids=[lines[0]])


def retained(broker: Mosquitto) -> dict[str, bytes]:
    """All that lies at the broker."""
    inbox: queue.SimpleQueue[mqtt.ConnectionEvent] = queue.SimpleQueue()
    found: dict[str, bytes] = {}
    with Network() as network:
        connection = network.connect(ConnectionSettings(broker.address), inbox.put)
        connection.wait_connected(10)
        connection.subscribe([("#", 0)])
        connection.subscribe([("fence", 0)])
        connection.publish("fence", b"now")
        while True:
            event = inbox.get(timeout=10)
            if isinstance(event, mqtt.Received):
                if event.topic == "fence":
                    return found
                found[event.topic] = bytes(event.payload)


def test_a_broker_that_is_good_enough_and_is_left_as_it_was(tmp_path: Path, broker: Mosquitto) -> None:
    seen = Examined(tmp_path / "doctor", "--broker", broker.url)
    assert list(seen.findings) == ALL_NAMES
    assert seen.verdicts("ok") == ALL_NAMES, seen.output
    assert (seen.code, seen.report["can_carry_a_run"]) == (0, True)
    assert seen.measured("bursts")["came"] == seen.measured("bursts")["sent"] == 6400
    assert seen.measured("bursts")["large_came"] == 64
    assert seen.measured("messages")["median_seconds"] > 0
    assert seen.measured("wills")["seconds"] >= 0
    assert seen.measured("packets")["largest"] == m.MAX_PACKET
    shares = seen.measured("shared")
    assert shares["first"] + shares["second"] == 20
    assert min(shares["first"], shares["second"]) > 0
    assert "networks that you trust" in seen.findings["rights"]["effect"]
    assert retained(broker) == {}


def test_a_broker_that_hangs_for_a_moment_is_slow_and_not_unfit(broker: Mosquitto) -> None:
    session = ProbeSession(ConnectionSettings(broker.address), "fl")
    session.read_connack()

    def retained_later(session: ProbeSession) -> Finding:
        try:
            return delivery.retained(session)
        finally:
            broker.thaw()

    broker.freeze()
    finding = run_check("retain", retained_later, session)
    assert finding.verdict == "ok"
    assert finding.detail == (
        "stored, delivered, cleared by an empty message; slow: at the first attempt, no answer to CONNECT within 5 s"
    )


SHORT_QUEUES = ("max_queued_messages 5", "max_inflight_messages 2", "max_keepalive 20")


@pytest.mark.parametrize("broker", [(), SHORT_QUEUES], indirect=True, ids=["usual", "short queues"])
def test_these_verdicts_do_not_rest_on_how_soon_a_message_is_read(
    broker: Mosquitto, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if this machine were so busy that each time-out for the next message has passed before it is looked for."""
    monkeypatch.setattr(bench, "MIN_IDLE_TIMEOUT", 0.0)
    access = BrokerAccess(broker.address)
    session = ProbeSession(access.connection_settings(), access.prefix)
    session.read_connack()
    try:
        for finding in (
            delivery.no_local(session),
            delivery.shared_subscriptions(session),
            rights.account_rights(session, access, is_online=False),
        ):
            assert finding.verdict == "ok", finding
    finally:
        session.clear_retained()


@configured("set_tcp_nodelay false")
@pytest.mark.long
def test_one_line_each_and_what_to_set(tmp_path: Path, broker: Mosquitto) -> None:
    """Mosquitto's own default makes a message and its acknowledgement wait for each other."""
    with Program(tmp_path / "doctor", "fl-aggregator", "doctor", "--broker", broker.url) as program:
        assert program.wait(LONGEST) == 0, program.output
        lines = program.out.splitlines()
    assert [line[9:26].strip() for line in lines[:-1]] == ALL_NAMES
    (limited,) = [line for line in lines if line.startswith("limited")]
    assert limited[9:17] == "messages"
    assert limited.endswith("[mosquitto.conf: set_tcp_nodelay true]")
    assert lines[-1] == "this broker can support a run, within limits: messages"


@configured("max_packet_size 20000")
@pytest.mark.long
def test_small_packets(tmp_path: Path, broker: Mosquitto) -> None:
    seen = Examined(tmp_path / "doctor", "--broker", broker.url)
    assert (seen.code, seen.verdicts("limited"), seen.verdicts("missing")) == (0, ["packets"], []), (
        seen.output
    )
    assert seen.measured("limits")["maximum_packet_size"] == 20000
    # To the byte: that a packet of the announced size passes was tried, not believed.
    assert (seen.measured("packets")["largest"], seen.measured("packets")["lost"]) == (20000, None)
    assert "chunks of 18,976 bytes" in seen.findings["packets"]["effect"]


@configured("max_packet_size 400")
@pytest.mark.long
def test_packets_too_small_for_a_round(tmp_path: Path, broker: Mosquitto) -> None:
    seen = Examined(tmp_path / "doctor", "--broker", broker.url)
    assert (seen.code, seen.verdicts("missing")) == (1, ["packets"]), seen.output
    assert seen.report["can_carry_a_run"] is False


@configured("message_size_limit 2000000")
@pytest.mark.long
def test_large_messages_that_vanish_though_nothing_was_announced(tmp_path: Path, broker: Mosquitto) -> None:
    seen = Examined(tmp_path / "doctor", "--broker", broker.url)
    assert seen.measured("packets")["announced"] is None
    assert seen.measured("packets")["lost"] == 4 * 2**20 + 2**16
    assert "4160 KiB was lost: the broker closed the connection" in seen.findings["packets"]["detail"]
    assert (seen.code, seen.verdicts("missing")) == (1, ["packets"]), seen.output


@configured(*SHORT_QUEUES)
def test_short_queues_lose_what_was_acknowledged(tmp_path: Path, broker: Mosquitto) -> None:
    seen = Examined(tmp_path / "doctor", "--broker", broker.url)
    assert seen.verdicts("limited") == ["limits", "bursts", "model windows"], seen.output
    assert (seen.measured("limits")["receive_maximum"], seen.measured("limits")["server_keep_alive"]) == (
        2,
        20,
    )
    bursts = seen.measured("bursts")
    assert (bursts["fewest"], bursts["large_came"], bursts["refused"]) == (7, 7, 0)
    assert bursts["bursts"] == 3, "it goes on no longer than it takes to know"
    assert seen.measured("model windows") == {"asked": 8, "came": 7}
    assert "max_queued_messages" in seen.findings["bursts"]["remedy"]
    assert seen.code == 0, seen.output


@configured("retain_available false")
def test_a_broker_without_retain_cannot_carry_a_run_and_no_run_starts(
    tmp_path: Path, broker: Mosquitto
) -> None:
    seen = Examined(tmp_path / "doctor", "--broker", broker.url)
    assert (seen.code, seen.verdicts("missing")) == (1, ["retain"]), seen.output
    assert seen.verdicts("untested") == ["retain wildcards", "wills", "model windows", "expiry"]
    assert "retain_available true" in seen.findings["retain"]["remedy"]
    with programs.aggregator(tmp_path / "run", broker.url) as run:
        assert run.wait(20) != 0, run.output


@configured("max_qos 0")
@pytest.mark.long
def test_a_broker_without_qos_1(tmp_path: Path, broker: Mosquitto) -> None:
    seen = Examined(tmp_path / "doctor", "--broker", broker.url)
    assert (seen.code, seen.verdicts("missing")) == (1, ["limits", "messages"]), seen.output


def test_who_is_not_let_in_is_told_why(tmp_path: Path) -> None:
    made = provisioned(tmp_path / "kits", [("0", ("train",))], passwords=True)
    port = free_port()
    passwd = made.broker_directory / "passwd"
    broker = Mosquitto(tmp_path, extra=[f"password_file {passwd}"], allow_anonymous=False)
    wrong = tmp_path / "wrong"
    wrong.write_text("not the password\n")
    try:
        for url, more, said in (
            (f"mqtt://aggregator@127.0.0.1:{broker.port}", ("--password-file", str(wrong)), "refused"),
            (broker.url, (), "refused"),
            (f"mqtt://127.0.0.1:{port}", (), "nothing listens"),
        ):
            with Program(
                tmp_path / "d", "fl-aggregator", "doctor", "--json", "--broker", url, *more
            ) as program:
                assert program.wait(30) == 2, program.output
                assert said in program.err
                assert len(program.err.splitlines()) == 1, program.output
                assert "not the password" not in program.output
    finally:
        broker.stop()


@pytest.mark.long
def test_a_run_that_is_online_is_left_alone(tmp_path: Path, broker: Mosquitto) -> None:
    with programs.aggregator(tmp_path / "aggregator", broker.url) as run:
        wait_until(lambda: "fl/status" in retained(broker), 20, "a status")
        seen = Examined(tmp_path / "doctor", "--broker", broker.url)
        assert (seen.code, seen.verdicts("missing")) == (0, []), seen.output
        assert seen.verdicts("untested") == ["rights"]
        assert abs(seen.measured("run")["clock_skew_seconds"]) < 1
        assert run.running()
        run.send(signal.SIGTERM)
        assert run.wait(20) == 130
        assert "refused" not in run.output, run.output
        assert "dropped" not in run.output, run.output


@pytest.mark.long
def test_a_birth_that_nobody_lives_up_to(tmp_path: Path, broker: Mosquitto) -> None:
    retain_birth(broker.endpoint, run="long-gone")
    seen = Examined(tmp_path / "doctor", "--broker", broker.url)
    assert seen.findings["run"]["verdict"] == "limited"
    assert "long-gone" in seen.findings["run"]["detail"]
    assert set(retained(broker)) == {"fl/aggregator"}


def test_an_interrupted_one_clears_up(tmp_path: Path, broker: Mosquitto) -> None:
    with Program(tmp_path / "doctor", "fl-aggregator", "doctor", "--broker", broker.url) as program:
        wait_until(lambda: "model windows" in program.out, 60, "retained chunks")
        assert any(topic.startswith("fl/doctor/") for topic in retained(broker))
        program.send(signal.SIGINT)
        assert program.wait(20) == 130, program.output
    assert retained(broker) == {}


@pytest.mark.long
def test_a_broker_that_stops_answering_is_given_up(tmp_path: Path, broker: Mosquitto) -> None:
    with Program(tmp_path / "doctor", "fl-aggregator", "doctor", "--broker", broker.url) as program:
        wait_until(lambda: "published" in program.out, 60, "how wills are")
        broker.freeze()
        try:
            assert program.wait(LONGEST) == 1, program.output
        finally:
            broker.thaw()
    assert "no answer to" in program.out
    assert "untested expiry           the broker no longer answers" in program.out
    assert program.out.splitlines()[-1].startswith("this broker cannot support a run: "), program.output


@pytest.mark.parametrize("frame", [None, 65535])
@pytest.mark.long
def test_websockets_of_mosquitto(tmp_path: Path, frame: int | None) -> None:
    port = free_port()
    extra = [f"listener {port} 127.0.0.1", "protocol websockets", "allow_anonymous true"]
    if frame is not None:
        extra.append(f"websockets_headers_size {frame}")
    broker = Mosquitto(tmp_path, extra=extra)
    try:
        seen = Examined(tmp_path / "doctor", "--broker", f"ws://127.0.0.1:{port}")
    finally:
        broker.stop()
    if frame is None and seen.measured("packets")["largest"] < 2**20:  # libwebsockets of Debian's 2.0.11
        assert (seen.code, seen.verdicts("missing")) == (1, ["packets"]), seen.output
        assert "websockets_headers_size" in seen.findings["packets"]["remedy"]
    else:
        assert (seen.code, seen.verdicts("missing")) == (0, []), seen.output
