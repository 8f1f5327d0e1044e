"""What it saves that gradients stay in channels-last: a training step of a network, ours against timm's own.

    python tests/benchmarks/channels_last.py
    python tests/benchmarks/channels_last.py --config configs/classifier/fer2013.yaml --repeats 4

Both are the network of a classifier's config with the same weights, in channels-last and bfloat16, forward and backward
pass, in turn on one thread. Prints one JSON line: ``speedup`` is seconds of timm's network with
``.to(memory_format=torch.channels_last)`` ÷ seconds of ours, medians of the repeats; ``*_ms`` are milliseconds a face.
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import statistics
import sys
import time
from pathlib import Path

import torch
import yaml
from torch import Tensor, nn
from torch.nn import functional as F

# Started as a file, Python looks for modules beside that file only.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from synfer.networks.backbone import build_backbone
from synfer.networks.channels_last import to_channels_last

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
CLASSES = 7


def seconds_of_a_step(network: nn.Module, image: Tensor, label: Tensor) -> float:
    """Returns the seconds of one forward and backward pass."""
    network.zero_grad()
    start = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16):
        logits = network(image)
    F.cross_entropy(logits.float(), label).backward()
    return time.perf_counter() - start


def main() -> None:
    """Measures both and prints one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=CONFIGS / "classifier" / "fer2013_small.yaml")
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=12)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    settings = yaml.safe_load(args.config.read_text())["model"]["init_args"]
    side = settings.get("image_size", 48)
    timms = build_backbone(
        settings["backbone"],
        CLASSES,
        image_size=side,
        stem=settings.get("stem", "auto"),
        kwargs=settings.get("backbone_kwargs"),
    ).train()
    ours = to_channels_last(copy.deepcopy(timms))
    timms.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    image = torch.rand(args.batch_size, 3, side, side).contiguous(memory_format=torch.channels_last)
    label = torch.randint(CLASSES, (args.batch_size,))
    taken: dict[str, list[float]] = {"timm": [], "ours": []}
    for repeat in range(args.repeats + 1):  # the first is a warm-up
        for name, network in (("timm", timms), ("ours", ours)):
            seconds = seconds_of_a_step(network, image, label)
            if repeat:
                taken[name].append(seconds)
    medians = {name: statistics.median(seconds) for name, seconds in taken.items()}
    result = {
        "benchmark": "channels_last",
        "speedup": round(medians["timm"] / medians["ours"], 3),
        **{f"{name}_ms": round(1e3 * seconds / args.batch_size, 3) for name, seconds in medians.items()},
        "config": args.config.stem,
        "batch_size": args.batch_size,
        "device": platform.machine(),
        "torch": torch.__version__,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
