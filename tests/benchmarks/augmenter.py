r"""What the VAE-GAN costs: training beside a bare PyTorch loop, faces beside those of guided diffusion.

    python tests/benchmarks/augmenter.py
    python tests/benchmarks/augmenter.py --generator runs/generator-fer2013/checkpoints/last.ckpt \
        --guide runs/guide-ferplus/checkpoints/last.ckpt      # with the speed of synthesis
    python tests/benchmarks/augmenter.py --quick               # does it run at all; its figures mean nothing

Prints one JSON line:

- ``training_ratio``: images/s of ``fit`` ÷ images/s of the loop; the bar is 0.9. ``fit`` has ExpressionDataModule,
  SemanticAugmenter, and callbacks of ``train.py``; the loop holds the faces in memory. Both train networks of the same
  size with the same losses (those that need no onlooker), precision, clipping, schedule and moving average. Segments of
  the two alternate within one process, each round gives one ratio, and the median counts. ``training_cpu_ratio`` is the
  same in CPU seconds, which other processes disturb less.
- The loop is the one of textbooks: two losses, each taken back with the other network's parameters switched off.
  ``training_ratio_one_backward`` compares with a loop that calls ``training_losses`` instead, as ``fit`` does: the cost
  of the framework alone.
- ``sampling_ratio``: faces/s of the VAE-GAN ÷ faces/s of the diffusion model with the guidance and the steps of
  configs/mixed/fer2013.yaml, a batch of each in turn; the bar is 150. Each takes its requests as online synthesis gives
  them, at its own batch size; which weights the VAE-GAN has does not matter to its speed. null without ``--generator``.
- ``loss_difference``: relative difference of the two ways' losses on the same batch: that they do the same is checked.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import logging
import math
import platform
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.pytorch import Callback, Trainer, seed_everything
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

# Started as a file, Python looks for modules beside that file only.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from callbacks.agreed_stop import AgreedStop
from callbacks.recording.throughput import Throughput
from callbacks.step_seed import StepSeed
from callbacks.synthesis.semantic_guidance import SemanticGuidance
from datamodules.expression_data_module import ExpressionDataModule
from datamodules.loading.augmentation import Augmentation
from datamodules.readers import DrawnReader
from datamodules.rows.source_faces import TrainingSources
from lightning_modules.augmenter import SemanticAugmenter
from lightning_modules.generator import ExpressionGenerator
from lightning_modules.synthesiser_file import with_setting_groups
from synfer.networks.vae_gan import VAEGAN
from synfer.optimisation.schedule import schedule_factor
from synfer.synthesis.plan import EndlessPlan
from synfer.synthesis.request import SamplingSettings
from synfer.synthesis.vae_gan.losses import (
    adversarial_ramp,
    discriminator_hinge,
    distance,
    feature_distance,
    generator_hinge,
    gradient_ratio,
    kl_divergence,
    r1_penalty,
)
from synfer.synthesis.vae_gan.training_losses import LossSettings, Wishes, training_losses

ROOT = Path(__file__).resolve().parents[2]
CLASSES, ROWS, WARM_UP = "basic7", 2000, 2
MIXED, VAE_GAN_BATCH = ROOT / "configs" / "mixed" / "fer2013.yaml", 256


class BareLoop:
    """A hand-written training of three networks, with nothing around it.

    Args:
        networks: trained in place.
        settings: of the SemanticAugmenter.
        faces: uint8 (n, 3, H, W), in memory.
        labels: int64 (n,).
        batch_size: faces per step.
        total_steps: of the schedule.
        one_backward: take both losses back at once, as the module does.
    """

    def __init__(
        self,
        networks: VAEGAN,
        settings: dict[str, Any],
        faces: Tensor,
        labels: Tensor,
        batch_size: int,
        total_steps: int,
        one_backward: bool,
    ) -> None:
        self.networks, self.faces, self.labels, self.batch_size = networks, faces, labels, batch_size
        self.loss, self.clip, self.total = LossSettings(**settings["loss"]), settings["clip_norm"], total_steps
        self.groups = [[*networks.encoder.parameters(), *networks.decoder.parameters()]]
        self.groups.append(list(networks.discriminator.parameters()))
        rate, decay = settings["learning_rate"], settings["weight_decay"]
        self.optimisers = [AdamW(group, rate, betas=(0.5, 0.99), weight_decay=decay) for group in self.groups]
        factor = schedule_factor("cosine", total_steps, settings["warmup_fraction"])
        self.schedules = [LambdaLR(optimiser, factor) for optimiser in self.optimisers]
        self.decay, self.average = settings["ema_decay"], [p.detach().clone() for p in self.groups[0]]
        self.one_backward, self.step = one_backward, 0

    def run(self, steps: int) -> None:
        """Takes some steps."""
        for _ in range(steps):
            rows = torch.randint(len(self.faces), (self.batch_size,))
            image = self.faces[rows].float() / 255
            flipped = torch.rand(len(rows)) < 0.5
            image[flipped] = image[flipped].flip(-1)
            face = self.networks.faces(image)
            noise = torch.randn(len(rows), self.networks.latent_size)
            for optimiser in self.optimisers:
                optimiser.zero_grad()
            self.backward(face, self.labels[rows], noise)
            for group, optimiser, schedule in zip(self.groups, self.optimisers, self.schedules, strict=True):
                clip_grad_norm_(group, self.clip)
                optimiser.step()
                schedule.step()
            self.step += 1
            decay = min(self.decay, (1 + self.step) / (10 + self.step))
            with torch.no_grad():
                torch._foreach_lerp_(self.average, [p.detach() for p in self.groups[0]], 1 - decay)

    def backward(self, face: Tensor, label: Tensor, noise: Tensor) -> float:
        """Fills in all gradients; returns the sum of the losses."""
        if self.one_backward:
            with torch.autocast("cpu", torch.bfloat16):
                progress = self.step / self.total
                wishes = Wishes.all_rebuilt(noise, label)
                losses = training_losses(self.networks, face, wishes, self.loss, self.step, progress)
            losses.total.backward()
            return float(losses.total.detach())
        return self._by_the_book(face, label, noise)

    def _by_the_book(self, face: Tensor, label: Tensor, noise: Tensor) -> float:
        networks, settings = self.networks, self.loss
        networks.discriminator.requires_grad_(False)
        with torch.autocast("cpu", torch.bfloat16):
            mean, log_variance = networks.encoder(face)
            made = networks.decoder(mean + noise * (log_variance / 2).exp(), label).float()
            fake, made_maps = networks.discriminator(made, label)
            with torch.no_grad():
                _, real_maps = networks.discriminator(face, label)
            rebuilt = settings.pixel_weight * distance(made, face, settings.distance)
            rebuilt = rebuilt + settings.feature_weight * feature_distance(made_maps, real_maps, settings.distance)
            adversarial = generator_hinge(fake)
            ramp = adversarial_ramp(self.step / self.total, settings.adversarial_start, settings.adversarial_rise)
            weight: Any = settings.adversarial_weight * ramp
            if weight > 0:
                last = networks.decoder.output.weight
                slopes = [torch.autograd.grad(x, last, retain_graph=True)[0] for x in (rebuilt, adversarial)]
                weight = weight * gradient_ratio(*slopes)
            kl = kl_divergence(mean, log_variance).mean() / face[0].numel()
            first = rebuilt + settings.kl_weight * kl + weight * adversarial
        first.backward()
        networks.discriminator.requires_grad_(True)
        penalised = settings.r1_weight > 0 and self.step % settings.r1_every == 0
        with torch.autocast("cpu", torch.bfloat16):
            shown = face.detach().requires_grad_(penalised)
            real, _ = networks.discriminator(shown, label)
            fake, _ = networks.discriminator(made.detach(), label)
            second = discriminator_hinge(real, fake)
            if penalised:
                second = second + settings.r1_weight * settings.r1_every * r1_penalty(real, shown)
        second.backward()
        return float(first.detach() + second.detach())


class Rounds(Callback):
    """Times segments of a fit, and runs one of each other loop between them.

    Args:
        others: name → what runs the steps of another loop.
        steps: of a segment.
    """

    def __init__(self, others: dict[str, Callable[[int], None]], steps: int) -> None:
        self.others, self.steps = others, steps
        self.taken: dict[str, list[tuple[float, float]]] = {name: [] for name in ("fit", *others)}
        self._mark = (0.0, 0.0)

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        """Ends a segment where it is due."""
        if trainer.global_step < WARM_UP or (trainer.global_step - WARM_UP) % self.steps:
            return
        if trainer.global_step > WARM_UP:
            self._note("fit")
        turn = len(self.taken["fit"]) % len(self.others)
        names = list(self.others)
        for name in (*names[turn:], *names[:turn]):
            self._mark = now()
            self.others[name](self.steps)
            self._note(name)
        self._mark = now()

    def _note(self, name: str) -> None:
        wall, cpu = now()
        self.taken[name].append((wall - self._mark[0], cpu - self._mark[1]))

    def ratios(self, other: str, clock: int) -> list[float]:
        """Returns speed of the fit ÷ speed of another loop of each round; the loop's segment comes before."""
        pairs = zip(self.taken["fit"], self.taken[other], strict=False)
        return [theirs[clock] / ours[clock] for ours, theirs in pairs]


