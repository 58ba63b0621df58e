"""Folders of pictures: the classes, the sites, and what a folder that does not fit is told."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from fl_edge.data.folders import PictureFolders, difference
from fl_edge.errors import DataCorruptError, DataMissingError
from tests.support.builders import partition
from tests.support.picture_folders import fill

OWN = partition(scheme="own")


@pytest.mark.parametrize("below", ["", "train"])
def test_a_folder_is_a_class_and_files_of_other_kinds_do_not_count(tmp_path: Path, below: str) -> None:
    fill(tmp_path / below, "red", "blue")
    fill(tmp_path / "test", "red", count=2)
    (tmp_path / below / "red" / "notes.txt").write_text("")
    (tmp_path / below / "resnet18.safetensors").write_text("")
    (tmp_path / below / ".hidden").mkdir()
    folders = PictureFolders(tmp_path, ())
    assert folders.classes == ("blue", "red")
    assert [file.label for file in folders.train] == [0] * 6 + [1] * 6
    assert [file.label for file in folders.test] == [1] * 2
    assert folders.part(OWN).tolist() == list(range(12))


def test_a_natural_part_is_a_site_and_the_classes_are_those_of_all(tmp_path: Path) -> None:
    fill(tmp_path / "site-b", "red")
    fill(tmp_path / "site-a", "blue", "red", count=3)
    fill(tmp_path / "test", "red", "blue")
    folders = PictureFolders(tmp_path, ())
    assert folders.classes == ("blue", "red")
    parts = [folders.part(partition(k, scheme="natural")) for k in (0, 1)]
    assert [Counter(folders.train[i].label for i in part) for part in parts] == [{0: 3, 1: 3}, {1: 6}]
    assert "site-a" in str(folders.train[int(parts[0][0])].path)
    with pytest.raises(DataMissingError, match=r"has 2 sites .*, but this edge's is number 3"):
        folders.part(partition(2, scheme="natural"))
    both = folders.part(OWN)
    assert len(both) == 12


def test_pictures_are_divided_by_every_scheme(tmp_path: Path) -> None:
    fill(tmp_path, "red", "blue", count=20)
    folders = PictureFolders(tmp_path, ())
    for scheme in ("iid", "dirichlet:0.5", "shards", "quantity:0.5"):
        parts = [folders.part(partition(k, scheme=scheme, count=4)) for k in range(4)]
        assert sorted(np.concatenate(parts).tolist()) == list(range(40))


@pytest.mark.parametrize(
    ("classes", "chosen", "words"),
    [
        (("red",), (), r"has 1 classes (red), expected 2 to 1000 (name all of the run: --task-option classes=A,B)"),
        (("red", "blue"), ("red", "green"), "blue: is no folder of a class, expected one of: red, green"),
        ((), (), "has no folders of pictures, expected a folder for each class: CLASS/*.png"),
    ],
)  # fmt: skip
def test_folders_that_do_not_fit_are_named(
    tmp_path: Path, classes: tuple[str, ...], chosen: tuple[str, ...], words: str
) -> None:
    fill(tmp_path, *classes)

    def read() -> object:
        return PictureFolders(tmp_path, chosen).train

    with pytest.raises(DataMissingError, match=re.escape(words)) as raised:
        read()
    assert "\n" not in str(raised.value)


def test_a_site_may_lack_a_class_if_the_classes_are_named(tmp_path: Path) -> None:
    folders = PictureFolders(fill(tmp_path, "red"), ("red", "blue"))
    assert {file.label for file in folders.train} == {0}
    with pytest.raises(DataMissingError, match=r"has no test split, expected test/CLASS/\*.png"):
        assert folders.test
    (tmp_path / "test" / "red").mkdir(parents=True)
    with pytest.raises(DataMissingError, match="test: has no picture"):
        assert PictureFolders(tmp_path, ("red", "blue")).test


def test_a_class_with_a_name_that_no_array_can_have_is_refused(tmp_path: Path) -> None:
    fill(tmp_path, "red", "blue")
    (tmp_path / "a\nb").mkdir()
    with pytest.raises(DataCorruptError, match="printable characters"):
        PictureFolders(tmp_path, ())


def test_the_classes_of_the_run_are_compared() -> None:
    assert difference(["a", "b"], ["b", "a"]) is None
    assert difference(["a", "b"], ["b"]) == (
        "class 'a' of the run has no folder; the run has: a, b (--task-option classes=a,b)"
    )
    assert "class 'c' is not in the run" in str(difference(["a", "b"], ["a", "b", "c"]))
