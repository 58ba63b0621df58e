"""Draws curves as an SVG file, with the same bytes everywhere: no library, no date, no random name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final
from xml.sax.saxutils import escape

Points = Sequence[tuple[float, float]]
COLOURS: Final = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#56b4e9",
    "#e69f00",
    "#7a7a7a",
    "#000000",
    "#8c510a",
)
"""Mostly those of Okabe and Ito, which colour-blind people can tell apart."""
_WIDTH: Final = 330
_HEIGHT: Final = 210
_LEFT: Final = 34
_TOP: Final = 26
_BOTTOM: Final = 26


def svg(panels: Mapping[str, Mapping[str, Points]], most: int, description: str) -> str:
    """Returns panels side by side, two in a row: accuracy (0 to 1) over 0 to ``most``, a line for each name.

    A name has the same colour in all panels. A dot is where a line ends before ``most``. ``description`` is what the
    picture shows, for those who cannot see it.
    """
    names = list(dict.fromkeys(name for panel in panels.values() for name in panel))
    columns = min(2, max(1, len(panels)))
    rows = -(-len(panels) // columns)
    legend_columns = 3 if max(map(len, names), default=0) < 30 else 2
    legend_rows = -(-len(names) // legend_columns)
    width, height = columns * _WIDTH, rows * _HEIGHT + 16 * legend_rows + 8
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
            f'width="{width}" height="{height}" font-family="sans-serif" font-size="11">'
        ),
        f"<title>{escape(description)}</title>",
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
    ]
    for index, (title, panel) in enumerate(panels.items()):
        column, row = index % columns, index // columns
        parts.append(f'<g transform="translate({column * _WIDTH},{row * _HEIGHT})">')
        parts += _panel(title, {names.index(name): points for name, points in panel.items()}, most)
        parts.append("</g>")
    for index, name in enumerate(names):
        x = _LEFT + (index % legend_columns) * (width - _LEFT) // legend_columns
        y = rows * _HEIGHT + 12 + 16 * (index // legend_columns)
        parts.append(f'<path d="M{x} {y - 4}h16" stroke="{_colour(index)}" stroke-width="2"/>')
        parts.append(f'<text x="{x + 20}" y="{y}">{escape(name)}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _colour(index: int) -> str:
    return COLOURS[index % len(COLOURS)]


def _panel(title: str, lines: Mapping[int, Points], most: int) -> list[str]:
    inner = _WIDTH - _LEFT - 12
    tall = _HEIGHT - _TOP - _BOTTOM

    def place(at: float, value: float) -> str:
        return f"{_LEFT + inner * at / most:.1f} {_TOP + tall * (1 - value):.1f}"

    parts = [f'<text x="{_LEFT}" y="16" font-weight="bold">{escape(title)}</text>']
    for tenths in (0, 2, 4, 6, 8, 10):
        at = place(0, tenths / 10)
        parts.append(f'<path d="M{at}h{inner}" stroke="#ddd"/>')
        y = float(at.split()[1]) + 4
        parts.append(
            f'<text x="{_LEFT - 5}" y="{y:.1f}" text-anchor="end" fill="#555">{tenths / 10:g}</text>'
        )
    for tick in (0, most // 2, most):
        x = place(tick, 0).split()[0]
        parts.append(f'<text x="{x}" y="{_HEIGHT - 10}" text-anchor="middle" fill="#555">{tick}</text>')
    for index, points in lines.items():
        path = "L".join(place(*point) for point in points)
        parts.append(f'<path d="M{path}" fill="none" stroke="{_colour(index)}" stroke-width="1.5"/>')
        if points[-1][0] < most:
            centre_x, centre_y = place(*points[-1]).split()
            parts.append(f'<circle cx="{centre_x}" cy="{centre_y}" r="3" fill="{_colour(index)}"/>')
    return parts
