"""A training step of LoRA on Stable Diffusion, ours against the loop that diffusers' example has.

    python tests/benchmarks/generator_training.py
    python tests/benchmarks/generator_training.py --precision bf16 --batch_size 32  # a large batch: memory
    python tests/benchmarks/generator_training.py --quick             # does it run at all; its figures mean nothing

The model has the shape of Stable Diffusion 1.5 at a quarter of its side (128 pixels, latents 16×16), with random
weights. Widths are such that of a step on one core autoencoder and UNet take the shares that they have at full size by
their operations: 1.08 TFLOP of encoding and 1.36 of the UNet forward and back, 44 % and 55 % (``autoencoder_share`` is
what they took): a quarter for the UNet, three eighths for the autoencoder, whose few wide layers run faster when small.
Three loops train LoRA of rank 4 on the attention projections, each in a process of its own, with the same base,
pictures, captions, batch, precision, clipping and learning rate:

- ``diffusers``: plain PyTorch in the structure of ``train_text_to_image_lora``: pictures resized, cropped, mirrored and
  normalised by torchvision, captions tokenised when they are read; in each step the autoencoder, the text encoder, the
  noise, the UNet with peft's LoRA, mean squared error, AdamW, clipping, a constant rate;
- ``uncached``: ``fit`` of ExpressionGenerator with ExpressionDataModule, all in the loop;
- ``cached``: the same with ``model.cache.path``, filled before (``fill_s`` is what that takes).

Prints one JSON line. ``speedup_*`` is seconds of a step of diffusers' loop ÷ of ours: medians over rounds of CPU
seconds, in turns, so that whatever else the machine does falls on all alike. ``memory_ratio_*`` is the peak of resident
memory of our process ÷ of theirs, imports and loading included.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

# Started as a file, Python looks for modules beside that file only.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

LOOPS = ("diffusers", "uncached", "cached")
SIDE, ROWS = 128, 64
RANK, RATE = 4, 1e-4
WARM_UP = 2
BARS = {"speedup_uncached": 1.1, "speedup_cached": 2.0, "memory_ratio_cached": 0.7}


# ---------------------------------------------------------------- the base and the pictures


def save_model(folder: Path) -> None:
    """Writes a random model of Stable Diffusion's shape, at a quarter of its widths."""
    import torch
    from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    from synfer.faces.captions import VOCABULARY
    from synfer.networks.word_tokenizer import build_word_tokenizer

    torch.manual_seed(0)
    tokenizer = build_word_tokenizer((*VOCABULARY, *(f"word{i}" for i in range(200))), 77)
    tokenizer.save_pretrained(folder / "tokenizer")
    UNet2DConditionModel(
        sample_size=SIDE // 8,
        block_out_channels=(80, 160, 320, 320),
        cross_attention_dim=192,
        attention_head_dim=2,  # heads, as wide as there
        norm_num_groups=16,
    ).save_pretrained(folder / "unet")
    AutoencoderKL(
        block_out_channels=(48, 96, 192, 192),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=SIDE,
    ).save_pretrained(folder / "vae")
    # Two layers of twelve: the captions are as long as there, and would cost too much beside smaller pictures.
    text = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=192,
        intermediate_size=768,
        num_hidden_layers=2,
        num_attention_heads=12,
        max_position_embeddings=77,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    CLIPTextModel(text).save_pretrained(folder / "text_encoder")
    DDPMScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, clip_sample=False, steps_offset=1
    ).save_pretrained(folder / "scheduler")


