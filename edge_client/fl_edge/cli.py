"""The command ``fl-edge``, which runs one edge or many in one process.

Modules that only a running edge needs are imported when it starts, so that ``--help`` is fast.
"""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

import click
from click.core import ParameterSource

from fl_edge.runtime.edge_options import ROLES, checked_id, edge_options
from fl_edge.runtime.privacy_options import privacy_options
from fl_edge.runtime.survey_options import survey_options
from fl_edge.session.policy import RequiredMasking
from fl_edge.session.privacy import OwnPrivacy
from fl_edge.session.survey import SurveyPolicy
from fl_shared.cli import options
from fl_shared.cli.headings import BROKER, DATA, OUTPUT, SECURITY, TRAINING, option_under
from fl_shared.cli.logging import start_logging
from fl_shared.cli.main import run_program
from fl_shared.errors import UserError
from fl_shared.system.invocation import edge_command

if TYPE_CHECKING:
    from fl_shared.cli.broker_access import BrokerOptions
    from fl_shared.security.kit import Kit

LOG: Final = logging.getLogger(__name__)

OTHER_COMMANDS: Final = ("new-task", "check-task", "request-kit")
"""The commands for authors of tasks, and for a device that keeps its private keys."""


@options.command(
    epilog=f"{options.EPILOG} Two more commands are for authors of tasks: {edge_command('new-task', 'DIR')} "
    f"and {edge_command('check-task', 'NAME')}. A device that keeps its private keys begins with "
    f"{edge_command('request-kit', 'ID')}."
)
@edge_options
@option_under(
    DATA,
    "--data",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Directory of the data set's files.",
)
@option_under(
    TRAINING,
    "--device",
    type=click.Choice(("cpu", "cuda", "auto")),
    default="cpu",
    help="Device to train on.",
)
@option_under(
    TRAINING,
    "--light",
    is_flag=True,
    help="Train without torch, in little memory: only tasks with dense models. Without torch installed this is so "
    "anyway.",
)
@option_under(
    TRAINING,
    "--workers",
    type=click.IntRange(1, 1024),
    show_default="one per core, at most one per edge",
    help="Number of training processes.",
)
@options.broker_options
@options.client_id_option
@option_under(
    BROKER,
    "--chunk",
    type=click.IntRange(1024, 2**24),
    default=2**20,
    metavar="BYTES",
    help="Chunk size of updates that are too large for one message; smaller if the broker requires it.",
)
@option_under(
    BROKER,
    "--via",
    metavar="NAME",
    callback=checked_id,
    help="Name of the broker, if it is bridged to the aggregator's: its edges are absent while its bridge is.",
)
@option_under(
    BROKER,
    "--wait",
    type=options.FiniteRange(0),
    show_default="never",
    help="Exit after this many seconds without a broker.",
)
@option_under(
    OUTPUT,
    "--state-dir",
    type=click.Path(file_okay=False, path_type=Path),
    show_default=".fl-edge/ID",
    help="Directory for an edge's state; with several ids, one subdirectory for each.",
)
@option_under(
    OUTPUT,
    "--parts-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write each edge's number of examples per class to this file. It stays on this machine.",
)
@option_under(
    OUTPUT,
    "--heartbeat",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Touch this file every 5 s while working and connected to the broker, for health checks.",
)
@option_under(
    SECURITY,
    "--no-device-info",
    is_flag=True,
    help="Do not report this machine: neither its platform, memory and cores nor its software.",
)
@option_under(
    SECURITY,
    "--no-remote-log",
    is_flag=True,
    help="Never send lines of the log to the operator (fl-aggregator logs).",
)
@option_under(
    SECURITY,
    "--seal",
    is_flag=True,
    help="Encrypt what the edge sends so that only the aggregator can read it, not even the broker "
    "(with --kit).",
)
@option_under(
    SECURITY,
    "--require-masked",
    is_flag=False,
    flag_value="5",
    metavar="MEMBERS[,COLLUDERS]",
    callback=options.parsed(RequiredMasking.parse),
    show_default="any round",
    help="Train only in masked rounds whose sums have at least MEMBERS (5) updates, of which COLLUDERS (1) may work "
    "together with the aggregator. Implies --seal, and needs --task.",
)
@privacy_options
@survey_options
@options.logging_options
@options.config_option
@options.version_option
def command(
    ids: tuple[str, ...],
    roles: tuple[str, ...],
    evaluator: str | None,
    broker: BrokerOptions,
    mqtt_client_id: str | None,
    state_dir: Path | None,
    seal: bool,
    require_masked: RequiredMasking | None,
    privacy: OwnPrivacy,
    survey: SurveyPolicy,
    verbose: int,
    log_format: str,
    **values: Any,
) -> int:
    """Train on this machine's own data for a federation, and answer prediction requests, over an MQTT broker."""
    if evaluator in ids:
        raise click.BadParameter(
            f"{evaluator!r} is also one of the ids of --id; expected another id", param_hint="--evaluator"
        )
    start_logging(verbose, log_format)
    broker_access = broker.access(roles=ROLES, mqtt_client_id=mqtt_client_id)
    if broker_access.kit is not None:
        ids, roles = _from_kit(broker_access.kit, ids, roles, evaluator)
    elif not ids:
        context = click.get_current_context()
        raise click.MissingParameter(
            ctx=context, param=next(one for one in context.command.params if one.name == "ids")
        )
    needs_kit = "--seal" if require_masked is None else "--require-masked"
    if privacy.least_noise is not None and require_masked is None:
        needs_kit, require_masked = "--require-noise", RequiredMasking.parse("5")
    seal = seal or require_masked is not None
    if seal:
        if broker_access.kit is None:
            raise UserError(f"{needs_kit} needs --kit: expected the kit that fl-aggregator provision made")
        broker_access.kit.check_voucher(datetime.now(UTC))
    if require_masked is not None:
        if values["task"] is None:
            raise UserError(
                "--require-masked needs --task: expected the task of the run with its options, so that no aggregator "
                "chooses what of the data it is about"
            )
        roles = without_predictions(roles, "--require-masked")
    if privacy.is_asked:
        roles = without_predictions(roles, privacy.option)
    edges = [(name, roles) for name in ids]
    if evaluator is not None:
        edges.append((evaluator, ("evaluate",)))
    if mqtt_client_id is not None and len(edges) > 1:
        raise click.BadParameter("can be used with one edge only", param_hint="--mqtt-client-id")

    from fl_edge.runtime import fleet
    from fl_edge.runtime.worker_setup import EdgeSettings, usable_cores
    from fl_edge.workers.process import WORKER

    def directory(name: str) -> Path:
        if state_dir is None:
            return Path(".fl-edge") / name
        return state_dir / name if len(edges) > 1 else state_dir

    return fleet.run(
        fleet.FleetSettings(
            edges=tuple(
                EdgeSettings(name, kit_roles, directory(name))  # type: ignore[arg-type]
                for name, kit_roles in edges
            ),
            broker_access=broker_access,
            task=values["task"],
            data=values["data"],
            device=values["device"],
            chunk_size=values["chunk"],
            workers=values["workers"] or min(usable_cores(), len(edges)),
            broker_timeout=values["wait"],
            label_counts_file=values["parts_file"],
            light=values["light"],
            heartbeat=values["heartbeat"],
            seal=seal,
            requires=require_masked,
            privacy=privacy,
            survey=survey,
            via=values["via"],
            device_info=not values["no_device_info"],
            remote_log=not values["no_remote_log"],
            worker=(*(click.get_current_context().obj or WORKER), "--log-format", log_format),
        )
    )


