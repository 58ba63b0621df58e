"""How `FastClient` receives a packet."""

from __future__ import annotations

import numpy as np
import pytest

from fl_shared.mqtt.paho.fast_client import _aligned_at_its_end


@pytest.mark.parametrize("size", [1, 8, 20_001, 2**20 + 130])
def test_the_end_of_a_packet_is_aligned_for_the_largest_values(size: int) -> None:
    packet = np.frombuffer(_aligned_at_its_end(size), np.uint8)
    assert len(packet) == size
    assert (packet.ctypes.data + size) % 8 == 0
