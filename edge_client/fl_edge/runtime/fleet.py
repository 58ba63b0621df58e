"""Runs many edges in one process: starts their connections and workers, and ends them in order."""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import logging
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fl_edge.errors import UnknownTaskError
from fl_edge.messaging.authenticity import MessageAuthenticator
from fl_edge.messaging.connection import EdgeConnection, EdgeConnectionEvent
from fl_edge.prediction.predictor import MAX_REQUEST_PACKET
from fl_edge.runtime.device import never_needs_torch, training_device
from fl_edge.runtime.dispatcher import Dispatcher
from fl_edge.runtime.edge import Edge, identity_of
from fl_edge.runtime.environment import environment_of
from fl_edge.runtime.heartbeat import Heartbeat
from fl_edge.runtime.items import Interrupted, RuntimeInbox
from fl_edge.runtime.loop import Runtime
from fl_edge.runtime.masked_member import MaskedMember
from fl_edge.runtime.open_files import check_file_limit, is_out_of_files
from fl_edge.runtime.remote_log import remote_log
from fl_edge.runtime.thread_failures import thread_failures
from fl_edge.runtime.worker_setup import EdgeSettings, edges_with_data, start_pool
from fl_edge.session.masking import Trust
from fl_edge.session.policy import RequiredMasking
from fl_edge.session.privacy import NO_PRIVACY, OwnPrivacy
from fl_edge.session.state import Session
from fl_edge.session.survey import USUAL, SurveyPolicy
from fl_edge.session.work import PendingUpdate
from fl_edge.storage import update_store
from fl_edge.storage.label_counts_file import LabelCountsFile
from fl_edge.storage.own_state_files import OwnStateFiles
from fl_edge.storage.privacy_ledger import PrivacyLedger
from fl_edge.storage.run_keys_file import RunKeysFile
from fl_edge.storage.saved_file import delete
from fl_edge.storage.state_dir import StateDir
from fl_edge.tasks import registry
from fl_edge.training.factory import has_torch
from fl_edge.workers.process import WORKER
from fl_shared.cli.broker_access import BrokerAccess
from fl_shared.cli.signals import end_on_signals
from fl_shared.errors import RunFailed, UserError
from fl_shared.masking.run_keys import MemberCredential
from fl_shared.mqtt import events as mqtt
from fl_shared.mqtt.connection import Connection
from fl_shared.mqtt.network import Network
from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from fl_shared.protocol.task_spec import task_name
from fl_shared.system.invocation import install_command
from fl_shared.system.service import Service

if TYPE_CHECKING:
    from fl_shared.security.kit import Kit

LOG = logging.getLogger(__name__)

NETWORK_CLOSE_TIMEOUT: Final = 2.0
"""Seconds in which the connections of a fleet may still send what is queued when they are closed."""
MAX_GRANTED_CHUNKS: Final = 64
"""Chunks that an aggregator grants to all edges together, at most (protocol, 6.2). The queue has room for all
of them."""
CHUNK_OVERHEAD: Final = 1024
"""Bytes of a chunk's packet besides the chunk itself."""
QUEUE_BYTES: Final = 64 * 2**20
"""Bytes of all other messages that may wait to be sent."""
MAX_SYNCED: Final = 100
"""Edges of the largest fleet that waits until the new names of its devices are on the disk.

For ten thousand that takes minutes. In a larger fleet, an edge has another name if the machine loses power within half
a minute of its first start.
"""


@dataclass(frozen=True, slots=True)
class FleetSettings:
    """The settings of all edges of one process.

    ``task``: the only task to train; ``None`` for the one that the aggregator announces. ``data``: the
    directory of the data set's files, ``None`` for the usual ones. ``chunk_size``: the preferred size of an
    update's chunks, in bytes. ``broker_timeout``: seconds that the edges may be without a broker; ``None``
    for no limit. ``heartbeat``: the file to touch, see `Heartbeat`. ``seal``: encrypt what is sent, for the
    aggregator alone; that requires a kit. ``label_counts_file``: see `LabelCountsFile`. ``light``:
    never use torch. ``device_info``: say where the edges run. ``remote_log``: answer requests for their log.
    ``requires``, ``privacy``, ``survey`` and ``via``: see `Identity`. ``worker``: what a worker process runs, see
    `process.WORKER`.
    """

    edges: tuple[EdgeSettings, ...]
    broker_access: BrokerAccess
    task: str | None
    data: Path | None
    device: str
    workers: int
    chunk_size: int
    broker_timeout: float | None
    heartbeat: Path | None
    seal: bool = False
    requires: RequiredMasking | None = None
    privacy: OwnPrivacy = NO_PRIVACY
    survey: SurveyPolicy = USUAL
    label_counts_file: Path | None = None
    light: bool = False
    via: str | None = None
    device_info: bool = True
    remote_log: bool = True
    worker: tuple[str, ...] = WORKER

    @property
    def predict_group(self) -> str:
        """The share group in which the edges take prediction requests."""
        kit = self.broker_access.kit
        return t.DEFAULT_PREDICT_GROUP if kit is None or kit.predict_group is None else kit.predict_group


