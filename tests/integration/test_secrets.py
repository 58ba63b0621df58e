"""A password and the keys of kits stand nowhere that others look: no process list, log, run directory or traceback."""

from __future__ import annotations

import itertools
import os
import subprocess
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Iterator
from pathlib import Path

import pytest

from fl_shared.security.kit import Kit
from tests.support import programs
from tests.support.broker import Mosquitto
from tests.support.provisioned_broker import ProvisionedBroker, kit_of, provisioned
from tests.support.provisioned_site import Site, undisturbed
from tests.support.wait import wait_until

pytestmark = [pytest.mark.broker, pytest.mark.usefixtures("light_edges", "command_lines")]

PASSWORD = "correct-horse-7f3a9c51"
WRONG = "battery-staple-2e8d40b6"
USER = "plant"
SMALL = (
    *("--task", "digits-mlp", "--clients", "2", "--per-round", "2", "--rounds", "1", "--epochs", "1"),
    *("--wait", "60"),
)
FORMATS = pytest.mark.parametrize("log_format", [pytest.param("text", marks=pytest.mark.long), "json"])


REFUSED_DAILY = (
    ("environment", "fl-aggregator", "json"),
    ("file", "fl-edge", "text"),
    ("url", "fl-edge", "json"),
)
"""Each way once."""


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a broker that wants `USER` with `PASSWORD`."""
    directory = tmp_path_factory.mktemp("accounts")
    passwords = directory / "passwords"
    subprocess.run(["mosquitto_passwd", "-c", "-b", str(passwords), USER, PASSWORD], check=True)
    broker = Mosquitto(directory, extra=[f"password_file {passwords}"], allow_anonymous=False)
    yield broker.url.replace("mqtt://", f"mqtt://{USER}@")
    broker.stop()


def _command_lines(pid: int) -> set[bytes]:
    """What ``ps`` shows of a program and all that it has started."""
    found = set()
    for each in (pid, *programs.descendants(pid)):
        try:
            found.add(Path(f"/proc/{each}/cmdline").read_bytes())
        except OSError:
            continue  # it has ended
    return found


def _first_command_lines(program: programs.Program) -> set[bytes]:
    """The same, as soon as it has one: a program that has just begun has none yet."""
    return wait_until(
        lambda: {line for line in _command_lines(program.pid) if line}, 30, "the program's command line"
    )


def _nowhere(secret: str | bytes, directory: Path, lines: set[bytes]) -> None:
    """Neither in a command line nor in any file below ``directory``, as it is or as part of a path."""
    needle = os.fsencode(secret)
    assert not [line for line in lines if needle in line]
    files = [path for path in directory.rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if needle in path.read_bytes() or needle in os.fsencode(path)]


@FORMATS
def test_a_run_keeps_the_password_to_itself(
    account: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log_format: str
) -> None:
    monkeypatch.setenv("FL_PASSWORD", PASSWORD)
    more = ("--broker", account, "--prefix", f"secret-{log_format}", "-vv", "--log-format", log_format)
    lines: set[bytes] = set()

    def trained() -> bool:
        lines.update(_command_lines(run.pid))
        return not run.running()

    with programs.simulate(tmp_path, *SMALL, *more) as run:
        wait_until(trained, 90, "the run's end")
        run.ends_well()
    assert any(b"fl_edge" in line for line in lines), "the edges' processes have been looked at"
    assert (tmp_path / "run" / "run.json").is_file()
    assert USER in (tmp_path / "run" / "run.json").read_text(), "what is no secret is written down"
    _nowhere(PASSWORD, tmp_path, lines)


@pytest.mark.parametrize(
    ("way", "program", "log_format"),
    [
        pytest.param(*row, marks=() if row in REFUSED_DAILY else pytest.mark.long)
        for row in itertools.product(
            ("environment", "file", "url"), ("fl-aggregator", "fl-edge"), ("text", "json")
        )
    ],
)
def test_a_refused_password_is_not_repeated(
    account: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log_format: str, program: str, way: str
) -> None:
    """Also where somebody has written it into the URL, whose command line he has shown to all himself."""
    out, arguments = tmp_path / "out", ["--broker", account, "-vv", "--log-format", log_format]
    if way == "environment":
        monkeypatch.setenv("FL_PASSWORD", WRONG)
    elif way == "file":
        (tmp_path / "password").write_text(WRONG + "\n")
        arguments += ["--password-file", str(tmp_path / "password")]
    else:
        arguments[1] = account.replace(f"{USER}@", f"{USER}:{WRONG}@")
    if program == "fl-edge":
        arguments += ["--id", "0", "--state-dir", str(out / "state")]
    else:
        arguments = ["start", *arguments, "--run-dir", str(out / "run"), *SMALL]
    with programs.Program(out, program, *arguments) as run:
        lines = _first_command_lines(run)
        assert run.wait() == 2, run.output
    assert "password" in run.err
    assert "Traceback" not in run.err
    _nowhere(WRONG, out, set() if way == "url" else lines)


def test_a_password_without_a_user_is_not_repeated(
    account: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FL_PASSWORD", WRONG)
    out = tmp_path / "out"
    with programs.Program(
        out, "fl-edge", "--id", "0", "--broker", account.replace(f"{USER}@", ""), "-vv"
    ) as run:
        assert run.wait() == 2, run.output
    assert "a password needs a user" in run.err
    _nowhere(WRONG, out, set())


def _secrets(kit: Kit) -> list[bytes]:
    """The secrets of a kit, as a file or a log could show them."""
    keys = [kit.signing_private, kit.sealing_private, kit.member_private]
    raw = [key for key in keys if key is not None]
    assert kit.key is not None
    texts = [line for line in kit.key.splitlines() if not line.startswith(b"-")]
    if kit.predict_group is not None:
        texts.append(kit.predict_group.encode())
    coded = [
        form for key in raw for form in (b64encode(key)[:43], urlsafe_b64encode(key)[:43], key.hex().encode())
    ]
    return [*raw, *coded, *(repr(key)[2:-1].encode() for key in raw), *texts]


@FORMATS
def test_a_run_keeps_the_keys_of_its_kits_to_itself(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, log_format: str
) -> None:
    wanted = [("0", ("train",)), ("1", ("train", "predict"))]
    made = provisioned(tmp_path_factory.mktemp("made") / "kits", wanted)  # type: ignore[arg-type]
    with ProvisionedBroker(made) as broker:
        site = Site(tmp_path, made, broker)
        loud = ("-vv", "--log-format", log_format)
        running = [site.edge(name, "--seal", *loud) for name in ("0", "1")]
        running.append(site.aggregator("run", "--require-sealed", *loud))
        lines = set().union(*map(_first_command_lines, running))
        running[-1].ends_well()
        undisturbed(site, "run", 3)
        site.close()
    assert any(b"edge-1.zip" in line for line in lines), "the programs have been looked at"
    secrets = [one for name in ("aggregator", "0", "1") for one in _secrets(kit_of(made, name))]
    assert len(secrets) >= 3 * 2 * 5
    for secret in secrets:
        _nowhere(secret, tmp_path, lines)
