"""``None`` is read as null where the setting may be null: W&B's agent writes it so on the command line."""

from __future__ import annotations

import contextlib
import types
from collections.abc import Iterator
from typing import Any, Union, get_args, get_origin

from jsonargparse import _typehints

_AS_PYTHON_WRITES_IT = "None"


@contextlib.contextmanager
def none_is_null() -> Iterator[None]:
    """Has jsonargparse read the text "None" as null wherever the type of a value allows null, at any depth.

    The parser's own types decide, for only they know what a word is: ``str | None`` may be null, a ``str`` is text, and
    a path that holds the word is a path.
    """
    before = _typehints.adapt_typehints

    def adapt(val: Any, typehint: Any, *args: Any, **settings: Any) -> Any:
        if type(val) is str and val == _AS_PYTHON_WRITES_IT and allows_null(typehint):
            val = None
        return before(val, typehint, *args, **settings)

    _typehints.adapt_typehints = adapt
    try:
        yield
    finally:
        _typehints.adapt_typehints = before


def allows_null(typehint: Any) -> bool:
    """Whether a value of a type may be None."""
    if typehint is Any or typehint is None or typehint is type(None):
        return True
    if get_origin(typehint) in (Union, types.UnionType):
        return any(allows_null(kind) for kind in get_args(typehint))
    return False
