"""``fl-edge`` as a user starts it, on a real Mosquitto; the test is the aggregator, over the wire."""
