"""Serves a run's metrics for Prometheus at ``http://HOST:PORT/metrics``.

No label holds a name that a peer chose, except for the names and units of the at most 32 metrics that the task
declares, which the first edge fixes.

Counters count within one incarnation, as Prometheus expects. Gauges are computed at each scrape, on the
server's thread, from the newest state, which is immutable.
"""

from __future__ import annotations

import errno
import socket
import threading
from collections import Counter as Tally
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, get_args
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import prometheus_client as client
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from fl_aggregator.monitoring.tracking.trackers import RuntimeMetrics
from fl_aggregator.monitoring.views import edge_states, status
from fl_aggregator.monitoring.views.round_record import WHEN_MEASURED, RoundRecord
from fl_aggregator.round import effects as do
from fl_aggregator.round.phases import PHASES, ROUND_PHASES
from fl_aggregator.round.state import Run
from fl_aggregator.storage.run_directory import RunRecord
from fl_shared.errors import UserError
from fl_shared.protocol import messages as m
from fl_shared.system.bounded_server import REQUEST_TIMEOUT, BoundedServer

Metric = CounterMetricFamily | GaugeMetricFamily

EDGE_STATES: Final = tuple(state for state in get_args(m.EdgeStateName) if state != "uploading")
"""States of edges in metrics.

Only the loop's thread may ask which edges upload; here they count as training.
"""
BUCKETS: Final = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0)


class _Server(BoundedServer, WSGIServer):
    pass


class _IPv6Server(_Server):
    address_family = socket.AF_INET6


class _Handler(WSGIRequestHandler):
    timeout = REQUEST_TIMEOUT

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base class names it so)
        """Logs nothing: a scrape every few seconds is no news."""


class Prometheus(Collector):
    """Serves metrics. The constructor begins to serve, and raises ``UserError`` if the port is in use.

    ``failures``: the numbers of failed calls of all trackers, by tracker.
    """

    name = "prometheus"

    def __init__(self, host: str, port: int, failures: Mapping[str, int]) -> None:
        self._failures = failures
        self._state: Run | None = None
        self._newest_round: RoundRecord | None = None
        self._attack: str | None = None
        self._masked: m.MaskedSums | None = None
        self._runtime_metrics: Callable[[], RuntimeMetrics] | None = None
        client.disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = registry = client.CollectorRegistry()
        self._process = client.ProcessCollector(registry=registry)
        registry.register(self)
        self._rounds = client.Counter("fl_rounds", "Rounds that have ended.", ["outcome"], registry=registry)
        self._updates = client.Counter(
            "fl_updates", "Answered updates from edges.", ["verdict", "reason"], registry=registry
        )
        self._phase_seconds = client.Histogram(
            "fl_round_phase_seconds", "Duration of the phases of rounds.", ["phase"], buckets=BUCKETS,
            registry=registry,
        )  # fmt: skip
        # All series exist from the beginning, so that Prometheus sees the first increase of each.
        for outcome in ("committed", "abandoned"):
            self._rounds.labels(outcome)
        self._updates.labels("accepted", "")
        for phase in ROUND_PHASES:
            self._phase_seconds.labels(phase.name)
        try:
            server = _IPv6Server if ":" in host else _Server
            self._server = make_server(host, port, client.make_wsgi_app(registry), server, _Handler)
        except OSError as error:
            if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
                raise UserError(
                    f"--metrics-host {host}: {error.strerror}; expected an address of this machine"
                ) from None
            raise UserError(f"--metrics-port {port}: {host}: {error.strerror or error}") from None
        self._thread = threading.Thread(target=self._server.serve_forever, name="fl-metrics", daemon=True)
        self._thread.start()

    def begin(
        self,
        run: RunRecord,
        earlier: Iterable[RoundRecord],  # noqa: ARG002
        runtime_metrics: Callable[[], RuntimeMetrics],
    ) -> None:
        """Keeps ``runtime_metrics``, which each scrape calls. Counters do not include earlier incarnations."""
        if run.settings.has_secret_cohorts:  # how much the process has to do says how many updates there are
            self._registry.unregister(self._process)
        self._attack = run.attack
        self._masked = run.masked
        self._runtime_metrics = runtime_metrics

    def observe(self, state: Run, effects: tuple[do.Effect, ...]) -> None:
        """Keeps the state for the next scrape, and counts accepted and rejected updates."""
        self._state = state
        for effect in effects:
            match effect:
                case do.Fold():
                    self._updates.labels("accepted", "").inc()
                case do.SendReply(body=do.Reject(reason=reason)):
                    self._updates.labels("rejected", reason).inc()
                case _:
                    pass

    def log_round(self, record: RoundRecord) -> None:
        """Counts the round and the durations of its phases, and keeps its metrics for the next scrape."""
        self._newest_round = record
        self._rounds.labels(record.outcome).inc()
        for phase in ROUND_PHASES:
            if phase.name in record.seconds:
                self._phase_seconds.labels(phase.name).observe(record.seconds[phase.name])

    def close(self, outcome: str | None) -> None:  # noqa: ARG002
        """Stops the server, and waits up to 2 s for its thread."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(2.0)

    # --- at each scrape -----------------------------------------------------------------------------------

    def collect(self) -> Iterator[Metric]:
        """The metrics that are computed at each scrape. Called on the server's thread."""
        yield _labelled(
            CounterMetricFamily("fl_tracking_failures", "Failed writes of trackers.", labels=["tracker"]),
            dict(self._failures),
        )
        if self._attack is not None:
            yield _labelled(
                GaugeMetricFamily("fl_attack_info", "1: simulated edges attack this run.", labels=["attack"]),
                {self._attack: 1.0},
            )
        if self._masked is not None:
            family = GaugeMetricFamily(
                "fl_masked_info", "1: updates are masked, and summed.", labels=["least", "certified"]
            )
            family.add_metric([str(self._masked.least), str(self._masked.certified).lower()], 1.0)
            yield family
        if self._runtime_metrics is not None:
            yield from _runtime_families(self._runtime_metrics())
        if self._state is not None:
            yield from _state_families(self._state)
        if self._newest_round is not None:
            yield edges_family(self._newest_round)
            yield edges_statistics(self._newest_round)


