"""What the loop knows of one edge."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fl_edge.messaging.model_store import FetchedModel
from fl_edge.runtime.edge import Edge
from fl_edge.runtime.masked_member import MaskedMember
from fl_edge.session.masking import MaskedRun
from fl_edge.session.work import OwnState, StateReference
from fl_edge.storage.run_keys_file import RunKeysFile
from fl_edge.training.local_part import LOCAL, PERSONAL
from fl_shared.system.shared_memory import SharedBytes
from fl_shared.tensors.sections import ModelSection
from tests.support.samples import DATA, MANIFEST
from tests.support.session_script import KEYS, RUN, SessionScript, partition_of


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


@pytest.mark.parametrize("masked", [False, True])
def test_p8_what_an_edge_has_trained_is_in_no_prediction_of_a_masked_run(
    tmp_path: Path, masked: bool
) -> None:
    """Also before it is admitted again, when it has been restarted."""
    script = SessionScript()
    member = MaskedMember("7", RunKeysFile(tmp_path, "7"))
    reference = StateReference(RUN, 1, "d" * 64)
    own = OwnState(current=reference, personal=reference)
    before = replace(script.session, own_state=own, masked_run=MaskedRun(RUN, KEYS) if masked else None)
    script.state = before
    script.do("connected s1", "admitted part=7/20" + " masked" * masked)
    admitted = replace(script.session, own_state=own)
    for state in (before, admitted):
        edge = Edge(state, tmp_path / "update", member, no_connection, no_connection)  # type: ignore[arg-type]
        files = edge.own_state
        files.stage(reference, {LOCAL: memoryview(DATA)})
        files.promote()
        files.keep_personal(reference, {PERSONAL: memoryview(DATA)})
        assert (edge.local_part(RUN) is None) == masked
        section = ModelSection("weights", MANIFEST, DATA)
        model = FetchedModel(reference.digest, (section,), SharedBytes.copy_of(DATA))
        assert (edge.personal_model(RUN, model) is None) == masked


def test_12_5_an_edge_tells_all_of_its_log_only_in_a_run_that_learns_each_update() -> None:
    member = MaskedMember("7", RunKeysFile(Path(), "7"))

    def told(*lines: str) -> bool:
        script = SessionScript()
        script.do(*lines)
        return Edge(script.state, Path(), member, no_connection, no_connection).tells_all  # type: ignore[arg-type]

    member_of = ("connected s1", "admitted part=7/20")
    assert told(*member_of)
    assert not told("connected s1"), "nobody has said yet what the run is"
    assert not told("connected s1", "admitted part=7/20 masked")
    assert not told("connected s1", "admitted part=7/20 private")
    assert not told(*member_of, "refused lacks-ability"), "it has left the run"
    assert not told(*member_of, "stop")
