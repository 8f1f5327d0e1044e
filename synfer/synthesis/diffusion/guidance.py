"""The maths of semantic guidance: a classifier's loss on the predicted clean face, and the step down that loss.

Through the text (SynFER, arXiv 2410.09865): x̂0 from the conditional output, L_g = −log p_f(y | decode(x̂0)),
c_text ← c_text − λ_g · ∇L_g / ‖∇L_g‖₂. The printed equation adds the gradient, which would raise the loss; this one
descends.

Through the latents, without a backward pass of the diffusion network: x̂0 from the output under classifier-free
guidance, x̂0 ← x̂0 − λ · √(1 − ᾱ_t) · ∇L_g / ‖∇L_g‖₂ with the gradient taken at x̂0, and the sampler steps from there.
After manifold-preserving guidance (He et al., arXiv 2311.16424), which also leaves the network out of the gradient;
FreeDoM (Yu et al., arXiv 2303.09833) moves x_t by a gradient through it.

An entropy term may be added: L_g + w · H(p_f(· | x)). Above 0 it has the guide make up its mind, where −log p_f(y | x)
alone is content with two classes left. Below 0 it is the regularised guidance of Javid et al. (arXiv 2511.05844), for
diversity. (Zheng et al., ECCV 2022, scale the gradient by the entropy instead, of which nothing is left here: steps
have a given length.)
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
        gradient: ∇L_g by the text tokens, (m, L, D), or by x̂0, (m, C, h, w), the entropy term included.
        loss: L_g, (m,), without the entropy term.
        probability: how much the guide is of the target's mind, (m,), in [0, 1]: see :func:`guide_agreement`.
        output: an output of the network, (m, C, h, w): by the text the conditional one, good for classifier-free
            guidance too; by x̂0 the one that was given.
    """

    gradient: Tensor
    loss: Tensor
    probability: Tensor
    output: Tensor

    def rows(self, chosen: Tensor) -> GuidanceStep:
        """Returns those of some rows: bool (m,) or int64."""
        return GuidanceStep(*(value[chosen] for value in (self.gradient, self.loss, self.probability, self.output)))


def guidance_loss(logits: Tensor, label: Tensor) -> Tensor:
    """Returns L_g per sample, (n,): −log p_f(y | x) for int64 labels (n,), cross-entropy for soft labels (n, K)."""
    return F.cross_entropy(logits.float(), label, reduction="none")


def guide_entropy(logits: Tensor) -> Tensor:
    """Returns H(p_f(· | x)) per sample in nats, (n,), in [0, log K], of logits (n, K)."""
    log_probabilities = logits.float().log_softmax(1)
    # Not entr(p): its gradient at p = 0 is infinite, and 0 · ∞ is what would come back through the softmax.
    return -(log_probabilities.exp() * log_probabilities).sum(1)


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
    entropy_weight: float = 0.0,
) -> GuidanceStep:
    """Differentiates L_g at the current step by the text tokens, through guide, decoder and UNet.

    Args:
        state: the current denoising state.
        guide: differentiable classifier.
        label: int64 (m,) or soft (m, K).
        rows: int64 (m,), the samples to guide; None = all n.
        on_latents: the guide reads x̂0's latents as they are, which saves the decoder; else images in [0, 1].
        chunk: samples per pass, for less memory; None = all at once.
        entropy_weight: w of the entropy term; 0 = without.

    Raises:
        RuntimeError: autograd is shut off by inference mode.
    """
    return _in_parts(_by_text, state, guide, label, rows, on_latents, chunk, entropy_weight)


def latent_guidance_step(
    state: DenoisingState,
    guide: Guide,
    label: Tensor,
    rows: Tensor | None = None,
    on_latents: bool = False,
    chunk: int | None = None,
    entropy_weight: float = 0.0,
) -> GuidanceStep:
    """Differentiates L_g by the x̂0 of ``state.output``, through guide and decoder alone.

    Args:
        state: the current denoising state, its output known.
        guide: differentiable classifier.
        label: int64 (m,) or soft (m, K).
        rows: int64 (m,), the samples to guide; None = all n.
        on_latents: the guide reads x̂0's latents as they are, so that nothing is decoded; else images in [0, 1].
        chunk: samples per pass, for less memory; None = all at once.
        entropy_weight: w of the entropy term; 0 = without.

    Raises:
        RuntimeError: autograd is shut off by inference mode.
    """
    return _in_parts(_by_clean, state, guide, label, rows, on_latents, chunk, entropy_weight)


