"""What mixing costs: classifier training at ratio 0.5 from a warm pool against real-only training.

    python tests/benchmarks/mixing.py
    python tests/benchmarks/mixing.py --data grey --batch_size 64 --pairs 3 --steps 6

Both sides are the real thing (ExpressionDataModule, OnlineSynthesis, SyntheticPool, Trainer) in one process. Short
segments of the two alternate, in changing order, so that whatever else the machine does falls on both alike; each pair
of neighbours gives one ratio, and the median counts. The pool is filled before the clock runs and ``max_reuse`` is so
large that no generation falls due, so what is left is the cost of mixing: pool reads, joining, bookkeeping, logging.

Prints one JSON line. ``warm_pool_ratio`` is mixed steps/s ÷ real-only steps/s of the worst case; ``cases`` holds each
case with the same ratio in CPU seconds, which other processes disturb less.
"""

from __future__ import annotations

import argparse
import json
import logging
import platform
import statistics
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything

# Started as a file, Python looks for modules beside that file only.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from callbacks.synthesis.online_synthesis import OnlineSynthesis
from datamodules.expression_data_module import ExpressionDataModule
from datamodules.loading.augmentation import Augmentation
from datamodules.readers import DrawnReader
from lightning_modules.classifier import ExpressionClassifier
from lightning_modules.generator import ExpressionGenerator
from lightning_modules.generator_file import generator_arguments
from synfer.synthesis.request import SamplingSettings

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
WARM_UP_STEPS = 2
POOL_SIZE = 256
REAL_ROWS = 1024
NEVER_DUE = 1e12
"""A ``max_reuse`` at which no segment of a benchmark uses the pool up."""

CASES = {"grey": (True, 1), "colour": (False, 3), "grey_with_colour_pool": (True, 3)}
"""Name → (grey real faces, channels of the generated ones)."""


class Stopwatch(Callback):
    """Measures a segment from the end of the last warm-up step, other callbacks included: it must be the last one."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self._wall = self._cpu = 0.0
        self.wall_s = self.cpu_s = float("nan")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Starts after the warm-up and stops after the last step."""
        if batch_idx not in (WARM_UP_STEPS - 1, WARM_UP_STEPS + self.steps - 1):
            return
        if pl_module.device.type == "cuda":
            torch.cuda.synchronize()
        wall, cpu = time.perf_counter(), time.process_time()
        if batch_idx == WARM_UP_STEPS - 1:
            self._wall, self._cpu = wall, cpu
        else:
            self.wall_s, self.cpu_s = wall - self._wall, cpu - self._cpu


def save_generator(path: Path, label_space: str | list[str], channels: int) -> None:
    """Writes a checkpoint of a tiny untrained generator: its faces are noise, but of the right size and colours."""
    settings = yaml.safe_load((CONFIGS / "generator" / "tiny.yaml").read_text())["model"]["init_args"]
    settings |= {
        "label_space": label_space,
        "sampling": SamplingSettings(num_steps=2, guidance_scale=1.0),
    }
    settings["network"]["codec_config"]["channels"] = channels
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    trainer.strategy.connect(ExpressionGenerator(**generator_arguments(settings)))
    trainer.save_checkpoint(path)


def make_data(config: dict[str, Any], grey: bool, batch_size: int, ratio: float, steps: int) -> ExpressionDataModule:
    """Returns drawn faces in FER2013's format, augmented as the config says."""
    side = config["model"]["init_args"]["image_size"]
    reader = DrawnReader(
        {"train": REAL_ROWS, "val": 8, "test": 8},
        image_size=side,
        label_space=config["model"]["init_args"]["label_space"],
        grey=grey,
    )
    return ExpressionDataModule(
        reader,
        batch_size=batch_size,
        synthetic_ratio=ratio,
        pool_size=POOL_SIZE,
        augmentation=Augmentation(**config["data"]["augmentation"]),
        steps_per_epoch=WARM_UP_STEPS + steps,
    )


