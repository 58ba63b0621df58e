"""A task and its options as one text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from fl_shared.protocol import messages as m
from fl_shared.protocol.task_spec import format_task, parse_task, task_name


@given(
    st.dictionaries(st.from_regex(r"[a-z][a-z0-9_]{0,9}", fullmatch=True), st.text(max_size=20), max_size=4)
)
def test_what_is_written_is_read(options: dict[str, str]) -> None:
    try:
        text = format_task("tabular", options)
    except UnicodeEncodeError:  # half a surrogate pair, which no terminal gives
        return
    assert TypeAdapter(m.TaskSpec).validate_python(text) == text
    assert parse_task(text) == ("tabular", options)
    assert task_name(text) == "tabular"


@pytest.mark.parametrize("name", ["digits", "my.package:Task", "synthetic-1000"])
def test_a_task_without_options_is_its_name(name: str) -> None:
    assert format_task(name, {}) == name
    assert parse_task(name) == (name, {})
