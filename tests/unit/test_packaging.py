"""What is installed: light commands, an aggregator without torch, walls between packages, a whole wheel."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from email.parser import Parser
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = Path(sysconfig.get_path("scripts"))
PACKAGES = {"fl_aggregator": "aggregator", "fl_edge": "edge_client", "fl_shared": "shared"}

COMMANDS = [("fl-aggregator", "fl_aggregator.cli"), ("fl-edge", "fl_edge.cli")]
SLOW_TO_IMPORT = {"torch", "torchvision", "sklearn", "scipy", "PIL", "numpy", "pydantic", "rich", "paho"}
EDGE_ONLY = {"torch", "torchvision", "sklearn", "scipy", "PIL"}

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


@pytest.mark.parametrize("package", ["fl_aggregator", "fl_shared"])
def test_the_whole_package_loads_nothing_that_only_edges_have(package: str) -> None:
    done = run(sys.executable, "-c", IMPORT_EVERYTHING, package)
    assert done.returncode == 0, done.stderr
    modules = set(done.stdout.split())
    assert f"{package}.{'round' if package == 'fl_aggregator' else 'protocol.messages'}" in modules
    assert top_level(modules) & EDGE_ONLY == set()


def test_the_walls_between_the_packages_stand(tmp_path: Path) -> None:
    done = run(SCRIPTS / "lint-imports", "--config", ROOT / "pyproject.toml", "--cache-dir", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    assert f"Contracts: {len(contracts)} kept, 0 broken" in done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("wheel")
    # hatchling itself and no front end, which would fetch hatchling from the network.
    done = run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", target)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = target.glob("*.whl")
    return built


def test_the_wheel_holds_the_three_packages_and_nothing_else(wheel: Path) -> None:
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
    assert "Apache License" in licence
    requirements = metadata.get_all("Requires-Dist", [])
    for heavy in ("torch", "torchvision", "scikit-learn", "pillow"):
        lines = [r for r in requirements if r.startswith(f"{heavy}>")]
        assert lines
        assert all("extra == 'edge'" in line for line in lines), lines
