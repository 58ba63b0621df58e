"""All edges of a run: they connect, vanish and die as their devices do."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Final

from fl_edge.runtime.edge import identity_of
from fl_edge.runtime.masked_member import MaskedMember
from fl_edge.runtime.worker_setup import EdgeSettings
from fl_edge.session.state import Stopped
from fl_edge.storage.own_state_files import OwnStateFiles
from fl_edge.storage.run_keys_file import RunKeysFile
from fl_mqtt.simulation.virtual.devices import DATA_CENTRE, Devices
from fl_mqtt.simulation.virtual.edge import Edge
from fl_mqtt.simulation.virtual.jobs import Jobs
from fl_mqtt.simulation.virtual.models import Models
from fl_mqtt.simulation.virtual.network import Network
from fl_mqtt.simulation.virtual.world import World

LOG: Final = logging.getLogger(__name__)

RESTART_SECONDS: Final = 60.0
"""A device that has died is back after that time."""


class Fleet:
    """The edges of a run. They are started at once."""

    def __init__(
        self,
        world: World,
        network: Network,
        jobs: Jobs,
        devices: Devices,
        edges: Collection[EdgeSettings],
        *,
        task: str,
        epochs: int,
        light: bool,
        chunk_size: int,
    ) -> None:
        """``epochs``: see `Edge`. ``chunk_size``: of large updates, in bytes."""
        self.stopped: str | None = None
        """Why the edges have ended, once all that train have; null before."""
        self._world = world
        self._devices = devices
        self._models = Models(network)
        self._dead: set[str] = set()
        self._died: set[tuple[str, int]] = set()
        """Who has died in the training of which round: it does so once, else never would it answer a ticket."""
        self._there: dict[str, bool] = {}
        self._running = 0
        for settings in edges:
            trains = "train" in settings.roles
            identity = identity_of(
                settings.client,
                f"virtual-{settings.client}",
                settings.roles,
                task,
                light=light,
                chunk_size=chunk_size,
            )
            directory = _made(settings.state_dir)
            edge = Edge(
                world,
                network,
                self._models,
                jobs,
                identity,
                devices.device(settings.client) if trains else DATA_CENTRE,
                OwnStateFiles(directory, settings.client),
                MaskedMember(settings.client, RunKeysFile(directory, settings.client)),
                epochs,
            )
            if trains:
                self._running += 1
                edge.on_stop = self._edge_stopped
                edge.on_training = self._training_hook(edge)
                self._follow(edge, devices.presence(settings.client))
            else:
                world.at(world.now, edge.connect)

    def _edge_stopped(self, state: Stopped) -> None:
        self._running -= 1
        if self._running == 0:
            self.stopped = state.reason

    # --- presence -------------------------------------------------------------------------------------------

    def _follow(self, edge: Edge, changes: Iterator[tuple[float, bool]]) -> None:
        """Lets an edge come and go. What was before now, in an earlier incarnation, counts in its result only."""
        at, is_there = next(changes)
        for later, state in changes:
            if later > self._world.now:
                self._change_at(edge, later, state, changes)
                break
            at, is_there = later, state
        del at
        self._world.at(self._world.now, lambda: self._set(edge, is_there))

    def _change_at(
        self, edge: Edge, at: float, is_there: bool, changes: Iterator[tuple[float, bool]]
    ) -> None:
        def change() -> None:
            self._set(edge, is_there)
            following = next(changes, None)
            if following is not None:
                self._change_at(edge, *following, changes)

        self._world.at(at, change)

    def _set(self, edge: Edge, is_there: bool) -> None:
        client = edge.identity.client
        self._there[client] = is_there
        if client in self._dead:
            return
        if is_there:
            edge.connect()
        else:
            edge.disconnect()

    # --- deaths ---------------------------------------------------------------------------------------------

    def _training_hook(self, edge: Edge) -> Callable[[int, int, float], None]:
        def training_begun(round_number: int, job: int, seconds: float) -> None:
            training = (edge.identity.client, round_number)
            share = None if training in self._died else self._devices.dies_at(*training)
            if share is not None and seconds > 0:
                life = edge.life
                self._world.after(share * seconds, lambda: self._die(edge, life, job, round_number))

        return training_begun

    def _die(self, edge: Edge, life: int, job: int, round_number: int) -> None:
        if edge.life != life or not edge.is_running(job):
            return
        client = edge.identity.client
        LOG.info("its device died in a training", extra={"client": client})
        edge.kill()
        self._dead.add(client)
        self._died.add((client, round_number))
        self._world.after(RESTART_SECONDS, lambda: self._revive(edge))

    def _revive(self, edge: Edge) -> None:
        client = edge.identity.client
        self._dead.remove(client)
        if self._there[client]:
            edge.connect()


def _made(directory: Path) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    return directory
