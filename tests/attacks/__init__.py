"""The attack suite; the attacks themselves are in ``tests.support.attacks``."""
