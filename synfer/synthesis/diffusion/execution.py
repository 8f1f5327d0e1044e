"""How a diffusion model is run: what changes its speed, and its results by rounding alone."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint

_FEW_TOKENS = 256
_FEW_IN_FLOAT32 = 144


@dataclass(frozen=True)
class ExecutionSettings:
    """How the UNet is laid out, rounded and compiled.

    Attributes:
        channels_last: memory format of the UNet, faster on CPU and GPU; not where a base trains in float32 on a CPU.
        bf16_sampling: run the network in bfloat16 autocast while sampling.
        bf16_weights: hold the UNet's weights in bfloat16 (normalisation excepted) while faces are made, in ``predict``
            and ``test``: half the memory, and the same faces, for ``bf16_sampling`` rounds them at each use. Not in
            ``fit``, nor without ``bf16_sampling``.
        decode_batch: finished latents decoded at a time, where decoding takes more memory than denoising (it does with
            an autoencoder of full size): more faces can then be denoised together. None = all that were. The same
            faces, but for rounding; what a guide sees has ``guidance.chunk``.
        compile_backend: backend of ``torch.compile`` for the UNet ("inductor"; on CPUs it needs a C++ compiler); None =
            not compiled. The first batch of each size then waits for the compiler.
        gradient_checkpointing: keep no activations inside the UNet's blocks and compute them again in the backward pass
            (Chen et al., arXiv 1604.06174): a fraction of the memory, a third more work, the same gradients.
        lean_backward: on a base, keep half as much for the backward pass of frozen layers, for a fifth more time on a
            CPU: between all and ``gradient_checkpointing``.

    Raises:
        ValueError: a backend that torch does not know, no latents to decode, or weights in bfloat16 for a
            network that runs in float32.
    """

    channels_last: bool = True
    bf16_sampling: bool = True
    bf16_weights: bool = False
    decode_batch: int | None = None
    compile_backend: str | None = None
    gradient_checkpointing: bool = False
    lean_backward: bool = False

    def __post_init__(self) -> None:
        if self.bf16_weights and not self.bf16_sampling:
            raise ValueError(
                "model.execution.bf16_weights: found true with model.execution.bf16_sampling=false, expected false, or "
                "sampling in bfloat16 too"
            )
        if self.decode_batch is not None and self.decode_batch < 1:
            raise ValueError(f"model.execution.decode_batch: found {self.decode_batch}, expected at least 1, or null")
        backend = self.compile_backend
        # Asked only where it matters: the list costs seconds.
        if backend is not None and backend not in (known := torch.compiler.list_backends(())):
            raise ValueError(f"model.execution.compile_backend: found '{backend}', expected null or one of {known}")


def attention_kernel(device: torch.device, tokens: int) -> AbstractContextManager[Any]:
    """Returns the context in which attention over so many tokens is computed.

    On a CPU the fused kernel loses to plain matrix products where tokens are few (13 % of a training step in bfloat16
    at 144 of them) and wins where they are many, in float32 sooner: the products' memory grows with the square of their
    number.
    """
    in_half = torch.is_autocast_enabled(device.type)
    few = device.type == "cpu" and tokens <= (_FEW_TOKENS if in_half else _FEW_IN_FLOAT32)
    return sdpa_kernel(SDPBackend.MATH) if few else nullcontext()


def checkpoint_activations(unet: Any, tokens: int) -> None:
    """Has a UNet of diffusers compute the activations of its blocks again in the backward pass.

    That pass runs outside of the context in which the first one did: what is recomputed takes the same attention
    kernel, for other kernels leave other tensors.

    Args:
        unet: changed in place.
        tokens: positions of its latents.
    """

    def run(module: Any, *inputs: Any) -> Any:
        context = partial(attention_kernel, inputs[0].device, tokens)
        return checkpoint(module.__call__, *inputs, use_reentrant=False, context_fn=lambda: (nullcontext(), context()))

    unet.enable_gradient_checkpointing(run)
