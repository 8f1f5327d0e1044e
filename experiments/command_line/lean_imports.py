"""What Lightning and our modules import and a run mostly does not use: loaded when it is used."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from importlib import import_module
from importlib.metadata import version
from typing import Any

from synfer.foundation.deferred_package import defer
from synfer.foundation.late_import import imported_late

_FIRST = "torchmetrics.utilities.checks"
"""The module of torchmetrics to be imported first: it and that of Metric import each other."""

_PLOT = "torchmetrics.utilities.plot"


def defer_what_is_not_used() -> None:
    """Defers torchmetrics and its use of matplotlib, before anything has imported them.

    Its ``__init__`` imports the metrics of every field, and with them scipy, torchvision and transformers: twice the
    time of torch itself. Lightning asks it for two classes, our modules for those of classification.
    """
    defer(
        "torchmetrics",
        {
            "__version__": lambda: version("torchmetrics"),
            "_logger": lambda: logging.getLogger("torchmetrics"),
            "Metric": lambda: imported_late(f"{_FIRST}:Metric"),
            "MetricCollection": _metric_collection,
        },
    )
    defer("torchmetrics.functional", {})
    plots = ("plot_single_or_multi_val", "plot_confusion_matrix", "plot_curve")
    defer(
        _PLOT,
        {
            "_AX_TYPE": lambda: object,  # words of annotations, as torchmetrics has them without matplotlib
            "_PLOT_OUT_TYPE": lambda: tuple[object, object],
            "_CMAP_TYPE": lambda: object,
            **{name: partial(_plotting_late, name) for name in plots},
        },
    )


def _plotting_late(name: str) -> Callable[..., Any]:
    """Returns a function that loads what plots when it is called."""

    def plot(*args: Any, **options: Any) -> Any:
        module = import_module(_PLOT)
        _ = module.style_change  # among the names that need all of it, which puts the true function in place of this
        return getattr(module, name)(*args, **options)

    return plot


def _metric_collection() -> Any:
    import_module(_FIRST)
    return imported_late("torchmetrics.collections:MetricCollection")
