"""What the release workflow and the images promise: files that exist, few rights, both kinds of machine."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
WORKFLOWS = {
    path.name: yaml.safe_load(path.read_text()) for path in (ROOT / ".github/workflows").glob("*.yml")
}
RELEASE = WORKFLOWS["release.yml"]["jobs"]
DOCKERFILES = sorted(ROOT.glob("*/Dockerfile"))
MULTI_ARCH = {"python:3.11-slim", "eclipse-mosquitto:2"}
"""Official images, which exist for linux/amd64 and linux/arm64."""


def steps(job: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = job["steps"]
    return found


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_workflow_may_only_read_unless_a_job_says_otherwise(name: str) -> None:
    assert WORKFLOWS[name]["permissions"] == {"contents": "read"}
    for job in WORKFLOWS[name]["jobs"].values():
        for step in steps(job):
            for script in re.findall(r"\b(?:scripts|\.ci)/\S+", step.get("run", "")):
                assert (ROOT / script).exists(), script


def test_nothing_is_published_before_it_was_tried_nor_without_a_tag() -> None:
    assert RELEASE["try"]["needs"] == "build"
    for name in ("publish", "images"):
        assert RELEASE[name]["needs"] == "try"
    assert RELEASE["publish"]["if"] == "github.ref_type == 'tag'"
    (pushed,) = [step for step in steps(RELEASE["images"]) if "build-push-action" in step.get("uses", "")]
    assert pushed["with"]["push"] == "${{ github.ref_type == 'tag' }}"


def test_publishing_needs_no_password_and_what_is_built_is_attested() -> None:
    assert "secrets." not in (ROOT / ".github/workflows/release.yml").read_text()
    assert RELEASE["publish"]["permissions"] == {"id-token": "write"}
    for name in ("build", "images"):
        assert any("attest-build-provenance" in step.get("uses", "") for step in steps(RELEASE[name]))
        assert RELEASE[name]["permissions"]["attestations"] == "write"


def test_the_images_are_for_both_kinds_of_machine() -> None:
    (built,) = [step for step in steps(RELEASE["images"]) if "build-push-action" in step.get("uses", "")]
    assert built["with"]["platforms"].split(",") == ["linux/amd64", "linux/arm64"]
    for entry in RELEASE["images"]["strategy"]["matrix"]["include"]:
        assert ROOT / entry["dockerfile"] in DOCKERFILES


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.parent.name)
def test_a_dockerfile_names_no_kind_of_machine(dockerfile: Path) -> None:
    text = dockerfile.read_text()
    assert re.findall(r"amd64|x86_64|x86-64|arm64|aarch64|--platform", text) == []
    stages = set(re.findall(r"^FROM \S+ AS (\S+)$", text, re.MULTILINE))
    assert set(re.findall(r"^FROM (\S+)", text, re.MULTILINE)) - stages <= MULTI_ARCH
