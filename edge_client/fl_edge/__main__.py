"""``python -m fl_edge``: the same as ``fl-edge``."""

from fl_edge.cli import main

main()
