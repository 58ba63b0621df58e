"""Converts matplotlib's figures to SVG that is part of the page and takes its colours, light or dark."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, cast

from fl_aggregator.tools.report.markup import Markup, text
from fl_shared.errors import UserError
from fl_shared.system.invocation import install_command

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SERIES_COLOURS: Final = 8
"""Number of different colours; `colour` repeats them after that."""
TEXT_COLOUR: Final = "#010203"
MUTED_COLOUR: Final = "#010204"
GRID_COLOUR: Final = "#010205"
SURFACE_COLOUR: Final = "#010206"
_CSS_VARIABLES: Final = {
    TEXT_COLOUR: "--ink",
    MUTED_COLOUR: "--muted",
    GRID_COLOUR: "--grid",
    SURFACE_COLOUR: "--surface",
} | {f"#0102{16 + n:02x}": f"--series-{n + 1}" for n in range(SERIES_COLOURS)}
"""Colours that occur nowhere else, each of which stands for a variable of the page's style sheet."""

_RC_SETTINGS: Final[dict[str, Any]] = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # a run's name may be $x$
    "font.size": 9.5,
    "axes.edgecolor": GRID_COLOUR,
    "axes.labelcolor": MUTED_COLOUR,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.titlecolor": TEXT_COLOUR,
    "axes.titlepad": 12,
    "axes.formatter.useoffset": False,
    "grid.color": GRID_COLOUR,
    "grid.linewidth": 0.8,
    "xtick.color": GRID_COLOUR,
    "ytick.color": GRID_COLOUR,
    "xtick.labelcolor": MUTED_COLOUR,
    "ytick.labelcolor": MUTED_COLOUR,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "text.color": TEXT_COLOUR,
    "lines.linewidth": 2,
    "lines.solid_capstyle": "round",
    "lines.solid_joinstyle": "round",
    "legend.frameon": False,
    "legend.fontsize": 9.5,
    "legend.labelcolor": TEXT_COLOUR,
    "legend.handlelength": 1.4,
}


def colour(index: int) -> str:
    """The colour of the series with number ``index``, from 0."""
    return f"#0102{16 + index % SERIES_COLOURS:02x}"


def draw(name: str, size: tuple[float, float], description: str, plot: Callable[[Axes], None]) -> Markup:
    """A figure of ``size`` inches as SVG. ``name`` must be unique in the page.

    ``description``: the text alternative. ``plot``: draws on the axes. Raises ``UserError`` without
    matplotlib.
    """
    try:
        from matplotlib import rc_context
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure
    except ImportError:
        raise UserError(
            f"matplotlib is not installed, and a report needs it: {install_command('report')}"
        ) from None
    # The salt makes ids in the SVG (of clip paths, markers) unique in the page, and the same each time.
    with rc_context(cast(Any, {**_RC_SETTINGS, "svg.hashsalt": name})):
        figure = Figure(figsize=size, layout="constrained", facecolor="none")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot(facecolor="none")
        plot(axes)
        buffer = io.StringIO()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # letters are missing in matplotlib's font, not in the page's
            figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    return _inline(buffer.getvalue(), description)


def _inline(svg: str, description: str) -> Markup:
    """The SVG as part of the page: in its colours, as wide as it allows, and without the parts of a file."""
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, count=1, flags=re.DOTALL)
    head, _, rest = body.partition(">")
    view_box = re.search(r'viewBox="([^"]+)"', head)
    assert view_box is not None
    width = float(view_box[1].split()[2])
    for sentinel, variable in _CSS_VARIABLES.items():
        rest = rest.replace(sentinel, f"var({variable})")
    opening_tag = (
        f'<svg role="img" aria-label="{text(description)}" viewBox="{view_box[1]}" '
        f'style="max-width:{width * 4 / 3:.0f}px">'
    )
    return Markup(opening_tag + rest)
