"""How fast a SimCLR step is: ours against a plain loop, on the same backbone, batch, faces and kinds of views.

    python tests/benchmarks/pretraining.py                      # the network of configs/pretraining/fer2013_small.yaml
    python tests/benchmarks/pretraining.py --backbone resnet18 --batch_size 64 --steps 3

The other loop is that of lightly's SimCLR example, ``SimCLRTransform`` on PIL pictures, ``SimCLRProjectionHead`` and
``NTXentLoss``, where lightly is installed; else the same loop with torchvision's views, a head and a loss written out
here; ``reference`` says which. Both have the faces in memory, make two views of the same kinds and strengths (crop,
flip, jitter, grey, blur) and take a step of AdamW, in turn. lightly beside the packages of this project, without the
ones it would change:

    python -m venv .lightly && .lightly/bin/pip install --no-deps lightly lightly_utils
    PYTHONPATH=$(echo .lightly/lib/*/site-packages) python tests/benchmarks/pretraining.py

Prints one JSON line: ``speedup`` is seconds of a step of the other loop ÷ seconds of ours, medians; the parts of a step
are in milliseconds. On a CPU both use ``--threads``, loader processes would share these, and seconds are those of the
processor, so that other jobs beside count little.
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms import v2
from torchvision.transforms.functional import to_pil_image

# Started as a file, Python looks for modules beside that file only.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from synfer.networks.backbone import build_backbone
from synfer.networks.channels_last import to_channels_last
from synfer.optimisation.optimiser import build_optimiser
from synfer.representation.methods import HeadSettings, SimCLR
from synfer.representation.views import ViewSettings, make_view, view_numbers

TEMPERATURE = 0.2
SMALL = Path(__file__).resolve().parents[2] / "configs" / "pretraining" / "fer2013_small.yaml"


def plain_nt_xent(first: Tensor, second: Tensor) -> Tensor:
    """Returns the loss as a short script has it."""
    rows = F.normalize(torch.cat([first, second]), dim=1)
    logits = rows @ rows.T / TEMPERATURE
    logits.fill_diagonal_(-torch.inf)
    return F.cross_entropy(logits, torch.arange(len(rows), device=rows.device).roll(len(first)))


def reference_parts(features: int, head: HeadSettings) -> tuple[str, nn.Module, Callable[[Tensor, Tensor], Tensor]]:
    """Returns the name of the other loop, its head and its loss."""
    try:
        from lightly.loss import NTXentLoss
        from lightly.models.modules import SimCLRProjectionHead
    except ImportError:
        layers = [nn.Linear(features, head.hidden, bias=False), nn.BatchNorm1d(head.hidden), nn.ReLU()]
        return "plain loop", nn.Sequential(*layers, nn.Linear(head.hidden, head.out)), plain_nt_xent
    return "lightly", SimCLRProjectionHead(features, head.hidden, head.out), NTXentLoss(temperature=TEMPERATURE)


def per_picture(settings: ViewSettings, side: int, name: str) -> Callable[[Any], Tensor]:
    """Returns views of one picture, a PIL one for lightly, of the same kinds and strengths, by the other loop."""
    low, high = (sigma * side / 48 for sigma in settings.blur_sigma)
    if name == "lightly":
        from lightly.transforms.simclr_transform import SimCLRViewTransform

        return SimCLRViewTransform(
            input_size=side,
            cj_prob=settings.jitter,
            cj_strength=1.0,
            cj_bright=settings.brightness,
            cj_contrast=settings.contrast,
            cj_sat=settings.saturation,
            cj_hue=settings.hue,
            min_scale=settings.crop[0],
            random_gray_scale=settings.grey,
            gaussian_blur=settings.blur[0],
            sigmas=(low, high),
            hf_prob=settings.flip,
            normalize={"mean": [0.0] * 3, "std": [1.0] * 3},
        )
    jitter = v2.ColorJitter(settings.brightness, settings.contrast, settings.saturation, settings.hue)
    blur = v2.GaussianBlur(2 * max(1, round(2 * high)) + 1, (low, high))
    return v2.Compose(
        [
            v2.RandomResizedCrop(side, tuple(settings.crop), tuple(settings.aspect), antialias=True),
            v2.RandomHorizontalFlip(settings.flip),
            v2.RandomApply([jitter], settings.jitter),
            v2.RandomGrayscale(settings.grey),
            v2.RandomApply([blur], settings.blur[0]),
            v2.ToDtype(torch.float32, scale=True),
        ]
    )


def main() -> None:
    """Measures both and prints one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--backbone", help="a name of timm (default: the network of configs/pretraining/fer2013_small.yaml)"
    )
    parser.add_argument("--image_size", type=int, default=48)
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=["32", "bf16"], default="32", help="of both")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    side, device, head, settings = args.image_size, torch.device(args.device), HeadSettings(), ViewSettings()
    faces = torch.randint(256, (args.batch_size, 3, side, side), dtype=torch.uint8)
    name, kwargs = args.backbone or "", None
    if not name:
        shipped = yaml.safe_load(SMALL.read_text())["model"]["init_args"]
        name, kwargs = shipped["backbone"], shipped["backbone_kwargs"]
    plain = build_backbone(name, 0, image_size=side, stem="small", kwargs=kwargs).to(device).train()
    ours = to_channels_last(copy.deepcopy(plain))
    with torch.no_grad():
        features = plain.eval()(torch.zeros(1, 3, side, side, device=device)).shape[1]
    plain.train()
    method = SimCLR(features, head, TEMPERATURE).to(device)
    reference, projector, loss_of = reference_parts(features, head)
    projector = projector.to(device)
    optimisers = {
        "ours": build_optimiser([*ours.parameters(), *method.parameters()], "adamw", 1e-3, 1e-4),
        "reference": torch.optim.AdamW([*plain.parameters(), *projector.parameters()], 1e-3, weight_decay=1e-4),
    }
    transform = per_picture(settings, side, reference)
    pictures = [to_pil_image(face) for face in faces] if reference == "lightly" else list(faces)
    ids = [f"face {row}" for row in range(args.batch_size)]
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    taken: dict[str, list[float]] = {key: [] for key in ("ours", "ours_views", "reference", "reference_views")}

    def views_of_ours(step: int) -> list[Tensor]:
        image = faces.to(device).float() / 255
        return [make_view(image, settings, view_numbers(ids, view, 0, 0, step), view, side) for view in range(2)]

    def views_of_reference(step: int) -> list[Tensor]:
        return [torch.stack([transform(picture) for picture in pictures]).to(device) for _ in range(2)]

    def loss_of_ours(views: list[Tensor]) -> Tensor:
        views = [view.contiguous(memory_format=torch.channels_last) for view in views]
        return method.loss(ours, views, lambda columns: torch.rand(args.batch_size, columns))[0]

    def loss_of_reference(views: list[Tensor]) -> Tensor:
        return loss_of(projector(plain(views[0])), projector(plain(views[1])))

    sides = {"ours": (views_of_ours, loss_of_ours), "reference": (views_of_reference, loss_of_reference)}
    for step in range(args.steps + 1):  # the first is a warm-up
        for key, (make, compute) in sides.items():
            start = clock()
            views = make(step)
            _wait(device)
            between = clock()
            optimisers[key].zero_grad()
            with torch.autocast(device.type, torch.bfloat16, enabled=args.precision == "bf16"):
                loss = compute(views)
            loss.backward()
            optimisers[key].step()
            _wait(device)
            if step:
                taken[key].append(clock() - start)
                taken[f"{key}_views"].append(between - start)
    medians = {key: statistics.median(seconds) for key, seconds in taken.items()}
    result = {
        "benchmark": "pretraining",
        "speedup": round(medians["reference"] / medians["ours"], 3),
        "reference": reference,
        **{f"{key}_ms": round(1e3 * seconds, 2) for key, seconds in medians.items()},
        "backbone": name,
        "parameters": sum(p.numel() for p in ours.parameters()),
        "precision": args.precision,
        "image_size": side,
        "batch_size": args.batch_size,
        "steps": args.steps,
        "threads": args.threads,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
        "torch": torch.__version__,
    }
    print(json.dumps(result))


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main()
