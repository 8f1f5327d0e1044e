"""What the framework costs: per step, at the start, and how well a simple cost model foretells synthesis on the fly.

    python tests/benchmarks/overhead.py
    python tests/benchmarks/overhead.py --quick                # does it run at all; its figures mean nothing
    python tests/benchmarks/overhead.py --parts step --pairs 30

Prints one JSON line:

- ``overhead``: time that a step of ``fit`` takes beyond that of a hand-written PyTorch loop, as a share of the latter.
  Both train the same network on the same faces with the same augmentation, precision, clipping, schedule and moving
  average; ``fit`` has ExpressionDataModule, ExpressionClassifier, and the callbacks and loggers of ``train.py`` (W&B
  offline). Short segments of the two alternate, in changing order, so that whatever else the machine does falls on both
  alike; each pair gives one figure and the median counts. ``cpu_overhead`` is the same in CPU seconds, which other
  processes disturb less. ``loss_difference`` is the largest relative difference of the two losses on the same batches:
  that the two do the same is checked, not claimed.
- ``startup_s``: seconds from the command ``python train.py fit …`` to the end of the first training step (W&B
  offline, 560 drawn faces); ``startup_cpu_s`` in CPU seconds of that process, which other processes disturb less.
- ``model_error``: relative error of images/s = c / (1 + r · c / (R · g)) at ratio r = 0.5 on the fly, on two ranks
  (gloo), with c the classifier's images/s on real faces, g the generator's images/s and R = ``max_reuse``; all three
  are measured on both ranks at once, in alternating segments, each holding whole generation batches.
- ``rank_imbalance``: seconds of generation on the slowest rank ÷ the mean of the ranks − 1.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import LearningRateMonitor
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

# Started as a file, Python looks for modules beside that file only.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from callbacks.agreed_stop import AgreedStop
from callbacks.recording.metrics_csv import MetricsCsv
from callbacks.recording.run_progress import RunProgress
from callbacks.recording.run_record import RunRecord
from callbacks.recording.throughput import Throughput
from callbacks.recording.wandb_run import WandbRun, finish_wandb
from callbacks.step_seed import StepSeed
from callbacks.synthesis.online_synthesis import OnlineSynthesis
from datamodules.expression_data_module import ExpressionDataModule
from datamodules.loading.augmentation import UNIFORM_COLUMNS, Augmentation, augment
from datamodules.readers import DrawnReader
from lightning_modules.classifier import ExpressionClassifier
from lightning_modules.generator import ExpressionGenerator
from synfer.optimisation.schedule import schedule_factor
from synfer.synthesis.request import SamplingSettings, SynthesisRequest
from tests.benchmarks.mixing import save_generator

PROJECT = Path(__file__).resolve().parents[2]
CONFIGS = PROJECT / "configs"
PARTS = ("step", "start", "ranks")
REAL_ROWS = 1024
WARM_UP_STEPS = 2
RATIO = 0.5
WORLD_SIZE = 2


class Segment(Callback):
    """Measures from the end of one step to that of another, other callbacks included: it must be the last one."""

    def __init__(self, first: int, last: int, synthesis: OnlineSynthesis | None = None) -> None:
        self.first, self.last, self.synthesis = first, last, synthesis
        self.wall_s = self.cpu_s = self.generation_s = 0.0
        self.made = 0

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        """Starts and stops."""
        if trainer.global_step in (self.first, self.last):
            sign = 1 if trainer.global_step == self.last else -1
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            self.wall_s += sign * time.perf_counter()
            self.cpu_s += sign * time.process_time()
            if self.synthesis is not None:
                self.generation_s += sign * self.synthesis.seconds
                self.made += sign * self.synthesis.made


class Batches(Callback):
    """Keeps the batches that the network saw, and its losses."""

    def __init__(self) -> None:
        self.seen: list[tuple[Tensor, Tensor]] = []
        self.losses: list[float] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Takes a copy."""
        self.seen.append((batch["image"].clone(), batch["soft_label"].clone()))
        self.losses.append(float(outputs["loss"]))


def classifier_settings(config: dict[str, Any]) -> dict[str, Any]:
    """Returns how the classifier's config wants to be trained."""
    defaults = {"accelerator": "auto", "precision": "32-true", "gradient_clip_val": None}
    return {key: config["trainer"].get(key, default) for key, default in defaults.items()}


