"""An edge's lines can be read by the operator alone (protocol, 12.4)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from fl_shared.errors import CannotOpen
from fl_shared.security.kit import Kit
from fl_shared.security.operator_seals import operator_key, sealer_for_operator
from tests.support.provisioned_broker import kit_of, provisioned

TOPIC = "fl/clients/0/log"
NOW = 0.0


@pytest.fixture(scope="module")
def kits(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Kit]:
    def made(out: Path) -> dict[str, Kit]:
        site = provisioned(out, [("0", ("train",)), ("1", ("train",))])
        return {name: kit_of(site, name) for name in ("0", "1", "operator", "aggregator")}

    home = made(tmp_path_factory.mktemp("home") / "kits")
    other = made(tmp_path_factory.mktemp("other") / "kits")
    return {**home, "stranger": other["operator"]}


def test_12_4_the_operator_opens_what_the_edge_has_sealed_for_it(kits: dict[str, Kit]) -> None:
    sealer = sealer_for_operator(kits["0"], *operator_key(kits["operator"]), NOW)
    assert sealer is not None
    sealed = sealer.seal(TOPIC, b"a line")
    assert b"a line" not in sealed
    opener = kits["operator"].opener()
    assert opener.open("0", TOPIC, sealed).content == b"a line"
    for account, topic, kit in (
        ("1", TOPIC, "operator"), ("0", "fl/clients/1/log", "operator"), ("0", TOPIC, "1"),
    ):  # fmt: skip
        with pytest.raises(CannotOpen):
            kits[kit].opener().open(account, topic, sealed)
    with pytest.raises(CannotOpen):
        kits["aggregator"].opener().open("0", TOPIC, sealed)


def test_12_4_an_edge_seals_for_nobody_else(kits: dict[str, Kit]) -> None:
    public, voucher = operator_key(kits["operator"])
    attempts = {
        "an edge": operator_key(kits["1"]),
        "the operator of another federation": operator_key(kits["stranger"]),
        "another key": (X25519PrivateKey.generate().public_key().public_bytes_raw(), voucher),
        "the operator's key with an edge's voucher": (public, operator_key(kits["1"])[1]),
        "no key": (bytes(32), voucher),
    }
    assert {
        who: sealer_for_operator(kits["0"], *pair, NOW) for who, pair in attempts.items()
    } == dict.fromkeys(attempts)
    assert sealer_for_operator(kits["0"], public, voucher, 1e12) is None, "it has expired"
    assert sealer_for_operator(replace(kits["0"], enrolment_public=kits["stranger"].enrolment_public),
                               public, voucher, NOW) is None  # fmt: skip
