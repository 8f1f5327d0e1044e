"""The maths of semantic guidance: a classifier's loss on the predicted clean face, and the step on the text embedding.

SynFER (arXiv 2410.09865): x̂0 from the conditional output, L_g = −log p_f(y | decode(x̂0)),
c_text ← c_text − λ_g · ∇L_g / ‖∇L_g‖₂. The printed equation adds the gradient, which would raise the loss; this one
descends.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_modules.sampling.denoising import DenoisingState

Guide = Callable[[Tensor], Tensor]
"""Images in [0, 1], (n, 3, H, W) → logits (n, K) over the generator's label space."""


def guidance_loss(logits: Tensor, label: Tensor) -> Tensor:
    """Returns L_g per sample, (n,): −log p_f(y | x) for int64 labels (n,), cross-entropy for soft labels (n, K)."""
    return F.cross_entropy(logits.float(), label, reduction="none")


def guidance_gradient(state: DenoisingState, guide: Guide, label: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Differentiates L_g at the current step by the text tokens, through guide, decoder and UNet.

    Args:
        state: the current denoising state.
        guide: differentiable classifier.
        label: int64 (n,) or soft (n, K).

    Returns:
        gradient (n, L, D), loss (n,) and the network's conditional output (n, C, h, w), both detached: the output can
        serve as the conditional half of classifier-free guidance.

    Raises:
        RuntimeError: autograd is shut off by inference mode.
    """
    if torch.is_inference_mode_enabled():
        raise RuntimeError(
            "semantic guidance needs gradients, found inference mode: set trainer.inference_mode to false"
        )
    with torch.enable_grad():
        text = state.text.detach().requires_grad_()
        output = state.predict(text, state.au)
        image = ((state.decode(state.clean(output)) + 1) / 2).clamp(0, 1)
        with state.autocast():
            logits = guide(image)
        loss = guidance_loss(logits, label)
        (gradient,) = torch.autograd.grad(loss.sum(), text)
    return gradient, loss.detach(), output.detach()


def descend(text: Tensor, gradient: Tensor, step_size: float, norm: Literal["global", "token"] = "global") -> Tensor:
    """Returns c − λ · g / ‖g‖₂ per sample.

    Args:
        text: (n, L, D).
        gradient: (n, L, D).
        step_size: λ_g, length of the step in embedding units.
        norm: L2 norm over the whole embedding of a sample, or over each token.
    """
    dims = (1, 2) if norm == "global" else (2,)
    length = gradient.float().pow(2).sum(dims, keepdim=True).sqrt()
    # A vanished gradient (the guide is certain) must leave the text where it is, not divide by zero.
    return text - step_size * torch.where(length > 0, gradient / length.clamp_min(1e-20), torch.zeros_like(gradient))
