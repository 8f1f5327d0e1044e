r"""What fine-tuning Stable Diffusion costs, on paper: FLOPs and bytes counted, time and memory estimated.

    python tests/benchmarks/stable_diffusion_cost.py                 # a table; no weights, no GPU, two minutes
    python tests/benchmarks/stable_diffusion_cost.py --check         # the counts against real steps on this machine

One training step of the published architecture runs on tensors without numbers (torch's ``FakeTensorMode``), under
autocast to bfloat16, with norms in float32 as CUDA's autocast has them. Counted are

* FLOPs of every matrix product, convolution and attention, forward and backward: two per multiplication and addition;
* bytes kept for the backward pass, the highest at any moment, each storage once, weights left out;
* bytes of weights, gradients, AdamW's moments and the moving average.

Estimated from these: memory = all bytes + 1.5 GB of CUDA context and workspace; time = FLOPs ÷ (peak ×
``--utilisation``) + bytes of the optimiser's pass ÷ memory bandwidth + bytes of the gradients' all-reduce ÷ link, none
of them overlapped. Peaks are the makers' dense bfloat16 figures. ``--check`` makes a small model of the same shape with
real numbers and compares: FLOPs and kept bytes must be equal to the last one. Prints one JSON line after the table.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from peft import LoraConfig
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPTextConfig, CLIPTextModel

# Started as a file, Python looks for modules beside that file only.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from synfer.faces.action_units import ACTION_UNITS, REGIONS
from synfer.networks.au_adapter import attach_au_adapter, au_adapter_parameters
from synfer.networks.diffusion import LORA_TARGETS
from tests.fixtures.published_shapes import SD15_TEXT, SD15_UNET, SD_VAE

GB = 1e9
CONTEXT = 1.5 * GB
"""CUDA context, cuDNN and cuBLAS workspace, fragments."""


@dataclass(frozen=True)
class Device:
    """A GPU as its maker describes it.

    Attributes:
        flops: dense bfloat16 operations per second.
        bandwidth: of its memory, bytes per second.
        link: to its neighbours, bytes per second in one direction.
        memory: bytes.
    """

    flops: float
    bandwidth: float
    link: float
    memory: float


DEVICES = {
    "A100 80 GB": Device(312e12, 2.0e12, 300e9, 80 * GB),
    "H100 80 GB": Device(989e12, 3.35e12, 450e9, 80 * GB),
}

PARTS = ("lora + adapter", "adapter", "full")


@dataclass(frozen=True)
class Counts:
    """What one training step asks for, on one GPU.

    Attributes:
        flops: of the UNet, forward and backward.
        frozen_flops: of the VAE's encoder and the text encoder.
        kept: bytes kept for the backward pass, at their highest.
        weights: bytes of UNet, VAE and text encoder.
        states: bytes of gradients, AdamW's two moments and the moving average.
        trained: number of trained parameters.
    """

    flops: int
    frozen_flops: int
    kept: int
    weights: int
    states: int
    trained: int


def _cpu_attention_flops(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    """FLOPs of the CPU's fused attention, which torch's counter does not know: two matrix products."""
    (b, h, q, d), k, v = query, key[2], value[3]
    return int(2 * b * h * q * k * (d + v))


def _cpu_attention_backward_flops(grad: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    """Five matrix products: scores once more, and the gradients of scores, queries, keys and values."""
    (b, h, q, d), k, v = query, key[2], value[3]
    return int(2 * b * h * q * k * (3 * d + 2 * v))


_ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _cpu_attention_flops,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _cpu_attention_backward_flops,
}


class KeptBytes:
    """Counts the bytes that a backward pass waits for: each storage once, those of ``left_out`` never."""

    def __init__(self, left_out: Iterator[Tensor]) -> None:
        self._left_out = {tensor.untyped_storage()._cdata for tensor in left_out}
        self._held: dict[int, list[Any]] = {}  # storage → [number of holders, bytes]
        self.now = self.highest = 0

    def pack(self, tensor: Tensor) -> Any:
        """Notes a tensor that is kept, and returns what stands for it."""
        return _Kept(self, tensor)

    def take(self, tensor: Tensor) -> int | None:
        """Counts one more holder of a tensor's storage."""
        storage = tensor.untyped_storage()
        if storage._cdata in self._left_out:
            return None
        holders = self._held.setdefault(storage._cdata, [0, storage.nbytes()])
        holders[0] += 1
        if holders[0] == 1:
            self.now += holders[1]
            self.highest = max(self.highest, self.now)
        return int(storage._cdata)

    def drop(self, storage: int) -> None:
        """Counts one holder less."""
        holders = self._held[storage]
        holders[0] -= 1
        if not holders[0]:
            self.now -= holders[1]
            del self._held[storage]


class _Kept:
    def __init__(self, count: KeptBytes, tensor: Tensor) -> None:
        self.tensor, self._count, self._storage = tensor, count, count.take(tensor)

    def __del__(self) -> None:
        if self._storage is not None:
            self._count.drop(self._storage)


