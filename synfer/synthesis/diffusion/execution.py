"""How a diffusion model is run: what changes its speed, and its results by rounding alone."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class ExecutionSettings:
    """How the UNet is laid out, rounded and compiled.

    Attributes:
        channels_last: memory format of the UNet, faster on CPU and GPU.
        bf16_sampling: run the network in bfloat16 autocast while sampling.
        compile_backend: backend of ``torch.compile`` for the UNet ("inductor"; on CPUs it needs a C++ compiler); None =
            not compiled. The first batch of each size then waits for the compiler.

    Raises:
        ValueError: a backend that torch does not know.
    """

    channels_last: bool = True
    bf16_sampling: bool = True
    compile_backend: str | None = None

    def __post_init__(self) -> None:
        backend = self.compile_backend
        # Asked only where it matters: the list costs seconds.
        if backend is not None and backend not in (known := torch.compiler.list_backends(())):
            raise ValueError(f"model.execution.compile_backend: found '{backend}', expected null or one of {known}")
