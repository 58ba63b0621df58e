"""To come in at all, or as somebody else."""

from __future__ import annotations

import contextlib
import re
import subprocess
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

from fl_aggregator.tools.provision.authority import Authority, new_serial
from fl_shared.security.kit import Kit
from tests.support import programs
from tests.support.attacks.attack import Attack
from tests.support.attacks.cluster import ALL, BAD, KITS, TASK, Cluster
from tests.support.attacks.impersonation import DENIED
from tests.support.client import NOT_AUTHORISED, Client, ConnectionRefused, Endpoint
from tests.support.wait import wait_until

NONE, WRONG = "peer did not return a certificate", "certificate verify failed"


def is_kept_out(words: str, *kits: Callable[[Cluster], Kit]) -> Callable[[Cluster], None]:
    """``words``: what the broker's log says of each."""

    def act(cluster: Cluster) -> None:
        for kit in kits:
            before = cluster.broker_log().count(words)
            with (
                contextlib.suppress(ConnectionRefused),
                Client(Endpoint.of(kit(cluster)), name="outsider"),
            ):
                raise AssertionError("it was let in")
            wait_until(lambda: cluster.broker_log().count(words) > before, 15, "it is logged")  # noqa: B023

    return act


def logged(words: str) -> str:
    return f"no connection; broker's log: `{words}`"


def nobody(cluster: Cluster) -> Kit:
    return replace(cluster.kit(BAD), cert=None, key=None)


def named(cluster: Cluster) -> Kit:
    return replace(cluster.kit(BAD), cert=None, key=None, user="aggregator", password="x")


def forged(cluster: Cluster) -> Kit:
    """An authority of his own gives him our edge's name."""
    now = datetime.now(UTC)
    made = Authority.create(cluster.directory / "another", now).issue_client("0", new_serial(), now, 30)
    return replace(cluster.kit("0"), cert=made.cert, key=made.key)


def of_the_broker(cluster: Cluster) -> Kit:
    """Its certificate is for a server, and opens nothing."""
    assert cluster.made is not None
    files = cluster.made.broker_directory
    pair = ((files / name).read_bytes() for name in ("broker.pem", "broker.key"))
    return replace(cluster.kit(BAD), cert=next(pair), key=next(pair))


def revoked(cluster: Cluster) -> Kit:
    return cluster.gone


def says_it_is_another(cluster: Cluster) -> None:
    """The certificate's name counts."""
    for user in ("0", "aggregator"):
        kit = replace(cluster.kit(BAD), user=user, password="x")
        with Client(Endpoint.of(kit), name=f"as-{user}") as client:
            assert client.publish("fl/updates/0", b"x") == NOT_AUTHORISED
            assert client.publish("fl/status", b"x", retain=True) == NOT_AUTHORISED
            assert cluster.denied(f"as-{user}", "fl/updates/0")


def runs_our_program_as_another(cluster: Cluster) -> None:
    assert cluster.made is not None
    kit = cluster.kit(BAD)
    assert kit.cert is not None
    assert kit.key is not None
    files = {"--ca": kit.ca, "--cert": kit.cert, "--key": kit.key}
    arguments = ["--id", "0", "--task", TASK, "--broker", kit.broker]
    for option, content in files.items():
        path = cluster.directory / f"stolen{option}"
        path.write_bytes(content)
        path.chmod(0o600)
        arguments += [option, str(path)]
    state = ["--state-dir", str(cluster.directory / "state-stolen")]
    pattern = r"Denied PUBLISH from fl[0-9a-f]+ .*'fl/register/0'"
    with programs.Program(cluster.directory / "stolen", "fl-edge", *arguments, *state) as edge:
        wait_until(lambda: re.search(pattern, cluster.broker_log()), 20, f"it may not register\n{edge.err}")
    found = cluster.made.out / "edge-3.zip"
    ended = subprocess.run(
        [str(programs.BIN / "fl-edge"), "--kit", str(found), "--id", "0"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 2, ended.stderr
    assert "the kit is for edge '3' only" in ended.stderr


def takes_client_ids(cluster: Cluster) -> None:
    """Whoever connects with the MQTT client id of another throws it out; ours are random, for each connection."""
    before = cluster.broker_log().count("already connected")
    account = BAD if cluster.made is not None else "3"
    for name in (
        "0",
        "edge-0",
        "fl-edge-0",
        "aggregator",
        "fl-aggregator",
        "fl-aggregator-updates",
        "x" * 60_000,
    ):
        with Client(cluster.endpoint(account), name=name):
            pass
    assert cluster.broker_log().count("already connected") == before
    for edge in cluster.edges.values():
        assert "lost" not in edge.err
        assert edge.running()


ATTACKS = (
    Attack("to connect without a certificate, without a name, or with the aggregator's name and a password", "outsider",
        "TLS", is_kept_out(NONE, nobody, named), shows=logged(NONE), setups=KITS),
    Attack("a certificate of another authority, with edge 0's name", "outsider", "TLS", is_kept_out(WRONG, forged),
        shows=logged(WRONG), setups=KITS),
    Attack("the broker's own certificate", "outsider", "TLS", is_kept_out(WRONG, of_the_broker),
        shows=logged(WRONG), setups=KITS),
    Attack("a revoked kit", "a former edge", "TLS", is_kept_out(WRONG, revoked),
        shows=logged(WRONG), setups=KITS),
    Attack("edge 3's certificate with the user name of edge 0 or of the aggregator", "edge 3", "ACL",
        says_it_is_another, shows=DENIED, setups=KITS),
    Attack("edge 3's certificate with `--id 0`", "edge 3, with `fl-edge`", "ACL", runs_our_program_as_another,
        shows="broker's log: `Denied PUBLISH`; with `--kit` exit code 2", setups=KITS),
    Attack("another's MQTT client id, to disconnect it", "edge 3", "broker", takes_client_ids,
        shows="no edge is disconnected: ids are random", setups=ALL),
)  # fmt: skip