def run_segment(
    classifier: ExpressionClassifier, data: ExpressionDataModule, generator: Path, settings: dict[str, Any], steps: int
) -> Stopwatch:
    """Trains for one segment and returns its times.

    Raises:
        RuntimeError: the segment was not what it claims to be: a face was generated, or the ratio is not the asked one.
    """
    stopwatch = Stopwatch(steps)
    synthesis = OnlineSynthesis(True, str(generator), batch_size=64, max_reuse=NEVER_DUE, initial_samples=POOL_SIZE)
    trainer = Trainer(
        max_epochs=1,
        accelerator=settings["accelerator"],
        devices=1,
        precision=settings["precision"],
        gradient_clip_val=settings["gradient_clip_val"],
        limit_val_batches=0,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[synthesis, stopwatch] if data.synthetic_ratio > 0 else [stopwatch],
    )
    trainer.fit(classifier, datamodule=data)
    if data.effective_ratio != data.synthetic_ratio or synthesis.made not in (0, POOL_SIZE):
        raise RuntimeError(
            f"ratio {data.effective_ratio}, {synthesis.made} faces made: expected {data.synthetic_ratio} and at most "
            f"the {POOL_SIZE} of the pool"
        )
    return stopwatch


def measure(config: dict[str, Any], name: str, batch_size: int, pairs: int, steps: int) -> dict[str, Any]:
    """Returns the figures of one kind of data and one batch size."""
    grey, channels = CASES[name]
    seed_everything(1, verbose=False)
    classifier = ExpressionClassifier(**config["model"]["init_args"])
    defaults = {"accelerator": "auto", "precision": "32-true", "gradient_clip_val": None}
    settings = {key: config["trainer"].get(key, default) for key, default in defaults.items()}
    sides = {ratio: make_data(config, grey, batch_size, ratio, steps) for ratio in (0.0, 0.5)}
    times: dict[float, list[Stopwatch]] = {0.0: [], 0.5: []}
    with tempfile.TemporaryDirectory() as folder:
        generator = Path(folder) / "generator.ckpt"
        save_generator(generator, config["model"]["init_args"]["label_space"], channels)
        for pair in range(pairs):
            for ratio in (0.0, 0.5) if pair % 2 == 0 else (0.5, 0.0):
                times[ratio].append(run_segment(classifier, sides[ratio], generator, settings, steps))
    ratios = [real.wall_s / mixed.wall_s for real, mixed in zip(times[0.0], times[0.5], strict=True)]
    cpu_ratios = [real.cpu_s / mixed.cpu_s for real, mixed in zip(times[0.0], times[0.5], strict=True)]
    return {
        "data": name,
        "batch_size": batch_size,
        "warm_pool_ratio": round(statistics.median(ratios), 4),
        "cpu_ratio": round(statistics.median(cpu_ratios), 4),
        "pair_ratios": [round(ratio, 3) for ratio in ratios],
        "real_steps_per_s": round(steps / statistics.median(part.wall_s for part in times[0.0]), 3),
        "mixed_steps_per_s": round(steps / statistics.median(part.wall_s for part in times[0.5]), 3),
    }


def main() -> None:
    """Measures every case and prints one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=CONFIGS / "classifier" / "ferplus.yaml", help="classifier")
    parser.add_argument("--data", nargs="+", choices=list(CASES), default=["grey", "colour"])
    parser.add_argument("--batch_size", nargs="+", type=int, default=[64, 128])
    parser.add_argument("--pairs", type=int, default=15, help="pairs of segments per case")
    parser.add_argument("--steps", type=int, default=4, help="timed steps per segment")
    args = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    config = yaml.safe_load(args.config.read_text())
    cases = []
    for name in args.data:
        for batch_size in args.batch_size:
            cases.append(measure(config, name, batch_size, args.pairs, args.steps))
            print(json.dumps(cases[-1]), file=sys.stderr, flush=True)
    result = {
        "benchmark": "mixing",
        "warm_pool_ratio": min(case["warm_pool_ratio"] for case in cases),
        "cpu_ratio": min(case["cpu_ratio"] for case in cases),
        "classifier": args.config.stem,
        "pairs": args.pairs,
        "steps_per_segment": args.steps,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "cases": cases,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
