"""What faces of frequent classes say of rare ones: attention that is the same in the mirror, and smoothed labels.

Both of Zhang et al. 2023, "Leave No Stone Unturned: Mine Extra Knowledge for Imbalanced Facial Expression Recognition",
arXiv 2310.19636; the consistency without weights is that of Zhang et al. 2022, arXiv 2207.10299.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from synfer.labels.class_weights import balanced_weights


class MinedKnowledge(nn.Module):
    """Weights of the classes, inverse to their rows, for attention maps and for smoothed labels.

    Its tensors move with the module and enter no checkpoint: they follow from the data.

    Args:
        num_classes: K.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.register_buffer("class_weights", torch.ones(num_classes), persistent=False)
        self.class_weights: Tensor

    def adapt(self, counts: Tensor) -> None:
        """Takes over the real training rows per class, (K,); a class without a row weighs 0."""
        self.class_weights.copy_(torch.from_numpy(balanced_weights(counts.numpy())))

    def inconsistency(self, maps: Tensor, of_mirrored: Tensor) -> Tensor:
        """Returns how far the maps of each face are from those of its mirror image, (B,): Σ_k w_k · mean (M − M')².

        Args:
            maps: (B, K, H, W) of the faces.
            of_mirrored: (B, K, H, W) of their mirror images, which are mirrored back here.
        """
        return (maps - of_mirrored.flip(-1)).square().mean((2, 3)) @ self.class_weights

    def smoothed(self, soft_label: Tensor, share: float) -> Tensor:
        """Returns labels (B, K) of which a share goes to the other classes, in proportion to their weights.

        Of a soft label each part gives away its share, so that a one-hot label is smoothed as in the paper.

        Args:
            soft_label: (B, K), rows sum to 1.
            share: in [0, 1).
        """
        others = self.class_weights.expand(len(self.class_weights), -1).clone().fill_diagonal_(0)
        given = others / others.sum(1, keepdim=True).clamp_min(1e-12)
        return (1 - share) * soft_label + share * soft_label @ given
