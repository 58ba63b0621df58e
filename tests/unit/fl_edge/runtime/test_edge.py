"""What the loop knows of one edge."""

from __future__ import annotations

from pathlib import Path

from fl_edge.runtime.edge import Edge
from fl_edge.runtime.masked_member import MaskedMember
from fl_edge.storage.run_keys_file import RunKeysFile
from tests.support.session_script import SessionScript, partition_of


def no_connection(_: object) -> None:
    raise AssertionError("not called")


def test_the_partition_of_a_task_is_known_once_it_is_loaded() -> None:
    script = SessionScript()
    member = MaskedMember("7", RunKeysFile(Path(), "7"))

    def partitions() -> list[object]:
        edge = Edge(script.state, Path(), member, no_connection, no_connection)  # type: ignore[arg-type]
        return [edge.partition_of("digits"), edge.partition_of("mnist")]

    script.do("connected s1", "admitted part=3/20")
    assert partitions() == [None, None]
    script.do("loaded 0")
    assert partitions() == [partition_of("3/20"), None]
    script.do("stop")
    assert partitions() == [None, None]