@contextmanager
def float32_norms() -> Iterator[None]:
    """Lets norms take and give float32 under autocast, as they do on CUDA and not on a CPU."""
    own = {name: getattr(F, name) for name in ("group_norm", "layer_norm")}

    def in_float32(norm: Any) -> Any:
        def run(image: Tensor, size: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Tensor:
            with torch.autocast("cpu", enabled=False):
                plain = [None if tensor is None else tensor.float() for tensor in (weight, bias)]
                return norm(image.float(), size, *plain, eps)

        return run

    try:
        for name, norm in own.items():
            setattr(F, name, in_float32(norm))
        yield
    finally:
        for name, norm in own.items():
            setattr(F, name, norm)


@contextmanager
def replaced_parameters() -> Iterator[None]:
    """Lets ``Module.to`` put new parameters in the place of the old: its own way fails on tensors without numbers."""
    own = nn.Module._apply

    def apply(module: nn.Module, convert: Any, recurse: bool = True) -> nn.Module:
        for child in module.children():
            apply(child, convert)
        for name, parameter in module._parameters.items():
            if parameter is not None:
                module._parameters[name] = nn.Parameter(convert(parameter.detach()), parameter.requires_grad)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = convert(buffer)
        return module

    nn.Module._apply = apply  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        nn.Module._apply = own  # type: ignore[method-assign]


def build_unet(shape: dict[str, Any], part: str, rank: int, frozen: torch.dtype, checkpointing: bool) -> Any:
    """Returns a UNet with the AU adapter, of which ``part`` learns; what learns is float32."""
    unet = UNet2DConditionModel(**shape)
    attach_au_adapter(unet, len(ACTION_UNITS))
    unet.train()
    if part != "full":
        unet.requires_grad_(False)
        unet.to(frozen)
        if part.startswith("lora"):
            unet.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=list(LORA_TARGETS)))
        for parameter in au_adapter_parameters(unet):
            parameter.requires_grad_(True)
        for module in unet.modules():
            if any(p.requires_grad for p in module.parameters(recurse=False)):
                module.float()
    if checkpointing:
        unet.enable_gradient_checkpointing()
    return unet


def step_counts(
    shapes: tuple[dict[str, Any], dict[str, Any], dict[str, Any]],
    part: str,
    batch: int,
    image_size: int,
    rank: int = 4,
    checkpointing: bool = False,
    cached: bool = False,
    frozen: torch.dtype = torch.bfloat16,
    real: bool = False,
    cuda_norms: bool = True,
) -> Counts:
    """Counts one training step.

    Args:
        shapes: configs of UNet, VAE and text encoder.
        part: what learns: "lora + adapter", "adapter" or "full".
        batch: images.
        image_size: their side in pixels.
        rank: of LoRA.
        checkpointing: whether blocks run again in the backward pass.
        cached: whether latents and text come from a cache, and VAE and text encoder are not there.
        frozen: number format of what does not learn.
        real: with numbers, on the CPU.
        cuda_norms: norms in float32.
    """
    with ExitStack() as stack:
        stack.enter_context(nullcontext() if real else FakeTensorMode())
        stack.enter_context(replaced_parameters())
        stack.enter_context(torch.autocast("cpu", torch.bfloat16))
        if cuda_norms:
            stack.enter_context(float32_norms())
        unet = build_unet(shapes[0], part, rank, frozen, checkpointing)
        others: list[nn.Module] = []
        frozen_flops = 0
        size = image_size // 8
        width = shapes[0]["cross_attention_dim"]
        text = torch.zeros(batch, shapes[2]["max_position_embeddings"], width)
        latents = torch.zeros(batch, 4, size, size)
        if not cached:
            vae, encoder = AutoencoderKL(**shapes[1]), CLIPTextModel(CLIPTextConfig(**shapes[2]))
            others = [vae.to(frozen).eval(), encoder.to(frozen).eval()]
            with FlopCounterMode(display=False, custom_mapping=_ATTENTION) as counter, torch.no_grad():
                latents = vae.encode(torch.zeros(batch, 3, image_size, image_size)).latent_dist.mode().float()
                text = encoder(torch.zeros(batch, text.shape[1], dtype=torch.int64)).last_hidden_state.float()
            frozen_flops = counter.get_total_flops()
        units = torch.zeros(batch, len(REGIONS), 2 * len(ACTION_UNITS))
        kept = KeptBytes(iter([*unet.parameters(), *unet.buffers()]))
        with (
            FlopCounterMode(display=False, custom_mapping=_ATTENTION) as counter,
            torch.autograd.graph.saved_tensors_hooks(kept.pack, lambda held: held.tensor),
        ):
            output = unet(
                latents,
                torch.zeros(batch, dtype=torch.int64),
                encoder_hidden_states=text,
                added_cond_kwargs={"image_embeds": [units]},
            ).sample
            (output.float() ** 2).mean().backward()
        trained = [parameter for parameter in unet.parameters() if parameter.requires_grad]
        missing = [parameter for parameter in trained if parameter.grad is None]
        if missing:
            raise RuntimeError(f"{len(missing)} of {len(trained)} trained parameters got no gradient")
        learnt = sum(parameter.numel() for parameter in trained)
        return Counts(
            flops=counter.get_total_flops(),
            frozen_flops=frozen_flops,
            kept=kept.highest,
            weights=sum(p.numel() * p.element_size() for net in (unet, *others) for p in net.parameters()),
            states=4 * learnt * 4,
            trained=learnt,
        )


