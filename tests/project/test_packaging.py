"""What is installed: light commands, an aggregator without torch, walls between packages, a whole wheel."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from email.parser import Parser
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = Path(sysconfig.get_path("scripts"))
PACKAGES = {
    "fl_aggregator": "aggregator",
    "fl_edge": "edge_client",
    "fl_shared": "shared",
    "fl_mqtt": "fl_mqtt",
}

COMMANDS = [
    ("fl-aggregator", "fl_aggregator.cli.main"),
    ("fl-edge", "fl_edge.cli"),
    ("fl-mqtt", "fl_mqtt.cli.main"),
]
SLOW_TO_IMPORT = {"torch", "torchvision", "PIL", "numpy", "pydantic", "rich", "paho"}
EDGE_ONLY = {"torch", "torchvision", "PIL"}

IMPORT_EVERYTHING = """
import importlib, pkgutil, sys
package = importlib.import_module(sys.argv[1])
for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
    if not module.name.endswith("__main__"):  # would run the program
        importlib.import_module(module.name)
print(*sorted(sys.modules), sep="\\n")
"""


def run(*command: str | Path, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    # A wide, plain terminal: what is read here is text, not its layout.
    environment = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1"}
    return subprocess.run(
        command,
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
    )


def imported_by(*command: str | Path) -> tuple[str, set[str]]:
    """Standard output of a Python ``command``, and the full names of all modules that it imported."""
    done = run(sys.executable, "-X", "importtime", *command)
    assert done.returncode == 0, done.stderr
    # Lines look like "import time:   self [us] | cumulative | nested name".
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return done.stdout, {line.rpartition("|")[2].strip() for line in lines}


def top_level(modules: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in modules}


@pytest.mark.parametrize(("command", "module"), COMMANDS)
@pytest.mark.parametrize("option", ["--help", "--version"])
def test_a_command_answers_without_importing_what_is_slow(command: str, module: str, option: str) -> None:
    stdout, modules = imported_by(SCRIPTS / command, option)
    assert module in modules, "the list of imports was not read"
    assert top_level(modules) & SLOW_TO_IMPORT == set()
    assert (version("fl-mqtt") if option == "--version" else "Usage:") in stdout


def test_the_library_imports_a_name_when_it_is_used() -> None:
    _, modules = imported_by("-c", "import fl_mqtt")
    assert "fl_mqtt" in modules
    assert top_level(modules) & SLOW_TO_IMPORT == set()
    use_all = (
        "import fl_mqtt, sys; [getattr(fl_mqtt, name) for name in fl_mqtt._MODULES]; print(*sys.modules)"
    )
    modules = set(run(sys.executable, "-c", use_all).stdout.split())
    assert "fl_mqtt.library.run" in modules
    assert top_level(modules) & EDGE_ONLY == set()


@pytest.mark.parametrize("package", ["fl_aggregator", "fl_shared"])
def test_the_whole_package_loads_nothing_that_only_edges_have(package: str) -> None:
    done = run(sys.executable, "-c", IMPORT_EVERYTHING, package)
    assert done.returncode == 0, done.stderr
    modules = set(done.stdout.split())
    assert f"{package}.{'round' if package == 'fl_aggregator' else 'protocol.messages'}" in modules
    assert top_level(modules) & EDGE_ONLY == set()


def test_an_edge_loads_cryptography_only_where_keys_are_used() -> None:
    """It takes 9 MB in each of an edge's processes."""
    _, modules = imported_by("-c", "import fl_edge.runtime.fleet, fl_edge.workers.worker")
    assert {"fl_shared.masking.run_keys", "fl_shared.privacy.gaussian_noise"} <= modules
    assert "cryptography" not in top_level(modules)


PLANTED = {
    "aggregator/fl_aggregator/storage/journal.py": "import fl_aggregator.server.aggregator",
    "aggregator/fl_aggregator/round/state.py": "import fl_aggregator.round.machine",
    "aggregator/fl_aggregator/round/roster.py": "import time",
    "aggregator/fl_aggregator/tools/report/page.py": "import fl_aggregator.tools.remote.status",
    "aggregator/fl_aggregator/cli/main.py": "import fl_mqtt.simulation.cli",
    "aggregator/fl_aggregator/aggregation/worker.py": "import torch",
    "fl_mqtt/fl_mqtt/simulation/local.py": "import fl_mqtt.library.run",
    "edge_client/fl_edge/session/events.py": "import fl_edge.tasks.task",
    "edge_client/fl_edge/runtime/loop.py": "import fl_aggregator.configuration.settings",
    "shared/fl_shared/tensors/manifest.py": "import fl_shared.protocol.topics",
    "shared/fl_shared/mqtt/network.py": "import paho.mqtt.client",
}
BROKEN_BY_THEM = {
    "The aggregator's layers import only layers below",
    "The round has layers, too",
    "The machines are pure: no broker, torch, clock, thread or chance",
    "Tools do not import each other",
    "The programs do not import fl_mqtt",
    "What composes the programs has layers, too",
    "The aggregator needs no torch",
    "The edge's layers import only layers below",
    "The two programs do not import each other",
    "The shared layers import only layers below",
    "Only fl_shared.mqtt.paho imports paho",
}


