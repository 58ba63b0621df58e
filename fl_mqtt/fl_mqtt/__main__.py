"""``python -m fl_mqtt``: the same as ``fl-mqtt``."""

from fl_mqtt.cli.main import main

main()
