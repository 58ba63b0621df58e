"""Runs Flower's simulation engine with clients that return at once; needs a Python environment with Flower.

    python -m venv peer && peer/bin/pip install 'flwr[simulation]'
    peer/bin/python benchmarks/flower_peer.py EDGES PARAMETERS ROUNDS

Prints one JSON line: the median seconds of a round, from one ``configure_fit`` to the next.
"""

from __future__ import annotations

import itertools
import json
import statistics
import sys
import time
from typing import Any

import flwr
import numpy as np
from flwr.client import ClientApp, NumPyClient
from flwr.server import ServerApp, ServerAppComponents, ServerConfig
from flwr.server.strategy import FedAvg
from flwr.simulation import run_simulation

EDGES, VALUES, ROUNDS = (int(argument) for argument in sys.argv[1:4])
started: list[float] = []


class Client(NumPyClient):  # type: ignore[misc]
    """A client that does not train."""

    def fit(self, parameters: list[Any], _config: dict[str, Any]) -> tuple[list[Any], int, dict[str, Any]]:
        """Returns the parameters as they are, with 100 examples."""
        return parameters, 100, {}


class Timed(FedAvg):  # type: ignore[misc]
    """FedAvg that notes when each round begins."""

    def configure_fit(self, *arguments: Any, **named: Any) -> Any:
        """Notes the time, then configures the round."""
        started.append(time.perf_counter())
        return super().configure_fit(*arguments, **named)


def server(_context: Any) -> ServerAppComponents:
    """The server: all clients in each round, no evaluation, and two rounds of warm-up."""
    first = flwr.common.ndarrays_to_parameters([np.zeros(VALUES, np.float32)])
    strategy = Timed(
        fraction_fit=1.0, fraction_evaluate=0.0, min_fit_clients=EDGES, min_available_clients=EDGES,
        initial_parameters=first,
    )  # fmt: skip
    return ServerAppComponents(strategy=strategy, config=ServerConfig(num_rounds=ROUNDS + 2))


run_simulation(
    server_app=ServerApp(server_fn=server),
    client_app=ClientApp(client_fn=lambda _context: Client().to_client()),
    num_supernodes=EDGES,
    backend_config={"client_resources": {"num_cpus": 1, "num_gpus": 0.0}},
)
periods = [after - before for before, after in itertools.pairwise(started[1:])]
print(json.dumps({"seconds_per_round": statistics.median(periods), "flwr": flwr.__version__}))
