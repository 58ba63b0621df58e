"""The command ``fl-aggregator simulate``.

Functions import what is slow to import, so that ``--help`` is fast.
"""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from fl_aggregator.cli.options import EXISTING_FILE, refuse_with_resume, run_options, settings_options
from fl_aggregator.cli.run import exit_code, run_aggregator
from fl_aggregator.monitoring.tracking.options import TrackingOptions, tracking_options
from fl_shared.cli import options as shared
from fl_shared.cli.headings import OUTPUT, RUN, option_under
from fl_shared.cli.logging import start_logging
from fl_shared.errors import RunFailed, UserError

if TYPE_CHECKING:
    from fl_aggregator.cli.run import Runnable
    from fl_aggregator.configuration.settings import Settings
    from fl_aggregator.server.outcome import Outcome
    from fl_aggregator.storage.run_directory import RunDirectory
    from fl_shared.cli.broker_access import BrokerOptions


GRACE: Final = 0.0
"""Seconds, instead of the default of `Settings`: an edge of a simulation that is lost does not return."""
OWN_NOISE: Final = ("dp_sgd", "dp_local")
OF_EDGES: Final = ("data", "device", "workers", *OWN_NOISE)
"""The options of ``fl-edge`` that ``simulate`` has too, and passes on to its edges."""


def _more_options() -> list[click.Parameter]:
    from fl_edge.cli import command

    settings = settings_options(without=("require_sealed",), grace=GRACE)  # sealing needs a kit
    return [*settings, *(option for option in command.params if option.name in OF_EDGES)]


