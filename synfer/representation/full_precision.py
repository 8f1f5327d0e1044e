"""Comparisons of rows in the number format that they have, also where a step runs under autocast."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

import torch
from torch import Tensor

Arguments = ParamSpec("Arguments")


def in_full_precision(function: Callable[Arguments, Tensor]) -> Callable[Arguments, Tensor]:
    """Switches autocast off inside a function whose first argument is a tensor.

    Under autocast a product of float32 rows has the eight bits of bfloat16: cosines that differ by less than 0.002 may
    come out alike, and a temperature multiplies what is lost.
    """

    @wraps(function)
    def called(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Tensor:
        first = next(value for value in (*args, *kwargs.values()) if isinstance(value, Tensor))
        with torch.autocast(first.device.type, enabled=False):
            return function(*args, **kwargs)

    return called


@in_full_precision
def cosines(rows: Tensor, others: Tensor) -> Tensor:
    """Returns the products (N, M) of unit rows (N, D) and (M, D), float32."""
    return rows.float() @ others.float().T
