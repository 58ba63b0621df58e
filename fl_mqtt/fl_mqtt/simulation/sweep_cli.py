"""What ``simulate`` does if it is asked for a sweep. Mistakes in any run are told before the first one starts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, get_origin

import click
from click.core import ParameterSource

from fl_mqtt.simulation import sweep, sweep_plan
from fl_shared.cli.headings import BROKER, GIVEN, heading_of
from fl_shared.errors import UserError

if TYPE_CHECKING:
    from fl_aggregator.configuration.settings import Settings
    from fl_aggregator.storage.sweep_record import SweepRecord
    from fl_shared.cli.broker_access import BrokerOptions

DEVICES: Final = "heterogeneity"
"""An option that can be swept though it is no setting of the run, but of its simulation."""
NOT_IN_SWEEPS: Final = ("stay", "request", "metrics_port")
"""Options that make sense for a single run only."""


def refuse_misplaced(context: click.Context, *, sweeping: bool) -> None:
    """Raises ``UserError`` for options that do not go together with a sweep, or without one.

    Those of the sweep count on the command line alone.
    """
    for option in context.command.params:
        name, source = option.name or "", context.get_parameter_source(option.name or "")
        given = source not in (None, ParameterSource.DEFAULT)
        if name in sweep_plan.OPTIONS and source not in (
            None,
            ParameterSource.DEFAULT,
            ParameterSource.COMMANDLINE,
        ):
            raise UserError(
                f"{option.opts[-1]} belongs on the command line, not in the environment or --config"
            )
        if sweeping and given and name in NOT_IN_SWEEPS:
            raise UserError(f"{option.opts[-1]} cannot be combined with a sweep, which is of several runs")
        if not sweeping and given and name == "parallel":
            raise UserError("--parallel needs a sweep: expected --seeds or --sweep with it")


def plan(
    context: click.Context,
    values: Mapping[str, Any],
    prefix: str,
    seeds_text: str | None,
    axes_texts: Sequence[str],
) -> tuple[SweepRecord, list[Settings]]:
    """Returns the runs of a sweep, and the settings that differ in more than the seed. Raises ``UserError``."""
    from fl_aggregator.configuration.settings import Settings, options_of_run, parse_settings
    from fl_mqtt.simulation.virtual.specification import read_specification

    options = {option.name or "": option for option in context.command.params}
    known = {DEVICES, *(name for name in options_of_run() if name in options)} - {"seed"}
    pairs = {name for name, field in Settings.model_fields.items() if get_origin(field.annotation) is dict}
    seeds = [int(values["seed"])] if seeds_text is None else sweep_plan.parse_seeds(seeds_text)
    axes = sweep_plan.parse_axes(axes_texts, known)
    if DEVICES in axes and not context.params["virtual"]:
        raise UserError(
            f"--sweep: {DEVICES} needs --virtual: in real time, edges are as fast as this machine"
        )
    swept = {"seed": "--seeds"} if seeds_text is not None else {}
    for name, by in (swept | dict.fromkeys(axes.keys() - pairs, "--sweep")).items():
        if context.get_parameter_source(name) == ParameterSource.COMMANDLINE:
            raise UserError(f"{options[name].opts[-1]} cannot be combined with {by}, which gives its values")

    def arguments(setting: Mapping[str, str]) -> list[str]:
        words: list[str] = []
        for name, text in setting.items():
            option = options[name]
            assert isinstance(option, click.Option)
            words += sweep_plan.option_arguments(option, text)
        return words

    def value_of(name: str, text: str) -> Any:
        """What an option gets from the command line of a run; pairs that all runs have are among its pairs."""
        option = options[name]
        if not option.multiple:
            return option.process_value(context, text)
        common: Sequence[str] = ()
        if name in pairs and context.get_parameter_source(name) != ParameterSource.DEFAULT:
            common = option.consume_value(context, context.meta[GIVEN])[0]
        return option.process_value(context, [*common, text])

    found = []
    for setting in sweep_plan.settings_of(axes):
        given = {name: value_of(name, text) for name, text in setting.items()}
        devices = given.pop(DEVICES, context.params[DEVICES])
        for seed in sorted({min(seeds), max(seeds)}):
            settings = parse_settings(**{**values, **given, "seed": seed}, prefix=prefix)
        if devices is not None:
            read_specification(devices, settings.clients)
        found.append(settings)
    without = axes.keys() - pairs
    if context.params["virtual"]:  # it refuses them on a command line, and ignores them elsewhere
        without |= {name for name, option in options.items() if heading_of(option) == BROKER}
    common = sweep_plan.given_arguments(context, without)
    return sweep_plan.plan(axes, seeds, common, arguments), found


def check(settings: Settings, init: Path | None, attack: str | None, device: object) -> None:
    """Raises ``UserError`` if a run with these settings could not begin here."""
    from fl_aggregator.aggregation.strategies.registry import load
    from fl_aggregator.storage.initial_weights import read_initial_weights
    from fl_mqtt.simulation.attacks import attack_record
    from fl_mqtt.simulation.local import check_fleet_possible

    load(settings)
    check_fleet_possible(settings.task, device)
    attack_record(attack, settings.clients, settings.task)
    if init is not None:
        read_initial_weights(init, settings.task)


def check_brokers(record: SweepRecord, parallel: int) -> None:
    """Raises ``UserError`` if the runs would have no broker, or one for several at a time."""
    from fl_shared.system.mosquitto import find_mosquitto

    arguments = record.runs[0].arguments
    if "--broker" not in arguments:
        if "--virtual" not in arguments:
            find_mosquitto()
    elif parallel > 1:
        raise UserError(
            "--parallel: the runs would disturb each other at one broker; expected 1, or no --broker"
        )


def run(directory: Path, broker: BrokerOptions, parallel: int, *, as_json: bool, quiet: bool) -> int:
    """Runs what is left of a sweep, prints its result, and returns the exit code. Raises ``UserError``."""
    from fl_aggregator.storage.sweep_record import read_sweep_record
    from fl_aggregator.tools.report.sweep import read_sweep

    check_brokers(read_sweep_record(directory), parallel)

    def tell(text: str) -> None:
        if not quiet:
            click.echo(text, err=True)

    options = click.get_current_context().command.params
    recorded = {option.envvar for option in options if isinstance(option.envvar, str)}
    outcome = sweep.SweepRunner(directory, parallel, broker.resume_arguments(), tell, recorded).run()
    sweep.show(directory, outcome)
    if as_json:
        click.echo(json.dumps(sweep.result(read_sweep(directory), outcome)))
    return outcome.exit_code
