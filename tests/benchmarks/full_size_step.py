"""A training step at the size of Stable Diffusion 1.5: its published shape with random weights, LoRA and AU adapter.

    python tests/benchmarks/full_size_step.py
    python tests/benchmarks/full_size_step.py --au_rank 0   # the adapter's keys and values learn whole
    python tests/benchmarks/full_size_step.py --quick       # the same on a tiny model: does it run at all

Writes the model in bfloat16 into a temporary folder (UNet of 860 million weights, VAE, CLIP ViT-L text encoder),
trains three steps of one picture at 256 pixels in bf16 with gradient checkpointing and the frozen parts in bfloat16, a
checkpoint after each; then the same run is killed (SIGKILL) in its third step and goes on from the checkpoint. Each is
a process of its own. Prints one JSON line: ``peak_gb`` of resident memory (the largest of those that ended, loading
included), ``checkpoint_mb``, of which ``trained_mb`` are the weights that learn, ``step_s``, and ``same_loss``: whether
the third loss is the same one.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

# Started as a file, Python looks for modules beside that file only.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.fixtures.published_shapes import SD15_TEXT, SD15_UNET, SD_VAE

BARS = {"peak_gb": 8, "checkpoint_mb": 200}
STEPS, KILLED_IN = 3, 3
SIDE, QUICK_SIDE = 256, 128


def save_model(folder: Path, quick: bool) -> None:
    """Writes the model, one part after the other, so that one at a time is in memory."""
    import torch
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    from synfer.faces.captions import VOCABULARY
    from synfer.networks.word_tokenizer import build_word_tokenizer

    small: dict[str, Any] = {"block_out_channels": (32, 32, 32, 32)} if quick else {}
    unet = {**SD15_UNET, **small, **({"cross_attention_dim": 32} if quick else {})}
    text = {**SD15_TEXT, **({"hidden_size": 32, "intermediate_size": 32, "num_attention_heads": 4} if quick else {})}
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    UNet2DConditionModel(**unet).save_pretrained(folder / "unet")
    AutoencoderKL(**{**SD_VAE, **small}).save_pretrained(folder / "vae")
    tokenizer = build_word_tokenizer(VOCABULARY, 77)
    ids = {name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
    CLIPTextModel(CLIPTextConfig(**text, **ids)).save_pretrained(folder / "text_encoder")
    torch.set_default_dtype(torch.float32)
    tokenizer.save_pretrained(folder / "tokenizer")
    DDIMScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, clip_sample=False, steps_offset=1
    ).save_pretrained(folder / "scheduler")


def train(args: argparse.Namespace) -> None:
    """Trains to the end, or until it is killed, and prints losses and memory."""
    import warnings

    warnings.filterwarnings("ignore")
    import torch
    from lightning.pytorch import Callback, Trainer, seed_everything
    from lightning.pytorch.callbacks import ModelCheckpoint

    from datamodules.expression_data_module import ExpressionDataModule
    from datamodules.loading.augmentation import Augmentation
    from datamodules.readers import DrawnReader
    from lightning_modules.generator import ExpressionGenerator
    from synfer.synthesis.diffusion.execution import ExecutionSettings

    torch.set_num_threads(args.threads)
    seed_everything(1, verbose=False)
    side = args.side or (QUICK_SIDE if args.quick else SIDE)
    losses: dict[int, float] = {}
    times: list[float] = []

    class Watch(Callback):
        def on_train_batch_start(self, trainer: Trainer, *given: Any) -> None:
            if args.kill and trainer.global_step == KILLED_IN - 1:
                os.kill(os.getpid(), signal.SIGKILL)
            times.append(time.perf_counter())

        def on_train_batch_end(self, trainer: Trainer, module: Any, outputs: Any, *given: Any) -> None:
            times[-1] = time.perf_counter() - times[-1]
            losses[trainer.global_step] = float(outputs["loss"])

    reader = DrawnReader({"train": 8, "val": 7, "test": 7}, image_size=side, label_space="basic7")
    data = ExpressionDataModule(reader, batch_size=1, augmentation=Augmentation(enabled=False))
    generator = ExpressionGenerator(
        label_space="basic7",
        image_size=side,
        base=str(args.base),
        trained="lora",
        au_rank=args.au_rank or None,
        frozen_dtype="bfloat16",
        learning_rate=1e-4,
        execution=ExecutionSettings(gradient_checkpointing=True),
        grid_samples=0,
    )
    checkpoints = ModelCheckpoint(args.folder, save_last=True, every_n_train_steps=1, enable_version_counter=False)
    Trainer(
        accelerator="cpu",
        devices=1,
        precision="bf16-mixed",
        max_steps=STEPS,
        gradient_clip_val=1.0,
        limit_val_batches=0,
        num_sanity_val_steps=0,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[Watch(), checkpoints],
        default_root_dir=args.folder,
    ).fit(generator, datamodule=data, ckpt_path=str(args.folder / "last.ckpt") if args.resume else None)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    learns = sum(p.numel() for p in generator.parameters() if p.requires_grad)
    held = sum(p.numel() for p in generator.parameters())
    told = {"losses": losses, "peak_gb": peak, "times": times, "learns": learns, "weights": held}
    print(json.dumps(told), flush=True)


def run(base: Path, folder: Path, args: argparse.Namespace, *more: str) -> tuple[int, dict[str, Any]]:
    """Returns the exit code of a training in a process of its own, and what it told.

    Raises:
        RuntimeError: it failed without being killed.
    """
    command = [sys.executable, str(Path(__file__).resolve()), "--base", str(base), "--folder", str(folder), *more]
    command += ["--threads", str(args.threads), "--au_rank", str(args.au_rank)] + ["--quick"] * args.quick
    command += ["--side", str(args.side)] if args.side else []
    environment = {**os.environ, "OMP_NUM_THREADS": str(args.threads), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode not in (0, -signal.SIGKILL):
        raise RuntimeError(done.stderr[-3000:])
    return done.returncode, json.loads(lines[-1]) if lines else {}


def main() -> None:
    """Measures and prints one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--side", type=int, help="pixels; smaller where only the checkpoint is asked for")
    parser.add_argument("--au_rank", type=int, default=64, help="as configs/generator/sd15_lora.yaml; 0: whole")
    parser.add_argument("--quick", action="store_true", help="a tiny model")
    for name in ("--base", "--folder"):
        parser.add_argument(name, type=Path, help=argparse.SUPPRESS)
    for name in ("--kill", "--resume", "--save"):
        parser.add_argument(name, action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.save:
        save_model(args.base, args.quick)
        return
    if args.folder:
        train(args)
        return
    with tempfile.TemporaryDirectory() as place:
        base, whole, killed = (Path(place) / name for name in ("base", "whole", "killed"))
        run(base, whole, args, "--save")  # in a process of its own: its memory is not the training's
        _, expected = run(base, whole, args)
        code, _ = run(base, killed, args, "--kill")
        if code != -signal.SIGKILL:
            raise RuntimeError(f"the run to be killed ended with {code}")
        _, found = run(base, killed, args, "--resume")
        size = (whole / "last.ckpt").stat().st_size / 1e6
    last = str(STEPS)
    result = {
        "benchmark": "full_size_step",
        "peak_gb": round(max(expected["peak_gb"], found["peak_gb"]), 2),
        "checkpoint_mb": round(size, 1),
        "trained_mb": round(4 * expected["learns"] / 1e6, 1),
        "step_s": round(expected["times"][-1], 1),
        "same_loss": found["losses"] == {last: expected["losses"][last]},
        "losses": expected["losses"],
        "weights": expected["weights"],
        "learns": expected["learns"],
        "au_rank": args.au_rank or None,
        "side": args.side or (QUICK_SIDE if args.quick else SIDE),
        "threads": args.threads,
        "bars": BARS,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