def now() -> tuple[float, float]:
    """Returns seconds of the clock and of this process on a processor."""
    return time.perf_counter(), time.process_time()


def train_beside(settings: dict[str, Any], batch_size: int, rounds: int, steps: int) -> dict[str, Any]:
    """Returns the figures of the training."""
    side, total = settings["image_size"], WARM_UP + rounds * steps
    reader = DrawnReader(count={"train": ROWS, "val": 14, "test": 14}, image_size=side, label_space=CLASSES)
    flips = Augmentation(flip=0.5, rotation=0, translate=0, scale=0, contrast=0, brightness=0, erasing=0)
    data = ExpressionDataModule(reader, batch_size=batch_size, augmentation=flips, seed=1, class_balance=0.5)
    data.setup("fit")
    assert data.train_table is not None
    faces = data.train_table.images.batch(torch.arange(ROWS).numpy()).expand(-1, 3, -1, -1).contiguous()
    labels = torch.from_numpy(data.train_table.label).long()
    groups = SemanticAugmenter.setting_groups
    module = SemanticAugmenter(**with_setting_groups({**settings, "label_space": CLASSES, "grid_samples": 0}, groups))
    loops = {
        name: BareLoop(copy.deepcopy(module.networks), settings, faces, labels, batch_size, total, name != "loop")
        for name in ("loop", "one_backward")
    }
    difference = difference_of_losses(loops)
    for loop in loops.values():
        loop.run(WARM_UP)
    watch = Rounds({name: loop.run for name, loop in loops.items()}, steps)
    with tempfile.TemporaryDirectory() as folder:
        Trainer(
            default_root_dir=folder,
            accelerator="cpu",
            devices=1,
            precision="bf16-mixed",
            max_steps=total,
            max_epochs=-1,
            callbacks=[AgreedStop(), Throughput(), StepSeed(), watch],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            limit_val_batches=0,
        ).fit(module, datamodule=data)
    seconds = {name: statistics.median(wall for wall, _ in taken) / steps for name, taken in watch.taken.items()}
    return {
        "training_ratio": round(statistics.median(watch.ratios("loop", 0)), 3),
        "training_cpu_ratio": round(statistics.median(watch.ratios("loop", 1)), 3),
        "training_ratio_one_backward": round(statistics.median(watch.ratios("one_backward", 0)), 3),
        "training_cpu_ratio_one_backward": round(statistics.median(watch.ratios("one_backward", 1)), 3),
        "images_per_s": {name: round(batch_size / value, 1) for name, value in seconds.items()},
        "loss_difference": float(f"{difference:.2g}"),
    }


