"""Making very many objects that stay, without Python's collector looking through all of them again and again."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def paused_collector() -> Iterator[None]:
    """Puts off the search for circles of objects, where it goes on otherwise.

    With torch imported one search takes a tenth of a second and more, and 100,000 new objects that are kept bring on
    several: as long as all else that is done with them. What is inside must make no circles of large objects.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
