"""What the two latent codecs cost and give on the same faces: space_to_depth and a small AutoencoderKL.

    python tests/benchmarks/codec.py                  # FER2013 where configs/data/fer2013.yaml looks, else drawn faces
    python tests/benchmarks/codec.py --data drawn --steps 500

Both are built from the configs that use them. The AutoencoderKL trains for ``--steps`` steps with the generator's own
loss, optimiser and schedule; ``psnr_db`` is its reconstruction of held-out faces (126 dB: exact). Prints one JSON line:

    encode, decode          images/s without gradients, as in training and sampling
    decode_with_gradient    images/s of decoding and of the way back to the latents, as semantic guidance needs it
    train                   images/s of training the codec itself; null where there is nothing to train
    latent_std              standard deviation of the latents; the diffusion model expects about 1
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor
from torch.nn import functional as F

# Started as a file, Python looks for modules beside that file only.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from datamodules.readers import DrawnReader, FER2013Reader
from datamodules.readers.reader import Reader
from datamodules.rows.grey_or_colour import as_rgb
from synfer.foundation.counter_based_random import keyed_seed
from synfer.networks.latent_codec import AutoencoderKLCodec, LatentCodec, build_codec
from synfer.optimisation.schedule import schedule_factor

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
EVALUATED = 512
"""Held-out faces that are reconstructed."""


def read_faces(data: str, training: int) -> tuple[str, Tensor, Tensor]:
    """Returns the name of the faces, training and held-out ones: uint8 (n, 3, 48, 48)."""
    settings = yaml.safe_load((CONFIGS / "data" / "fer2013.yaml").read_text())["data"]["reader"]["init_args"]
    if data == "auto":
        data = "fer2013" if Path(settings["root"]).is_dir() else "drawn"
    reader: Reader
    if data == "fer2013":
        reader = FER2013Reader(settings["root"])
    else:
        reader = DrawnReader({"train": training, "val": EVALUATED}, image_size=48)
    parts = []
    for split, number in (("train", training), ("val", EVALUATED)):
        table = reader.read(split)  # type: ignore[arg-type]
        rows = np.random.default_rng(0).permutation(len(table))[:number]
        parts.append(as_rgb(table.images.batch(rows)).contiguous())
    return data, parts[0], parts[1]


def load_settings(config: Path, grey: bool) -> dict[str, Any]:
    """Returns the generator settings of a config; space_to_depth codes as many channels as the faces have."""
    settings = yaml.safe_load(config.read_text())["model"]["init_args"]
    if settings["network"]["codec"] == "space_to_depth":
        settings["network"]["codec_config"]["channels"] = 1 if grey else 3
    return settings


def as_image(faces: Tensor, device: torch.device) -> Tensor:
    """Maps uint8 to float in [−1, 1]."""
    return faces.to(device).float() / 127.5 - 1


def images_per_s(run: Callable[[], object], batch_size: int, seconds: float) -> float:
    """Repeats a step on one batch for about so long and returns the median speed in images/s."""
    run()
    times: list[float] = []
    while sum(times) < seconds:
        started = time.perf_counter()
        run()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return batch_size / float(np.median(times))


def train(
    codec: AutoencoderKLCodec,
    faces: Tensor,
    settings: dict[str, Any],
    steps: int,
    batch_size: int,
    device: torch.device,
) -> float:
    """Trains a learned codec as :class:`ExpressionGenerator` does and returns the seconds it took."""
    optimizer = torch.optim.AdamW(codec.parameters(), settings["learning_rate"], weight_decay=1e-2, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule_factor("cosine", steps, 0.03))
    random = np.random.default_rng(1)
    started = time.perf_counter()
    for step in range(steps):
        rows = torch.from_numpy(random.integers(0, len(faces), batch_size))
        generator = torch.Generator(device).manual_seed(keyed_seed(1, step))
        with autocast(device):
            loss, psnr = codec.loss(as_image(faces[rows], device), generator)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 50 == 0:
            print(f"step {step}: training PSNR {float(psnr):.1f} dB", file=sys.stderr, flush=True)
    return time.perf_counter() - started


def autocast(device: torch.device) -> AbstractContextManager[Any]:
    """The precision in which the generator trains and samples."""
    return torch.autocast(device.type, torch.bfloat16)


def measure(
    codec: LatentCodec, held_out: Tensor, batch_size: int, seconds: float, device: torch.device
) -> dict[str, Any]:
    """Returns speed, size of the latents and quality of one codec."""
    batch = as_image(held_out[:batch_size], device)

    @torch.no_grad()
    def encode(image: Tensor = batch) -> Tensor:
        with autocast(device):
            return codec.encode(image).float()

    latents = encode()

    @torch.no_grad()
    def decode(code: Tensor = latents) -> Tensor:
        with autocast(device):
            return codec.decode(code).float()

    def decode_with_gradient() -> None:
        wanted = latents.clone().requires_grad_(True)
        with autocast(device):
            image = codec.decode(wanted)
        torch.autograd.grad(image.float().square().sum(), wanted)

    squared, spread = [], []
    for part in held_out.split(batch_size):
        image = as_image(part, device)
        code = encode(image)
        spread.append(code.square().mean())
        squared.append(F.mse_loss(decode(code).clamp(-1, 1), image))
    mse = float(torch.stack(squared).mean())
    return {
        "latent_shape": list(latents.shape[1:]),
        "parameters": sum(parameter.numel() for parameter in codec.parameters()),
        "encode": round(images_per_s(encode, batch_size, seconds), 1),
        "decode": round(images_per_s(decode, batch_size, seconds), 1),
        "decode_with_gradient": round(images_per_s(decode_with_gradient, batch_size, seconds), 1),
        "psnr_db": round(10 * float(np.log10(4 / max(mse, 1e-12))), 2),
        "latent_std": round(float(torch.stack(spread).mean().sqrt()), 3),
    }


def main() -> None:
    """Measures both codecs and prints one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=["auto", "fer2013", "drawn"], default="auto")
    parser.add_argument("--steps", type=int, default=200, help="training steps of the AutoencoderKL")
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--training_faces", type=int, default=4096)
    parser.add_argument("--seconds", type=float, default=2.0, help="time for each measurement of speed")
    args = parser.parse_args()
    torch.manual_seed(1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    data, faces, held_out = read_faces(args.data, args.training_faces)
    grey = bool(torch.equal(held_out[:, 0], held_out[:, 2]))
    result: dict[str, Any] = {"benchmark": "codec", "data": data, "grey": grey, "batch_size": args.batch_size}
    for config in ("fer2013", "autoencoder_kl"):
        settings = load_settings(CONFIGS / "generator" / f"{config}.yaml", grey)
        network = settings["network"]
        codec = build_codec(network["codec"], network["codec_config"]).to(device)
        training: dict[str, Any] = {"train": None, "train_steps": 0, "train_s": 0.0}
        if isinstance(codec, AutoencoderKLCodec):
            seconds = train(codec, faces, settings, args.steps, args.batch_size, device)
            speed = args.steps * args.batch_size / seconds
            training = {"train": round(speed, 1), "train_steps": args.steps, "train_s": round(seconds, 1)}
        codec.eval().requires_grad_(False)
        result[network["codec"]] = {**measure(codec, held_out, args.batch_size, args.seconds, device), **training}
    result["device"] = torch.cuda.get_device_name() if device.type == "cuda" else platform.machine()
    result["threads"], result["torch"] = torch.get_num_threads(), torch.__version__
    print(json.dumps(result))


if __name__ == "__main__":
    main()
