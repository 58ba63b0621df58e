"""An aggregator refuses updates that somebody else sends in an edge's name."""

from __future__ import annotations

import json
import re
import time

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from fl_edge.training.synthetic_executor import SyntheticExecutor
from fl_shared.protocol import codec
from fl_shared.protocol import messages as m
from fl_shared.security.sealing import Sealer
from fl_shared.tensors.sections import ModelSection
from fl_shared.transfer import upload
from tests.support.builders import finished_update
from tests.support.programs import freeze, thaw, workers
from tests.support.provisioned_broker import kit_of
from tests.support.provisioned_site import VALUES, Site, heard, rounds, undisturbed
from tests.support.wait import wait_until

pytestmark = pytest.mark.broker


FORGERIES = 3
ROUNDS = 12


def poison(client: str, run: str, session: str, number: int, base: str) -> bytes:
    """An update with values that would be seen."""
    executor = SyntheticExecutor(VALUES)
    manifest = executor.initial_weights(0, lambda n: np.empty(n, "<f4"))
    section = ModelSection("delta", manifest, np.full(VALUES, 50.0, dtype="<f4").tobytes())
    update = finished_update(
        section, base=base, examples=1_000_000, steps=1, seconds=0.1, metrics=m.UpdateMetrics()
    )
    return codec.encode(upload.update_message(upload.Sender(client, session, run, 1, number), 1, update))


def test_a_forged_update_is_refused_and_changes_nothing(site: Site) -> None:
    """Clauses 9.11 to 9.13: plain, sealed with a forger's key, with an accomplice's kit, and on another topic."""
    forger = site.forger()
    held = site.edge("0", "--seal")
    site.edge("1", "--seal")
    quiet = site.aggregator("quiet", "--require-sealed", "--seed", "3", rounds=ROUNDS)
    quiet.ends_well()
    sessions = {"0": "", "1": ""}
    for topic, payload in heard(forger):
        if (match := re.fullmatch("fl/clients/(.)/presence", topic)) is not None:
            sessions[match[1]] = json.loads(payload)["session"]
    kit = kit_of(site.made, "0")
    strange = X25519PrivateKey.generate()
    assert kit.voucher is not None
    accomplice = kit.sealer()
    own = Sealer(strange.private_bytes_raw(), kit.voucher, kit.sealing_public)

    loud = site.aggregator("loud", "--require-sealed", "--seed", "3", rounds=ROUNDS)
    run = wait_until(lambda: re.search(r"run ([0-9a-f]+) at", loud.err), 20, "it has begun")[1]
    number, base, tried = 0, "", 0
    # So that the run does not end before it has been attacked, one edge works only after some forgeries.
    while loud.running():
        for topic, payload in heard(forger):
            if topic == "fl/model" and payload and json.loads(payload)["run"] == run:
                base = json.loads(payload)["digest"]
            if (match := re.fullmatch(r"fl/round/(\d+)/selected", topic)) is not None:
                number = max(number, int(match[1])) if payload else number
        if not base:
            time.sleep(0.01)
            continue
        if tried in (0, FORGERIES):
            (thaw if tried else freeze)(*workers(held))
        text = "fl/updates/1"
        update = poison("1", run, sessions["1"], number, base)
        forger.publish(text, update)
        forger.publish(text, own.seal(text, update))
        forger.publish(text, accomplice.seal(text, update))
        forger.publish(text, accomplice.seal("fl/updates/0", update))
        forger.publish("fl/updates", accomplice.seal("fl/updates", update))
        forger.publish(
            "fl/updates/0", accomplice.seal("fl/updates/0", update)
        )  # its own account, another's update
        tried += 1
        time.sleep(0.05)
    loud.ends_well()
    undisturbed(site, "loud", ROUNDS)
    assert tried >= FORGERIES
    counted: dict[str, int] = {}
    for line in rounds(site, "loud"):
        for reasons in line["refused"].values():
            for reason, times in reasons.items():
                counted[reason] = counted.get(reason, 0) + times
    assert counted["not-sealed"] > 0
    assert counted["not-opened"] > 0
    models = [
        (site.directory / name / "run" / "model.safetensors").read_bytes() for name in ("quiet", "loud")
    ]
    assert models[0] == models[1], "as without any of it"
