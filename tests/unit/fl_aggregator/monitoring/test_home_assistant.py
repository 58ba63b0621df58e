"""The device that Home Assistant shows: its templates give values, and its message has documented fields only."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Final

import pytest
from jinja2 import Environment, StrictUndefined

from fl_aggregator.monitoring.views.home_assistant import MAX_EDGES, discovery, is_ours, shown_edges
from fl_aggregator.tools.provision.accounts import Account
from fl_aggregator.tools.provision.acl import acl_text
from fl_shared.protocol import codec
from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from fl_shared.protocol.home_assistant import discovery_topic
from tests.support.round_playbook import Playbook

GOLDEN = Path(__file__).parents[3] / "golden"
ACCURACY = m.MetricDeclaration(name="accuracy", unit="%", minimum=0, maximum=1)
ENERGY = m.MetricDeclaration(name="mae", unit="kWh", higher_is_better=False)
ALL: Final[dict[str, Any]] = {"edges": ("7", "lab-a"), "primary": ACCURACY, "with_buttons": True}

# From https://www.home-assistant.io/integrations/mqtt/ (device discovery payload, supported abbreviations), and from
# /integrations/sensor.mqtt/, /integrations/binary_sensor.mqtt/ and /integrations/button.mqtt/, as of 2025. Abbreviated.
ROOT: Final = {"dev", "o", "cmps", "avty_t", "avty_tpl", "avty", "avty_mode", "pl_avail", "pl_not_avail", "stat_t",
               "cmd_t", "qos", "e"}  # fmt: skip
ROOT_REQUIRED: Final = {"dev", "o", "cmps"}
DEVICE: Final = {"ids", "cns", "name", "mf", "mdl", "mdl_id", "hw", "sw", "sn", "sa", "cu", "via_device"}
ORIGIN: Final = {"name", "sw", "url"}
ENTITY: Final = {"p", "uniq_id", "name", "ic", "ent_cat", "en", "obj_id", "qos", "e", "json_attr_t", "json_attr_tpl",
                 "avty_t", "avty_tpl", "avty", "avty_mode", "pl_avail", "pl_not_avail", "dev_cla"}  # fmt: skip
PLATFORM: Final = {
    "sensor": {"stat_t", "val_tpl", "unit_of_meas", "stat_cla", "ops", "exp_aft", "frc_upd", "sug_dsp_prc",
               "lrst_val_tpl"},
    "binary_sensor": {"stat_t", "val_tpl", "pl_on", "pl_off", "off_dly", "exp_aft", "frc_upd"},
    "button": {"cmd_t", "cmd_tpl", "pl_prs", "ret"},
}  # fmt: skip
REQUIRED: Final = {"sensor": {"stat_t"}, "binary_sensor": {"stat_t"}, "button": {"cmd_t"}}
"""Besides ``p`` and ``uniq_id``; ``stat_t`` may be shared, at the root."""
CLASSES: Final = {"sensor": {"enum"}, "binary_sensor": {"connectivity"}, "button": set[str]()}
"""Of the device classes, those that we use."""


def message(prefix: str = "fl", **more: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(discovery(prefix, "3f9a1c0b7e22", "digits", **(ALL | more)))
    return found


def render(template: str, payload: dict[str, Any]) -> str:
    """As Home Assistant does: the message is ``value_json``. What is not there is a mistake, not an empty text."""
    return Environment(undefined=StrictUndefined).from_string(template).render(value_json=payload)


def golden(name: str, **changes: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((GOLDEN / f"{name}.json").read_text())
    return found | changes


# --- templates ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("component", "changes", "shown"),
    [
        ("primary", {}, "96.88"),
        ("primary", {"metrics": {}}, "None"),
        ("round", {}, "3"),
        ("round", {"round": None}, "None"),
        ("version", {}, "2"),
        ("version", {"version": None}, "None"),
        ("phase", {}, "collecting"),
        ("present", {}, "3"),
        ("missing", {}, "1"),
        ("missing", {"missing": []}, "0"),
        ("paused", {}, "OFF"),
        ("paused", {"paused": "by the operator: lunch"}, "ON"),
    ],
)
def test_a_template_gives_what_the_status_says(component: str, changes: dict[str, Any], shown: str) -> None:
    """``None`` makes a sensor unknown."""
    assert render(message()["cmps"][component]["val_tpl"], golden("status", **changes)) == shown


def test_every_template_is_tried_with_its_message() -> None:
    found = message()
    assert render(found["avty_tpl"], golden("aggregator")) == "online"
    for name, component in found["cmps"].items():
        if "val_tpl" not in component:
            assert component["p"] == "button", name
            continue
        presence = component.get("stat_t") == "fl/clients/7/presence" or name == "edge_lab-a"
        shown = render(component["val_tpl"], golden("presence" if presence else "status"))
        assert shown
        if presence:
            assert shown in (component["pl_on"], component["pl_off"])
        if "ops" in component:
            assert shown in component["ops"]


def test_a_metric_with_a_unit_of_its_own_is_shown_as_it_is() -> None:
    component = message(primary=ENERGY)["cmps"]["primary"]
    assert render(component["val_tpl"], golden("status", metrics={"mae": 21.853})) == "21.853"
    assert (component["name"], component["unit_of_meas"]) == ("mae", "kWh")
    assert "primary" not in message(primary=None)["cmps"]


# --- fields ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("with_buttons", [False, True])
def test_all_fields_are_documented_and_none_is_missing(with_buttons: bool) -> None:
    found = message(with_buttons=with_buttons)
    assert ROOT_REQUIRED <= found.keys() <= ROOT
    assert found["dev"].keys() <= DEVICE
    assert found["dev"]["ids"], "a device has at least one identifier or connection"
    assert {"name"} <= found["o"].keys() <= ORIGIN
    for name, component in found["cmps"].items():
        assert re.fullmatch("[A-Za-z0-9_-]+", name)
        platform = component["p"]
        assert {"p", "uniq_id"} <= component.keys() <= ENTITY | PLATFORM[platform], name
        assert REQUIRED[platform] <= component.keys() | (found.keys() & {"stat_t"}), name
        assert component.get("dev_cla") in {None, *CLASSES[platform]}
        assert component.get("ent_cat") in {None, "config", "diagnostic"}
        assert component.get("stat_cla") in {None, "measurement"}
        assert ("ops" in component) == (component.get("dev_cla") == "enum"), (
            "options are for enum, and only for it"
        )
    identities = [component["uniq_id"] for component in found["cmps"].values()]
    assert len(set(identities)) == len(identities)


def test_buttons_send_commands_that_the_aggregator_reads() -> None:
    buttons = {name: one for name, one in message()["cmps"].items() if one["p"] == "button"}
    assert buttons.keys() == {"stop", "pause", "resume"}
    for name, button in buttons.items():
        assert button["cmd_t"] == "fl/control"
        command = codec.decode(t.ControlTopic(), button["pl_prs"].encode())
        assert isinstance(command, m.Stop | m.Pause | m.Resume)
        assert (command.kind, command.run, command.incarnation) == (name, "3f9a1c0b7e22", None)
    assert not any(one["p"] == "button" for one in message(with_buttons=False)["cmps"].values())


# --- topics and identity --------------------------------------------------------------------------------------


def test_each_prefix_has_a_device_of_its_own() -> None:
    prefixes = ["fl", "a/b", "a_b", "a b", "a.b", "fl-mqtt_fl"]
    topics = [discovery_topic("homeassistant", prefix) for prefix in prefixes]
    assert topics[0] == "homeassistant/device/fl-mqtt_fl/config"
    assert len(set(topics)) == len(prefixes)
    assert all(re.fullmatch("homeassistant/device/[A-Za-z0-9_-]+/config", topic) for topic in topics)


def test_only_our_own_message_is_ours() -> None:
    ours = message()
    assert is_ours(json.dumps(ours).encode(), "fl")
    assert not is_ours(json.dumps(ours).encode(), "other")
    assert not is_ours(json.dumps(ours | {"o": {"name": "zigbee2mqtt"}}).encode(), "fl")
    for payload in (b"", b"{", b"[]", b"null", b'{"o":1}', b'{"o":{"name":"fl-mqtt"}}'):
        assert not is_ours(payload, "fl")


def test_at_most_fifty_edges_are_shown() -> None:
    playbook = Playbook(clients=60, per_round=10).play("start")
    for client in range(60):
        playbook.play(f"join {client}")
    edges = shown_edges(playbook.state)
    assert len(edges) == MAX_EDGES == 50
    assert edges[:3] == ("0", "1", "2")
    assert shown_edges(Playbook(clients=1, per_round=1).state) == ()
    assert len(discovery("fl", "r", "digits", edges, ACCURACY, with_buttons=True)) < 2**15


def test_the_right_to_the_topic_is_given_where_it_is_asked_for() -> None:
    aggregator = Account.model_validate(
        {"name": "aggregator", "roles": ["aggregator"], "issued": "2026-01-01T00:00:00Z", "pending": False}
    )
    line = "topic readwrite homeassistant/device/fl-mqtt_fl/config\n"
    assert line in acl_text([aggregator], "fl", "homeassistant")
    assert "homeassistant" not in acl_text([aggregator], "fl")
    edge = aggregator.model_copy(update={"name": "0", "roles": ("train",)})
    assert "homeassistant" not in acl_text([edge], "fl", "homeassistant")