def _from_kit(
    kit: Kit, ids: tuple[str, ...], roles: tuple[str, ...], evaluator: str | None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Returns the id and the roles of the kit's account.

    Raises ``UserError`` if the options ask for another id, for an evaluator, or for a role that the kit does
    not include.
    """
    kit_roles = tuple(role for role in ROLES if role in kit.roles)
    if ids not in ((), (kit.name,)):
        raise UserError(f"--id does not match --kit: the kit is for edge {kit.name!r} only")
    if evaluator is not None:
        raise UserError(f"--evaluator cannot be combined with --kit: the kit is for edge {kit.name!r} only")
    source = click.get_current_context().get_parameter_source("roles")
    if source is not ParameterSource.DEFAULT:
        for role in roles:
            if role not in kit_roles:
                raise UserError(f"--role {role}: the kit of {kit.name!r} allows only {', '.join(kit_roles)}")
        return (kit.name,), roles
    for role, consequence in (("train", "does not train"), ("predict", "answers no prediction requests")):
        if role not in kit_roles:
            LOG.info(
                "%s: its kit does not include the role %s", consequence, role, extra={"client": kit.name}
            )
    return (kit.name,), kit_roles


def without_predictions(roles: tuple[str, ...], option: str) -> tuple[str, ...]:
    """Returns the roles of an edge with a policy, without ``predict`` if that is only in the default.

    ``option``: the policy's. Answers to prediction requests are neither masked nor have they noise, and a task may make
    them with statistics of the edge's own data. Raises ``UserError`` if predictions are asked for.
    """
    kept = tuple(role for role in roles if role != "predict")
    source = click.get_current_context().get_parameter_source("roles")
    if kept != roles and (source is not ParameterSource.DEFAULT or not kept):
        raise UserError(
            f"--role predict cannot be combined with {option}: answers are not masked, have no noise, and may depend "
            "on this edge's own data; expected --role train"
        )
    if kept != roles:
        LOG.info("answers no prediction requests: %s", option)
    return kept


def main(program: str = "fl-edge", worker: tuple[str, ...] | None = None) -> NoReturn:
    """Runs the command, which calls itself ``program``, and ends the process with its exit code.

    ``worker``: what its worker processes run instead of `process.WORKER`.
    """
    if sys.argv[1:2] and sys.argv[1] in OTHER_COMMANDS:  # the command itself takes no arguments
        run_program(_other_command(sys.argv[1]), f"{program} {sys.argv.pop(1)}")
    run_program(command, program, worker)


def _other_command(name: str) -> click.Command:
    if name == "request-kit":
        from fl_shared.cli.request_kit import request_kit_command

        return request_kit_command("edge")
    from fl_edge.tools import task_commands

    return {"new-task": task_commands.new_task, "check-task": task_commands.check_task}[name]
