"""Edges in JavaScript take part in a run, beside edges with torch and light ones, and alone with kits."""

from __future__ import annotations

import signal
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from fl_aggregator.storage.checkpoint import Model
from fl_shared.protocol import messages as m
from fl_shared.tensors.manifest import Manifest, Vector, manifest_of
from tests.support import programs
from tests.support.broker import Mosquitto
from tests.support.client import Client
from tests.support.node_edge import node_edge, with_packages
from tests.support.observed_fold import ObservedUpdates
from tests.support.provisioned_broker import ProvisionedBroker, provisioned
from tests.support.provisioned_site import Site, rounds, undisturbed

pytestmark = [pytest.mark.broker, pytest.mark.timeout(480)]

MAX_PACKET = 200_000
"""Of the broker: so the updates of a model of 307,210 values come in chunks, and the model in 19."""
WIDE = ("--task", "digits-mlp", "--task-option", "hidden=4096", "--chunk", "65536", "--epochs", "1")


@pytest.mark.edge
@pytest.mark.long
def test_edges_of_three_kinds_share_a_run(stack: ExitStack, tmp_path: Path) -> None:
    copy = with_packages(tmp_path)
    broker = Mosquitto(tmp_path, extra=(f"max_packet_size {MAX_PACKET}",))
    stack.callback(broker.stop)
    url = broker.url
    observer = stack.enter_context(Client(broker.endpoint, "fl/#"))
    stack.enter_context(programs.edges(tmp_path / "full", url, "0"))
    stack.enter_context(programs.edges(tmp_path / "light", url, "1", "--light"))
    nodes = [stack.enter_context(node_edge(copy, name, "--id", name, "--broker", url)) for name in "23"]
    run = ("--clients", "4", "--per-round", "4", "--quorum", "4", "--rounds", "2", "--deadline", "240")
    with programs.aggregator(tmp_path, url, *WIDE, *run) as aggregator:
        aggregator.ends_well(240)
    lines = programs.history(tmp_path)
    assert [line["participants"] for line in lines] == [["0", "1", "2", "3"]] * 2, nodes[0].output
    observer.catch_up()
    updates = ObservedUpdates(observer.received)
    assert {"2", "3"} <= updates.chunked, "the updates of the edges in JavaScript came in chunks"
    model = load_file(tmp_path / "run" / "model.safetensors")
    expected = updates.versions(observer.received)
    found = np.concatenate([model[name].ravel() for name in sorted(model)])
    assert found.tobytes() == expected[-1][1].tobytes()
    manifest = manifest_of(model, buffers=[])
    assert [digest for digest, _ in expected] == [digest_of(manifest, weights) for _, weights in expected]
    assert not observer.all(m.TrainingFailed)
    for node in nodes:
        node.send(signal.SIGINT)
    assert [node.wait(30) for node in nodes] == [0, 0]
    gone = observer.wait_for_message(m.ClientPresence, client="2", state="offline")
    assert gone.reason == "its user has stopped it"


def measured(first: m.Update, second: m.Update) -> None:
    """Clauses 5.2 and 5.3."""
    assert (first.steps, first.metrics) == (0, m.UpdateMetrics(before=None, after=None, train=None))
    for of_holdout in (second.metrics.before, second.metrics.after):
        assert of_holdout is not None
        assert set(of_holdout) == {"loss", "accuracy", "examples"}
    assert second.metrics.train is not None
    assert set(second.metrics.train) == {"loss"}


def digest_of(manifest: Manifest, weights: Vector) -> str:
    return Model.of(manifest, weights).digest


def test_a_light_edge_and_one_in_javascript_learn_the_same(
    shared_mosquitto: Mosquitto, stack: ExitStack, tmp_path: Path
) -> None:
    """First weights to the bit, and updates to 1e-5, from the same partition and seed."""
    copy = with_packages(tmp_path)
    deltas = {}
    for kind in ("light", "node"):
        prefix = ("--prefix", f"node/{kind}")
        observer = stack.enter_context(
            Client(shared_mosquitto.endpoint, f"node/{kind}/updates/#", prefix=f"node/{kind}")
        )
        url = shared_mosquitto.url
        with ExitStack() as running:
            if kind == "light":
                running.enter_context(programs.edges(tmp_path / kind, url, "0", "--light", *prefix))
            else:
                running.enter_context(node_edge(copy, "0", "--id", "0", "--broker", url, *prefix))
            run = (
                "--task",
                "digits-mlp",
                "--clients",
                "1",
                "--per-round",
                "1",
                "--rounds",
                "1",
                "--epochs",
                "2",
            )
            with programs.aggregator(tmp_path / kind, url, *prefix, *run) as aggregator:
                aggregator.ends_well()
        observer.catch_up()
        measured(*observer.all(m.Update))
        deltas[kind] = [np.frombuffer(one.sections[0].data, "<f4") for one in observer.all(m.Update)]
    (first, trained), (first_of_node, trained_of_node) = deltas["light"], deltas["node"]
    assert first.tobytes() == first_of_node.tobytes()
    assert np.abs(trained).max() > 0.01
    np.testing.assert_allclose(trained_of_node, trained, atol=1e-5)


def test_a_linear_model_of_a_task_of_ones_own(
    shared_mosquitto: Mosquitto, stack: ExitStack, tmp_path: Path
) -> None:
    """Each edge has a file of its own, and nobody but their users knows the task."""
    copy = with_packages(tmp_path)
    prefix = ("--prefix", "node/linear")
    task = "flowers:FlowersTask"
    for number, name in enumerate(("north", "south")):
        rows = [((index * 7 + number) % 10, index % 10) for index in range(60)]
        data = tmp_path / f"{name}.csv"
        data.write_text("x,y,class\n" + "".join(f"{x / 10},{y / 10},{int(x > y)}\n" for x, y in rows))
        common = ("--id", name, "--broker", shared_mosquitto.url, "--task", task, "--layers", "2,2", *prefix)
        stack.enter_context(node_edge(copy, name, *common, data=data, shared=False))
    run = (
        "--task",
        task,
        "--partition",
        "own",
        "--clients",
        "2",
        "--per-round",
        "2",
        "--rounds",
        "3",
        "--lr",
        "1",
    )
    with programs.aggregator(tmp_path, shared_mosquitto.url, *prefix, *run) as aggregator:
        aggregator.ends_well()
    lines = programs.history(tmp_path)
    assert [line["participants"] for line in lines] == [["north", "south"]] * 3
    assert lines[-1]["metrics"]["accuracy"] > 0.9, lines[-1]


def test_a_kit_signs_and_seals(tmp_path: Path, stack: ExitStack) -> None:
    copy = with_packages(tmp_path)
    made = provisioned(tmp_path / "kits", [("0", ("train",)), ("1", ("train",))])
    with ProvisionedBroker(made) as broker:
        site = Site(tmp_path, made, broker)
        for name in "01":
            stack.enter_context(node_edge(copy, name, "--kit", site.kit(name), "--seal"))
        run = site.aggregator("run", "--require-sealed", task="digits-mlp", rounds=2)
        run.ends_well()
        undisturbed(site, "run", 2)
        assert all(not line["refused"] for line in rounds(site, "run"))
        site.close()
