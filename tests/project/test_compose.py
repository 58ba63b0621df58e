"""What `compose.yaml` and the Dockerfiles say: networks, rights, health checks and images."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import click
import pytest
import yaml

from fl_aggregator.cli.main import cli
from fl_edge.cli import command as fl_edge
from fl_shared.system.mosquitto import configuration
from tests.support.compose_files import COMPOSE, ROOT, SERVICES

OURS = {"fl-aggregator": ROOT / "aggregator" / "Dockerfile", "fl-edge": ROOT / "edge_client" / "Dockerfile"}

VOLUMES_OF_MOSQUITTO = ["/mosquitto/data", "/mosquitto/log"]
"""That the image `eclipse-mosquitto:2` declares."""

EXAMPLE_LIMIT = 256

ONE_SHOTS = ("provision", "client")

START = cli.commands["start"]


def mounts(service: str) -> dict[str, tuple[str, bool]]:
    """By target: the source, and whether it may be written to."""
    found = {}
    for volume in SERVICES[service].get("volumes", ()):
        source, target, *mode = volume.split(":")
        found[target] = (source, mode not in (["ro"], ["ro,nocopy"]))
    return found


def instructions(dockerfile: Path) -> Iterator[tuple[str, str]]:
    for line in dockerfile.read_text().replace("\\\n", " ").splitlines():
        if line.strip() and not line.startswith("#"):
            name, _, rest = line.partition(" ")
            yield name, rest.strip()


def copied(dockerfile: Path) -> list[str]:
    """What it copies from the folder that it is built in."""
    lines = [
        rest.split() for name, rest in instructions(dockerfile) if name == "COPY" and "--from" not in rest
    ]
    return [source for line in lines for source in line[:-1]]


def options_of(command: click.Command) -> set[str]:
    """Names of environment variables."""
    return {
        option.envvar if isinstance(option.envvar, str) else f"FL_{option.name}".upper()
        for option in command.get_params(click.Context(command))
        if isinstance(option, click.Option)
    }


def test_the_lab_is_what_comes_without_a_word_and_never_beside_the_other() -> None:
    profiles = {name: service["profiles"] for name, service in SERVICES.items()}
    assert {name for name, of in profiles.items() if of == ["lab"]} == {"broker", "aggregator", "edges"}
    assert {name for name, of in profiles.items() if of == ["secure"]} == {
        "provision", "secure-broker", "secure-aggregator", "secure-edges",
    }  # fmt: skip
    assert profiles["client"] == ["client"]
    environment = dict(line.split("=") for line in (ROOT / ".env").read_text().splitlines() if "=" in line)
    assert environment == {"COMPOSE_PROFILES": "lab", "COMPOSE_PROJECT_NAME": "fl-mqtt"}


def test_what_is_published_is_so_on_loopback_only() -> None:
    ports = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert ports == {
        "broker": ["127.0.0.1:1883:1883", "127.0.0.1:9001:9001"],
        "secure-broker": ["${FL_LISTEN:-127.0.0.1}:8883:8883"],
    }
    assert [
        name for name, service in SERVICES.items() if service.get("network_mode") not in (None, "none")
    ] == []


@pytest.mark.parametrize("name", SERVICES)
def test_every_container_may_do_as_little_as_it_can(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"cap_add", "privileged", "devices", "pid", "ipc", "userns_mode"} & set(service)
    if service["image"] in OURS:
        assert "user" not in service, "the image says it"
    else:
        assert service["image"] in ("eclipse-mosquitto:2", "fl-broker")
        uid, gid = map(int, service["user"].split(":"))
        assert min(uid, gid) > 0


@pytest.mark.parametrize("name", SERVICES)
def test_no_volume_is_anonymous(name: str) -> None:
    """`down` would leave it, and it could be written to."""
    service = SERVICES[name]
    dockerfile = OURS.get(service["image"])
    declared = VOLUMES_OF_MOSQUITTO
    if dockerfile is not None:
        declared = [rest for instruction, rest in instructions(dockerfile) if instruction == "VOLUME"]
    assert service["tmpfs"] == ["/tmp", *(path for path in declared if path not in mounts(name))]


@pytest.mark.parametrize("name", ["broker", "secure-broker"])
def test_a_broker_gets_as_many_descriptors_as_the_machine_allows(name: str) -> None:
    entrypoint = [word.replace("$$", "$") for word in SERVICES[name]["entrypoint"]]
    shown = ["sh", "-c", "ulimit -n; echo $*", "-", "as", "said"]
    limited = [
        "sh", "-c", f'ulimit -Sn {EXAMPLE_LIMIT // 2}; ulimit -Hn {EXAMPLE_LIMIT}; exec "$@"', "sh", *entrypoint, *shown
    ]  # fmt: skip
    done = subprocess.run(limited, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == (f"{EXAMPLE_LIMIT}\nas said\n", "")
    assert "ulimits" not in SERVICES[name], (
        "the container does not start if that is more than the machine allows"
    )


@pytest.mark.parametrize("name", SERVICES)
def test_whoever_lives_on_says_how_he_is_and_waits_for_who_is_well(name: str) -> None:
    service = SERVICES[name]
    if name in ONE_SHOTS:
        assert service["healthcheck"] == {"disable": True}
        return
    if service["image"] in OURS:
        assert "healthcheck" not in service, "the image says it"
        assert "HEALTHCHECK" in dict(instructions(OURS[service["image"]]))
        broker = "secure-broker" if name.startswith("secure-") else "broker"
        assert service["depends_on"] == {broker: {"condition": "service_healthy"}}
    else:
        assert "mosquitto_pub" in service["healthcheck"]["test"]
        assert service["healthcheck"]["interval"] == "2s", "all others wait so long"


def test_the_secure_broker_waits_for_its_files() -> None:
    condition = {"provision": {"condition": "service_completed_successfully"}}
    assert SERVICES["secure-broker"]["depends_on"] == condition


def test_a_volume_is_declared_and_nobody_sees_the_kits_of_others() -> None:
    used: dict[str, dict[str, bool]] = {}
    for name in SERVICES:
        for source, writes in mounts(name).values():
            assert not source.startswith("."), "a file of a clone may be unreadable for the container's user"
            used.setdefault(source, {})[name] = writes
    assert set(used) == set(COMPOSE["volumes"])
    assert used["provision"] == {"provision": True}
    assert used["broker-kit"] == {"provision": True, "secure-broker": False}
    assert used["aggregator-kit"] == {"provision": True, "secure-aggregator": False}
    assert used["edge-kits"] == {"provision": True, "secure-edges": False}
    assert used["client-kits"] == {"provision": True, "client": False}
    assert used["runs"] == {"aggregator": True, "secure-aggregator": True}


def test_every_command_of_the_secure_set_up_names_its_profile() -> None:
    """Without it the lab's is active, and Compose makes the lab's volumes, which `down` of the other one leaves."""
    page = (ROOT / "docs" / "how-to" / "containers.md").read_text().partition("## With accounts")[2]
    commands = [line for line in page.splitlines() if line.startswith("docker compose")]
    assert any(" client " in command for command in commands)
    assert [line for line in commands if not line.startswith("docker compose --profile secure ")] == []


def test_only_the_image_of_provision_gives_a_volume_of_kits_its_owner() -> None:
    """Compose v2 creates all containers first, and an empty volume takes over what the first image has there."""
    volumes = [volume for service in SERVICES.values() for volume in service.get("volumes", ())]
    copied = {volume for volume in volumes if ":/kits" in volume and "nocopy" not in volume}
    assert copied == {volume for volume in SERVICES["provision"]["volumes"] if ":/kits" in volume}


def test_the_broker_reads_the_generated_configuration_which_it_cannot_change() -> None:
    path = SERVICES["broker"]["command"][-1]
    said = list(instructions(ROOT / SERVICES["broker"]["build"] / "Dockerfile"))
    assert said == [
        ("FROM", SERVICES["secure-broker"]["image"]),
        ("COPY", f"mosquitto.conf {path}"),
        ("RUN", f"chmod 644 {path}"),
    ]
    assert (ROOT / "broker" / "mosquitto.conf").read_text() == configuration(), (
        "run: python -m fl_shared.system.mosquitto > broker/mosquitto.conf"
    )


def test_the_readme_explains_every_setting() -> None:
    readme = (ROOT / "broker" / "README.md").read_text()
    settings = {line.split()[0] for line in configuration().splitlines() if not line.startswith("#")}
    assert len(settings) >= 5
    assert [name for name in settings if f"`{name} " not in readme] == []


@pytest.mark.parametrize(
    ("service", "command", "beside"),
    [
        ("aggregator", START, set()),
        ("secure-aggregator", START, set()),
        ("edges", fl_edge, {"FL_FLEET"}),
        ("secure-edges", fl_edge, {"FL_KITS"}),
        ("client", cli.commands["predict"], set()),
        ("client", cli.commands["stop"], set()),
    ],
)
def test_what_a_service_is_told_its_program_knows(
    service: str, command: click.Command, beside: set[str]
) -> None:
    told = set(SERVICES[service]["environment"])
    assert told - options_of(command) == beside
    script = (ROOT / "edge_client" / "container.sh").read_text()
    assert all(f"${{{name}:-" in script for name in beside)


def test_every_container_uses_one_prefix_and_no_password() -> None:
    told = {name for service in SERVICES.values() for name in service.get("environment", {})}
    assert not {"FL_PASSWORD", "FL_PREFIX"} & told


@pytest.mark.parametrize("image", OURS)
def test_an_image_is_built_from_what_is_there(image: str) -> None:
    services = [service for service in SERVICES.values() if service["image"] == image]
    for service in services:
        assert service["build"]["context"] == "."
        assert ROOT / service["build"]["dockerfile"] == OURS[image]
    said = list(instructions(OURS[image]))
    assert {rest.split()[0] for name, rest in said if name == "FROM"} == {"python:3.11-slim"}
    kept = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for source in copied(OURS[image]):
        assert (ROOT / source).exists(), source
        assert any(fnmatch(source, name) or source.startswith(f"{name}/") for name in kept), source


def test_the_builder_is_sent_only_what_an_image_copies() -> None:
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    sources = [source for dockerfile in OURS.values() for source in copied(dockerfile)]
    assert [name for name in kept if not any(f"{source}/".startswith(f"{name}/") for source in sources)] == []


@pytest.mark.parametrize("name", ["broker", "secure-broker"])
def test_a_healthy_broker_is_asked_once_a_minute(name: str, tmp_path: Path) -> None:
    """Each time it is asked, it writes three lines to its log."""
    _, *command = (word.replace("$$", "$") for word in SERVICES[name]["healthcheck"]["test"])
    at = command.index("mosquitto_pub")
    asked, healthy = tmp_path / "asked", tmp_path / "healthy"

    def check(answer: str) -> int:
        words = [word.replace("/tmp/healthy", str(healthy)) for word in command[:at]]
        ask = f'echo "$*" >> {asked}; {answer}'
        return subprocess.run([*words, "sh", "-c", ask, *command[at:]]).returncode

    assert check("false") == 1
    assert check("true") == check("false") == 0, "the second time nobody asks"
    os.utime(healthy, (healthy.stat().st_mtime - 61,) * 2)
    assert check("false") == 1
    assert asked.read_text().count(" ".join(command[at + 1 :])) == 3


@pytest.mark.parametrize("image", OURS)
def test_an_image_makes_the_scripts_that_it_copies_readable(image: str) -> None:
    said = list(instructions(OURS[image]))
    scripts = {rest.split()[1] for name, rest in said if name == "COPY" and rest.split()[0].endswith(".sh")}
    assert scripts == {
        rest.split()[2] for name, rest in said if name == "RUN" and rest.startswith("chmod 755 ")
    }
    started = next(rest for name, rest in said if name == "ENTRYPOINT")
    used = started if image == "fl-edge" else str(SERVICES["provision"]["entrypoint"])
    assert all(script in used for script in scripts)


@pytest.mark.parametrize("image", OURS)
def test_an_image_runs_as_nobody_who_is_somebody(image: str) -> None:
    said = [rest for name, rest in instructions(OURS[image]) if name == "USER"]
    assert said == ["10001:10001"]


def test_the_build_argument_is_the_dockerfiles() -> None:
    arguments = [rest.partition("=")[0] for name, rest in instructions(OURS["fl-edge"]) if name == "ARG"]
    assert arguments == list(SERVICES["edges"]["build"]["args"]) == ["TORCH_INDEX"]


def test_the_health_check_of_the_aggregator_is_a_command_that_there_is() -> None:
    said = dict(instructions(OURS["fl-aggregator"]))["HEALTHCHECK"]
    program, name, *options = yaml.safe_load(said.partition(" CMD ")[2])
    assert program == "fl-aggregator"
    command = cli.commands[name]
    known = {option for parameter in command.get_params(click.Context(command)) for option in parameter.opts}
    assert options == ["--check"]
    assert known.issuperset(options)


def test_the_health_check_of_edges_looks_at_the_age_of_the_heartbeat(tmp_path: Path) -> None:
    said = dict(instructions(OURS["fl-edge"]))["HEALTHCHECK"].partition(" CMD ")[2]
    assert "FL_HEARTBEAT" in options_of(fl_edge)
    file = tmp_path / "alive"

    def healthy() -> bool:
        environment = {**os.environ, "FL_HEARTBEAT": str(file)}
        return subprocess.run(["sh", "-c", said], env=environment, stderr=subprocess.DEVNULL).returncode == 0

    assert not healthy()
    file.touch()
    assert healthy()
    os.utime(file, (file.stat().st_mtime - 25,) * 2)
    assert not healthy()
