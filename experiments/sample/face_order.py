"""What somebody wants to see: expressions, action units, a seed, and how the faces are to be made."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from synfer.faces.expressions import canonical_expression
from synfer.foundation.file_reading import did_you_mean


@dataclass(frozen=True)
class StartFace:
    """A face to begin at: a diffusion model takes its layout, a VAE-GAN its code.

    Attributes:
        path: image file.
        shows: its expression, under which a diffusion model inverts it.
        steps: how many of the denoising steps are inverted, the more, the less of it is left; None = seven in ten.
    """

    path: Path
    shows: str = "neutral"
    steps: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "shows", canonical_expression(self.shows))


@dataclass(frozen=True)
class FaceOrder:
    """Some faces: ``count`` of each expression, the sample ids of which begin at ``first_id``.

    Faces with the same id begin at the same noise, whatever they show.

    Attributes:
        expressions: their names; other spellings are known too.
        seed: of all of them.
        first_id: sample id of the first face of each expression, at least 0.
        count: faces of each expression, at least 1.
        action_units: intensities in [0, 1] by name, in place of those that the expression draws.
        strength: how far from neutral (0) to the expression (1) and beyond; of a VAE-GAN how far from the face that it
            begins at; None = the generator's own.
        guidance_scale: of classifier-free guidance, at least 1; None = the generator's own.
        steps: of denoising, at least 1; None = the generator's own.
        caption: in place of the one that names the expression.
        start: a face to begin at; None = at noise.
        guidance_step_size: length of each step of the guide, where there is one, at least 0; 0 = no guidance; None =
            :class:`~callbacks.synthesis.semantic_guidance.SemanticGuidance`'s own.

    Raises:
        ValueError: an unknown expression, or a value out of range.
    """

    expressions: tuple[str, ...]
    seed: int = 1
    first_id: int = 0
    count: int = 1
    action_units: Mapping[str, float] = field(default_factory=dict)
    strength: float | None = None
    guidance_scale: float | None = None
    steps: int | None = None
    caption: str | None = None
    start: StartFace | None = None
    guidance_step_size: float | None = None

    def __post_init__(self) -> None:
        if not self.expressions:
            raise ValueError("expression: found none, expected at least one")
        names = tuple(dict.fromkeys(canonical_expression(name) for name in self.expressions))
        object.__setattr__(self, "expressions", names)
        for name, value, least in (("seed", self.seed, 0), ("first_id", self.first_id, 0), ("count", self.count, 1)):
            if value < least:
                raise ValueError(f"{name}: found {value}, expected a whole number of at least {least}")
        for name, intensity in self.action_units.items():
            if not 0 <= intensity <= 1:
                raise ValueError(f"action unit {name}: found {intensity:g}, expected an intensity in [0, 1]")
        for name in ("strength", "guidance_scale", "guidance_step_size"):
            number = getattr(self, name)
            if number is not None and not (math.isfinite(number) and number >= 0):
                raise ValueError(f"{name}: found {number}, expected a number of at least 0")

    @property
    def sample_ids(self) -> range:
        """Ids of the faces of each expression."""
        return range(self.first_id, self.first_id + self.count)


def check_known(order: FaceOrder, expressions: tuple[str, ...], au_names: tuple[str, ...], who: str) -> None:
    """Refuses what a generator does not know.

    Args:
        order: what is wanted.
        expressions: those of the generator.
        au_names: those that it hears.
        who: its name, for errors.

    Raises:
        ValueError: names what is known.
    """
    for name in order.expressions:
        if name not in expressions:
            raise ValueError(f"expression: found '{name}', expected one that '{who}' knows: {', '.join(expressions)}")
    for name in order.action_units:
        if not au_names:
            raise ValueError(f"action units: found {name}, expected none: '{who}' hears no action units")
        if name not in au_names:
            raise ValueError(
                f"action units: found '{name}', expected some of {', '.join(au_names)}"
                + did_you_mean(name.upper(), list(au_names))
            )
