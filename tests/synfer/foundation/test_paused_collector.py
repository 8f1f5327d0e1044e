from __future__ import annotations

import gc

import pytest

from synfer.foundation.paused_collector import paused_collector


def test_the_collector_is_as_it_was_after_it_even_after_an_error() -> None:
    assert gc.isenabled()
    with paused_collector():
        assert not gc.isenabled()
        with paused_collector():
            assert not gc.isenabled()
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(ValueError, match="once"), paused_collector():
        raise ValueError("once")
    assert gc.isenabled()
    gc.disable()
    try:
        with paused_collector():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
