"""Runs an aggregator in this process, alone or with a broker and edges: `Aggregator` and `simulate`."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fl_aggregator.configuration.settings import Settings
from fl_aggregator.messaging.unsealing import Unsealer
from fl_aggregator.monitoring.terminal.text import round_line
from fl_aggregator.monitoring.views.privacy import noise_line, promise_lines
from fl_aggregator.monitoring.views.round_record import RoundRecord
from fl_aggregator.monitoring.views.visibility import masked_line
from fl_aggregator.round import effects as do
from fl_aggregator.round.state import Run
from fl_aggregator.server import aggregator as server
from fl_aggregator.server import launch as launches
from fl_aggregator.server.launch import Launch
from fl_aggregator.server.outcome import Outcome
from fl_aggregator.storage.run_directory import FleetRecord
from fl_mqtt.library.arguments import OF_BROKER, broker_options, python_names, settings_of
from fl_mqtt.library.result import EdgeResults, Result, result_of
from fl_mqtt.library.task import passed_task
from fl_mqtt.simulation import local
from fl_mqtt.simulation.attacks import attack_record
from fl_mqtt.simulation.cli import GRACE, OF_EDGES
from fl_shared.cli.broker_access import BrokerAccess
from fl_shared.errors import UserError
from fl_shared.system.invocation import aggregator_command

if TYPE_CHECKING:
    from fl_edge.tasks.task import Task

Log = Callable[[str], object]
"""Receives a line for a person; ``print``, for example."""
STOP_TIMEOUT: Final = 30.0
"""Seconds that a run may take to end after it was interrupted."""
_LAUNCHING: Final = threading.Lock()
"""So that two runs that begin in the same second do not choose the same directory."""


def simulate(
    task: str | type[Task] | None = None,
    *,
    data: str | Path | None = None,
    broker: str | None = None,
    run_dir: str | Path | None = None,
    init: str | Path | None = None,
    resume: str | Path | None = None,
    attack: str | None = None,
    log: Log | None = None,
    stay: bool = False,
    **settings: Any,
) -> Result:
    """Trains ``task`` with a broker, all edges and the aggregator on this machine, and returns the result.

    ``task``: its name (``digits`` by default), ``"package.module:Class"``, or its class. ``data``: directory of its
    data. ``broker``: URL of a broker to use instead of an own Mosquitto. ``run_dir``: where the run is written
    (``runs/<task>-<time>``). ``init``: file with initial weights. ``resume``: directory of a run to go on with, which
    has its settings. ``attack``: let some edges attack, as a test
    (``"sign-flip:factor=5,edges=4"``). ``log``: is called with lines for a person. ``stay``: keep the edges until the
    result is closed, so that it can ``predict``. ``settings``: every option of ``fl-aggregator simulate`` about the
    run, its edges and its broker (``clients=5, rounds=3, device="cpu"``).

    Raises ``UserError`` for a mistake of the caller, and ``RunFailed``. Ctrl-C stops the run cleanly.
    """
    with python_names(), ExitStack() as stack:
        given = {"data": data, **{name: settings.pop(name) for name in OF_EDGES if name in settings}}
        of_edges: dict[Any, str] = {name: str(value) for name, value in given.items() if value is not None}
        passed = None if task is None else passed_task(task)
        if resume is None:
            name = "digits" if passed is None else passed.name
            parsed, options = settings_of({"task": name, "grace": GRACE, **settings}, broker)
            if parsed.require_sealed:
                raise UserError("--require-sealed: sealing needs a kit, which simulated edges do not have")
            local.broker_of_fleet(options, broker)  # before a directory is made
            attacked = attack_record(attack, parsed.clients, parsed.task)
            launch = _launch(
                parsed, run_dir, init, FleetRecord(broker=broker, options=of_edges, attack=attacked)
            )
        else:
            _refuse_with_resume(run_dir=run_dir, init=init, attack=attack, **of_edges, **settings)
            options = broker_options(broker, settings)
            launch = launches.resume(Path(resume), simulated=True)
        stack.enter_context(closing(launch))
        parsed, fleet = launch.record.settings, launch.record.fleet
        assert fleet is not None
        if fleet.virtual is not None:
            command = aggregator_command("simulate", "--resume", launch.directory.path)
            raise UserError(f"--resume {resume}: the run is in virtual time; continue it with: {command}")
        if passed is not None and passed.name != parsed.task:
            raise UserError(f"task {passed.name!r}: the run in {resume} trains {parsed.task!r}")
        access = local.broker_of_fleet(options, fleet.broker)
        simulation = stack.enter_context(
            local.Simulation(launch.directory.path, parsed.task, access, options, fleet.options.get("device"))
        )
        if log is not None and (page := simulation.serve_dashboard(parsed)) is not None:
            log(f"dashboard: {page}")
        aggregator, edges = _aggregator(launch, simulation.broker, None, log)
        if log is not None and aggregator.record.attack is not None:
            log(aggregator.record.attack)
        if log is not None and aggregator.record.masked is not None:
            log(masked_line(aggregator.record.masked))
        modules = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fl-mqtt-")))
        simulation.start_fleet(parsed, fleet, () if passed is None else passed.write(modules))
        outcome = _run(lambda: simulation.run(aggregator), aggregator)
        result = result_of(outcome, launch.directory, edges.by_client)
        if stay:
            result.ask = lambda payload: simulation.predict(parsed, payload)
            result.alive = stack.pop_all()
        return result


def _refuse_with_resume(**values: Any) -> None:
    """Raises ``UserError`` if a value is given that a resumed run has stored."""
    for name, value in values.items():
        if value is not None and name not in OF_BROKER:
            raise UserError(f"{name} cannot be combined with resume: settings cannot change")


class Aggregator:
    """A run with edges that connect to a broker, as ``fl-aggregator start`` does it.

    ``settings``: every option of ``fl-aggregator start`` about the run and its broker. The other arguments are those of
    `simulate`. Raises ``UserError``.
    """

    def __init__(
        self,
        task: str | type[Task] = "digits",
        *,
        broker: str | None = None,
        run_dir: str | Path | None = None,
        init: str | Path | None = None,
        log: Log | None = None,
        **settings: Any,
    ) -> None:
        with python_names():
            parsed, options = settings_of({"task": passed_task(task).name, **settings}, broker)
            self._access = options.access(roles=("aggregator",))
            self._settings = parsed.model_copy(update={"prefix": self._access.prefix})
            self._unsealer = Unsealer.of(self._access.kit, parsed)
        self._run_dir, self._init, self._log = run_dir, init, log
        self._stop_reason: str | None = None
        self._aggregator: server.Aggregator | None = None

    def run(self) -> Result:
        """Runs until the run is over, and returns its result. Ctrl-C and `stop` end it cleanly.

        Raises ``RunFailed`` and ``UserError``.
        """
        with python_names(), closing(_launch(self._settings, self._run_dir, self._init)) as launch:
            self._aggregator, edges = _aggregator(launch, self._access, self._unsealer, self._log)
            if self._stop_reason is not None:
                self._aggregator.request_stop(self._stop_reason)
            outcome = _run(self._aggregator.run, self._aggregator)
            return result_of(outcome, launch.directory, edges.by_client)

    def stop(self, reason: str = "stopped by the program") -> None:
        """Asks the run to end cleanly. May be called on any thread.

        Before the run has begun, there is no result: `run` raises ``RunFailed`` with the reason.
        """
        self._stop_reason = reason
        if self._aggregator is not None:
            self._aggregator.request_stop(reason)


def _launch(
    settings: Settings,
    run_dir: str | Path | None,
    init: str | Path | None,
    fleet: FleetRecord | None = None,
) -> Launch:
    directory, weights = (None if path is None else Path(path) for path in (run_dir, init))
    with _LAUNCHING:
        return launches.new(settings, directory, weights, fleet)


def _aggregator(
    launch: Launch, broker: BrokerAccess, unsealer: Unsealer | None, log: Log | None
) -> tuple[server.Aggregator, EdgeResults]:
    """Returns an aggregator, and where it collects the results of edges while it runs."""
    edges = EdgeResults()
    settings = launch.record.settings
    plan = settings.privacy
    if log is not None and plan is not None:
        for line in promise_lines(plan):
            log(line)

    def observe(state: Run, effects: tuple[do.Effect, ...], _now: float) -> None:
        edges.observe(effects)
        if log is not None:
            for effect in effects:
                if isinstance(effect, do.PublishModel) and effect.model.version == 0 and plan is not None:
                    assert aggregator.shared_values is not None, "there is a model"
                    log(noise_line(plan, aggregator.shared_values, settings.per_round))
                if isinstance(effect, do.WriteHistory):
                    recent = aggregator.history.recent().get(effect.summary.round)
                    log(round_line(recent or RoundRecord.of(effect.summary, 0, 0), state.settings.rounds))

    aggregator = server.Aggregator(launch, broker, unsealer=unsealer, observer=observe)
    return aggregator, edges


def _run(run: Callable[[], Outcome], aggregator: server.Aggregator) -> Outcome:
    """Runs the loop on a thread of its own.

    Python raises ``KeyboardInterrupt`` in the main thread, wherever that is. It must not come into the loop.
    """
    outcome: Future[Outcome] = Future()

    def target() -> None:
        try:
            outcome.set_result(run())
        except BaseException as error:
            outcome.set_exception(error)

    thread = threading.Thread(target=target, name="fl-run", daemon=True)
    thread.start()
    try:
        return outcome.result()
    except KeyboardInterrupt:
        aggregator.request_stop("interrupted")
        thread.join(STOP_TIMEOUT)
        raise
