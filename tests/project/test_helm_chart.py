"""``packaging/helm/fl-mqtt``, as Helm renders it, and as Kubernetes' schemas and our programs understand it."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import click
import kubernetes_validate
import pytest
import yaml

from fl_aggregator.cli.main import cli
from fl_edge.cli import command as fl_edge

helm = pytest.importorskip(
    "helm_python", reason="THE CHART IS NOT CHECKED: no wheel of helm-python-sdk for this machine"
)

ROOT = Path(__file__).parents[2]
CHART = ROOT / "packaging" / "helm" / "fl-mqtt"
KUBERNETES = "1.32"
OPEN = {"broker": {"url": "mqtt://broker:1883"}}
SECURE = {
    "kits": {"aggregator": "kit-of-aggregator", "edges": "kits-of-edges"},
    "run": {
        "name": "second",
        "settings": {"FL_TASK": "digits", "FL_ROUNDS": 100000, "FL_LR": 0.03, "FL_REQUIRE_SEALED": True},
    },
    "edges": {"count": 5, "settings": {"FL_SEAL": True, "FL_LIGHT": True}, "dataClaim": "pictures"},
    "aggregator": {"volume": {"size": "1Gi", "storageClass": "fast"}},
    "imagePullSecrets": [{"name": "registry"}],
    "nodeSelector": {"kubernetes.io/arch": "arm64"},
    "tolerations": [{"operator": "Exists"}],
}  # fmt: skip


def rendered(values: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The objects by kind and name, in a release ``plant``."""
    with helm.Chart.load(CHART) as chart:
        chart.validate_schema(chart.merge_values(values))  # as an installation does
        files = chart.render(values, name="plant", namespace="here")
    objects = [
        one
        for name, text in files.items()
        if name.endswith(".yaml")
        for one in yaml.safe_load_all(text)
        if one
    ]
    return {f"{one['kind']} {one['metadata']['name']}": one for one in objects}


def container(one: dict[str, Any]) -> dict[str, Any]:
    (only,) = one["spec"]["template"]["spec"]["containers"]
    found: dict[str, Any] = only
    return found


def environment(one: dict[str, Any]) -> dict[str, Any]:
    return {entry["name"]: entry.get("value", entry.get("valueFrom")) for entry in container(one)["env"]}


def options_of(command: click.Command) -> set[str]:
    """Names of environment variables."""
    return {
        option.envvar if isinstance(option.envvar, str) else f"FL_{option.name}".upper()
        for option in command.get_params(click.Context(command))
        if isinstance(option, click.Option)
    }


@pytest.mark.parametrize(
    "values", [OPEN, SECURE, {"edges": {"count": 0}, **OPEN}], ids=["open", "secure", "no edges"]
)
def test_kubernetes_knows_every_member(values: dict[str, Any]) -> None:
    for one in rendered(values).values():
        kubernetes_validate.validate(one, KUBERNETES, strict=True)


def test_helm_finds_nothing_but_that_there_is_no_icon() -> None:
    report = helm.chart.lint(CHART, OPEN, strict=True)
    assert [(one["path"], one["error"]) for one in report["messages"]] == [
        ("Chart.yaml", "icon is recommended")
    ]
    assert report["errors"] == []


def test_a_release_is_a_job_edges_and_what_they_need() -> None:
    assert set(rendered(OPEN)) == {
        "PersistentVolumeClaim plant-runs", "Job plant-aggregator-first", "Service plant-metrics",
        "Service plant-edges", "StatefulSet plant-edge",
    }  # fmt: skip
    assert set(rendered({**OPEN, "aggregator": {"enabled": False}})) == {
        "Service plant-edges",
        "StatefulSet plant-edge",
    }


def test_the_programs_know_what_they_are_told() -> None:
    for values, run in ((OPEN, "first"), (SECURE, "second")):
        objects = rendered(values)
        job = environment(objects[f"Job plant-aggregator-{run}"])
        edge = environment(objects["StatefulSet plant-edge"])
        assert set(job) - options_of(cli.commands["start"]) == {"RUN"}
        assert set(edge) - options_of(fl_edge) == {"ORDINAL"}