@shared.command(more=_more_options)
@run_options
@option_under(
    RUN,
    "--predict",
    "request",
    type=EXISTING_FILE,
    help="At the end, ask the edges for a prediction from this file: a picture or JSON, as the task reads it.",
)
@option_under(
    RUN,
    "--attack",
    metavar="KIND:FIELD=VALUE,…",
    help="Let some edges attack the run, as a test: sign-flip, label-flip, scaled, gaussian or alie, for example "
    "sign-flip:factor=5,edges=4 (the page 'Strategies' of the documentation).",
)
@option_under(
    RUN,
    "--virtual",
    is_flag=True,
    help="Run in virtual time, without a broker: nobody waits, and few train whose update is not looked at "
    "(the page 'Simulation in virtual time' of the documentation).",
)
@option_under(
    RUN,
    "--heterogeneity",
    metavar="uniform|silos|gateways|phones|FILE",
    help="With --virtual: how fast the edges are, on which links, and when they are there.",
    show_default="uniform",
)
@option_under(
    RUN,
    "--seeds",
    metavar="N-M",
    help="A sweep: a run with each of these seeds, for example 0-4 or 0,3,7-9.",
)
@option_under(
    RUN,
    "--sweep",
    metavar="NAME=VALUE,…",
    multiple=True,
    help="A sweep: runs with each of these values of an option, such as lr=0.01,0.03. Of several, all combinations.",
)
@option_under(RUN, "--parallel", type=click.IntRange(1, 64), default=1, help="Runs of a sweep at a time.")
@option_under(
    RUN,
    "--stay",
    is_flag=True,
    help="After the run, keep the broker, edges and dashboard running until Ctrl-C.",
)
@option_under(
    OUTPUT, "--json", "as_json", is_flag=True, help="At the end, print one JSON object on standard output."
)
@tracking_options
@shared.quiet_option
@shared.broker_options_of_simulate
@shared.logging_options
@shared.config_option
def simulate(
    broker: BrokerOptions,
    request: Path | None,
    as_json: bool,
    attack: str | None,
    virtual: bool,
    heterogeneity: str | None,
    stay: bool,
    verbose: int,
    log_format: str,
    quiet: bool,
    init: Path | None,
    run_dir: Path | None,
    resume: Path | None,
    seeds: str | None,
    sweep: tuple[str, ...],
    parallel: int,
    tracking: TrackingOptions,
    **values: Any,
) -> int:
    """Run a broker, all edges and the aggregator on this machine.

    With --seeds and --sweep one run after the other, each in a subdirectory of --run-dir.
    """
    from fl_aggregator.configuration.settings import parse_settings
    from fl_aggregator.server import launch as launches
    from fl_aggregator.server.aggregator import Aggregator
    from fl_aggregator.storage.run_directory import FleetRecord
    from fl_aggregator.storage.sweep_record import is_sweep
    from fl_aggregator.tools.remote.cli import watch_command
    from fl_aggregator.tools.remote.predict import prediction_line
    from fl_mqtt.simulation import local as simulation
    from fl_mqtt.simulation import sweep_cli
    from fl_mqtt.simulation.attacks import attack_record
    from fl_mqtt.simulation.virtual.cli import refuse_with_virtual, run_in_virtual_time, virtual_devices
    from fl_shared.cli.broker_access import DEFAULT_PREFIX

    start_logging(verbose, log_format, quiet=quiet)
    if virtual:
        refuse_with_virtual()
    if heterogeneity is not None and not virtual and resume is None:
        raise UserError("--heterogeneity needs --virtual: in real time, edges are as fast as this machine")
    if seeds is not None or sweep or (resume is not None and is_sweep(resume)):
        sweep_cli.refuse_misplaced(click.get_current_context(), sweeping=True)
        if resume is not None:
            refuse_with_resume(*OF_EDGES, "attack", "virtual", "heterogeneity", "seeds", "sweep")
        elif virtual:
            _refuse_own_noise(values)
        tracking.check()
        directory = resume or _begin_sweep(broker, run_dir, init, attack, values, seeds, sweep, parallel)
        return sweep_cli.run(directory, broker, parallel, as_json=as_json, quiet=quiet)
    sweep_cli.refuse_misplaced(click.get_current_context(), sweeping=False)
    question = None if request is None else request.read_bytes()
    of_edges = {name: values.pop(name) for name in OF_EDGES}
    if resume is None:
        if virtual:
            _refuse_own_noise(of_edges)
        settings = parse_settings(**values, prefix=broker.prefix or DEFAULT_PREFIX)
        devices = virtual_devices(heterogeneity, settings.clients) if virtual else None
        _check_task(settings)
        address = None if broker.broker is None else str(broker.broker)
        simulation.broker_of_fleet(broker, address)
        launch = launches.new(
            settings,
            run_dir,
            init,
            FleetRecord(
                broker=address,
                options={name: value for name, value in of_edges.items() if value is not None},
                attack=attack_record(attack, settings.clients, settings.task),
                virtual=devices,
            ),
        )
    else:
        refuse_with_resume(*OF_EDGES, "attack", "virtual", "heterogeneity")
        launch = launches.resume(resume, simulated=True)
    fleet = launch.record.fleet
    assert fleet is not None
    if fleet.virtual is not None:
        with closing(launch):
            run, outcome = run_in_virtual_time(launch, tracking, log_format, quiet)
        if as_json:
            click.echo(json.dumps(_result(run, outcome, launch.directory)))
        return exit_code(outcome)
    if resume is not None and broker.broker is not None and fleet.broker is None:
        launch.close()
        raise UserError("--broker cannot be combined with --resume: this simulation starts its own broker")
    settings, directory = launch.record.settings, launch.directory.path
    with (
        closing(launch),
        simulation.Simulation(
            directory,
            settings.task,
            simulation.broker_of_fleet(broker, fleet.broker),
            broker,
            fleet.options.get("device"),
        ) as sim,
    ):
        page = sim.serve_dashboard(settings)
        if not quiet:
            click.echo(f"broker: {sim.broker.address}")
            click.echo(f"watch it: {watch_command(sim.broker, settings.prefix, broker)}")
        if page is not None and (stay or not quiet):
            click.echo(f"dashboard: {page}")
        with run_aggregator(
            launch,
            lambda observer, trackers: Aggregator(launch, sim.broker, observer=observer, trackers=trackers),
            tracking,
            log_format,
            quiet,
            broker.resume_arguments(),
        ) as (aggregator, finish):
            sim.start_fleet(settings, fleet)
            outcome = sim.run(aggregator)
            code = exit_code(outcome)
            answer = sim.predict(settings, question) if code == 0 and question is not None else None
            finish(outcome)
        if answer is not None:
            click.echo(prediction_line(answer))
        if as_json:
            click.echo(json.dumps(_result(aggregator, outcome, launch.directory)))
        if answer is not None and answer.error is not None:
            raise RunFailed(f"the prediction failed: {answer.error}")
        if stay and code == 0:
            click.echo("the broker, the edges and the dashboard keep running until Ctrl-C", err=True)
            sim.stay()
    return code