def run(settings: FleetSettings) -> int:
    """Runs the edges until all have stopped, and returns the exit code. Raises ``ProgramError``."""
    settings = replace(settings, light=settings.light or not has_torch())
    _check(settings)
    device = training_device(settings.device, settings.task, light=settings.light)
    check_file_limit(settings.edges)
    connection = settings.broker_access.connection_settings(
        max_queued_bytes=QUEUE_BYTES + MAX_GRANTED_CHUNKS * (settings.chunk_size + CHUNK_OVERHEAD),
        maximum_packet_size=m.MAX_PACKET,
    )
    with contextlib.ExitStack() as stack:
        service = Service()
        stack.callback(service.stopping)
        heartbeat = None if settings.heartbeat is None else Heartbeat(settings.heartbeat, time.monotonic())
        label_counts = LabelCountsFile(settings.label_counts_file)
        inbox = RuntimeInbox()
        check_threads = stack.enter_context(thread_failures())
        stack.enter_context(_stop_on_signals(lambda: inbox.put(Interrupted())))
        pool = start_pool(
            settings.task,
            settings.data,
            device,
            settings.workers,
            inbox.put,
            light=settings.light,
            program=(*settings.worker, *settings.privacy.worker_options()),
        )
        stack.callback(pool.close)
        if settings.task is not None:
            settings = replace(settings, edges=edges_with_data(pool, inbox, settings.task, settings.edges))
        # From here on, something is left behind on the disk.
        sync = len(settings.edges) <= MAX_SYNCED
        states = [stack.enter_context(StateDir.open(one.state_dir, sync=sync)) for one in settings.edges]
        update_writer = update_store.UpdateWriter()
        stack.callback(update_writer.close)
        network = Network()
        # After an error there is no DISCONNECT, so that the broker sends the wills: a crash is a lost connection.
        stack.push(lambda error, *_: network.close(graceful=error is None, timeout=NETWORK_CLOSE_TIMEOUT))
        environment = environment_of(settings.task, light=settings.light) if settings.device_info else None
        edges = [
            _edge(edge, state, settings, connection, network, environment)
            for edge, state in zip(settings.edges, states, strict=True)
        ]
        runtime = Runtime(
            edges,
            Dispatcher(pool, label_counts),
            inbox,
            update_writer,
            prefix=settings.broker_access.prefix,
            broker=f"{settings.broker_access.address}, prefix {settings.broker_access.prefix}",
            broker_timeout=settings.broker_timeout,
            heartbeat=heartbeat,
            predict_group=settings.predict_group,
            remote_log=stack.enter_context(
                remote_log(
                    edges, settings.broker_access.kit, seals=settings.seal, allowed=settings.remote_log
                )
            ),
        )

        def check() -> None:
            network.check()
            check_threads()
            service.turn(time.monotonic(), lambda: _service_status(edges))

        service.ready()  # before there is a broker or a run: an edge waits for both as long as it takes
        gc.freeze()  # what is loaded stays: otherwise each collection looks at all objects of all modules
        try:
            return runtime.run(check)
        except OSError as error:
            if not is_out_of_files(error):
                raise
            raise RunFailed(
                "too many open files: raise the limit (ulimit -n), or start fewer edges"
            ) from None


def _service_status(edges: list[Edge]) -> str:
    """Returns how many edges are connected, and how many have been admitted to a run."""
    connected = sum(edge.connection is not None and edge.connection.is_connected for edge in edges)
    admitted = sum(isinstance(edge.state, Session) and edge.state.membership is not None for edge in edges)
    return f"{connected} of {len(edges)} edges connected, {admitted} in a run"


