"""What to synthesise."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor

from synfer.faces.action_units import ACTION_UNITS, action_unit_indices
from synfer.faces.expressions import canonical_expression
from synfer.foundation.counter_based_random import keyed_seed
from synfer.synthesis.conditions import asked_captions, draw_conditions
from synfer.synthesis.diffusion.samplers import SAMPLERS


class SynthesisSettings(Protocol):
    """How a synthesiser makes faces: a frozen dataclass of its own kind, of which this much is common."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def au_edits(self) -> Mapping[str, float]:
        """Intensities in [0, 1] of action units by name, in place of the drawn ones."""
        ...


@dataclass(frozen=True)
class SamplingSettings:
    """How to denoise.

    Attributes:
        num_steps: denoising steps over the whole schedule, ≥ 1.
        guidance_scale: classifier-free guidance scale (Ho and Salimans 2022); 1 switches it off. 2.0 suits training
            data, 7.5 suits looks.
        guidance_interval: classifier-free guidance acts from this share of the steps to that one, [start, end) with
            0 ≤ start < end ≤ 1 (Kynkäänniemi et al. 2024, arXiv 2404.07724); outside, a step costs half as much.
        au_scale: strength of the AU branch; 0 switches it off.
        au_edits: intensities in [0, 1] of action units by name ("AU12": 0.8), in place of the drawn ones.
        expression_strength: how far the text goes from neutral, 0, to the expression, 1, and beyond, ≥ 0
            (:func:`~synfer.synthesis.diffusion.expression_strength.strengthened_text`). Action units stay as drawn.
        mention_expression: whether the text names the expression; false for a generator that was trained on captions
            without it (``data.captions.mention_expression``), and is asked by action units alone.
        negative_prompt: caption of the unconditional branch.
        scheduler: name of the sampler: "ddim", "dpm_solver++", or "few_step" of networks distilled to few steps.

    Raises:
        ValueError: a value out of range, or an action unit that does not exist.
    """

    num_steps: int = 50
    guidance_scale: float = 2.0
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    au_scale: float = 1.0
    au_edits: dict[str, float] = field(default_factory=dict)
    expression_strength: float = 1.0
    mention_expression: bool = True
    negative_prompt: str = ""
    scheduler: str = "ddim"

    def __post_init__(self) -> None:
        if self.num_steps < 1:
            raise ValueError(f"sampling.num_steps: found {self.num_steps}, expected at least 1")
        if self.guidance_scale < 1:
            raise ValueError(f"sampling.guidance_scale: found {self.guidance_scale}, expected at least 1 (1 = off)")
        start, end = self.guidance_interval
        if not 0 <= start < end <= 1:
            raise ValueError(
                f"sampling.guidance_interval: found {list(self.guidance_interval)}, expected 0 ≤ start < end ≤ 1"
            )
        _check_au_edits(self.au_edits, ACTION_UNITS)
        if not (math.isfinite(self.expression_strength) and self.expression_strength >= 0):
            raise ValueError(
                f"sampling.expression_strength: found {self.expression_strength}, expected a number of at least 0 "
                "(0 = neutral, 1 = as the caption says)"
            )
        if not self.mention_expression and self.expression_strength != 1:
            raise ValueError(
                f"sampling.expression_strength: found {self.expression_strength} with mention_expression=false, "
                "expected 1: it is of the text, which says no expression"
            )
        if self.au_scale < 0:
            raise ValueError(f"sampling.au_scale: found {self.au_scale}, expected at least 0")
        if self.scheduler not in SAMPLERS:
            known = " or ".join(f"'{name}'" for name in SAMPLERS)
            raise ValueError(f"sampling.scheduler: found '{self.scheduler}', expected {known}")

    def scale_at(self, step: int) -> float:
        """Returns the scale of classifier-free guidance at a step, 0 … num_steps − 1: 1 outside the interval."""
        start, end = self.guidance_interval
        return self.guidance_scale if start <= step / self.num_steps < end else 1.0


