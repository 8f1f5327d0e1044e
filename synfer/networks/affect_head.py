"""Valence and arousal as two more outputs of a classifier's last layer, beside the logits of the expressions."""

from __future__ import annotations

from torch import Tensor

from synfer.faces.affect import AFFECT

AFFECT_OUTPUTS = len(AFFECT)
"""How many outputs the last layer has beyond one per expression: two linear heads on the same pooled features."""


def split_outputs(outputs: Tensor, num_classes: int) -> tuple[Tensor, Tensor | None]:
    """Returns the logits (B, K) and, where the network has the outputs for it, valence and arousal (B, 2) in [-1, 1].

    The two go through tanh, so that no rating leaves the scale, as ABAW's baselines do.

    Args:
        outputs: of the last layer, (B, K) or (B, K + 2).
        num_classes: K.
    """
    if outputs.shape[1] == num_classes:
        return outputs, None
    return outputs[:, :num_classes], outputs[:, num_classes:].tanh()
