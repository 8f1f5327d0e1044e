"""Packages that only some users need: imported when they are asked for, or missed in one line."""

from __future__ import annotations

from importlib import import_module
from typing import Any


class MissingPackageError(ValueError):
    """A package is not installed that was asked for."""


def optional_package(module: str, extra: str, wanted_by: str) -> Any:
    """Returns a module of an optional package.

    Args:
        module: its name: "cv2".
        extra: which optional dependencies of ours bring it: "faces".
        wanted_by: what asks for it, for the error: "--faces".

    Raises:
        MissingPackageError: it is not installed, or cannot be imported.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise MissingPackageError(
            f"{wanted_by}: found no package '{module}' ({error}), expected the extra '{extra}' "
            f"(pip install 'synfer[{extra}]'; in a checkout pip install -e '.[{extra}]')"
        ) from error
