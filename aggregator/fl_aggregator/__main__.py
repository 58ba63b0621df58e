"""``python -m fl_aggregator``: the same as ``fl-aggregator``."""

from fl_aggregator.cli.main import main

main()
