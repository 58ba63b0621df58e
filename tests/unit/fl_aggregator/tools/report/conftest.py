"""Pages whose figures are composed, and not drawn."""

from __future__ import annotations

from typing import Any, TextIO

import pytest


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Matplotlib takes most of the time of a page. Without it the figures have their text alternatives alone."""

    def savefig(_figure: Any, file: TextIO, **_: Any) -> None:
        file.write('<svg viewBox="0 0 1 1"></svg>')

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", savefig)