def lint_imports(root: Path) -> str:
    """What import-linter says of the packages below ``root``. Its status is not looked at."""
    path = os.pathsep.join(str(root / folder) for folder in PACKAGES.values())
    done = subprocess.run(
        [SCRIPTS / "lint-imports", "--config", ROOT / "pyproject.toml", "--cache-dir", root / "cache"],
        cwd=root,
        env={**os.environ, "PYTHONPATH": path, "COLUMNS": "200", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=100,
    )
    return done.stdout + done.stderr


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The packages' sources, to be changed."""
    for package, folder in PACKAGES.items():
        ignored = shutil.ignore_patterns("__pycache__", "static")
        shutil.copytree(ROOT / folder / package, tmp_path / folder / package, ignore=ignored)
    return tmp_path


def test_an_upward_import_breaks_a_contract(copy: Path) -> None:
    assert " 0 broken" in lint_imports(copy)
    for file, statement in PLANTED.items():
        with (copy / file).open("a") as source:
            source.write(f"\n{statement}\n")
    said = lint_imports(copy)
    broken = {line.partition(" BROKEN")[0] for line in said.splitlines() if " BROKEN" in line}
    assert broken == BROKEN_BY_THEM


def test_a_new_subpackage_must_be_given_its_layer(copy: Path) -> None:
    new = copy / "shared/fl_shared/utils"
    new.mkdir()
    (new / "__init__.py").touch()
    assert "The shared layers import only layers below BROKEN" in lint_imports(copy)


def test_the_docstring_of_a_subpackage_is_its_map() -> None:
    """At most 15 lines, and nothing but the docstring: an import would run with its first module.

    Only `fl_mqtt` itself has names, for programs that use it as a library.
    """
    for package, folder in PACKAGES.items():
        for file in (ROOT / folder / package).rglob("__init__.py"):
            if file == ROOT / "fl_mqtt" / "fl_mqtt" / "__init__.py":
                continue
            (only,) = ast.parse(file.read_text()).body
            assert isinstance(only, ast.Expr), file
            assert len(file.read_text().splitlines()) <= 15, file


def test_modules_lie_in_subpackages() -> None:
    outside = {
        file.relative_to(ROOT / folder).as_posix()
        for package, folder in PACKAGES.items()
        for file in (ROOT / folder / package).glob("*.py")
        if file.name not in {"__init__.py", "__main__.py"}
    }
    assert outside == {
        "fl_edge/cli.py",
        "fl_edge/errors.py",
        "fl_shared/errors.py",
    }


PRESETS = ("uniform", "silos", "gateways", "phones")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("wheel")
    # hatchling itself and no front end, which would fetch hatchling from the network.
    done = run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", target)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = target.glob("*.whl")
    return built


def test_the_wheel_holds_the_packages_and_nothing_else(wheel: Path) -> None:
    wanted: set[str] = set()
    for package, folder in PACKAGES.items():
        sources = {p.relative_to(ROOT / folder).as_posix() for p in (ROOT / folder / package).rglob("*.py")}
        assert f"{package}/__init__.py" in sources
        pages = {
            p.relative_to(ROOT / folder).as_posix()
            for p in (ROOT / folder).rglob("static/**/*")
            if p.is_file()
        }
        assert (package == "fl_aggregator") == bool(pages)
        wanted |= sources | pages | {f"{package}/py.typed"}
    wanted |= {f"fl_shared/data/digits.{suffix}" for suffix in ("csv.gz", "LICENSE.md")}
    wanted |= {f"fl_mqtt/cli/seven.{suffix}" for suffix in ("json", "png")}
    wanted |= {f"fl_mqtt/simulation/virtual/presets/{name}.toml" for name in PRESETS}
    wanted |= {f"fl_edge/tools/template/{name}.txt" for name in ("pyproject.toml", "README.md", "task.py")}
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert held == wanted


def test_the_wheel_names_its_commands_licence_and_requirements(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        files = {
            name.partition(".dist-info/")[2]: name for name in archive.namelist() if ".dist-info/" in name
        }
        commands = archive.read(files["entry_points.txt"]).decode()
        licence = archive.read(files["licenses/LICENSE"]).decode()
        metadata = Parser().parsestr(archive.read(files["METADATA"]).decode())
    for command, module in COMMANDS:
        assert f"{command} = {module}:main" in commands
    for entry in ("simulate = fl_mqtt.simulation.cli:simulate", "export = fl_mqtt.export.cli:export"):
        assert entry in commands
    assert "Apache License" in licence
    requirements = metadata.get_all("Requires-Dist", [])
    for machine, extra, torch in (
        ("x86_64", "edge", "2.99"),
        ("aarch64", "edge", "2.10"),  # the last one without CUDA
        ("aarch64", "edge-cuda", "2.99"),
    ):
        environment = {"sys_platform": "linux", "platform_machine": machine}
        light, heavy = (_needed(requirements, {**environment, "extra": name}) for name in ("", extra))
        assert set(heavy) - set(light) == {"torch", "torchvision", "pillow"}
        assert heavy["torch"].contains(torch)
        assert heavy["torch"].contains("2.11") == (torch != "2.10")


def _needed(requirements: list[str], environment: dict[str, str]) -> dict[str, SpecifierSet]:
    """The distributions that are required there, with their versions."""
    parsed = [Requirement(text) for text in requirements]
    return {r.name: r.specifier for r in parsed if r.marker is None or r.marker.evaluate(environment)}
