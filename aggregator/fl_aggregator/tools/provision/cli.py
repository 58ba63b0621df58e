"""The command ``fl-aggregator provision``, which creates accounts, and its subcommands, which change them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from fl_aggregator.tools.provision.arguments import (
    edge_accounts,
    parse_broker_dir,
    parse_brokers,
    parse_host,
    parse_names,
)
from fl_shared.cli import options as shared
from fl_shared.cli.headings import CommandGroup
from fl_shared.errors import UserError

if TYPE_CHECKING:
    from fl_aggregator.tools.provision.kits import Provision, ProvisionResult
    from fl_shared.security.kit import AccountRole
    from fl_shared.security.kit_request import KitRequest

Command = Callable[..., Any]

MAX_KITS: Final = 100_000
OUT_DIRECTORY: Final = click.Path(file_okay=False, path_type=Path)


def _output_options(command: Command) -> Command:
    command = click.option("--force", is_flag=True, help="Replace existing kits.")(command)
    return click.option(
        "--out", type=OUT_DIRECTORY, default=Path("kits"), help="Directory of the accounts and kits."
    )(command)


def _request_option(command: Command) -> Command:
    """Adds ``--request``, passed as ``request_files``."""
    return click.option(
        "--request",
        "request_files",
        multiple=True,
        metavar="FILE",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="Request that request-kit made on a device, which keeps the private keys; repeatable.",
    )(command)


def _role_options(command: Command) -> Command:
    """Adds the options ``--train``, ``--evaluate``, ``--predict`` and ``--region``: which edges have the role."""
    for role, default, verb in (
        ("region", "none", "are regional aggregators"),
        ("predict", "none", "answer predictions"),
        ("evaluate", "none", "evaluate on the test split"),
        ("train", "all", "train"),
    ):
        text = f"Edges that {verb}: all, none, or ID,…"
        command = click.option(f"--{role}", metavar="WHO", default=default, help=text)(command)
    return command


@click.group(
    cls=CommandGroup,
    invoke_without_command=True,
    context_settings=shared.CONTEXT,
    epilog="Without a command, it creates everything: --edges N --broker-host HOST.",
)
@click.option("--edges", type=click.IntRange(0, MAX_KITS), default=None, help="Create edges 0 to N-1.")
@click.option(
    "--broker-host",
    "broker_host",
    multiple=True,
    metavar="HOST",
    help="Host name or address of the broker; repeatable: its certificate names all, kits the first.",
)
@click.option(
    "--brokers",
    metavar="HOST,…",
    default=None,
    help="Host names of bridged brokers, the hub first, instead of --broker-host. A broker's name is its host "
    "name up to the first dot, or NAME in NAME=HOST.",
)
@click.option("--broker-port", type=click.IntRange(1, 65_535), default=8883)
@shared.prefix_option()
@_role_options
@click.option(
    "--askers", metavar="WHO", default="none", help="Accounts that may ask for predictions: none, or NAME,…"
)
@click.option(
    "--password", "passwords", is_flag=True, allow_from_autoenv=False,  # FL_PASSWORD is the broker's password
    help="Use passwords instead of certificates.",
)  # fmt: skip
@shared.home_assistant_option("Let the aggregator announce its run to Home Assistant.")
@click.option("--days", type=click.IntRange(1, 7_000), default=730, help="Validity of certificates, in days.")
@click.option(
    "--broker-dir",
    metavar="DIR",
    default=None,
    show_default="OUT/broker",
    help="Directory where the broker will find its files.",
)
@_output_options
@shared.config_option
@click.pass_context
def provision(
    context: click.Context,
    edges: int | None,
    broker_host: tuple[str, ...],
    brokers: str | None,
    broker_port: int,
    prefix: str,
    train: str,
    evaluate: str,
    predict: str,
    region: str,
    askers: str,
    passwords: bool,
    home_assistant: str | None,
    days: int,
    broker_dir: str | None,
    out: Path,
    force: bool,
) -> None:
    """Create accounts, certificates and kits for edges, and an ACL and a configuration for Mosquitto."""
    if context.invoked_subcommand is not None:
        # Options before a subcommand would be ignored silently.
        given_options = [name for name in context.params if _is_given(context, name)]
        if given_options:
            raise UserError(
                f"--{given_options[0].replace('_', '-')} before {context.invoked_subcommand}: expected after it"
            )
        return
    if edges is None:
        raise UserError(
            "--edges is missing: expected the number of edges (to change existing accounts: add, revoke, rotate)"
        )
    bridged: list[str] = []
    if brokers is not None:
        if broker_host or passwords:
            other = "--broker-host" if broker_host else "--password"
            why = "it names all hosts" if broker_host else "bridges have certificates"
            raise UserError(f"--brokers cannot be combined with {other}: {why}")
        broker_host, bridged = parse_brokers(brokers)
    if not broker_host:
        raise UserError(
            "--broker-host is missing: expected the host name or address at which edges reach the broker"
        )
    from fl_aggregator.tools.provision import kits
    from fl_aggregator.tools.provision.accounts import BrokerLocation

    location = BrokerLocation(
        hosts=tuple(parse_host(host) for host in broker_host),
        port=broker_port,
        prefix=prefix,
        passwords=passwords,
        days=days,
        broker_dir=parse_broker_dir(broker_dir),
        bridged=tuple(bridged),
        home_assistant=home_assistant,
    )
    requested = edge_accounts([str(number) for number in range(edges)], train, evaluate, predict, region)
    if askers == "all":
        raise UserError("--askers 'all': an asker has a name of its own; expected none, or NAME,…")
    for name in parse_names(askers, "--askers"):
        requested.append((name, ("asker",)))
    provisioned, result = kits.create_provision(out, location, requested, force=force)
    _print_result(result)
    click.echo(
        f"the authority is in {out / kits.AUTHORITY_DIRECTORY}: keep it safe, and away from broker and aggregator"
    )
    if bridged:
        click.echo(
            f"the hub's files are in {provisioned.broker_directory}, those of the others in "
            f"{provisioned.broker_directory}-NAME: the page 'Several brokers' of the documentation says how edges find "
            "them"
        )
        return
    click.echo(
        f"the broker's files are in {provisioned.broker_directory}: the page 'Accounts, certificates and kits' of the "
        "documentation says how to install them"
    )


@provision.command(context_settings=shared.CONTEXT)
@click.argument("names", metavar="[ID…]", nargs=-1)
@_request_option
@_role_options
@click.option("--asker", is_flag=True, help="Create accounts that only ask for predictions, not edges.")
@_output_options
@shared.config_option
def add(
    names: tuple[str, ...],
    request_files: tuple[Path, ...],
    train: str,
    evaluate: str,
    predict: str,
    region: str,
    asker: bool,
    out: Path,
    force: bool,
) -> None:
    """Create accounts and their kits, for names or for requests. Kits for requests have no private keys."""
    from fl_aggregator.tools.provision import kits
    from fl_aggregator.tools.provision.accounts import check_name
    from fl_aggregator.tools.provision.requests import read_request

    if not (names or request_files):
        raise UserError("nothing to add: expected ID…, or --request FILE")
    requests = [read_request(path) for path in request_files]
    names = (*names, *(request.name for request in requests))

    requested: list[tuple[str, tuple[AccountRole, ...]]]
    if asker:
        requested = [(check_name(name, "account"), ("asker",)) for name in names]
    else:
        edges = [check_name(name, "edge") for name in names]
        requested = edge_accounts(edges, train, evaluate, predict, region)
    with kits.open_provision(out) as provisioned:
        _print_result(provisioned.add(requested, force=force, requests=requests))
        _print_fingerprints(requests)
        _print_reload_hint(provisioned)


@provision.command(context_settings=shared.CONTEXT)
@click.argument("names", metavar="ID…", nargs=-1, required=True)
@click.option("--out", type=OUT_DIRECTORY, default=Path("kits"), help="Directory of the accounts and kits.")
@shared.config_option
def revoke(names: tuple[str, ...], out: Path) -> None:
    """Remove accounts; their kits stop working when the broker has been restarted with its new files."""
    from fl_aggregator.tools.provision import kits

    with kits.open_provision(out) as provisioned:
        _print_result(provisioned.revoke(names))
        _print_reload_hint(provisioned, restart=True)


@provision.command(context_settings=shared.CONTEXT)
@click.argument("names", metavar="[ID…]", nargs=-1)
@_request_option
@click.option("--aggregator", is_flag=True, help="Renew the aggregator's certificate; its signing key stays.")
@click.option(
    "--broker",
    "of_broker",
    is_flag=True,
    allow_from_autoenv=False,  # FL_BROKER is the broker's address
    help="Renew the broker's key, and all accounts, since their kits name the key.",
)
@click.option(
    "--all",
    "everything",
    is_flag=True,
    help="Renew all accounts, the enrolment key and the aggregator's keys, for example after its kit was lost.",
)
@_output_options
@shared.config_option
def rotate(
    names: tuple[str, ...],
    request_files: tuple[Path, ...],
    aggregator: bool,
    of_broker: bool,
    everything: bool,
    out: Path,
    force: bool,
) -> None:
    """Create new keys and kits for accounts; the old ones stop working when the broker has been restarted."""
    from fl_aggregator.tools.provision import kits
    from fl_aggregator.tools.provision.accounts import AGGREGATOR
    from fl_aggregator.tools.provision.requests import read_request

    if not (names or request_files or aggregator or of_broker or everything):
        raise UserError("nothing to rotate: expected ID…, --request, --aggregator, --broker or --all")
    if (everything or of_broker) and (names or request_files or aggregator):
        raise UserError("--all and --broker renew all accounts: expected no account names and no requests")
    requests = [read_request(path) for path in request_files]
    with kits.open_provision(out) as provisioned:
        selected = [*names, *([AGGREGATOR] if aggregator else [])]
        if everything or of_broker:
            selected = [account.name for account in provisioned.register.accounts]
        _print_result(
            provisioned.rotate(
                selected, force=force, new_keys=everything, new_broker=of_broker, requests=requests
            )
        )
        _print_fingerprints(requests)
        if of_broker:
            click.echo(f"written: {provisioned.broker_directory / 'broker.pem'} and its key")
        _print_reload_hint(provisioned, restart=bool(selected or requests))


def _is_given(context: click.Context, name: str) -> bool:
    return context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE


# --- what is printed ---------------------------------------------------------------------------------------


def _print_result(result: ProvisionResult) -> None:
    for name in result.revoked:
        click.echo(f"revoked: {name}")
    if len(result.kits) > 4:
        click.echo(f"written: {result.kits[0]} … {result.kits[-1]}, {len(result.kits)} kits")
    else:
        for path in result.kits:
            click.echo(f"written: {path}")


def _print_fingerprints(requests: Sequence[KitRequest]) -> None:
    """What the requests are known by: whoever replaces one on its way gets the kit of that account."""
    from fl_shared.security.kit_request import fingerprint

    for request in requests:
        click.echo(f"request of {request.name}: fingerprint {fingerprint(request.digest)}")
    if requests:
        click.echo("deliver a kit only if its device has shown the same fingerprint")


def _print_reload_hint(provisioned: Provision, *, restart: bool = False) -> None:
    """``restart``: accounts have lost their rights; a broker that only reloads its files keeps their connections."""
    names = provisioned.register.place.bridged
    others = "".join(f" (of broker {name}: {provisioned.broker_directory}-{name})" for name in names)
    copy = f"copy the files in {provisioned.broker_directory}{others} to the broker and"
    if restart:
        click.echo(f"{copy} restart it: after a reload alone, old connections stay open")
    else:
        click.echo(f"{copy} make it reload them: kill -HUP its process")
    if provisioned.register.revoked_keys:
        click.echo(
            f"copy {provisioned.revocation_list} next to the aggregator's kit, if that is on another machine: "
            "a running aggregator reads it"
        )
