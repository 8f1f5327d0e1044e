"""The maths of semantic guidance: a classifier's loss on the predicted clean face, and the step on the text embedding.

SynFER (arXiv 2410.09865): x̂0 from the conditional output, L_g = −log p_f(y | decode(x̂0)),
c_text ← c_text − λ_g · ∇L_g / ‖∇L_g‖₂. The printed equation adds the gradient, which would raise the loss; this one
descends.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from synfer.synthesis.diffusion.denoising_state import DenoisingState

Guide = Callable[[Tensor], Tensor]
"""Images in [0, 1], (n, 3, H, W), or clean latents (n, C, h, w) → logits (n, K) over the guide's label space."""


@dataclass(frozen=True)
class GuidanceStep:
    """What one differentiation gives, for the m rows that were asked for; nothing of it requires gradients.

    Attributes:
        gradient: ∇L_g by the text tokens, (m, L, D).
        loss: L_g, (m,).
        probability: how much the guide is of the target's mind, (m,), in [0, 1]: see :func:`guide_agreement`.
        output: the network's conditional output, (m, C, h, w), good for classifier-free guidance too.
    """

    gradient: Tensor
    loss: Tensor
    probability: Tensor
    output: Tensor


def guidance_loss(logits: Tensor, label: Tensor) -> Tensor:
    """Returns L_g per sample, (n,): −log p_f(y | x) for int64 labels (n,), cross-entropy for soft labels (n, K)."""
    return F.cross_entropy(logits.float(), label, reduction="none")


def guide_agreement(loss: Tensor, label: Tensor) -> Tensor:
    """Returns exp(−KL(target ‖ p_f)), (n,): for int64 labels the probability of the class, for soft ones 1 at best.

    Args:
        loss: L_g, (n,).
        label: int64 (n,) or soft (n, K).
    """
    entropy = torch.special.entr(label).sum(1) if label.is_floating_point() else torch.zeros_like(loss)
    return (entropy - loss).exp().clamp(0, 1)


def guidance_step(
    state: DenoisingState,
    guide: Guide,
    label: Tensor,
    rows: Tensor | None = None,
    on_latents: bool = False,
    chunk: int | None = None,
) -> GuidanceStep:
    """Differentiates L_g at the current step by the text tokens, through guide, decoder and UNet.

    Args:
        state: the current denoising state.
        guide: differentiable classifier.
        label: int64 (m,) or soft (m, K).
        rows: int64 (m,), the samples to guide; None = all n.
        on_latents: the guide reads x̂0's latents as they are, which saves the decoder; else images in [0, 1].
        chunk: samples per pass, for less memory; None = all at once.

    Raises:
        RuntimeError: autograd is shut off by inference mode.
    """
    if torch.is_inference_mode_enabled():
        raise RuntimeError(
            "semantic guidance needs gradients, found inference mode: set trainer.inference_mode to false"
        )
    if rows is None:
        rows = torch.arange(len(state.latents), device=state.latents.device)
    size = chunk or max(1, len(rows))
    parts = [
        _differentiate(state, guide, label[start : start + size], rows[start : start + size], on_latents)
        for start in range(0, len(rows), size)
    ]
    return GuidanceStep(*(torch.cat(values) for values in zip(*parts, strict=True)))


def _differentiate(
    state: DenoisingState, guide: Guide, label: Tensor, rows: Tensor, on_latents: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    latents = state.latents[rows]
    with torch.enable_grad():
        text = state.text[rows].detach().requires_grad_()
        output = state.predict(text, state.au[rows], latents)
        seen = state.clean(output, latents)
        if not on_latents:
            seen = ((state.decode(seen) + 1) / 2).clamp(0, 1)
        with state.autocast():
            logits = guide(seen)
        loss = guidance_loss(logits, label)
        (gradient,) = torch.autograd.grad(loss.sum(), text)
    loss = loss.detach()
    return gradient, loss, guide_agreement(loss, label), output.detach()


def normalised_gradient_step(
    text: Tensor, gradient: Tensor, step_size: float, norm: Literal["global", "token"] = "global"
) -> Tensor:
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
