"""The command ``fl-aggregator relay``. The function imports what is slow to import."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fl_shared.cli import options as shared
from fl_shared.cli.headings import BROKER, OUTPUT, ROUNDS, RUN, SECURITY, option_under
from fl_shared.cli.logging import start_logging
from fl_shared.errors import UserError

if TYPE_CHECKING:
    from fl_shared.cli.broker_access import BrokerAccess
    from fl_shared.mqtt.address import BrokerAddress

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@shared.command()
@option_under(
    RUN, "--id", "name", required=True, help="Name of the region: its id as an edge of the run above."
)
@option_under(
    RUN, "--edges", type=click.IntRange(1, 1_000_000), required=True, help="Number of edges of the region."
)
@option_under(
    RUN,
    "--clients",
    type=click.IntRange(1, 1_000_000),
    show_default="--edges",
    help="Number of training edges of all regions, and of partitions of the data.",
)
@option_under(RUN, "--state-dir", type=click.Path(file_okay=False, path_type=Path), show_default="./relay-ID",
              help="Directory that survives restarts: the region goes on where it was.")  # fmt: skip
@option_under(ROUNDS, "--per-round", type=click.IntRange(1), show_default="--edges",
              help="Updates to collect in each round of the region.")  # fmt: skip
@option_under(ROUNDS, "--quorum", type=click.IntRange(1), show_default="half of --per-round",
              help="Minimum number of updates in a sum.")  # fmt: skip
@option_under(ROUNDS, "--grace", type=shared.FiniteRange(min=0), default=5.0,
              help="Seconds that a lost edge has to return.")  # fmt: skip
@option_under(ROUNDS, "--wait", type=shared.FiniteRange(min=0, min_open=True), default=600.0,
              help="Seconds to wait for the edges of the region.")  # fmt: skip
@option_under(BROKER, "--upstream", metavar="URL", callback=shared.broker_address,
              help="Broker of the run above.")  # fmt: skip
@option_under(BROKER, "--upstream-prefix", metavar="TOPIC", callback=shared.topic_prefix, show_default="fl",
              help="Prefix of the topics of the run above.")  # fmt: skip
@option_under(
    BROKER, "--downstream", metavar="URL", callback=shared.broker_address, help="Broker of the region."
)
@option_under(BROKER, "--downstream-prefix", metavar="TOPIC", callback=shared.topic_prefix, show_default="fl",
              help="Prefix of the topics of the region.")  # fmt: skip
@option_under(
    SECURITY,
    "--upstream-kit",
    type=FILE,
    help="Kit of a region's account (provision --region) at the broker of the run above.",
)
@option_under(
    SECURITY, "--downstream-kit", type=FILE, help="Kit of an aggregator's account at the region's broker."
)
@option_under(
    SECURITY, "--seal", is_flag=True, help="Encrypt what is sent to the run above; needs --upstream-kit."
)
@option_under(
    SECURITY, "--require-sealed", is_flag=True, help="Reject unsealed messages from the region's edges."
)
@option_under(OUTPUT, "--durability", type=click.Choice(["process", "power", "memory"]), default="process",
              help="What an accepted update survives: a crash, a power failure, or neither.")  # fmt: skip
@shared.logging_options
@shared.config_option
def relay(
    name: str,
    edges: int,
    clients: int | None,
    state_dir: Path | None,
    per_round: int | None,
    seal: bool,
    verbose: int,
    log_format: str,
    **values: Any,
) -> int:
    """Run a regional aggregator: an edge of the run above that sends the exact sum of its own edges.

    A version has the same bits as without it. Start the run above with --edges-per-round.
    """
    from fl_mqtt.regional.below import RegionOptions
    from fl_mqtt.regional.program import RelaySettings, run

    start_logging(verbose, log_format)
    upstream = _access("upstream", "region", values)
    downstream = _access("downstream", "aggregator", values)
    if (upstream.address, upstream.prefix) == (downstream.address, downstream.prefix):
        raise UserError(
            f"--downstream {downstream.address}: is the broker of the run above, with the same prefix: "
            "expected another broker, or another --downstream-prefix"
        )
    if seal and upstream.kit is None:
        raise UserError("--seal: needs --upstream-kit, which has the key of the aggregator above")
    per_round = edges if per_round is None else per_round
    if per_round > edges:
        raise UserError(
            f"--per-round {per_round}: the region has {edges} edges (--edges), expected at most as many"
        )
    region = RegionOptions(
        name=name,
        edges=edges,
        clients=max(edges, clients or edges),
        per_round=per_round,
        quorum=values["quorum"],
        grace=values["grace"],
        wait=values["wait"],
        durability=values["durability"],
        require_sealed=values["require_sealed"],
    )
    return run(RelaySettings(region, upstream, downstream, state_dir or Path(f"relay-{name}"), seal))


def _access(side: str, role: Any, values: dict[str, Any]) -> BrokerAccess:
    from fl_shared.cli.broker_access import BrokerOptions

    address: BrokerAddress | None = values[side]
    kit: Path | None = values[f"{side}_kit"]
    if address is None and kit is None:
        raise UserError(f"--{side}: is missing, expected the URL of a broker, or --{side}-kit")
    options = BrokerOptions(broker=address, kit=kit, prefix=values[f"{side}_prefix"])
    return options.access(roles=(role,))
