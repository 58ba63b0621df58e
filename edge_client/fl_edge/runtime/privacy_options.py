"""The options of ``fl-edge`` for the privacy of its own data. It is imported for ``--help``, too."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Final

import click

from fl_edge.session.privacy import ExampleNoise, OwnPrivacy
from fl_shared.cli.headings import PRIVACY, option_under
from fl_shared.errors import UserError

_NAMES: Final = ("dp_sgd", "dp_sgd_tell")


def _checked(parse: Callable[[str], Any]) -> Callable[[click.Context, click.Parameter, Any], str | None]:
    """Returns a callback that only checks a value: a simulation passes on the text."""

    def callback(_ctx: click.Context, _param: click.Parameter, value: str | None) -> str | None:
        try:
            if value is not None:
                parse(value)
        except ValueError as error:
            raise click.BadParameter(str(error)) from None
        return value

    return callback


def privacy_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options, passed as ``privacy``, an `OwnPrivacy`."""

    @functools.wraps(command)
    def gathering(*args: Any, **values: Any) -> Any:
        given = {name: values.pop(name) for name in _NAMES}
        return command(*args, privacy=_own_privacy(**given), **values)

    decorated: Callable[..., Any] = gathering
    for option in (
        option_under(PRIVACY, "--dp-sgd-tell", is_flag=True, help="Send the ε of --dp-sgd with each update."),
        option_under(
            PRIVACY,
            "--dp-sgd",
            metavar="Z[,C]",
            callback=_checked(ExampleNoise.parse),
            show_default="off",
            help="Train so that it is hard to tell whether an example is in this edge's data: gradients of single "
            "examples are no longer than C (1), noise has Z times that deviation. Needs fl-mqtt[dp-sgd].",
        ),
    ):
        decorated = option(decorated)
    return decorated


def _own_privacy(dp_sgd: str | None, dp_sgd_tell: bool) -> OwnPrivacy:
    if dp_sgd_tell and dp_sgd is None:
        raise UserError("--dp-sgd-tell needs --dp-sgd: without it there is no ε to send")
    return OwnPrivacy(None if dp_sgd is None else ExampleNoise.parse(dp_sgd), tells=dp_sgd_tell)