@dataclass(frozen=True)
class SynthesisRequest:
    """Which n faces to make. An image is a function of (weights, settings, seed, sample id) alone (contract C6).

    Attributes:
        expressions: n intended expressions.
        sample_ids: n integers; with the seed they fix the noise of each sample.
        seed: seed of the run.
        captions: n captions.
        action_units: float32 (n, A) in [0, 1], NaN = unknown.
        settings: how to make them, of the synthesiser's own kind; None takes its own.
        au_names: names of the A action units.
    """

    expressions: tuple[str, ...]
    sample_ids: tuple[int, ...]
    seed: int
    captions: tuple[str, ...]
    action_units: np.ndarray
    settings: SynthesisSettings | None = None
    au_names: tuple[str, ...] = ACTION_UNITS

    def __post_init__(self) -> None:
        n = len(self.expressions)
        if n == 0:
            raise ValueError("empty synthesis request: expected at least one expression")
        lengths = {
            "sample_ids": len(self.sample_ids),
            "captions": len(self.captions),
            "action_units": len(self.action_units),
        }
        for name, length in lengths.items():
            if length != n:
                raise ValueError(f"synthesis request: {length} {name} for {n} expressions")

    @classmethod
    def from_expressions(
        cls,
        expressions: Sequence[str],
        sample_ids: Sequence[int],
        seed: int,
        settings: SynthesisSettings | None = None,
        au_names: Sequence[str] = ACTION_UNITS,
        au_edits: dict[str, float] | None = None,
    ) -> SynthesisRequest:
        """Builds a request with canonical captions and action units drawn from the FACS prototypes.

        Args:
            expressions: n names.
            sample_ids: n integers.
            seed: seed of the run.
            settings: how to make them.
            au_names: the generator's action units.
            au_edits: intensities in [0, 1] that replace the drawn ones, by name, after those of the settings.

        Raises:
            ValueError: unknown expression or action unit, or an intensity outside [0, 1].
        """
        names = tuple(canonical_expression(name) for name in expressions)
        captions, units = draw_conditions(names, sample_ids, seed, au_names)
        _edit_action_units(units, {**(settings.au_edits if settings else {}), **(au_edits or {})}, au_names)
        asked = asked_captions(captions, settings)
        return cls(names, tuple(sample_ids), seed, asked, units, settings, tuple(au_names))

    def under(self, settings: SynthesisSettings, au_names: Sequence[str] = ACTION_UNITS) -> SynthesisRequest:
        """Returns the same samples made under these settings, by whoever takes these action units.

        Edits of action units in the settings replace what was drawn.
        """
        units = self.action_units_of(au_names)
        _edit_action_units(units, settings.au_edits, au_names)
        captions = asked_captions(self.captions, settings)
        return replace(self, captions=captions, action_units=units, settings=settings, au_names=tuple(au_names))

    def action_units_of(self, au_names: Sequence[str]) -> np.ndarray:
        """Returns the intensities of these action units, float32 (n, len(au_names)), NaN where nothing was asked."""
        units = np.full((len(self), len(au_names)), np.nan, dtype=np.float32)
        for column, name in enumerate(au_names):
            if name in self.au_names:
                units[:, column] = self.action_units[:, self.au_names.index(name)]
        return units

    def rows(self, places: Sequence[int]) -> SynthesisRequest:
        """Returns the request of the samples at these places, in this order."""
        return replace(
            self,
            expressions=tuple(self.expressions[i] for i in places),
            sample_ids=tuple(self.sample_ids[i] for i in places),
            captions=tuple(self.captions[i] for i in places),
            action_units=self.action_units[list(places)],
        )

    def part(self, start: int, stop: int) -> SynthesisRequest:
        """Returns the request of samples ``start`` to ``stop``."""
        return replace(
            self,
            expressions=self.expressions[start:stop],
            sample_ids=self.sample_ids[start:stop],
            captions=self.captions[start:stop],
            action_units=self.action_units[start:stop],
        )

    def __len__(self) -> int:
        return len(self.expressions)


def _edit_action_units(units: np.ndarray, edits: Mapping[str, float], au_names: Sequence[str]) -> None:
    """Sets the named action units of all rows in place.

    Args:
        units: (n, A).
        edits: intensities in [0, 1] by name.
        au_names: the A names.

    Raises:
        ValueError: unknown action unit, or an intensity outside [0, 1].
    """
    units[:, _check_au_edits(edits, au_names)] = list(edits.values())


def _check_au_edits(edits: Mapping[str, float], au_names: Sequence[str]) -> list[int]:
    """Returns the columns of the edited action units; names one that does not exist or goes too far."""
    for name, value in edits.items():
        if not 0 <= value <= 1:
            raise ValueError(f"sampling.au_edits '{name}': found {value}, expected an intensity in [0, 1]")
    return action_unit_indices(list(edits), au_names)


def initial_noise(request: SynthesisRequest, shape: tuple[int, ...]) -> Tensor:
    """Returns the starting noise, float32 (n, *shape) on the CPU: per sample, so batch size does not matter."""
    noise = [
        torch.randn(shape, generator=torch.Generator().manual_seed(keyed_seed(request.seed, sample_id)))
        for sample_id in request.sample_ids
    ]
    return torch.stack(noise)
