"""How the code of a real face is changed before it is decoded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from synfer.faces.expressions import EXPRESSIONS

PerturbationMode = Literal["noise", "interpolate", "transfer"]
OWN, ANY = "same", "any"


@dataclass(frozen=True)
class PerturbationSettings:
    """How a face is made from a real one (arXiv 2411.17254).

    With μ and σ of the source face's code, ε standard normal noise and s the strength, the code that is decoded is

    * ``noise``: μ + s·σ·ε, as the paper adds randomness;
    * ``interpolate``: μ + s·(μ' − μ), towards another face of the same expression;
    * ``transfer``: μ + s·(m_wanted − m_shown), m being the mean code of the training faces of an expression: the
      difference of two is the latent direction from one expression to the other.

    Attributes:
        mode: which of the three.
        strength: s ≥ 0; 0 reconstructs the source.
        source: which training faces are encoded: "same" = those of the wanted expression, "any", or the name of an
            expression; null = "same", and "any" to transfer from. A face of another expression keeps the wanted label
            only where the expression is transferred, so "same" is all that the other modes take; "transfer" does not
            take it: from an expression to itself nothing is added, whatever the strength.

    Raises:
        ValueError: an unknown mode, a strength below 0, or a source that the mode cannot take.
    """

    mode: PerturbationMode = "noise"
    strength: float = 1.0
    source: str | None = None

    def __post_init__(self) -> None:
        if self.mode not in get_args(PerturbationMode):
            known = ", ".join(get_args(PerturbationMode))
            raise ValueError(f"perturbation.mode: found '{self.mode}', expected one of {known}")
        if not self.strength >= 0:
            raise ValueError(f"perturbation.strength: found {self.strength}, expected a number of at least 0")
        sources = (OWN, ANY, *EXPRESSIONS)
        if self.source is not None and self.source not in sources:
            raise ValueError(
                f"perturbation.source: found '{self.source}', expected one of {', '.join(sources)}, or null"
            )
        if self.mode != "transfer" and self.source_of != OWN:
            raise ValueError(
                f"perturbation.source: found '{self.source}' with mode {self.mode}, expected same (mode transfer alone "
                "gives a face of another expression the wanted one)"
            )
        if self.mode == "transfer" and self.source == OWN:
            raise ValueError(
                "perturbation.source: found 'same' with mode transfer, expected any, the name of an expression, or "
                "null (from an expression to itself there is nothing to transfer)"
            )

    @property
    def source_of(self) -> str:
        """Which faces are encoded: "same", "any", or the name of an expression."""
        if self.source is None:
            return ANY if self.mode == "transfer" else OWN
        return self.source

    @property
    def au_edits(self) -> Mapping[str, float]:
        """No action unit can be asked for."""
        return {}
