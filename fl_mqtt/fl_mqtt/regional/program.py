"""Runs a regional aggregator: the edge above on the main thread, the aggregator below on one of its own."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

from fl_edge.messaging.authenticity import MessageAuthenticator
from fl_edge.messaging.connection import EdgeConnection
from fl_edge.messaging.model_store import ModelStore
from fl_edge.runtime.edge import Edge
from fl_edge.runtime.items import Interrupted, RuntimeInbox
from fl_edge.runtime.loop import Runtime
from fl_edge.runtime.masked_member import MaskedMember
from fl_edge.session.state import Identity, Session
from fl_edge.storage import update_store
from fl_edge.storage.run_keys_file import RunKeysFile
from fl_edge.storage.state_dir import StateDir
from fl_mqtt.regional.below import RegionOptions
from fl_mqtt.regional.models import RegionalModels
from fl_mqtt.regional.region import ABILITIES, Region
from fl_shared.cli.broker_access import BrokerAccess
from fl_shared.cli.signals import end_on_signals
from fl_shared.mqtt.network import Network
from fl_shared.protocol import messages as m

RUNS: Final = "runs"
"""The folder of the state directory with a run directory for each run above."""
CLOSE_TIMEOUT: Final = 2.0
"""Seconds in which the connection to the run above may still send what is queued."""
QUEUE_BYTES: Final = 192 * 2**20
"""Bytes of messages to the run above that may wait."""


@dataclass(frozen=True, slots=True)
class RelaySettings:
    """What a regional aggregator is started with. ``seal``: encrypt what is sent above, which requires a kit."""

    region: RegionOptions
    upstream: BrokerAccess
    downstream: BrokerAccess
    state_dir: Path
    seal: bool


def run(settings: RelaySettings) -> int:
    """Runs until it is stopped, and returns the exit code. Raises ``ProgramError``."""
    name, above = settings.region.name, settings.upstream
    inbox = RuntimeInbox()
    with ExitStack() as stack:
        end_on_signals(lambda _number: inbox.put(Interrupted()))
        state = stack.enter_context(StateDir.open(settings.state_dir))
        region = Region(settings.region, state.path / RUNS, settings.downstream, inbox.put)
        stack.callback(region.close)
        writer = update_store.UpdateWriter()
        stack.callback(writer.close)
        network = Network("fl-relay")
        stack.push(lambda error, *_: network.close(graceful=error is None, timeout=CLOSE_TIMEOUT))
        identity = Identity(
            name,
            state.device,
            ("train",),
            (),
            seals=settings.seal,
            abilities=ABILITIES,
            edges=settings.region.edges,
        )
        connection = above.connection_settings(max_queued_bytes=QUEUE_BYTES, maximum_packet_size=m.MAX_PACKET)
        sealer = above.kit.sealer if settings.seal and above.kit is not None else None
        file = state.path / update_store.FILE_NAME
        session = Session(
            identity, seq=int(time.time() * 1000), restored_update=update_store.read(file, name)
        )
        edge = Edge(
            session,
            file,
            MaskedMember(name, RunKeysFile(state.path, name)),  # it has no keys: its run is not masked
            lambda enqueue: EdgeConnection(
                network, connection, above.prefix, name, identity.roles, enqueue, sealer
            ),
            _no_predictions,
            None if above.kit is None else MessageAuthenticator(above.kit.verifier()),
        )

        def server(_edge: Edge, store: ModelStore) -> RegionalModels:
            return RegionalModels(name, store, region.version_received)

        runtime = Runtime(
            [edge],
            region,
            inbox,
            writer,
            prefix=above.prefix,
            broker=f"{above.address}, prefix {above.prefix}",
            broker_timeout=None,
            server=server,
            listener=region.hear,
        )

        def check() -> None:
            network.check()
            region.check()

        return runtime.run(check)


def _no_predictions(_enqueue: object) -> NoReturn:
    raise AssertionError("a regional aggregator answers no predictions")
