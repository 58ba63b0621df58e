"""The options of ``fl-edge`` that say in which surveys it takes part. It is imported for ``--help``, too."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import click

from fl_edge.session.survey import LEAST, SurveyPolicy, Telling
from fl_shared.cli.headings import PRIVACY, option_under


def survey_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options, passed as ``survey``, a `SurveyPolicy`."""

    @functools.wraps(command)
    def gathering(*args: Any, survey: Telling, survey_least: int, **values: Any) -> Any:
        return command(*args, survey=SurveyPolicy(survey, survey_least), **values)

    with_least = option_under(
        PRIVACY,
        "--survey-least",
        type=click.IntRange(2, 10**8),
        default=LEAST,
        metavar="EDGES",
        help="Take part only in surveys whose sums have at least this many edges.",
    )(gathering)
    return option_under(
        PRIVACY,
        "--survey",
        type=click.Choice(("sums", "each", "no")),
        default="sums",
        help="What to share in a survey of the data (fl-aggregator survey): this edge's part of sums over "
        "many edges, also its own figures, or nothing.",
    )(with_least)
