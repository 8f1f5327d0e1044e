"""What a diffusion network gives."""

from __future__ import annotations

from typing import Literal

PredictionType = Literal["epsilon", "v_prediction", "sample"]
"""ε, v, or x0 itself ("sample", as diffusers calls it).

With large patches as latents (more channels than faces have degrees of freedom) a narrow network learns x0 far sooner
than ε or v, for it need not carry the noise through (Li and He 2025, arXiv 2511.13720).
"""
