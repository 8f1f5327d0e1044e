"""Less of an expression than a caption says, or more: the text between neutral and wanted, and beyond."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from synfer.faces.captions import neutral_caption


def strengthened_text(
    text: Tensor,
    captions: Sequence[str],
    expressions: Sequence[str],
    strength: float,
    encode_text: Callable[[list[str]], Tensor],
) -> Tensor:
    """Returns e_neutral + s · (e_wanted − e_neutral) for each caption (PixelSmile, arXiv 2603.25728).

    e_neutral is the text of the same caption with the expression's word replaced by "neutral", so that the rest of what
    it says stays; a caption of a neutral face stays as it is at every strength.

    Args:
        text: e_wanted, tokens of the captions, float32 (n, L, D).
        captions: n captions.
        expressions: n canonical names, which the captions say.
        strength: s ≥ 0; 0 = neutral, 1 = ``text`` to the last bit, above 1 = more than the caption says.
        encode_text: captions → text tokens (n, L, D).

    Returns:
        float32 (n, L, D).

    Raises:
        ValueError: a caption that does not say its expression, with another strength than 1.
    """
    if strength == 1:
        return text
    try:
        neutral = [neutral_caption(*pair) for pair in zip(captions, expressions, strict=True)]
    except ValueError as error:
        raise ValueError(f"sampling.expression_strength {strength:g}: {error}, or strength 1") from error
    start = encode_text(neutral)
    return start + strength * (text - start)
