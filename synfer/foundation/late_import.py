"""What a table names and is imported when it is asked for: it takes seconds, or stands further up."""

from __future__ import annotations

from importlib import import_module
from operator import attrgetter
from typing import Any


def imported_late(name: str) -> Any:
    """Returns what "package.module:attribute" names; the attribute may be dotted, as a method of a class is.

    Raises:
        ImportError: no such module.
        AttributeError: nothing of this name in it.
    """
    module, _, attribute = name.partition(":")
    return attrgetter(attribute)(import_module(module))
