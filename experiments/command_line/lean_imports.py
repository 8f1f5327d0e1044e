"""What Lightning and our modules import and a run mostly does not use: loaded when it is used."""

from __future__ import annotations

import logging
from importlib import import_module
from importlib.metadata import version
from typing import Any

from synfer.foundation.deferred_package import defer
from synfer.foundation.late_import import imported_late

_FIRST = "torchmetrics.utilities.checks"
"""The module of torchmetrics to be imported first: it and that of Metric import each other."""


def defer_what_is_not_used() -> None:
    """Defers torchmetrics, before anything has imported it.

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


def _metric_collection() -> Any:
    import_module(_FIRST)
    return imported_late("torchmetrics.collections:MetricCollection")