def pictures() -> tuple[np.ndarray, list[str]]:
    """Returns faces, uint8 (N, H, W, 3), and a caption of its own for each."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (ROWS, SIDE, SIDE, 3), dtype=np.uint8)
    return images, [f"a photo of a happy face word{i} word{(7 * i) % 200}" for i in range(ROWS)]


# ---------------------------------------------------------------- diffusers' loop


def train_as_diffusers(base: Path, args: argparse.Namespace, clock: Clock) -> None:
    """Trains LoRA in plain PyTorch, step by step as the example script of diffusers does."""
    import torch
    import torch.nn.functional as F
    from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
    from peft import LoraConfig
    from PIL import Image
    from torchvision import transforms
    from transformers import AutoTokenizer, CLIPTextModel

    torch.manual_seed(1)
    half = args.precision == "bf16"
    weight_dtype = torch.bfloat16 if half else torch.float32
    schedule = DDPMScheduler.from_pretrained(base, subfolder="scheduler")
    tokenizer = AutoTokenizer.from_pretrained(base, subfolder="tokenizer")
    text_encoder = CLIPTextModel.from_pretrained(base, subfolder="text_encoder")
    vae = AutoencoderKL.from_pretrained(base, subfolder="vae")
    unet = UNet2DConditionModel.from_pretrained(base, subfolder="unet")
    for network in (unet, vae, text_encoder):
        network.requires_grad_(False)
        network.to(dtype=weight_dtype)
    targets = ["to_k", "to_q", "to_v", "to_out.0"]
    unet.add_adapter(LoraConfig(r=RANK, lora_alpha=RANK, init_lora_weights="gaussian", target_modules=targets))
    if args.checkpointing:
        unet.enable_gradient_checkpointing()
    learns = [p for p in unet.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(learns, lr=RATE, betas=(0.9, 0.999), weight_decay=1e-2, eps=1e-8)
    rates = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 1.0)
    seen = transforms.Compose(
        [
            transforms.Resize(SIDE),
            transforms.RandomCrop(SIDE),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize([0.5], [0.5]),
        ]
    )
    images, captions = pictures()

    class Rows(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return len(images)

        def __getitem__(self, row: int) -> tuple[Any, Any]:
            ids = tokenizer(
                captions[row], max_length=77, padding="max_length", truncation=True, return_tensors="pt"
            ).input_ids[0]
            return seen(Image.fromarray(images[row])), ids

    loader = torch.utils.data.DataLoader(Rows(), batch_size=args.batch_size, shuffle=True, drop_last=True)
    unet.train()
    losses = []
    clock.tick()
    while True:
        for pixels, ids in loader:
            began = time.process_time()
            latents = vae.encode(pixels.to(weight_dtype)).latent_dist.sample() * vae.config.scaling_factor
            clock.encoding.append(time.process_time() - began)
            noise = torch.randn_like(latents)
            timesteps = torch.randint(0, schedule.config.num_train_timesteps, (len(latents),)).long()
            noisy = schedule.add_noise(latents, noise, timesteps)
            text = text_encoder(ids, return_dict=False)[0]
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                output = unet(noisy, timesteps, text, return_dict=False)[0]
            loss = F.mse_loss(output.float(), noise.float(), reduction="mean")
            losses.append(loss.detach().repeat(args.batch_size).mean())
            loss.backward()
            torch.nn.utils.clip_grad_norm_(learns, 1.0)
            optimiser.step()
            rates.step()
            optimiser.zero_grad()
            if clock.tick():
                return


# ---------------------------------------------------------------- ours


def train_as_we_do(base: Path, args: argparse.Namespace, clock: Clock, cache: Path | None) -> None:
    """Trains LoRA by ``Trainer.fit``."""
    import warnings

    warnings.filterwarnings("ignore")
    from lightning.pytorch import Callback, Trainer, seed_everything

    from datamodules.expression_data_module import ExpressionDataModule
    from datamodules.loading.augmentation import Augmentation
    from datamodules.readers.reader import Reader
    from datamodules.rows.provenance import content_hash
    from datamodules.rows.sample_table import ArrayImages, SampleTable, one_hot
    from lightning_modules.generator import ExpressionGenerator
    from synfer.synthesis.diffusion.cache_settings import CacheSettings
    from synfer.synthesis.diffusion.execution import ExecutionSettings

    seed_everything(1, verbose=False)
    images, captions = pictures()
    label = np.arange(ROWS) % 7

    class Rows(Reader):
        label_space = ("neutral", "happy", "sad", "surprise", "fear", "disgust", "anger")

        def read(self, split: str) -> SampleTable:  # type: ignore[override]
            return SampleTable(
                images=ArrayImages(images),
                label=label,
                soft_label=one_hot(label, 7),
                sample_id=np.array([f"{split}-{i}" for i in range(ROWS)]),
                content_hash=np.array([content_hash(image) for image in images]),
                label_space=self.label_space,
                split=split,
                caption=np.array(captions),
            )

    class Ticks(Callback):
        def on_train_start(self, *given: Any) -> None:
            clock.tick()

        def on_train_batch_end(self, trainer: Trainer, *given: Any) -> None:
            if clock.tick():
                trainer.should_stop = True

    flip = Augmentation(flip=0.5, rotation=0, translate=0, scale=0, contrast=0, brightness=0, erasing=0)
    data = ExpressionDataModule(Rows(), batch_size=args.batch_size, augmentation=flip)
    generator = ExpressionGenerator(
        label_space="basic7",
        image_size=SIDE,
        base=str(base),
        trained="lora_only",
        lora_rank=RANK,
        frozen_dtype="bfloat16" if args.precision == "bf16" else "float32",
        learning_rate=RATE,
        ema_decay=None,
        cache=CacheSettings(path=None if cache is None else str(cache)),
        execution=ExecutionSettings(
            channels_last=False, gradient_checkpointing=args.checkpointing, lean_backward=args.lean
        ),
        grid_samples=0,
    )
    Trainer(
        accelerator="cpu",
        devices=1,
        precision="bf16-mixed" if args.precision == "bf16" else "32-true",
        max_steps=1000,
        gradient_clip_val=1.0,
        limit_val_batches=0,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[Ticks()],
    ).fit(generator, datamodule=data)


# ---------------------------------------------------------------- processes that take turns


class Clock:
    """Measures steps in CPU seconds, and lets this process go on when it is told to.

    Args:
        steps: of a round.
        rounds: how many.
        turns: whether to wait for a line on the standard input before each round.
    """

    def __init__(self, steps: int, rounds: int, turns: bool) -> None:
        self.steps, self.rounds, self.turns = steps, rounds, turns
        self.seconds: list[float] = []
        self.encoding: list[float] = []
        self._ticks = -1
        self._began = time.process_time()
        self.fill_s = 0.0

    def tick(self) -> bool:
        """Ends a step; returns whether it was the last one."""
        now = time.process_time()
        self._ticks += 1
        if self._ticks == 0:
            self.fill_s = now - self._began
        done = self._ticks - WARM_UP
        if done > 0 and done % self.steps == 0:
            self.seconds.append((now - self._began) / self.steps)
        if done >= 0 and done % self.steps == 0:
            if done // self.steps == self.rounds:
                return True
            if self.turns:
                print("ready", flush=True)
                sys.stdin.readline()
            self._began = time.process_time()
        return False


def run_loop(args: argparse.Namespace) -> None:
    """Trains one of the loops in this process and prints what it took."""
    import torch

    torch.set_num_threads(args.threads)
    clock = Clock(args.steps, args.rounds, turns=args.loop != "fill")
    if args.loop == "diffusers":
        train_as_diffusers(args.base, args, clock)
    else:
        cache = args.base.parent / f"cache-{args.precision}"
        train_as_we_do(args.base, args, clock, None if args.loop == "uncached" else cache)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    told = {"seconds": clock.seconds, "peak_mb": round(peak, 1), "before_s": clock.fill_s}
    if clock.encoding:
        told["encoding_s"] = statistics.median(clock.encoding[WARM_UP:])
    print(json.dumps(told), flush=True)


def start(loop: str, base: Path, args: argparse.Namespace) -> subprocess.Popen:
    """Starts a process that waits before its first round."""
    command = [sys.executable, str(Path(__file__).resolve()), "--loop", loop, "--base", str(base)]
    for name in ("batch_size", "steps", "rounds", "threads", "precision"):
        command += [f"--{name}", str(getattr(args, name) if loop != "fill" or name not in ("rounds", "steps") else 1)]
    command += ["--checkpointing"] * args.checkpointing + ["--lean"] * args.lean
    environment = {**os.environ, "OMP_NUM_THREADS": str(args.threads), "HF_HUB_OFFLINE": "1"}
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


def answer(process: subprocess.Popen) -> str:
    """Returns the next line that a process has to say.

    Raises:
        RuntimeError: it has ended.
    """
    assert process.stdout is not None and process.stderr is not None
    for line in process.stdout:
        if line.startswith(("ready", "{")):
            return line
    raise RuntimeError(f"a loop has ended: {process.stderr.read()[-3000:]}")


def main() -> None:
    """Measures all loops in turn and prints one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch_size", type=int, default=2)
    parser.add_argument("--steps", type=int, default=2, help="of a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--checkpointing", action="store_true", help="gradient checkpointing in all loops")
    parser.add_argument("--lean", action="store_true", help="model.execution.lean_backward in ours")
    parser.add_argument("--quick", action="store_true", help="one round of one step of one picture")
    parser.add_argument("--loop", choices=(*LOOPS, "fill"), help=argparse.SUPPRESS)
    parser.add_argument("--base", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.quick:
        args.batch_size, args.steps, args.rounds = 1, 1, 1
    if args.loop:
        run_loop(args)
        return
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder) / "base"
        save_model(base)
        filling = start("fill", base, args)
        fill_s = json.loads(answer(filling))["before_s"]
        filling.wait()
        loops = {loop: start(loop, base, args) for loop in LOOPS}
        try:
            for process in loops.values():
                answer(process)
            found: dict[str, dict[str, Any]] = {}
            for turn in range(args.rounds):
                for loop in LOOPS if turn % 2 else reversed(LOOPS):
                    assert loops[loop].stdin is not None
                    loops[loop].stdin.write("go\n")
                    loops[loop].stdin.flush()
                    said = answer(loops[loop])
                    if said.startswith("{"):
                        found[loop] = json.loads(said)
        finally:
            for process in loops.values():
                process.kill()
                process.wait()
    seconds = {loop: statistics.median(found[loop]["seconds"]) for loop in LOOPS}
    result: dict[str, Any] = {"benchmark": "generator_training"}
    for loop in LOOPS[1:]:
        pairs = zip(found["diffusers"]["seconds"], found[loop]["seconds"], strict=True)
        result[f"speedup_{loop}"] = round(statistics.median(theirs / ours for theirs, ours in pairs), 3)
        result[f"memory_ratio_{loop}"] = round(found[loop]["peak_mb"] / found["diffusers"]["peak_mb"], 3)
    result |= {f"{loop}_step_s": round(taken, 3) for loop, taken in seconds.items()}
    result |= {f"{loop}_peak_mb": found[loop]["peak_mb"] for loop in LOOPS}
    result["autoencoder_share"] = round(found["diffusers"]["encoding_s"] / seconds["diffusers"], 3)
    result |= {"fill_s": round(fill_s, 2), "precision": args.precision, "batch_size": args.batch_size}
    result |= {"checkpointing": args.checkpointing, "lean": args.lean, "threads": args.threads, "rounds": args.rounds}
    result |= {"bars": BARS, "device": platform.machine()}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
