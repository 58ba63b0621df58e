"""``compose.yaml`` and the files of ``broker/`` that it mounts."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from fl_shared.mosquitto import configuration

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def broker() -> dict[str, object]:
    service = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]["broker"]
    assert isinstance(service, dict)
    return service


def test_the_broker_is_published_on_loopback_only(broker: dict[str, object]) -> None:
    assert broker["ports"] == ["127.0.0.1:1883:1883", "127.0.0.1:9001:9001"]
    assert "network_mode" not in broker


def test_the_configuration_is_mounted_where_the_image_reads_it_and_cannot_be_changed(
    broker: dict[str, object],
) -> None:
    volumes = broker["volumes"]
    assert isinstance(volumes, list)
    source, target, mode = volumes[0].split(":")
    assert (ROOT / source).read_text().count("listener 1883\n") == 1
    assert target == "/mosquitto/config/mosquitto.conf"
    assert mode == "ro"
    assert str(broker["image"]).startswith("eclipse-mosquitto:2")
    assert broker["restart"] == "unless-stopped"


def test_the_committed_configuration_is_the_generated_one() -> None:
    assert (ROOT / "broker" / "mosquitto.conf").read_text() == configuration(), (
        "run: python -m fl_shared.mosquitto > broker/mosquitto.conf"
    )


def test_the_readme_explains_every_setting() -> None:
    readme = (ROOT / "broker" / "README.md").read_text()
    settings = {line.split()[0] for line in configuration().splitlines() if not line.startswith("#")}
    assert len(settings) >= 5
    assert [name for name in settings if f"`{name} " not in readme] == []
