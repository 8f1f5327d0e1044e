"""What labelling costs beside the bare network: pictures a second of ``label.py``'s loop against the backbone alone.

    python tests/benchmarks/labelling.py
    python tests/benchmarks/labelling.py --config configs/classifier/resnet18.yaml --side 112 --count 400 --repeats 3
    python tests/benchmarks/labelling.py --flip      # with mirror images, of which the bare network sees each as well

JPEG crops are written into a temporary folder; then, in turn and on the same threads of torch, the command's own loop
finds, reads, decodes, prepares and labels them and builds the table, and the same backbone in evaluation and inference
mode computes logits of in-memory tensors in batches of the same size. Prints one JSON line: ``ratio`` is the median
over the repeats of (pictures/s of labelling ÷ pictures/s of the bare network beside it), ``met`` whether it is at least
0.9.
``cpu_ratio`` is the same in CPU seconds, all threads together, which other processes disturb less.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import yaml
from PIL import Image

# Started as a file, Python looks for modules beside that file only.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from experiments.label.labelling import Labelling
from experiments.label.progress import Progress
from experiments.label.sources import find_sources
from lightning_modules.classifier import ExpressionClassifier
from lightning_modules.labeller import Labeller

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
BAR = 0.9


def write_crops(folder: Path, count: int, side: int) -> None:
    """Writes JPEG files of soft spots with a little noise: about as many bytes as a photograph's."""
    random = np.random.default_rng(0)
    for number in range(count):
        spots = random.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        picture = np.array(Image.fromarray(spots).resize((side, side), Image.Resampling.BICUBIC), dtype=np.int16)
        picture += random.integers(-8, 9, picture.shape, dtype=np.int16)
        Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(folder / f"{number:05d}.jpg", quality=90)


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Returns wall and CPU seconds of a work."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def main() -> None:
    """Measures both and prints one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=CONFIGS / "classifier" / "ferplus.yaml", help="classifier")
    parser.add_argument("--count", type=int, default=1000, help="crops")
    parser.add_argument("--side", type=int, default=48, help="of a crop, in pixels")
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument("--workers", type=int, default=2, help="threads that read ahead")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--flip", action="store_true", help="average over mirror images, as the config says")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    settings = yaml.safe_load(args.config.read_text())["model"]["init_args"]
    classifier = ExpressionClassifier(**{**settings, "flip_tta": args.flip, "ema_decay": None})
    labeller = Labeller(classifier.eval().requires_grad_(False), batch_size=args.batch_size)
    backbone, side = classifier.backbone, classifier.image_size
    images = torch.rand(args.count, classifier.in_channels, side, side)
    batches = [b.contiguous(memory_format=torch.channels_last) for b in images.split(args.batch_size)]

    @torch.inference_mode()
    def bare() -> None:
        for batch in batches:
            for _ in range(1 + args.flip):
                backbone(batch)

    with tempfile.TemporaryDirectory() as folder:
        write_crops(Path(folder), args.count, args.side)

        def label() -> None:
            labelling = Labelling(labeller, threads=args.workers)
            with Path(os.devnull).open("w") as nowhere:
                labelling.run(find_sources([folder]).pictures(), Progress(args.count, "pictures", stream=nowhere))
            if labelling.faces.table().num_rows != args.count:
                raise RuntimeError(f"{len(labelling.faces)} rows, expected {args.count}")

        taken: list[tuple[tuple[float, float], tuple[float, float]]] = []
        for repeat in range(args.repeats + 1):  # the first is a warm-up
            if repeat % 2:
                of_bare, of_label = timed(bare), timed(label)
            else:
                of_label, of_bare = timed(label), timed(bare)
            if repeat:
                taken.append((of_label, of_bare))
    ratio = statistics.median(bare_s[0] / label_s[0] for label_s, bare_s in taken)
    result = {
        "benchmark": "labelling",
        "ratio": round(ratio, 3),
        "met": ratio >= BAR,
        "cpu_ratio": round(statistics.median(bare_s[1] / label_s[1] for label_s, bare_s in taken), 3),
        "pictures_per_s": round(args.count / statistics.median(label_s[0] for label_s, _ in taken), 1),
        "cpu_ms": round(1e3 * statistics.median(label_s[1] for label_s, _ in taken) / args.count, 2),
        "bare_cpu_ms": round(1e3 * statistics.median(bare_s[1] for _, bare_s in taken) / args.count, 2),
        "bare_pictures_per_s": round(args.count / statistics.median(bare_s[0] for _, bare_s in taken), 1),
        "repeats": [round(bare_s[0] / label_s[0], 3) for label_s, bare_s in taken],
        "config": args.config.stem,
        "count": args.count,
        "side": args.side,
        "flip": args.flip,
        "threads": args.threads,
        "workers": args.workers,
        "device": platform.machine(),
        "torch": torch.__version__,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
