"""Faces that are no numbers are refused: as uint8 they would be black pictures, and would be trained on."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from synfer.synthesis.request import SynthesisRequest


def check_finite_faces(
    image: Tensor,
    request: SynthesisRequest,
    weights: Iterable[tuple[str, Tensor]],
    overflow: str,
    step: int | None = None,
) -> None:
    """Refuses faces with NaN or infinite pixels, and says where they come from.

    Args:
        image: finished faces, (n, C, H, W), floating point.
        request: what was asked.
        weights: those of the synthesiser, by name.
        overflow: what to say where all weights are finite.
        step: of the training that the weights are in; None = in none.

    Raises:
        ValueError: a pixel is not finite; the line names the first such face.
    """
    broken = (~image.isfinite().flatten(1).all(1)).nonzero()[:, 0].tolist()
    if not broken:
        return
    cause = overflow
    lost = [name for name, weight in weights if not weight.isfinite().all()]
    if lost:
        cause = f"{len(lost)} weights of the generator are not: '{lost[0]}', …; take an earlier checkpoint"
    when = "" if step is None else f" at step {step}"
    raise ValueError(
        f"generated face {request.sample_ids[broken[0]]} (seed {request.seed}){when} and {len(broken) - 1} more of "
        f"{len(image)}: found NaN or infinite pixels, expected finite ones ({cause})"
    )
