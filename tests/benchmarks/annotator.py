"""What FERAnno costs: labelling a fresh synthetic batch, and what the feature cache saves in training.

    python tests/benchmarks/annotator.py
    python tests/benchmarks/annotator.py --rows 256 --batch_size 32 --training_batch_size 32 --repeats 1
    python tests/benchmarks/annotator.py --annotator configs/annotator/fer2013.yaml configs/annotator/deep_head.yaml

``annotate_over_generate``: seconds in which the annotator labels a batch ÷ seconds in which the generator that it reads
makes that batch, with the sampling settings of its config, which the line names; the median over the repeats.
``cache_speedup``: seconds of the first epoch of an annotator's training (every face and its mirror image goes through
the generator, the features are written) ÷ seconds of the second (they are read); ``cache_speedup_cpu`` is the same in
CPU seconds of this process, which other processes disturb less (without an accelerator). Faces are unaugmented there,
so that the second epoch finds everything; with n ``cached_views`` of a face about n epochs still run the generator.
Otherwise both use the configs users start from, the second its batches, too; faces drawn in FER2013's format and a
generator of random weights, which costs what a trained one does.

Prints one JSON line.
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
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything

# Started as a file, Python looks for modules beside that file only.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from datamodules.expression_data_module import ExpressionDataModule
from datamodules.loading.augmentation import Augmentation
from datamodules.readers import DrawnReader
from lightning_modules.annotator import LabelAnnotator
from lightning_modules.generator import ExpressionGenerator
from lightning_modules.generator_file import generator_arguments
from synfer.synthesis.request import SynthesisRequest

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
NAMES = ("neutral", "happy", "sad", "surprise", "fear", "disgust", "anger")


class EpochClock(Callback):
    """Notes when epochs begin, and the end of the last one, with everything that the module does at their ends."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.cpu_times: list[float] = []

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Notes the time."""
        self._note(pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Notes the time."""
        self._note(pl_module)

    def _note(self, module: LightningModule) -> None:
        self.times.append(now(module.device))
        self.cpu_times.append(time.process_time())


def now(device: torch.device) -> float:
    """Returns the wall clock when the device has finished."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def save_generator(path: Path, config: Path) -> dict[str, Any]:
    """Writes a checkpoint of random weights and returns its arguments."""
    settings = yaml.safe_load(config.read_text())["model"]["init_args"]
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    trainer.strategy.connect(ExpressionGenerator(**generator_arguments(settings)))
    trainer.save_checkpoint(path)
    return settings


def annotator_config(files: list[Path]) -> dict[str, Any]:
    """Returns what the config files say together; of a setting that several name, the last one counts."""
    configs = [yaml.safe_load(file.read_text()) for file in files]
    settings = {name: value for config in configs for name, value in config["model"]["init_args"].items()}
    data = {name: value for config in configs for name, value in config.get("data", {}).items()}
    return {**configs[0], "model": {**configs[0]["model"], "init_args": settings}, "data": data}


def annotator_settings(config: dict[str, Any], generator: Path, **changes: Any) -> dict[str, Any]:
    """Returns the arguments of the annotator in a config, reading this generator."""
    return {**config["model"]["init_args"], "generator": str(generator), "feature_cache": None, **changes}


def time_annotation(generator_path: Path, settings: dict[str, Any], batch_size: int, repeats: int) -> dict[str, Any]:
    """Returns the seconds of making and of labelling one batch."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    generator = ExpressionGenerator.load_trained(generator_path, str(device))
    annotator = LabelAnnotator(**settings).eval().to(device)
    names = [NAMES[i % len(NAMES)] for i in range(batch_size)]
    made, labelled = [], []
    for repeat in range(repeats + 1):  # the first is a warm-up
        request = SynthesisRequest.from_expressions(
            names, range(repeat * batch_size, (repeat + 1) * batch_size), 1, generator.sampling
        )
        start = now(device)
        images = generator.synthesise(request).images
        middle = now(device)
        probabilities = annotator.predict_probabilities(images.float() / 255)
        end = now(device)
        assert probabilities.shape == (batch_size, len(annotator.label_space))
        if repeat:
            made.append(middle - start)
            labelled.append(end - middle)
    ratios = [a / b for a, b in zip(labelled, made, strict=True)]
    return {
        "annotate_over_generate": round(statistics.median(ratios), 4),
        "generate_ms_per_face": round(statistics.median(made) / batch_size * 1e3, 3),
        "annotate_ms_per_face": round(statistics.median(labelled) / batch_size * 1e3, 3),
        "sampling": asdict(generator.sampling),
    }


def time_epochs(settings: dict[str, Any], precision: Any, batch_size: int, rows: int) -> dict[str, Any]:
    """Returns the seconds of the first and the second epoch of a training that starts with an empty cache."""
    seed_everything(1, verbose=False)
    clock = EpochClock()
    for epochs, callbacks in ((1, []), (2, [clock])):  # the first fit, on two batches, is a warm-up
        count = {"train": rows if callbacks else 2 * batch_size, "val": 7, "test": 7}
        with tempfile.TemporaryDirectory() as folder:
            data = ExpressionDataModule(
                DrawnReader(count, image_size=48, label_space="basic7", grey=True, seed=len(callbacks)),
                batch_size=batch_size,
                augmentation=Augmentation(enabled=False),
            )
            trainer = Trainer(
                accelerator="auto",
                devices=1,
                precision=precision,
                max_epochs=epochs,
                limit_val_batches=0,
                num_sanity_val_steps=0,
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                callbacks=callbacks,
                default_root_dir=folder,
            )
            # Only training is timed, and of faces that are all read: there is no second view to average at the end.
            annotator = LabelAnnotator(**{**settings, "feature_cache": folder, "maps_tta": False})
            trainer.fit(annotator, datamodule=data)
    first, second = clock.times[1] - clock.times[0], clock.times[2] - clock.times[1]
    cpu = clock.cpu_times
    return {
        "cache_speedup": round(first / second, 3),
        "cache_speedup_cpu": round((cpu[1] - cpu[0]) / (cpu[2] - cpu[1]), 3),
        "first_epoch_s": round(first, 3),
        "second_epoch_s": round(second, 3),
    }


def main() -> None:
    """Measures both and prints one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--generator", type=Path, default=CONFIGS / "generator" / "fer2013.yaml", help="config")
    default = [CONFIGS / "annotator" / "fer2013.yaml"]
    parser.add_argument("--annotator", type=Path, nargs="+", default=default, help="config, and further ones on top")
    parser.add_argument("--batch_size", type=int, default=64, help="faces made and labelled at once")
    parser.add_argument("--training_batch_size", type=int, help="of the cache's test; default: the annotator config's")
    parser.add_argument("--rows", type=int, default=2048, help="training faces of the cache's test")
    parser.add_argument("--repeats", type=int, default=3, help="batches made and labelled")
    args = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    with tempfile.TemporaryDirectory() as folder:
        generator = Path(folder) / "generator.ckpt"
        save_generator(generator, args.generator)
        config = annotator_config(args.annotator)
        settings = annotator_settings(config, generator)
        training_batch_size = args.training_batch_size or config["data"]["batch_size"]
        result = {
            "benchmark": "annotator",
            **time_annotation(generator, settings, args.batch_size, args.repeats),
            **time_epochs(settings, config["trainer"]["precision"], training_batch_size, args.rows),
            "batch_size": args.batch_size,
            "training_batch_size": training_batch_size,
            "rows": args.rows,
            "device": torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine(),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