def moved_output(state: DenoisingState, found: GuidanceStep, rows: Tensor, step_size: float) -> Tensor:
    """Returns the output whose x̂0 lies λ · √(1 − ᾱ_t) down the gradient, (m, C, h, w).

    Args:
        state: the current denoising state.
        found: by :func:`latent_guidance_step`.
        rows: int64 (m,), the samples that it is of.
        step_size: λ, in units of the noise's deviation at this step.
    """
    latents = state.latents[rows]
    clean = state.clean(found.output, latents)
    moved = normalised_gradient_step(
        clean, found.gradient, step_size * float(state.sampler.noise_levels(state.step)[0][1])
    )
    return state.output_for(moved, latents)


_Parts = tuple[Tensor, Tensor, Tensor, Tensor]


def _in_parts(
    differentiate: Callable[[DenoisingState, Guide, Tensor, Tensor, bool, float], _Parts],
    state: DenoisingState,
    guide: Guide,
    label: Tensor,
    rows: Tensor | None,
    on_latents: bool,
    chunk: int | None,
    entropy_weight: float,
) -> GuidanceStep:
    if torch.is_inference_mode_enabled():
        raise RuntimeError(
            "semantic guidance needs gradients, found inference mode: set trainer.inference_mode to false"
        )
    if rows is None:
        rows = torch.arange(len(state.latents), device=state.latents.device)
    size = chunk or max(1, len(rows))
    parts = [
        differentiate(state, guide, label[start : start + size], rows[start : start + size], on_latents, entropy_weight)
        for start in range(0, len(rows), size)
    ]
    return GuidanceStep(*(torch.cat(values) for values in zip(*parts, strict=True)))


def _by_text(
    state: DenoisingState, guide: Guide, label: Tensor, rows: Tensor, on_latents: bool, entropy_weight: float
) -> _Parts:
    latents = state.latents[rows]
    with torch.enable_grad():
        text = state.text[rows].detach().requires_grad_()
        output = state.predict(text, state.au[rows], latents)
        logits = _logits_at(state, guide, state.clean(output, latents), on_latents)
        gradient, loss = _differentiated(logits, label, entropy_weight, text)
    return gradient, loss, guide_agreement(loss, label), output.detach()


def _by_clean(
    state: DenoisingState, guide: Guide, label: Tensor, rows: Tensor, on_latents: bool, entropy_weight: float
) -> _Parts:
    assert state.output is not None, "the guided output is not known yet"
    output = state.output[rows]
    with torch.enable_grad():
        clean = state.clean(output, state.latents[rows]).detach().requires_grad_()
        logits = _logits_at(state, guide, clean, on_latents)
        gradient, loss = _differentiated(logits, label, entropy_weight, clean)
    return gradient, loss, guide_agreement(loss, label), output


def _differentiated(logits: Tensor, label: Tensor, entropy_weight: float, by: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the gradient of L_g and the entropy term by a tensor, of its shape, and L_g alone, (m,)."""
    loss = guidance_loss(logits, label)
    total = loss if entropy_weight == 0 else loss + entropy_weight * guide_entropy(logits)
    (gradient,) = torch.autograd.grad(total.sum(), by)
    return gradient, loss.detach()


def _logits_at(state: DenoisingState, guide: Guide, clean: Tensor, on_latents: bool) -> Tensor:
    """Returns what the guide says of x̂0, (m, K)."""
    seen = clean if on_latents else ((state.decode(clean) + 1) / 2).clamp(0, 1)
    with state.autocast():
        return guide(seen)


def normalised_gradient_step(
    start: Tensor, gradient: Tensor, step_size: float, norm: Literal["global", "token"] = "global"
) -> Tensor:
    """Returns c − λ · g / ‖g‖₂ per sample.

    Args:
        start: c, text tokens (n, L, D) or latents (n, C, h, w).
        gradient: g, of the same shape.
        step_size: λ, length of the step in units of ``start``.
        norm: L2 norm over all that is a sample's, or over each token.
    """
    dims = tuple(range(1, start.ndim)) if norm == "global" else (2,)
    length = gradient.float().pow(2).sum(dims, keepdim=True).sqrt()
    # A vanished gradient (the guide is certain) must leave all where it is, not divide by zero.
    return start - step_size * torch.where(length > 0, gradient / length.clamp_min(1e-20), torch.zeros_like(gradient))