def test_settings_are_passed_on_as_they_were_written() -> None:
    told = environment(rendered(SECURE)["Job plant-aggregator-second"])
    assert (told["FL_ROUNDS"], told["FL_LR"], told["FL_REQUIRE_SEALED"]) == ("100000", "0.03", "1")
    assert told["FL_KIT"] == "/kits/aggregator.zip"
    assert "FL_BROKER" not in told, "the kit names it"


def test_a_pod_is_the_edge_of_its_number_and_sees_its_own_kit() -> None:
    plain, secure = (rendered(values)["StatefulSet plant-edge"] for values in (OPEN, SECURE))
    assert environment(plain)["FL_ID"] == "$(ORDINAL)"
    told = environment(secure)
    assert "FL_ID" not in told
    (kit,) = [one for one in container(secure)["volumeMounts"] if one["name"] == "kits"]
    assert kit == {
        "name": "kits",
        "mountPath": told["FL_KIT"],
        "subPathExpr": "edge-$(ORDINAL).zip",
        "readOnly": True,
    }
    names = [entry["name"] for entry in container(secure)["env"]]
    assert names[0] == "ORDINAL", "it is used by what follows"
    assert told["ORDINAL"]["fieldRef"]["fieldPath"] == "metadata.labels['apps.kubernetes.io/pod-index']"


def test_containers_have_no_rights() -> None:
    for one in rendered(SECURE).values():
        if one["kind"] in ("Job", "StatefulSet"):
            pod, inner = one["spec"]["template"]["spec"], container(one)["securityContext"]
            assert pod["securityContext"]["runAsNonRoot"]
            assert pod["automountServiceAccountToken"] is False
            assert inner == {
                "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
            }  # fmt: skip
            assert "readinessProbe" in container(one)
            # Its end by SIGTERM would look like a stop, which nothing resumes.
            assert ("livenessProbe" in container(one)) == (one["kind"] == "StatefulSet")
            for dockerfile in ("aggregator", "edge_client"):
                user = f"USER {pod['securityContext']['runAsUser']}:{pod['securityContext']['runAsGroup']}"
                assert user in (ROOT / dockerfile / "Dockerfile").read_text()


def test_a_job_begins_its_run_and_resumes_it_the_next_time(tmp_path: Path) -> None:
    program = tmp_path / "fl-aggregator"
    program.write_text('#!/bin/sh\necho "$@"\n')
    program.chmod(0o755)
    run = tmp_path / "data" / "first"
    command = container(rendered(OPEN)["Job plant-aggregator-first"])["command"]

    def started() -> str:
        told = {"RUN": str(run), "PATH": f"{tmp_path}:/usr/bin:/bin"}
        return subprocess.run(
            command, env=told, capture_output=True, text=True, timeout=60, check=True
        ).stdout.strip()

    assert started() == f"start --run-dir {run}"
    run.mkdir(parents=True)
    (run / "run.json").touch()
    assert started() == f"start --resume {run}"


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({}, "broker.url: expected an address such as mqtt://broker:1883, or kits"),
        ({"broker": {"url": "broker:1883"}}, "/broker/url"),
        ({**OPEN, "edges": {"count": "many"}}, "/edges/count"),
        ({**OPEN, "edge": {}}, "edge"),
        ({**OPEN, "run": {"name": "Not a name"}}, "/run/name"),
        ({**OPEN, "run": {"name": "a", "settings": {"rounds": 3}}}, "'rounds' does not match pattern"),
    ],
)
def test_wrong_values_are_refused(values: dict[str, Any], told: str) -> None:
    with pytest.raises(helm.HelmError, match=re.escape(told)):
        rendered(values)


def test_the_version_is_that_of_the_package_and_of_its_images() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    version = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version is not None
    assert chart["version"] == chart["appVersion"] == version[1]
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert values["aggregator"]["image"] == f"fl-aggregator:{version[1]}"
    assert values["edges"]["image"] == f"fl-edge:{version[1]}"
    schema = json.loads((CHART / "values.schema.json").read_text())
    assert set(values) == set(schema["properties"]) - {"global"}