def estimate(counts: Counts, device: Device, gpus: int, utilisation: float) -> tuple[float, float]:
    """Returns seconds per step and bytes, of one GPU of ``gpus``.

    Every rank holds everything (DDP). The optimiser's pass reads gradient, weight, moments and average, and writes the
    last four: nine numbers for each trained one. A ring's all-reduce sends each gradient 2 (n − 1) / n times.
    """
    compute = (counts.flops + counts.frozen_flops) / (device.flops * utilisation)
    optimiser = 9 * 4 * counts.trained / device.bandwidth
    reduce = 2 * (gpus - 1) / gpus * 4 * counts.trained / device.link
    buckets = 4 * counts.trained if gpus > 1 else 0  # DDP's copies of the gradients
    return compute + optimiser + reduce, counts.weights + counts.states + counts.kept + buckets + CONTEXT


def small_shapes() -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Configs of the same shape, narrow enough for a step on any machine."""
    unet = {**SD15_UNET, "block_out_channels": (32, 64, 64, 64), "cross_attention_dim": 32, "attention_head_dim": 4}
    vae = {**SD_VAE, "block_out_channels": (16, 16, 32, 32), "norm_num_groups": 8}
    text = {**SD15_TEXT, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    return {**unet, "norm_num_groups": 16}, vae, {**text, "vocab_size": 1000}


def check() -> dict[str, Any]:
    """Compares the counts with those of real steps of the small shape; raises where they differ."""
    found: dict[str, Any] = {}
    for part in PARTS:
        for checkpointing in (False, True):
            made = [
                step_counts(small_shapes(), part, 2, 64, checkpointing=checkpointing, real=real)
                for real in (True, False)
            ]
            name = part + (", checkpointing" if checkpointing else "")
            found[name] = {"real": asdict(made[0]), "equal": made[0] == made[1]}
            if made[0] != made[1]:
                raise RuntimeError(f"{name}: a real step counts {made[0]}, one without numbers {made[1]}")
    return found


def main(argv: list[str] | None = None) -> int:
    """Prints the table and one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=8, help="images on each GPU")
    parser.add_argument("--image-size", type=int, default=512, help="pixels")
    parser.add_argument("--utilisation", type=float, default=0.35, help="share of the peak that steps reach")
    parser.add_argument("--check", action="store_true", help="compare the counts with real steps of a small model")
    arguments = parser.parse_args(argv)
    if arguments.check:
        print(json.dumps({"check": check()}))
        return 0
    rows = []
    print(
        "| learns | cached | checkpointing | TFLOP a step | kept for backward, GB | memory, GB | "
        + " | ".join(f"{n} × {name}, s" for name in DEVICES for n in (1, 8))
        + " |"
    )
    print("| --- " * (6 + 2 * len(DEVICES)) + "|")
    for part in PARTS:
        for cached in (False, True):
            for checkpointing in (False, True):
                counts = step_counts(
                    (SD15_UNET, SD_VAE, SD15_TEXT),
                    part,
                    arguments.batch,
                    arguments.image_size,
                    checkpointing=checkpointing,
                    cached=cached,
                )
                made = {
                    f"{gpus} × {name}": estimate(counts, device, gpus, arguments.utilisation)
                    for name, device in DEVICES.items()
                    for gpus in (1, 8)
                }
                memory = max(size for _, size in made.values())
                rows.append(
                    {
                        "learns": part,
                        "cached": cached,
                        "checkpointing": checkpointing,
                        **asdict(counts),
                        "memory": memory,
                        "seconds": {name: round(s, 4) for name, (s, _) in made.items()},
                    }
                )
                cells = [
                    part,
                    "yes" if cached else "no",
                    "yes" if checkpointing else "no",
                    f"{(counts.flops + counts.frozen_flops) / 1e12:.1f}",
                    f"{counts.kept / GB:.1f}",
                    f"{memory / GB:.1f}",
                    *(f"{s:.3f}" for s, _ in made.values()),
                ]
                print("| " + " | ".join(cells) + " |", flush=True)
    print(
        json.dumps(
            {
                "batch": arguments.batch,
                "image_size": arguments.image_size,
                "utilisation": arguments.utilisation,
                "torch": torch.__version__,
                "rows": rows,
            }
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
