"""Tests, by layer: unit, property, scenarios (golden traces), integration (a real Mosquitto), faults."""
