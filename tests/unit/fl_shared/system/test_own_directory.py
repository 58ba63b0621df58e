"""A directory is used only if nobody else can have put anything into it that leads elsewhere."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from fl_shared.system.own_directory import check_directory, check_tree


def linked_folder(path: Path) -> None:
    (path / "deep" / "spool").symlink_to(path.parent)


def linked_file(path: Path) -> None:
    (path / "deep" / "file").symlink_to(path.parent / "outside")


def hard_link(path: Path) -> None:
    (path.parent / "outside").write_text("precious")
    (path / "deep" / "file").hardlink_to(path.parent / "outside")


def pipe(path: Path) -> None:
    os.mkfifo(path / "deep" / "file")


def writable(path: Path) -> None:
    (path / "deep").chmod(0o775)


def foreign(path: Path) -> None:
    os.chown(path / "deep", os.geteuid() + 1, -1)


AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
CASES: list[object] = [
    (linked_folder, "deep/spool", "symbolic link"),
    (linked_file, "deep/file", "symbolic link"),
    (hard_link, "deep/file", "hard link"),
    (pipe, "deep/file", "neither a file nor a directory"),
    (writable, "deep", "other users can write to it"),
    pytest.param(foreign, "deep", "belongs to another user", marks=AS_ROOT),
]


@pytest.mark.parametrize(("plant", "name", "said"), CASES)
def test_what_leads_elsewhere_or_is_others_is_refused(
    tmp_path: Path, plant: Callable[[Path], None], name: str, said: str
) -> None:
    path = tmp_path / "run"
    (path / "deep").mkdir(parents=True)
    (path / "deep" / "own").write_text("mine")
    check_tree(path)
    plant(path)
    with pytest.raises(OSError, match=said) as caught:
        check_tree(path)
    assert caught.value.filename == str(path / name)


def test_models_may_have_several_names(tmp_path: Path) -> None:
    (tmp_path / "version-1.safetensors").write_bytes(b"")
    for name in (
        "model.safetensors",
        ".fl-0123456789abcdef.tmp",
    ):  # a process was killed before the second got its name
        (tmp_path / name).hardlink_to(tmp_path / "version-1.safetensors")
    check_tree(tmp_path)


def test_the_directory_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run"
    path.mkdir(mode=0o755)
    (tmp_path / "latest").symlink_to(path)
    check_directory(tmp_path / "latest")
    path.chmod(0o777)
    with pytest.raises(OSError, match="mode 777"):
        check_directory(path)
    path.chmod(0o755)
    monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)
    with pytest.raises(OSError, match="belongs to another user"):
        check_directory(path)
