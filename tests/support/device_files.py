"""Device files that are right, with traces."""

from __future__ import annotations

from pathlib import Path

GOOD = """\
[speed]
median = 100.0
slow = { share = 0.3, factor = 5.0 }
[down]
median = 1e6
[up]
median = 1e6
[[device]]
client = "7"
speed = 50.0
[[device]]
client = "8"
"""
CAPACITY = "client,examples_per_second,down,up\n7,12.5,1000,2000\n"
AVAILABILITY = "client,second,state\n7,0,on\n7,60,off\n7,100,on\n"


def traced(directory: Path, capacity: str, availability: str) -> str:
    (directory / "capacity.csv").write_text(capacity)
    (directory / "availability.csv").write_text(availability)
    path = directory / "devices.toml"
    path.write_text(GOOD + '[trace]\ncapacity = "capacity.csv"\navailability = "availability.csv"\n')
    return str(path)