def _runtime_families(metrics: RuntimeMetrics) -> Iterator[Metric]:
    yield CounterMetricFamily("fl_upload_bytes", "Bytes of updates from edges.", value=metrics.bytes_up)
    yield CounterMetricFamily(
        "fl_download_bytes", "Bytes published for edges; a model counts once.", value=metrics.bytes_down
    )
    yield _labelled(
        CounterMetricFamily("fl_refused_messages", "Messages refused or dropped.", labels=["reason"]),
        dict(metrics.refused),
    )
    yield GaugeMetricFamily("fl_inbox_messages", "Messages that wait to be processed.", metrics.inbox_items)
    yield GaugeMetricFamily(
        "fl_spool_bytes", "Bytes of accepted and arriving updates on disk.", metrics.spool_bytes
    )
    yield GaugeMetricFamily("fl_connected", "1 if connected to the broker.", float(metrics.connected))
    yield GaugeMetricFamily(
        "fl_paused",
        "1 while the run is paused: by its operator, or because the disk is full.",
        float(metrics.paused),
    )


def _state_families(state: Run) -> Iterator[Metric]:
    counts = Tally(view.state for view in edge_states.open_round_views(state, (), {}).values())
    yield _labelled(
        GaugeMetricFamily("fl_edges", "Known edges, by state.", labels=["state"]),
        {name: counts[name] for name in EDGE_STATES},
    )
    yield _labelled(
        GaugeMetricFamily("fl_phase", "1 for the current phase of the run.", labels=["phase"]),
        {phase.name: float(phase is type(state.phase)) for phase in PHASES},
    )
    have, need = status.progress(state)
    yield GaugeMetricFamily("fl_updates_have", "Updates of the open round, or edges that are ready.", have)
    yield GaugeMetricFamily("fl_updates_need", "Number of updates or edges needed.", need)
    yield GaugeMetricFamily("fl_model_version", "Versions of the model made so far.", state.version)
    yield GaugeMetricFamily(
        "fl_model_versions_wanted", "Versions of the model to make.", state.settings.rounds
    )
    yield from metric_families(state)
    if state.privacy is not None:
        yield from privacy_families(state.privacy)


def privacy_families(spent: m.PrivacySpent) -> Iterator[Metric]:
    """What the versions of a private run have told about an edge."""
    yield GaugeMetricFamily("fl_privacy_epsilon", "ε spent of the edge with the most.", spent.epsilon)
    if spent.budget is not None:
        yield GaugeMetricFamily("fl_privacy_epsilon_budget", "ε that may be spent of an edge.", spent.budget)
    yield GaugeMetricFamily("fl_privacy_delta", "Probability with which ε may not hold.", spent.delta)
    yield GaugeMetricFamily(
        "fl_privacy_advantage", "How much better than a coin one edge's part can be told.", spent.advantage
    )
    yield GaugeMetricFamily("fl_privacy_clip", "Greatest L2 norm of an update.", spent.clip)
    yield GaugeMetricFamily(
        "fl_privacy_noise", "Standard deviation of a version's noise, in units of the clip.", spent.noise
    )
    yield GaugeMetricFamily(
        "fl_privacy_insecure",
        "1: the noise is from a known seed, and nothing is private.",
        float(spent.insecure),
    )


def metric_families(state: Run) -> Iterator[Metric]:
    """The newest evaluated version's loss and declared metrics, and the best value of the primary one."""
    if state.split is None:
        return
    family = GaugeMetricFamily(
        "fl_metric", "The newest evaluated version's metrics.", labels=["metric", "unit", "split"]
    )
    for metric in (m.LOSS, *(state.declared or ())):
        if metric.name in state.metrics:
            family.add_metric([metric.name, metric.unit, state.split], state.metrics[metric.name])
    yield family
    if state.best is not None:
        best = GaugeMetricFamily(
            "fl_metric_best", "The primary metric's best value so far.", labels=["metric", "unit"]
        )
        best.add_metric([state.primary.name, state.primary.unit], state.best)
        yield best


def edges_family(record: RoundRecord) -> GaugeMetricFamily:
    """The means over the edges of the loss and of the declared metrics in a round."""
    family = GaugeMetricFamily(
        "fl_edges_metric", "The newest round's means over its edges.", labels=["metric", "unit", "when"]
    )
    for metric in (m.LOSS, *record.declared):
        for when in WHEN_MEASURED:
            if (value := record.metrics.get(f"{when}_{metric.name}")) is not None:
                family.add_metric([metric.name, metric.unit, when], value)
    return family


def edges_statistics(record: RoundRecord) -> GaugeMetricFamily:
    """The mean, the 10th percentile and the worst value of the primary metric over the edges of a round."""
    family = GaugeMetricFamily(
        "fl_edges_primary", "The primary metric over the newest round's edges.",
        labels=["metric", "unit", "statistic"],
    )  # fmt: skip
    for name in m.EDGES_METRICS:
        if (value := record.metrics.get(name)) is not None:
            family.add_metric([record.primary.name, record.primary.unit, name.removeprefix("edges_")], value)
    return family


def _labelled(family: Metric, values: Mapping[str, float]) -> Metric:
    for label, value in values.items():
        family.add_metric([label], value)
    return family
