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
        half_width: t(1 − α/2, n − 1) · s / √n; None for one value, which says nothing about spread.
        n: number of values.
    """

    mean: float
    half_width: float | None
    n: int

    @property
    def low(self) -> float | None:
        """Lower end."""
        return None if self.half_width is None else self.mean - self.half_width

    @property
    def high(self) -> float | None:
        """Upper end."""
        return None if self.half_width is None else self.mean + self.half_width

    @property
    def excludes_zero(self) -> bool:
        """Whether 0 lies outside; False where there is no interval."""
        return self.half_width is not None and abs(self.mean) > self.half_width


def t_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> Interval:
    """Returns the mean of independent values with its t-interval.

    Args:
        values: one value per seed, at least one.
        confidence: coverage in (0, 1) under normal errors.

    Raises:
        ValueError: no values.
    """
    n = len(values)
    if n == 0:
        raise ValueError("t_interval: found no values, expected at least one")
    mean = math.fsum(values) / n
    if n == 1:
        return Interval(mean, None, 1)
    variance = math.fsum((value - mean) ** 2 for value in values) / (n - 1)
    quantile = float(stdtrit(n - 1, 0.5 + confidence / 2))
    return Interval(mean, quantile * math.sqrt(variance / n), n)


def paired_difference(
    treated: Mapping[Seed, float], control: Mapping[Seed, float], confidence: float = CONFIDENCE
) -> Interval | None:
    """Returns the mean of treated − control over the seeds that both have, with the t-interval of these differences.

    Runs of one seed share their training rows, initial weights and order of samples, so their difference varies less
    than the runs do.

    Args:
        treated: seed → value.
        control: seed → value.
        confidence: coverage in (0, 1).

    Returns:
        None where no seed is in both.
    """
    shared = [seed for seed in treated if seed in control]
    return t_interval([treated[seed] - control[seed] for seed in shared], confidence) if shared else None