def sampling_beside(settings: dict[str, Any], generator: str, guide: str, rounds: int) -> dict[str, Any]:
    """Returns how fast the VAE-GAN and guided diffusion make faces, a batch of each in turn."""
    config: Any = yaml.safe_load(MIXED.read_text())
    diffusion = ExpressionGenerator.load_trained(generator)
    guidance = {name: value for name, value in config["guidance"].items() if name not in ("enabled", "guide")}
    hooks = [SemanticGuidance(True, guide, **guidance)]
    space = diffusion.label_space
    plain = {**settings, "label_space": list(space), "image_size": diffusion.image_size, "grid_samples": 0}
    vae_gan = SemanticAugmenter(**with_setting_groups(plain, SemanticAugmenter.setting_groups)).requires_grad_(False)
    count = {"train": ROWS, "val": 14, "test": 14}
    drawn = DrawnReader(count, image_size=diffusion.image_size, label_space=list(space)).read("train")
    vae_gan.use_sources(TrainingSources(drawn, [], "source face"), space)
    plans = {
        "vae_gan": (EndlessPlan(space, 1, settings=vae_gan.sampling, au_names=()), VAE_GAN_BATCH),
        "guided": (EndlessPlan(space, 1, settings=SamplingSettings(**config["synthesis"]["sampling"])), 56),
    }
    taken: dict[str, list[float]] = {name: [] for name in plans}
    for turn in range(rounds + 1):  # the first warms up
        for name, (plan, batch) in plans.items():
            request = plan.request(range(turn * batch, (turn + 1) * batch))
            began = time.perf_counter()
            made = vae_gan.synthesise(request) if name == "vae_gan" else diffusion.synthesise(request, hooks)
            taken[name].append(len(made) / (time.perf_counter() - began))
    ratios = [ours / theirs for ours, theirs in zip(taken["vae_gan"][1:], taken["guided"][1:], strict=True)]
    speeds = {name: round(statistics.median(found[1:]), 2) for name, found in taken.items()}
    return {"sampling_ratio": round(statistics.median(ratios), 1), "faces_per_s": speeds}


