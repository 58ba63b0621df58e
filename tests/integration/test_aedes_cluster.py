"""Two nodes of aedes 2 with Redis: the aggregator is at one, its edges at the other."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
from functools import partial
from pathlib import Path

import pytest

from fl_shared.system.mosquitto import LOOPBACK, accepts_connect
from tests.support import programs
from tests.support.broker import Mosquitto
from tests.support.ports import free_port
from tests.support.synthetic_run import model_sha256
from tests.support.wait import wait_until

NEEDED = ("npm", "node", "redis-server")
PACKAGES = ("aedes@2.0.0-beta.1", "aedes-persistence-redis@11.2.2", "mqemitter-redis@7.2.1")
RUN = (
    *("--task", "synthetic-300000", "--clients", "4", "--per-round", "4", "--quorum", "4", "--rounds", "3"),
    *("--deadline", "120", "--wait", "120", "--holdout", "0"),
)
NODE = """
import { createServer } from "node:net";
import { Aedes } from "aedes";
import persistence from "aedes-persistence-redis";
import emitter from "mqemitter-redis";

const [port, redis] = process.argv.slice(2).map(Number);
const at = { host: "127.0.0.1", port: redis };
const broker = await Aedes.createBroker({ persistence: persistence(at), mq: emitter(at) });
createServer(broker.handle).listen(port, "127.0.0.1");
"""

pytestmark = [pytest.mark.broker, pytest.mark.long, pytest.mark.timeout(600)]


def listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((LOOPBACK, port), 1.0):
        return True
    return False


def test_the_model_has_the_same_bits(tmp_path: Path, shared_mosquitto: Mosquitto) -> None:
    if missing := [name for name in NEEDED if shutil.which(name) is None]:
        pytest.skip(f"{', '.join(missing)}: not installed")
    nodes = tmp_path / "nodes"
    nodes.mkdir()
    (nodes / "package.json").write_text('{"private": true, "type": "module"}')
    (nodes / "node.mjs").write_text(NODE)
    install = ["npm", "install", "--no-audit", "--no-fund", *PACKAGES]
    done = subprocess.run(install, cwd=nodes, capture_output=True, text=True, timeout=240, check=False)
    if done.returncode != 0:
        pytest.skip(f"npm cannot install aedes here: {done.stderr.strip()[-200:]}")
    redis, first, second = free_port(), free_port(), free_port()
    commands = (
        (
            redis,
            ["redis-server", "--port", str(redis), "--bind", LOOPBACK, "--save", "", "--appendonly", "no"],
        ),
        (first, ["node", "node.mjs", str(first), str(redis)]),
        (second, ["node", "node.mjs", str(second), str(redis)]),
    )
    with contextlib.ExitStack() as stack:
        for port, command in commands:
            process = stack.enter_context(
                subprocess.Popen(command, cwd=nodes, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
            )
            stack.callback(process.kill)
            answers = partial(listens if port == redis else partial(accepts_connect, LOOPBACK), port)
            wait_until(answers, 60.0, f"{command[0]} answers")
        models = []
        for name, of_aggregator, of_edges in (
            ("cluster", f"mqtt://{LOOPBACK}:{first}", f"mqtt://{LOOPBACK}:{second}"),
            ("one", shared_mosquitto.url, shared_mosquitto.url),
        ):
            directory = tmp_path / name
            with (
                programs.edges(directory / "edges", of_edges, "0-3", "--workers", "1", "--prefix", name),
                programs.aggregator(directory, of_aggregator, *RUN, "--prefix", name) as run,
            ):
                run.ends_well(240.0)
            models.append(model_sha256(directory))
    assert models[0] == models[1]
