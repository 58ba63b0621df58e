"""An environment in which some packages are not installed, as far as Python's programs can tell."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

NOT_IN_LITE: Final = ("torch", "torchvision", "sklearn", "scipy")
"""What an environment with the extra ``lite`` alone does not have, and the test environment has."""

_SITECUSTOMIZE = """
import sys
from importlib.machinery import PathFinder

class Without(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in {names!r} else super().find_spec(name, path, target)

sys.meta_path[:] = [Without if finder is PathFinder else finder for finder in sys.meta_path]
"""


def without_packages(directory: Path, *names: str) -> dict[str, str]:
    """Returns the environment. Its ``sitecustomize``, which each Python process imports first, is in ``directory``."""
    directory.mkdir()
    (directory / "sitecustomize.py").write_text(_SITECUSTOMIZE.replace("{names!r}", repr(names)))
    before = os.environ.get("PYTHONPATH", "")
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (str(directory), before)))}