def _refuse_own_noise(of_edges: dict[str, Any]) -> None:
    for name in OWN_NOISE:
        if of_edges[name] is not None:
            option = name.replace("_", "-")
            raise UserError(f"--{option} cannot be combined with --virtual: its edges count nothing")


def _begin_sweep(
    broker: BrokerOptions,
    run_dir: Path | None,
    init: Path | None,
    attack: str | None,
    values: dict[str, Any],
    seeds: str | None,
    axes: tuple[str, ...],
    parallel: int,
) -> Path:
    """Creates the directory of a sweep, once all of its runs could begin. Raises ``UserError``."""
    from fl_aggregator.storage.run_directory import new_run_path
    from fl_mqtt.simulation import local as simulation
    from fl_mqtt.simulation import sweep, sweep_cli
    from fl_shared.cli.broker_access import DEFAULT_PREFIX

    device = values["device"]
    values = {name: value for name, value in values.items() if name not in OF_EDGES}
    prefix = broker.prefix or DEFAULT_PREFIX
    record, found = sweep_cli.plan(click.get_current_context(), values, prefix, seeds, axes)
    for settings in found:
        _check_task(settings)
        sweep_cli.check(settings, init, attack, device)
    simulation.broker_of_fleet(broker, None if broker.broker is None else str(broker.broker))
    sweep_cli.check_brokers(record, parallel)
    directory = run_dir or new_run_path(f"{found[0].task}-sweep")
    sweep.begin(directory, record)
    return directory


def _check_task(settings: Settings) -> None:
    """Raises ``UserError`` if the edges will not have the task, or if its options are wrong.

    Torch is not loaded for our own tasks that need it and have no options: here, that would cost more than it tells.
    """
    from fl_edge.errors import EdgeError
    from fl_edge.tasks import registry

    try:
        if not registry.has_task(settings.task):
            raise UserError(f"--task: {registry.unknown_text(settings.task)}")
        named = settings.task in registry.light_names() or registry.is_path(settings.task)
        if settings.task_option or named:
            registry.load_task(settings.task_spec)
    except EdgeError as error:
        raise UserError(f"--task: {error}") from None


def _personal(outcome: Outcome) -> dict[str, Any] | None:
    """What the edges' own models are worth; null if there are none."""
    from fl_aggregator.monitoring.views.round_record import personal_scores

    scores = personal_scores(outcome.state.personal or {})
    if scores is None:
        return None
    before, after = scores.means
    return {"before": before, "after": after, "edges": scores.model_dump()}


def _result(aggregator: Runnable, outcome: Outcome, directory: RunDirectory) -> dict[str, Any]:
    """The object that ``simulate --json`` prints at the end. ``mean``, ``p10``, ``worst``: of the last round."""
    from fl_aggregator.monitoring.views.round_record import read_records
    from fl_aggregator.storage.checkpoint import model_sha256

    model = directory.checkpoints.model_path
    rounds = list(read_records(directory.history()))
    masked = aggregator.record.masked
    return {
        "run": aggregator.scope.run,
        "rounds": outcome.state.version,
        "metrics": dict(outcome.state.metrics),
        "primary": outcome.state.primary.name,
        "split": outcome.state.split,
        **(rounds[-1].over_edges if rounds else {}),
        "personal": _personal(outcome),
        "model_sha256": model_sha256(model) if model.exists() else None,
        "seconds": round(outcome.seconds, 3),
        **_times(outcome),
        "attack": aggregator.record.attack,
        "masked": None if masked is None else masked.model_dump(),
        "privacy": None if outcome.state.privacy is None else outcome.state.privacy.model_dump(),
        "refused": aggregator.rejections.total,
        "run_dir": str(directory.path),
    }


def _times(outcome: Outcome) -> dict[str, Any]:
    """Says which clock the seconds of a run are of, if it is not a real one."""
    if outcome.real_seconds is None:
        return {}
    return {
        "clock": "virtual",
        "virtual_seconds": round(outcome.seconds, 3),
        "real_seconds": round(outcome.real_seconds, 3),
    }
