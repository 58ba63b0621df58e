"""Values of options that every program has."""

from __future__ import annotations

from pathlib import Path

import pytest

from fl_shared.cli.options import read_password
from fl_shared.errors import UserError


@pytest.mark.parametrize("content", [b"secret", b"secret\n", b"secret\r\nmore", b"\xef\xbb\xbfsecret\n"])
def test_a_password_is_the_first_line_without_what_editors_add(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "password").write_bytes(content)
    assert read_password(tmp_path / "password") == "secret"


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"\n", "empty"), (b"\xef\xbb\xbf\n", "empty"), (b"se\0cret", "NUL"), (b"\xff", "UTF-8")],
)
def test_what_is_no_password_is_refused_and_not_shown(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "password").write_bytes(content)
    with pytest.raises(UserError, match=said) as caught:
        read_password(tmp_path / "password")
    assert "cret" not in str(caught.value)
