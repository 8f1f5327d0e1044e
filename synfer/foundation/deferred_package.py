"""A package whose own ``__init__`` runs when something of it is asked for that needs it, not when it is imported."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any


def defer(package: str, light: Mapping[str, Callable[[], Any]]) -> None:
    """Defers a package from now on, unless something has imported it.

    Nothing of it is missing: the first name that is not among ``light`` runs the whole ``__init__``, as an import would
    have. Modules inside the package are imported as ever, and must not need what its ``__init__`` does.

    Args:
        package: "torchmetrics", or a package in a deferred one, "torchmetrics.functional".
        light: name in the package → what gives its value without running the ``__init__``.
    """
    known = {finder.package for finder in sys.meta_path if isinstance(finder, _Finder)}
    if package not in sys.modules and package not in known:
        sys.meta_path.insert(0, _Finder(package, light))


class _Finder(MetaPathFinder):
    """Finds one package, and gives it a loader that waits."""

    def __init__(self, package: str, light: Mapping[str, Callable[[], Any]]) -> None:
        self.package = package
        self._light = light

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Returns the spec of the package, None for any other module."""
        spec = PathFinder.find_spec(name, path, target) if name == self.package else None
        if spec is not None and spec.loader is not None:
            spec.loader = _WaitingLoader(spec.loader, self._light)
        return spec


class _WaitingLoader(Loader):
    """Leaves a package empty but for a way to what is in it."""

    def __init__(self, loader: Loader, light: Mapping[str, Callable[[], Any]]) -> None:
        self._loader = loader
        self._light = light
        self._lock = threading.RLock()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)  # such as get_source, which tracebacks ask for

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Returns what the package's own loader makes."""
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Gives the module a ``__getattr__`` that loads it."""

        def found_late(name: str) -> Any:
            if name in self._light:
                return module.__dict__.setdefault(name, self._light[name]())
            if name.startswith("__"):  # what Python asks of any module, such as __path__ or __wrapped__
                raise AttributeError(f"module '{module.__name__}' has no attribute '{name}'")
            with self._lock:
                if module.__dict__.pop("__getattr__", None) is not None:
                    self._loader.exec_module(module)
            return getattr(module, name)

        module.__dict__["__getattr__"] = found_late