def difference_of_losses(loops: dict[str, BareLoop]) -> float:
    """Returns the largest relative difference of the loops' losses on one batch, in the middle of a training."""
    found: list[float] = []
    for loop in loops.values():
        rows = torch.arange(loop.batch_size)
        noise = torch.randn(len(rows), loop.networks.latent_size, generator=torch.Generator().manual_seed(0))
        loop.step = loop.total // 2
        found.append(loop.backward(loop.networks.faces(loop.faces[rows].float() / 255), loop.labels[rows], noise))
        loop.step = 0
    return max(abs(a - b) / max(abs(a), 1e-9) for a, b in itertools.pairwise(found))


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "augmenter" / "fer2013.yaml")
    parser.add_argument("--rounds", type=int, default=15, help="segments of each loop")
    parser.add_argument("--steps", type=int, default=8, help="steps of a segment")
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--generator", help="checkpoint or folder of a diffusion model")
    parser.add_argument("--guide", help="checkpoint of the classifier that guides it")
    parser.add_argument("--sampling_rounds", type=int, default=5, help="batches of each synthesiser")
    parser.add_argument("--quick", action="store_true", help="two short rounds")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(args.threads)
    seed_everything(1, verbose=False)
    settings = yaml.safe_load(args.config.read_text())["model"]["init_args"]
    # Of the three networks alone: a classifier that looks on would cost both sides the same.
    settings["guide"] = None
    settings["loss"] |= {"perceptual_weight": 0.0, "expression_weight": 0.0, "relabelled_share": 0.0}
    rounds, steps = (2, 2) if args.quick else (args.rounds, args.steps)
    figures = train_beside(settings, args.batch_size, rounds, steps)
    assert math.isfinite(figures["training_ratio"])
    figures |= {"sampling_ratio": None, "faces_per_s": None}
    if args.generator and args.guide:
        figures |= sampling_beside(settings, args.generator, args.guide, 1 if args.quick else args.sampling_rounds)
    machine = {"threads": args.threads, "device": platform.machine(), "torch": torch.__version__}
    print(json.dumps({"benchmark": "augmenter", **figures, "batch_size": args.batch_size, "rounds": rounds, **machine}))


if __name__ == "__main__":
    main()
