"""The discovery message with which a run appears in Home Assistant as one device.

Home Assistant reads ``fl/status``, ``fl/aggregator`` and the edges' presence itself, with the templates given here.
What the message may contain: https://www.home-assistant.io/integrations/mqtt/#device-discovery-payload
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any, Final

from fl_aggregator.round.phases import PHASES
from fl_aggregator.round.state import Run
from fl_shared.protocol import codec
from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from fl_shared.protocol.home_assistant import device_name
from fl_shared.system.text import natural_order

MAX_EDGES: Final = 50
"""Edges that appear as sensors; of more, those that registered first."""
ORIGIN: Final = "fl-mqtt"
"""The name of our program in the message: what has another one is not ours."""

Component = dict[str, Any]


def shown_edges(state: Run) -> tuple[str, ...]:
    """The edges that appear as sensors, in natural order."""
    return tuple(natural_order(list(state.roster.clients)[:MAX_EDGES]))


def discovery(
    prefix: str,
    run: str,
    task: str,
    edges: Sequence[str],
    primary: m.MetricDeclaration | None,
    *,
    with_buttons: bool,
) -> bytes:
    """The message for a run under ``prefix``. ``primary``: null until the metrics of the task are known.

    ``with_buttons``: with buttons that send commands. They are not sealed, so an aggregator with a kit obeys none.
    """
    device = device_name(prefix)
    components = {} if primary is None else {"primary": _primary(primary)}
    components |= _of_status()
    components |= {f"edge_{name}": _edge(prefix, name) for name in edges}
    components |= _buttons(prefix, run) if with_buttons else {}
    for name, component in components.items():
        component["uniq_id"] = f"{device}_{name}"
    software = version("fl-mqtt")
    message = {
        "dev": {"ids": [device], "name": f"fl-mqtt {prefix}", "mf": ORIGIN, "mdl": task, "sw": software},
        "o": {"name": ORIGIN, "sw": software},
        "avty_t": t.build(prefix, t.AggregatorTopic()),
        "avty_tpl": "{{ value_json.state }}",
        "stat_t": t.build(prefix, t.StatusTopic()),
        "cmps": components,
    }
    return json.dumps(message, separators=(",", ":")).encode()


def is_ours(payload: bytes | memoryview, prefix: str) -> bool:
    """Whether a message is a device of a run under ``prefix`` that this program has announced."""
    try:
        message = json.loads(bytes(payload))
        return bool(message["o"]["name"] == ORIGIN and message["stat_t"] == t.build(prefix, t.StatusTopic()))
    except (ValueError, KeyError, TypeError):
        return False


def _primary(metric: m.MetricDeclaration) -> Component:
    """The metric of the newest evaluated version; unknown until one has been evaluated."""
    value = f"{{% set v = value_json.metrics.get({metric.name!r}) %}}{{{{ none if v is none else "
    if metric.unit == "%":
        return _sensor(metric.name, value + "(100 * v) | round(2) }}", "mdi:bullseye-arrow", unit="%")
    return _sensor(metric.name, value + "v }}", "mdi:bullseye-arrow", unit=metric.unit or None)


def _sensor(
    name: str, template: str, icon: str, *, unit: str | None = None, measured: bool = True
) -> Component:
    return {
        "p": "sensor",
        "name": name,
        "ic": icon,
        "val_tpl": template,
        **({"stat_cla": "measurement"} if measured else {}),
        **({} if unit is None else {"unit_of_meas": unit}),
    }


def _of_status() -> dict[str, Component]:
    status = "{{ value_json.NAME }}"
    phase = _sensor("phase", status.replace("NAME", "phase"), "mdi:state-machine", measured=False)
    return {
        "round": _sensor("round", status.replace("NAME", "round"), "mdi:counter"),
        "version": _sensor("version", status.replace("NAME", "version"), "mdi:brain"),
        "phase": {**phase, "dev_cla": "enum", "ops": [one.name for one in PHASES]},
        "present": _sensor("edges present", status.replace("NAME", "present"), "mdi:lan-connect"),
        # The status names at most ten.
        "missing": _sensor("edges missing", "{{ value_json.missing | length }}", "mdi:timer-sand"),
        "paused": {
            "p": "binary_sensor",
            "name": "paused",
            "ic": "mdi:pause-circle",
            "val_tpl": "{{ 'OFF' if value_json.paused is none else 'ON' }}",
        },
    }


def _edge(prefix: str, name: str) -> Component:
    return {
        "p": "binary_sensor",
        "name": f"edge {name}",
        "dev_cla": "connectivity",
        "ent_cat": "diagnostic",
        "stat_t": t.build(prefix, t.PresenceTopic(name)),
        "val_tpl": "{{ value_json.state }}",
        "pl_on": "online",
        "pl_off": "offline",
    }


def _buttons(prefix: str, run: str) -> dict[str, Component]:
    commands: dict[str, tuple[m.Command, str]] = {
        "stop": (m.Stop(run=run, reason="Home Assistant"), "mdi:stop"),
        "pause": (m.Pause(run=run, reason="Home Assistant"), "mdi:pause"),
        "resume": (m.Resume(run=run), "mdi:play"),
    }
    return {
        name: {
            "p": "button",
            "name": name,
            "ic": icon,
            "ent_cat": "config",
            "cmd_t": t.build(prefix, t.ControlTopic()),
            "pl_prs": codec.encode(command).decode(),
            "qos": 1,
        }
        for name, (command, icon) in commands.items()
    }
