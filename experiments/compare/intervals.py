"""Means with Student's t-intervals, of groups of runs and of differences between runs of the same seed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scipy.special import stdtrit

from experiments.compare.seeds import Seed

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """A mean and its two-sided t-interval.

    Attributes:
        mean: mean of n values.
        half_width: t(1 − α/2, n − 1) · s / √n; None for one value, which says nothing about spread, and where it is
            withheld.
        n: number of values.
        values: the values themselves.
        bounds: least and greatest possible value; None = any number.
        is_withheld: whether two values lie so far apart that the interval would reach beyond what is possible: it then
            says nothing.
    """

    mean: float
    half_width: float | None
    n: int
    values: tuple[float, ...] = ()
    bounds: tuple[float, float] | None = None
    is_withheld: bool = False

    @property
    def low(self) -> float | None:
        """Lower end, cut at the least possible value."""
        if self.half_width is None:
            return None
        low = self.mean - self.half_width
        return low if self.bounds is None else max(low, self.bounds[0])

    @property
    def high(self) -> float | None:
        """Upper end, cut at the greatest possible value."""
        if self.half_width is None:
            return None
        high = self.mean + self.half_width
        return high if self.bounds is None else min(high, self.bounds[1])

    @property
    def is_cut(self) -> bool:
        """Whether an end was cut at what is possible."""
        return self.half_width is not None and _leaves(self.mean, self.half_width, self.bounds)

    @property
    def excludes_zero(self) -> bool:
        """Whether 0 lies outside; False where there is no interval."""
        return self.half_width is not None and abs(self.mean) > self.half_width


def t_interval(
    values: Sequence[float], confidence: float = CONFIDENCE, bounds: tuple[float, float] | None = None
) -> Interval:
    """Returns the mean of independent values with its t-interval.

    Args:
        values: one value per seed, at least one.
        confidence: coverage in (0, 1) under normal errors.
        bounds: least and greatest possible value; an interval is cut there, and that of two values withheld where it
            would reach beyond. None = any number.

    Raises:
        ValueError: no values.
    """
    n = len(values)
    if n == 0:
        raise ValueError("t_interval: found no values, expected at least one")
    mean = math.fsum(values) / n
    if n == 1:
        return Interval(mean, None, 1, tuple(values), bounds)
    variance = math.fsum((value - mean) ** 2 for value in values) / (n - 1)
    quantile = float(stdtrit(n - 1, 0.5 + confidence / 2))
    half_width = quantile * math.sqrt(variance / n)
    if n == 2 and _leaves(mean, half_width, bounds):
        return Interval(mean, None, n, tuple(values), bounds, is_withheld=True)
    return Interval(mean, half_width, n, tuple(values), bounds)


def paired_difference(
    treated: Mapping[Seed, float],
    control: Mapping[Seed, float],
    confidence: float = CONFIDENCE,
    bounds: tuple[float, float] | None = None,
) -> Interval | None:
    """Returns the mean of treated − control over the seeds that both have, with the t-interval of these differences.

    Runs of one seed share their training rows, initial weights and order of samples, so their difference varies less
    than the runs do.

    Args:
        treated: seed → value.
        control: seed → value.
        confidence: coverage in (0, 1).
        bounds: least and greatest possible difference; None = any number.

    Returns:
        None where no seed is in both.
    """
    shared = [seed for seed in treated if seed in control]
    return t_interval([treated[seed] - control[seed] for seed in shared], confidence, bounds) if shared else None


def _leaves(mean: float, half_width: float, bounds: tuple[float, float] | None) -> bool:
    """Whether an interval reaches beyond what is possible."""
    return bounds is not None and (mean - half_width < bounds[0] or mean + half_width > bounds[1])
