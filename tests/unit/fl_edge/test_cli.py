"""``fl-edge`` on the command line: what it takes, where it takes it from, and how it says what is wrong."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.core import ParameterSource

from fl_edge.cli import command, without_predictions
from fl_edge.runtime.edge_options import parse_ids, parse_roles
from fl_edge.session.policy import RequiredMasking
from fl_edge.session.privacy import Budget, ExampleNoise, LocalNoise, OwnPrivacy
from fl_edge.storage.state_dir import StateDir
from fl_shared.errors import UserError
from tests.support import programs


def fl_edge(*arguments: str, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FL_")}
    return programs.run("fl-edge", *arguments, cwd=cwd, environment={**kept, **environment})


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("7", ("7",)),
        ("0-3", ("0", "1", "2", "3")),
        ("0-1,9,lab-a", ("0", "1", "9", "lab-a")),
        ("3-3", ("3",)),
        (" 1 , 2 ", ("1", "2")),
        ("lab-1", ("lab-1",)),
    ],
)
def test_ids(text: str, ids: tuple[str, ...]) -> None:
    assert parse_ids((text,)) == ids


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is not a valid id"),
        ("a b", "'a b' is not a valid id"),
        ("lab/a", "is not a valid id"),
        ("x" * 65, "1 to 64"),
        ("5-2", "'5-2' ends before it begins"),
        ("0-10000", "10001 edges; expected at most 10000"),
        ("0-9999,x", "10001 edges"),
        ("1,2,0-1", "'1' is given twice"),
    ],
)
def test_wrong_ids_are_named(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        parse_ids((text,))


def test_ids_come_repeated_or_as_a_list() -> None:
    assert parse_ids(("9", "0-1,lab-a")) == ("9", "0", "1", "lab-a")
    with pytest.raises(ValueError, match="'1' is given twice"):
        parse_ids(("0-3", "1"))
    assert "'2' is given twice" in fl_edge("--id", "0-3", "--id", "2").stderr
    assert "'2' is given twice" in fl_edge(FL_ID="0-3, 2").stderr


def test_roles_come_repeated_or_as_a_list() -> None:
    assert "'sing'; expected" in fl_edge("--id", "7", FL_ROLE="train, sing").stderr
    assert parse_roles(("evaluate", "predict,train")) == ("train", "predict", "evaluate")
    with pytest.raises(ValueError, match="'tain'; expected one or more of train, predict, evaluate"):
        parse_roles(("tain",))


@pytest.mark.parametrize(
    ("text", "expected"), [("5", (5, 1)), ("8,2", (8, 2)), ("2,0", (2, 0)), ("128,126", (128, 126))]
)
def test_required_masking(text: str, expected: tuple[int, int]) -> None:
    found = RequiredMasking.parse(text)
    assert (found.members, found.colluders) == expected


@pytest.mark.parametrize("text", ["", "2", "3,2", "129", "5,", "5,1,1", "-5", "five"])
def test_required_masking_that_promises_nothing(text: str) -> None:
    with pytest.raises(ValueError, match="at least two members more than colluders, and at most 128"):
        RequiredMasking.parse(text)


@pytest.mark.parametrize("source", ParameterSource)
def test_p19_an_edge_that_requires_masks_answers_no_predictions(source: ParameterSource) -> None:
    with click.Context(command) as context:
        context.set_parameter_source("roles", source)
        assert without_predictions(("train", "evaluate"), "--require-masked") == ("train", "evaluate")
        if source is ParameterSource.DEFAULT:
            assert without_predictions(("train", "predict"), "--require-masked") == ("train",)
        for roles in (("predict",), *([] if source is ParameterSource.DEFAULT else [("train", "predict")])):
            with pytest.raises(UserError, match="--role predict cannot be combined with --require-masked"):
                without_predictions(roles, "--require-masked")


@pytest.mark.parametrize("argument", ["--help", "--version"])
def test_help_and_version_import_nothing_heavy(argument: str) -> None:
    code = (
        "import sys\n"
        f"sys.argv = ['fl-edge', {argument!r}]\n"
        "from fl_edge.cli import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert end.code == 0, end.code\n"
        "loaded = {'torch', 'numpy', 'pydantic', 'paho', 'msgpack', 'PIL'} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    assert "fl-edge" in ended.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "Missing option '--id'"),
        (["--id", "5-2"], "ends before it begins"),
        (["--id", "1", "--role", "sing"], "expected one or more of"),
        (["--id", "1", "--broker", "http://x"], "mqtt://"),
        (["--id", "1", "--broker", "mqtt://u:secret@x"], "FL_PASSWORD"),
        (["--id", "1", "--prefix", "a/#"], "without '+', '#'"),
        (["--id", "0-3", "--mqtt-client-id", "x"], "one edge only"),
        (["--id", "0-3", "--evaluator", "2"], "also one of the ids"),
        (["--id", "1", "--keepalive", "0"], "1<=x<=65535"),
        (["--id", "1", "--data", "/nowhere"], "does not exist"),
        (["--id", "1", "--task", "chess"], "expected one of: digits"),
        (["--id", "1", "--task", "synthetic-0"], "expected synthetic-N with N parameters, 1 to 536870912"),
        (["--id", "1", "--chunk", "100"], "1024<=x<=16777216"),
        (["--id", "1", "--device", "abacus"], "cuda"),
    ],
)
def test_mistakes_exit_2_with_a_reason_and_no_traceback(
    arguments: list[str], says: str, tmp_path: Path
) -> None:
    ended = fl_edge(*arguments, cwd=tmp_path)
    assert ended.returncode == 2, ended.stderr
    assert says in " ".join(ended.stderr.split())
    assert "Traceback" not in ended.stderr
    assert "secret" not in ended.stderr
    assert not (tmp_path / ".fl-edge").exists(), "nothing was begun"


def test_options_come_from_the_command_line_then_the_environment_then_the_file(tmp_path: Path) -> None:
    file = tmp_path / "edge.toml"
    file.write_text('id = "5-1"\nbroker = "ftp://file"\n')
    assert "'5-1' ends before" in fl_edge("--config", str(file)).stderr
    assert "'6-1' ends before" in fl_edge("--config", str(file), FL_ID="6-1").stderr
    assert "'7-1' ends before" in fl_edge("--config", str(file), "--id", "7-1", FL_ID="6-1").stderr
    assert "ftp" in fl_edge("--config", str(file), "--id", "7").stderr
    assert "'sing'" in fl_edge("--id", "7", FL_ROLE="sing").stderr
    assert "'--chunk'" in fl_edge("--id", "7", FL_CHUNK="1").stderr


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("idd = 3", "has no option 'idd'; did you mean 'id'?"),
        ("id = 3\nkeepalive = ", "is not TOML"),
        ("[id]\na = 1", "is a table; expected one value"),
        ('id = 3\nkeepalive = "often"', "'often' is not a valid integer"),
        ("config = 'x'", "has no option 'config'"),
    ],
)
def test_a_wrong_file_exits_2(text: str, says: str, tmp_path: Path) -> None:
    file = tmp_path / "edge.toml"
    file.write_text(text)
    ended = fl_edge("--config", str(file), cwd=tmp_path)
    assert ended.returncode == 2
    assert says in " ".join(ended.stderr.split())


def test_a_password_file_is_read_or_the_user_is_told(tmp_path: Path) -> None:
    empty = tmp_path / "password"
    empty.write_text("\n")
    ended = fl_edge("--id", "7", "--password-file", str(empty), cwd=tmp_path)
    assert ended.returncode == 2
    assert "its first line is empty" in ended.stderr


# --- the state directory ----------------------------------------------------------------------------------


def test_the_device_token_is_kept_and_private(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "state"
    with StateDir.open(path) as first:
        device = first.device
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    with StateDir.open(path) as again:
        assert again.device == device
    with StateDir.open(tmp_path / "other") as other:
        assert other.device != device


def test_a_state_directory_is_one_processs_at_a_time(tmp_path: Path) -> None:
    with (
        StateDir.open(tmp_path / "state"),
        pytest.raises(UserError, match=f"in use by process {os.getpid()}"),
    ):
        StateDir.open(tmp_path / "state")
    StateDir.open(tmp_path / "state").close()


def test_a_lock_dies_with_its_process(tmp_path: Path) -> None:
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom fl_edge.storage.state_dir import StateDir\n"
        "state = StateDir.open(Path(sys.argv[1]))\nprint('held', flush=True)\ntime.sleep(60)\n"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(UserError, match=f"in use by process {holder.pid}"):
        StateDir.open(tmp_path)
    holder.kill()
    holder.communicate()
    StateDir.open(tmp_path).close()


def test_what_cannot_be_a_state_directory_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be used: Not a directory"):
        StateDir.open(tmp_path / "file" / "below")
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "device").write_text("not a token!")
    with pytest.raises(UserError, match="is not a device token; delete the file"):
        StateDir.open(broken)
    (broken / "device").unlink()
    StateDir.open(broken).close()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--dp-sgd", "0.01"), "expected Z or Z,C"),
        (("--dp-sgd", "1,2,3"), "expected Z or Z,C"),
        (("--dp-sgd-tell",), "--dp-sgd-tell needs --dp-sgd"),
        (("--dp-local", "1"), "expected Z,S"),
        (("--dp-local", "1,0"), "expected Z,S"),
        (("--dp-local", "0,1"), "expected Z,S"),
        (("--privacy-budget", "4"), "--privacy-budget needs --dp-sgd, --dp-local or --require-noise"),
        (("--privacy-budget", "4,2", "--dp-sgd", "1"), "expected E or E,D"),
        (("--privacy-budget", "2", "--dp-local", "1,1"), "one update costs ε 4.38"),
        (("--require-noise", "1"), "--require-noise needs --kit"),
        (("--dp-local", "1,1", "--role", "predict"), "--role predict cannot be combined"),
        (("--dp-sgd", "1", "--light"), "--dp-sgd cannot be combined with --light"),
        (
            ("--dp-sgd", "1", "--task", "synthetic-10"),
            "a synthetic task, synthetic-10, has no examples to hide",
        ),
    ],
)
def test_mistakes_in_the_options_of_privacy_are_one_line(
    given: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if "--light" in given:
        pytest.importorskip("opacus")
    with pytest.raises((UserError, click.UsageError), match=re.escape(said)):
        command.main(["--id", "7", *given], standalone_mode=False)


def test_a_worker_is_told_what_the_options_say() -> None:
    privacy = OwnPrivacy(ExampleNoise(1.1, 2.0), True, LocalNoise(1.0, 0.5), 3.0, Budget(4.0, 1e-6))
    option, text = privacy.worker_options()
    assert (option, OwnPrivacy.from_text(text)) == ("--privacy", privacy)
    assert OwnPrivacy().worker_options() == []