def _edge(
    edge: EdgeSettings,
    state: StateDir,
    settings: FleetSettings,
    connection: mqtt.ConnectionSettings,
    network: Network,
    environment: m.Environment | None,
) -> Edge:
    identity = identity_of(
        edge.client,
        state.device,
        edge.roles,
        settings.task,
        light=settings.light,
        chunk_size=settings.chunk_size,
        seals=settings.seal,
        via=settings.via,
        environment=environment,
        requires=settings.requires,
        privacy=settings.privacy,
        survey=settings.survey,
    )
    mqtt_client_id = connection.mqtt_client_id
    for_predictions = replace(
        connection,
        mqtt_client_id=None if mqtt_client_id is None else f"{mqtt_client_id}-predict",
        maximum_packet_size=MAX_REQUEST_PACKET,
    )

    kit = settings.broker_access.kit
    sealer = kit.sealer if settings.seal and kit is not None else None

    def connect(enqueue: Callable[[EdgeConnectionEvent], None]) -> EdgeConnection:
        return EdgeConnection(
            network,
            connection,
            settings.broker_access.prefix,
            edge.client,
            edge.roles,
            enqueue,
            sealer,
            via=settings.via,
        )

    def connect_predictor(enqueue: Callable[[mqtt.ConnectionEvent], None]) -> Connection:
        return network.connect(for_predictions, enqueue)

    # Sequence numbers also grow across restarts, as long as the clock does.
    file = state.path / update_store.FILE_NAME
    trust = Trust(None if kit is None else kit.enrolment_public, settings.requires)
    member = MaskedMember(edge.client, RunKeysFile(state.path, edge.client), _credential(kit), trust)
    ledger = PrivacyLedger(state.path, edge.client) if settings.privacy.is_asked else None
    session = Session(
        identity,
        seq=int(time.time() * 1000),
        restored_update=_restored(file, edge.client, settings.privacy, ledger),
        own_state=OwnStateFiles(state.path, edge.client).read(),
        masked_run=member.restored(),
        charged=() if ledger is None else ledger.charges,
    )
    authenticator = None if kit is None else MessageAuthenticator(kit.verifier())
    return Edge(session, file, member, connect, connect_predictor, authenticator, ledger)


def _restored(
    file: Path, client: str, privacy: OwnPrivacy, ledger: PrivacyLedger | None
) -> PendingUpdate | None:
    """Returns the update that an earlier process has finished; null if it has none, or none with the noise of now."""
    pending = update_store.read(file, client)
    if pending is None or pending.update.base is None or ledger is None:
        return pending
    if privacy.covers(charges := ledger.of(pending.update.digest)) and charges:
        return pending
    LOG.warning(
        "round %d: its update was finished before the restart, and is dropped: it was not charged, or does not have "
        "the noise that this edge adds now",
        pending.selected.round,
        extra={"client": client},
    )
    delete(file)
    return None


def _credential(kit: Kit | None) -> MemberCredential | None:
    """Returns what certifies the keys of a masked run: null without a kit, or if its account does not train."""
    if kit is None or kit.member_private is None or kit.member_until is None or kit.member_voucher is None:
        return None
    return MemberCredential(kit.member_private, kit.member_until, kit.member_voucher)


def _check(settings: FleetSettings) -> None:
    """Raises ``UserError`` for a mistake that can be found before anything is started."""
    try:
        is_known = settings.task is None or registry.has_task(task_name(settings.task))
    except UnknownTaskError as error:
        raise UserError(f"--task: {error}") from None
    if not is_known:
        raise UserError(f"--task: {registry.unknown_text(task_name(settings.task or ''))}")
    if settings.privacy.examples is not None:
        _check_dp_sgd(settings)
    if settings.light:
        LOG.info("training without torch, which these tasks allow: %s", ", ".join(registry.light_names()))


def _check_dp_sgd(settings: FleetSettings) -> None:
    if settings.light and has_torch():
        raise UserError("--dp-sgd cannot be combined with --light: it needs torch")
    if missing := [name for name in ("torch", "opacus") if importlib.util.find_spec(name) is None]:
        raise UserError(f"--dp-sgd needs {' and '.join(missing)}: {install_command('dp-sgd')}")
    if never_needs_torch(settings.task):
        raise UserError(f"--dp-sgd: a synthetic task, {settings.task}, has no examples to hide")


@contextlib.contextmanager
def _stop_on_signals(request_stop: Callable[[], None]) -> Iterator[None]:
    """Makes the first Ctrl-C or SIGTERM request an orderly stop.

    The second one ends the process at once, and the workers with it.
    """
    previous = end_on_signals(lambda _number: request_stop())
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
