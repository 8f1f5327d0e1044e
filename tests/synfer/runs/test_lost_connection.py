from __future__ import annotations

import pytest

from synfer.runs.lost_connection import is_lost_connection


@pytest.mark.parametrize("text", ["Connection closed by peer [127.0.0.1]:1", "x: Connection reset by peer"])
def test_a_lost_connection(text: str) -> None:
    assert is_lost_connection(RuntimeError(text)) and is_lost_connection(text)
    assert not is_lost_connection(RuntimeError("another")) and not is_lost_connection("")
