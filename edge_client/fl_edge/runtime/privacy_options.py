"""The options of ``fl-edge`` for the privacy of its own data. It is imported for ``--help``, too."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Final

from fl_edge.session.privacy import Budget, ExampleNoise, LocalNoise, OwnPrivacy
from fl_shared.cli import options
from fl_shared.cli.headings import PRIVACY, option_under
from fl_shared.errors import UserError

_NAMES: Final = ("dp_sgd", "dp_sgd_tell", "dp_local", "require_noise", "privacy_budget")
_NOISE: Final = options.FiniteRange(0.001, 1e6)


def _checked(parse: Callable[[str], Any]) -> options.Callback:
    """Returns a callback that only checks a value: a simulation passes on the text."""

    def check(text: str) -> str:
        parse(text)
        return text

    return options.parsed(check)


def privacy_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options, passed as ``privacy``, an `OwnPrivacy`."""

    @functools.wraps(command)
    def gathering(*args: Any, **values: Any) -> Any:
        given = {name: values.pop(name) for name in _NAMES}
        return command(*args, privacy=_own_privacy(**given), **values)

    decorated: Callable[..., Any] = gathering
    for option in (
        option_under(
            PRIVACY,
            "--privacy-budget",
            metavar="E[,D]",
            callback=_checked(Budget.parse),
            show_default="none",
            help="Send no update that would make ε more than E (for δ D, 1e-5) over all runs of this edge. Needs "
            "--dp-sgd, --dp-local or --require-noise.",
        ),
        option_under(
            PRIVACY,
            "--require-noise",
            type=_NOISE,
            metavar="Z",
            show_default="any round",
            help="Train only in masked rounds whose edges add noise of Z times the clip to the sum, whoever colludes. "
            "Implies --require-masked.",
        ),
        option_under(
            PRIVACY,
            "--dp-local",
            metavar="Z,S",
            callback=_checked(LocalNoise.parse),
            show_default="off",
            help="Clip each update to S (L2 norm), and add noise of Z × S to it, before it leaves the edge: protects "
            "against everybody.",
        ),
        option_under(PRIVACY, "--dp-sgd-tell", is_flag=True, help="Send the ε of --dp-sgd with each update."),
        option_under(
            PRIVACY,
            "--dp-sgd",
            metavar="Z[,C]",
            callback=_checked(ExampleNoise.parse),
            show_default="off",
            help="Train so that it is hard to tell whether an example is in this edge's data: clip the gradient of "
            "each example to C (1), and add noise with a deviation of Z × C. Needs fl-mqtt[dp-sgd].",
        ),
    ):
        decorated = option(decorated)
    return decorated


def _own_privacy(
    dp_sgd: str | None,
    dp_sgd_tell: bool,
    dp_local: str | None,
    require_noise: float | None,
    privacy_budget: str | None,
) -> OwnPrivacy:
    if dp_sgd_tell and dp_sgd is None:
        raise UserError("--dp-sgd-tell needs --dp-sgd: without it there is no ε to send")
    if privacy_budget is not None and dp_sgd is None and dp_local is None and require_noise is None:
        raise UserError(
            "--privacy-budget needs --dp-sgd, --dp-local or --require-noise: an update without noise has no ε"
        )
    found = OwnPrivacy(
        None if dp_sgd is None else ExampleNoise.parse(dp_sgd),
        dp_sgd_tell,
        None if dp_local is None else LocalNoise.parse(dp_local),
        require_noise,
        None if privacy_budget is None else Budget.parse(privacy_budget),
    )
    if found.budget is not None and found.problem_of(()) is not None:
        one = found.epsilon(found.next_charges)
        raise UserError(
            f"--privacy-budget {privacy_budget}: one update costs ε {one:.3g}; expected more noise, or a larger budget"
        )
    return found