def make_data(config: dict[str, Any], batch_size: int, ratio: float, steps: int, rows: int) -> ExpressionDataModule:
    """Returns drawn grey faces in FER2013's format, augmented as the config says."""
    model = config["model"]["init_args"]
    reader = DrawnReader(
        {"train": rows, "val": 8, "test": 8},
        image_size=model["image_size"],
        label_space=model["label_space"],
        grey=True,
    )
    return ExpressionDataModule(
        reader,
        batch_size=batch_size,
        synthetic_ratio=ratio,
        pool_size=256,
        augmentation=Augmentation(**config["data"]["augmentation"]),
        steps_per_epoch=steps,
    )


def trainer_of(config: dict[str, Any], callbacks: list[Callback], loggers: list[Any], **changes: Any) -> Trainer:
    """Returns a trainer of one epoch without validation."""
    return Trainer(
        max_epochs=1,
        limit_val_batches=0,
        num_sanity_val_steps=0,
        logger=loggers or False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=callbacks,
        **{"devices": 1, **classifier_settings(config), **changes},
    )


# ---------------------------------------------------------------- a step


def hand_written(
    classifier: ExpressionClassifier, config: dict[str, Any], batches: Iterator[tuple[Tensor, Tensor]], steps: int
) -> Iterator[float]:
    """Trains the network in plain PyTorch and yields the loss of each step, read by nobody in a timed segment."""
    init, settings = config["model"]["init_args"], classifier_settings(config)
    network, ema = classifier.backbone, classifier.ema
    device = next(network.parameters()).device
    decayed = [p for p in network.parameters() if p.ndim > 1]
    kept = [p for p in network.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": init["weight_decay"]}, {"params": kept, "weight_decay": 0.0}]
    if init["optimizer"] == "sgd":
        momentum = init.get("momentum", 0.9)
        optimizer: Any = torch.optim.SGD(groups, init["learning_rate"], momentum, nesterov=True)
    else:
        optimizer = torch.optim.AdamW(groups, init["learning_rate"])
    schedule = LambdaLR(optimizer, schedule_factor(init["schedule"], steps, init["warmup_fraction"]))
    is_half = settings["precision"] == "bf16-mixed"
    smoothing = init.get("label_smoothing", 0.0)
    network.train()
    for image, soft_label in batches:
        with torch.autocast(device.type, torch.bfloat16, enabled=is_half):
            picture = ((image - classifier.mean) / classifier.std).contiguous(memory_format=torch.channels_last)
            logits = network(picture)
        target = soft_label * (1 - smoothing) + smoothing / soft_label.shape[1]
        loss = -(target * logits.float().log_softmax(1)).sum(1).mean()
        optimizer.zero_grad()
        loss.backward()
        if settings["gradient_clip_val"]:
            torch.nn.utils.clip_grad_norm_(network.parameters(), settings["gradient_clip_val"])
        optimizer.step()
        schedule.step()
        if ema is not None:
            ema.update()
        yield loss  # type: ignore[misc]


def plain_batches(
    images: Tensor, soft_label: Tensor, augmentation: Augmentation, batch_size: int, steps: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields augmented batches from tensors that hold the whole data set: images uint8 (N, 1, H, W)."""
    order = torch.randperm(len(images)).repeat(-(-steps * batch_size // len(images)))
    for start in range(0, steps * batch_size, batch_size):
        rows = order[start : start + batch_size]
        image = (images[rows].float() / 255).expand(-1, 3, -1, -1)
        yield augment(image, augmentation, torch.rand(batch_size, UNIFORM_COLUMNS)), soft_label[rows]


def fit_callbacks(folder: Path, logger: WandbRun) -> tuple[list[Callback], list[Any]]:
    """Returns callbacks and loggers as ``train.py`` sets them up."""
    record = RunRecord(folder, "fit", {}, "")
    callbacks = [AgreedStop(), RunProgress(), Throughput(), StepSeed(), record, LearningRateMonitor("step")]
    return callbacks, [MetricsCsv(folder), logger]


def measure_step(config: dict[str, Any], batch_size: int, pairs: int, steps: int) -> dict[str, Any]:
    """Returns the figures of part ``step``."""
    seed_everything(1, verbose=False)
    total = WARM_UP_STEPS + steps
    augmentation = Augmentation(**config["data"]["augmentation"])
    data = make_data(config, batch_size, 0.0, total, REAL_ROWS)
    data.setup("fit")
    table = data.train_table
    assert table is not None
    images = table.images.batch(torch.arange(len(table)).numpy())[:, :1].contiguous()
    soft_label = torch.from_numpy(table.soft_label).float()
    classifier = ExpressionClassifier(**config["model"]["init_args"])
    difference = check_same_training(config, batch_size)
    fit_s: list[Segment] = []
    hand_s: list[Segment] = []

    def run_fit(folder: Path, logger: WandbRun) -> None:
        callbacks, loggers = fit_callbacks(folder, logger)
        segment = Segment(WARM_UP_STEPS, total)
        # One logging step in each segment: more often than the one in 50 of train.py.
        trainer_of(config, [*callbacks, segment], loggers, log_every_n_steps=steps, default_root_dir=folder).fit(
            classifier, datamodule=data
        )
        fit_s.append(segment)

    def run_hand() -> None:
        segment = Segment(WARM_UP_STEPS, total)
        batches = plain_batches(images, soft_label, augmentation, batch_size, total)
        clock = argparse.Namespace(global_step=0)
        for clock.global_step, _ in enumerate(hand_written(classifier, config, batches, total), start=1):
            segment.on_train_batch_end(clock)  # type: ignore[arg-type]
        hand_s.append(segment)

    with tempfile.TemporaryDirectory() as folder:
        logger = WandbRun(Path(folder) / "run")
        for pair in range(pairs):
            if pair % 2:
                run_hand()
            run_fit(Path(folder) / "run", logger)
            if not pair % 2:
                run_hand()
        finish_wandb()
    both = list(zip(fit_s, hand_s, strict=True))
    return {
        "overhead": round(statistics.median(fit.wall_s / hand.wall_s - 1 for fit, hand in both), 4),
        "cpu_overhead": round(statistics.median(fit.cpu_s / hand.cpu_s - 1 for fit, hand in both), 4),
        "pair_overheads": [round(fit.wall_s / hand.wall_s - 1, 3) for fit, hand in both],
        "fit_step_ms": round(1e3 * statistics.median(fit.wall_s for fit in fit_s) / steps, 2),
        "hand_step_ms": round(1e3 * statistics.median(hand.wall_s for hand in hand_s) / steps, 2),
        "loss_difference": difference,
    }


def check_same_training(config: dict[str, Any], batch_size: int, steps: int = 3) -> float:
    """Trains both from the same weights on the same batches; returns the largest relative difference of the losses.

    Raises:
        RuntimeError: it is more than rounding explains, so the two do not do the same work.
    """
    settings = {**config["model"]["init_args"], "drop_rate": 0.0}  # dropout would draw other numbers on either side
    ours, theirs = ExpressionClassifier(**settings), ExpressionClassifier(**settings)
    theirs.load_state_dict(ours.state_dict())
    kept = Batches()
    data = make_data(config, batch_size, 0.0, steps, steps * batch_size)
    trainer_of(config, [kept], []).fit(ours, datamodule=data)
    theirs.to(ours.device)
    losses = [float(loss) for loss in hand_written(theirs, config, iter(kept.seen), steps)]
    difference = max(abs(a - b) / b for a, b in zip(kept.losses, losses, strict=True))
    if difference > 0.02:
        raise RuntimeError(f"losses {kept.losses} of fit, {losses} of the hand-written loop: expected the same")
    return round(difference, 6)


# ---------------------------------------------------------------- the start


def measure_start(repeats: int) -> dict[str, Any]:
    """Returns the figures of part ``start``."""
    seconds, cpu_seconds = [], []
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as folder:
            stamp = Path(folder) / "stamp"
            callback = {"class_path": "tests.benchmarks.first_step.FirstStep", "init_args": {"path": str(stamp)}}
            (Path(folder) / "stamp.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks": [callback]}}))
            command = [sys.executable, str(PROJECT / "train.py"), "fit"]
            command += [
                f"--config={CONFIGS / 'data' / 'drawn.yaml'}",
                f"--config={CONFIGS / 'classifier' / 'tiny.yaml'}",
            ]
            command += [f"--config={folder}/stamp.yaml", f"--run_dir={folder}/run", "--trainer.max_steps=1"]
            command += ["--data.reader.init_args.count={train: 448, val: 56, test: 56}"]
            started = time.time()
            done = subprocess.run(
                command, cwd=PROJECT, capture_output=True, text=True, env={**os.environ, "WANDB_MODE": "offline"}
            )
            if done.returncode or not stamp.exists():
                raise RuntimeError(f"train.py ended with code {done.returncode}: {done.stderr[-2000:]}")
            done_at, cpu = json.loads(stamp.read_text())
            seconds.append(done_at - started)
            cpu_seconds.append(cpu)
    return {
        "startup_s": round(statistics.median(seconds), 2),
        "startup_cpu_s": round(statistics.median(cpu_seconds), 2),
        "startups_s": [round(s, 2) for s in seconds],
    }


# ---------------------------------------------------------------- two ranks


def run_ranks(args: argparse.Namespace) -> dict[str, Any]:
    """Starts the ranks and returns the figures of part ``ranks``."""
    with tempfile.TemporaryDirectory() as folder:
        save_generator(Path(folder) / "generator.ckpt", yaml_of(args.config)["model"]["init_args"]["label_space"], 1)
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={WORLD_SIZE}"]
        command += [str(Path(__file__).resolve()), "--config", str(args.config.resolve()), "--as_rank_of", folder]
        command += ["--rank_batch_size", str(args.rank_batch_size), "--rounds", str(args.rounds)]
        command += ["--generated", str(args.generated), "--max_reuse", str(args.max_reuse)]
        command += ["--denoising_steps", str(args.denoising_steps), "--periods", str(args.periods)]
        environment = {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment)
        if done.returncode:
            said = done.stderr.partition("ChildFailedError")[0]  # torchrun's own report names no cause
            raise RuntimeError(f"the ranks ended with code {done.returncode}: {said[:4000]}")
        ranks = [json.loads((Path(folder) / f"rank{rank}.json").read_text()) for rank in range(WORLD_SIZE)]
    # Images/s of all ranks together, round by round: r cancels out of neither side, so ranks may differ.
    errors, shares = [], []
    for number in range(args.rounds):
        c, g, measured = (sum(rank[key][number] for rank in ranks) for key in ("c", "g", "measured"))
        errors.append(measured / (c / (1 + RATIO * c / (args.max_reuse * g))) - 1)
        shares.append(1 - measured / c)
    generation = [sum(rank["generation_s"]) for rank in ranks]
    made = {rank["made"] for rank in ranks}
    if len(made) > 1:
        raise RuntimeError(f"ranks made {sorted(made)} faces: expected the same number on each")
    return {
        "model_error": round(abs(statistics.median(errors)), 4),
        "round_errors": [round(error, 3) for error in errors],
        "rank_imbalance": round(max(generation) * len(generation) / sum(generation) - 1, 4),
        "generation_share": round(statistics.median(shares), 3),
        "classifier_images_per_s": round(sum(statistics.median(rank["c"]) for rank in ranks), 2),
        "generator_images_per_s": round(sum(statistics.median(rank["g"]) for rank in ranks), 2),
        "on_the_fly_images_per_s": round(sum(statistics.median(rank["measured"]) for rank in ranks), 2),
        "max_reuse": args.max_reuse,
        "made_per_rank": made.pop(),
    }


def as_rank(args: argparse.Namespace) -> None:
    """Measures one rank's c, g and images/s on the fly, and writes ``rank<r>.json``.

    Raises:
        RuntimeError: a segment did not hold the generation batches that the cost model counts on.
    """
    config, folder = yaml_of(args.config), Path(args.as_rank_of)
    seed_everything(1, verbose=False)
    classifier = ExpressionClassifier(**config["model"]["init_args"])
    generator = ExpressionGenerator.load_trained(folder / "generator.ckpt")
    sampling = SamplingSettings(num_steps=args.denoising_steps, guidance_scale=2.0)
    batch, generated = args.rank_batch_size, args.generated
    # Steps from one generation batch to the next: each step draws RATIO · batch, each face is drawn max_reuse times.
    period = max(1, round(args.max_reuse * generated / (RATIO * batch)))
    warm_up, steps = 2 * period, period * args.periods  # the first period may draw on the faces that filled the pool
    sides = {ratio: make_data(config, batch, ratio, warm_up + steps, REAL_ROWS) for ratio in (0.0, RATIO)}
    found: dict[str, Any] = {"c": [], "g": [], "measured": [], "generation_s": [], "made": 0}

    def fit(ratio: float) -> Segment:
        synthesis = OnlineSynthesis(
            True,
            str(folder / "generator.ckpt"),
            generated,
            args.max_reuse,
            initial_samples=generated,
            sampling=sampling,
        )
        segment = Segment(warm_up, warm_up + steps, synthesis)
        trainer = trainer_of(config, [synthesis, segment], [], devices=WORLD_SIZE, strategy="ddp", accelerator="cpu")
        trainer.fit(classifier, datamodule=sides[ratio])
        return segment

    def generate() -> float:
        names = [generator.label_space[index % len(generator.label_space)] for index in range(generated)]
        torch.distributed.barrier()
        started = time.perf_counter()
        for _ in range(args.periods):
            generator.synthesise(SynthesisRequest.from_expressions(names, range(generated), 1, sampling), [])
        return args.periods * generated / (time.perf_counter() - started)

    fit(0.0)  # starts the process group, and warms up
    generate()
    for _ in range(args.rounds):
        found["c"].append(steps * batch / fit(0.0).wall_s)
        found["g"].append(generate())
        on_the_fly = fit(RATIO)
        if on_the_fly.made != generated * args.periods:
            raise RuntimeError(
                f"{on_the_fly.made} faces made in a segment, expected {generated * args.periods}: "
                "max_reuse · generated ÷ (0.5 · batch) must be a whole number of steps"
            )
        found["measured"].append(steps * batch / on_the_fly.wall_s)
        found["generation_s"].append(on_the_fly.generation_s)
        found["made"] += on_the_fly.made
    (folder / f"rank{torch.distributed.get_rank()}.json").write_text(json.dumps(found))


def yaml_of(path: Path) -> dict[str, Any]:
    """Returns a config."""
    return yaml.safe_load(path.read_text())


def main() -> None:
    """Measures the parts and prints one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=CONFIGS / "classifier" / "ferplus.yaml", help="classifier")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--quick", action="store_true", help="a smoke run: the tiny classifier, one of everything")
    parser.add_argument("--batch_size", type=int, default=64, help="of part step")
    parser.add_argument("--pairs", type=int, default=11, help="pairs of segments of part step")
    parser.add_argument("--steps", type=int, default=5, help="timed steps per segment of part step")
    parser.add_argument("--startups", type=int, default=3, help="runs of part start")
    parser.add_argument("--rank_batch_size", type=int, default=32, help="of part ranks, per rank")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of part ranks")
    parser.add_argument("--periods", type=int, default=2, help="generation batches per timed segment of part ranks")
    parser.add_argument("--generated", type=int, default=16, help="faces made at a time, of part ranks")
    parser.add_argument("--max_reuse", type=float, default=2.0, help="R of part ranks")
    parser.add_argument("--denoising_steps", type=int, default=5, help="of part ranks")
    parser.add_argument("--as_rank_of", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.quick:
        args.config = CONFIGS / "classifier" / "tiny.yaml"
        args.pairs = args.startups = args.rounds = args.periods = 1
        args.batch_size, args.steps, args.denoising_steps = 16, 2, 4
        args.rank_batch_size = args.generated = 8
    os.environ["WANDB_MODE"] = "offline"
    os.environ.setdefault("WANDB_SILENT", "true")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    if args.as_rank_of:
        as_rank(args)
        return
    result: dict[str, Any] = {"benchmark": "overhead"}
    measures = {
        "step": lambda: measure_step(yaml_of(args.config), args.batch_size, args.pairs, args.steps),
        "start": lambda: measure_start(args.startups),
        "ranks": lambda: run_ranks(args),
    }
    for part in args.parts:
        found = measures[part]()
        print(json.dumps({part: found}), file=sys.stderr, flush=True)
        result |= found
    result |= {
        "quick": args.quick,
        "classifier": args.config.stem,
        "batch_size": args.batch_size,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
