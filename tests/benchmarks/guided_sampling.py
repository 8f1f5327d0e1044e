r"""What guided sampling costs: the published loop, ours, and plain sampling, side by side on the same weights.

    python tests/benchmarks/guided_sampling.py --generator runs/generator-fer2013/checkpoints/last.ckpt \
        --guide runs/guide-ferplus/checkpoints/last.ckpt --judge runs/judge-ferplus/checkpoints/last.ckpt

All loops make the same requested faces (expressions, sample ids, seed, layout sources), batch after batch in turn,
in changing order, so that whatever else the machine does falls on all alike:

* ``published``: SynFER as it is written down. 50 DDIM steps, the last 35 of them inverted from a random training face,
  guided from the 15th on: conditional pass with gradients, decoding, guide, backward, and after that classifier-free
  guidance on a doubled batch.
* ``ours``: ``ExpressionGenerator.synthesise`` with the callbacks and settings of ``--config``.
* ``ours_same_steps``: the same callbacks on the published schedule (50 steps, 35 inverted, guided from the 15th).
* ``unguided``: ours without guidance.

All run under the same autocast. Prints one JSON line. ``speedup`` is ours ÷ published in images/s,
``guided_over_unguided`` time of ours ÷ unguided, ``memory_ratio`` peak of ours ÷ published: medians over the rounds,
memory from one batch in a process of its own (peak above what was resident when it began; on a GPU what CUDA
allocated). ``judge_accuracy`` is the macro recall of the judge, ``frechet`` the Fréchet distance in the judge's
features to the PublicTest faces, weighted to the same classes, ``near_copies`` the share of faces that are near copies
of a training face, without which that distance says nothing: it rewards copying (``near_copies_real``: of PublicTest
faces). The guide must not be the judge.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

# Started as a file, Python looks for modules beside that file only.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from callbacks.synthesis.layout_initialisation import LayoutInitialisation
from callbacks.synthesis.semantic_guidance import SemanticGuidance
from datamodules.expression_data_module import ExpressionDataModule
from datamodules.loading.mixed_dataset import MixedDataset
from datamodules.readers import DrawnReader, FER2013Reader
from datamodules.rows.grey_or_colour import as_rgb
from lightning_modules.classifier import ExpressionClassifier
from lightning_modules.generator import ExpressionGenerator
from synfer.faces.expressions import LABEL_SPACES
from synfer.metrics.frechet_distance import frechet_distance, weighted_moments
from synfer.networks.feature_extractor import ClassifierFeatures
from synfer.synthesis.request import SamplingSettings, SynthesisRequest

CONFIG = Path(__file__).resolve().parents[2] / "configs" / "mixed" / "fer2013.yaml"
STEPS, INVERTED, GUIDED_FROM = 50, 35, 15
"""The published schedule (METHOD.md: 50 DDIM steps, 35 inverted, guidance from the 15th of those)."""

Loop = Callable[[SynthesisRequest], torch.Tensor]


def published_loop(
    generator: ExpressionGenerator, layout: LayoutInitialisation, guide: ExpressionClassifier, step_size: float
) -> Loop:
    """Returns SynFER's loop, written down plainly; it makes uint8 images (n, 3, H, W)."""

    @torch.no_grad()
    def run(request: SynthesisRequest) -> torch.Tensor:
        settings = request.settings
        assert settings is not None
        state = generator.synthesiser.start(request)
        layout.on_denoising_start(state)
        label = torch.tensor([generator.label_space.index(name) for name in request.expressions]).to(
            state.latents.device
        )
        # The guide's classes are the generator's: checked when the benchmark starts.
        for step in range(state.first_step, settings.num_steps):
            state.step = step
            text = state.text
            if step - state.first_step >= GUIDED_FROM:
                with torch.enable_grad():
                    text = text.detach().requires_grad_()
                    clean = state.clean(state.predict(text, state.au))
                    with state.autocast():
                        logits = guide(((state.decode(clean) + 1) / 2).clamp(0, 1)).float()
                    loss = torch.nn.functional.cross_entropy(logits, label, reduction="sum")
                    (gradient,) = torch.autograd.grad(loss, text)
                norm = gradient.flatten(1).norm(dim=1).clamp_min(1e-20)
                state.text = text.detach() - step_size * gradient / norm[:, None, None]
            both = state.predict(
                torch.cat([state.null_text, text.detach()]),
                torch.cat([state.null_au, state.au]),
                torch.cat([state.latents, state.latents]),
            )
            null, conditional = both.chunk(2)
            output = null + settings.guidance_scale * (conditional - null)
            state.latents = state.sampler.step(output, step, state.latents)
        image = ((state.decode(state.latents) + 1) / 2).clamp(0, 1)
        return (image * 255).round().to(torch.uint8)

    return run


def our_loop(generator: ExpressionGenerator, hooks: list[Any]) -> Loop:
    """Returns the framework's own way to the same faces."""
    return lambda request: generator.synthesise(request, hooks).images


def make_loops(args: argparse.Namespace) -> tuple[dict[str, tuple[Loop, SamplingSettings]], ExpressionDataModule, Any]:
    """Loads everything and returns name → (loop, sampling settings), the data and the judge.

    Raises:
        ValueError: guide and judge are one network, or the guide has other classes than the generator.
    """
    config = OmegaConf.to_container(OmegaConf.merge(*map(OmegaConf.load, args.config)))
    assert isinstance(config, dict)
    generator = ExpressionGenerator.load_trained(args.generator, args.device)
    guide = ExpressionClassifier.load_trained(args.guide, args.device)
    judge = ExpressionClassifier.load_trained(args.judge, args.device)
    if guide.weights_fingerprint() == judge.weights_fingerprint():
        raise ValueError(f"--judge '{args.judge}' is the guide's own network: a judge must be independent of it")
    if guide.label_space != generator.label_space:
        raise ValueError(
            f"--guide '{args.guide}': found the classes {list(guide.label_space)}, expected the generator's "
            f"{list(generator.label_space)}"
        )
    if args.data == "drawn":
        reader: Any = DrawnReader(
            {"train": 400, "val": 400, "test": 400},
            image_size=generator.hparams["image_size"],
            label_space="basic7" if len(generator.label_space) == 7 else "ferplus8",
        )
    else:
        reader = FER2013Reader(args.data, "ferplus_majority", {"train": "Training", "val": "PublicTest"})
    data = ExpressionDataModule(reader, drop_duplicates=True)
    data.setup("fit")
    assert data.train_table is not None and data.val_table is not None

    def layout(inverted: int) -> LayoutInitialisation:
        callback = LayoutInitialisation(True, **{**settings_of("layout"), "num_inverted": inverted})
        callback.use_table(data.train_table, [data.val_table])
        return callback

    def settings_of(group: str) -> dict[str, Any]:
        return {name: value for name, value in config[group].items() if name not in ("enabled", "guide")}

    def guidance(**changes: Any) -> SemanticGuidance:
        return SemanticGuidance(True, args.guide, **{**settings_of("guidance"), **changes})

    ours = SamplingSettings(**config["synthesis"]["sampling"])
    long = SamplingSettings(num_steps=STEPS, guidance_scale=ours.guidance_scale)
    own_layout = [layout(config["layout"]["num_inverted"])] if config["layout"]["enabled"] else []
    if args.published_step_size is None:  # the text may go as far as in ours, in more and smaller steps
        run = config["layout"]["num_inverted"] if own_layout else ours.num_steps
        ours_guided = range(config["guidance"]["start_step"], run, config["guidance"]["every"])
        args.published_step_size = config["guidance"]["step_size"] * len(ours_guided) / (INVERTED - GUIDED_FROM)
    loops = {
        "published": (published_loop(generator, layout(INVERTED), guide, args.published_step_size), long),
        "ours": (our_loop(generator, [*own_layout, guidance()]), ours),
        "ours_same_steps": (
            our_loop(generator, [layout(INVERTED), guidance(start_step=GUIDED_FROM)]),
            replace(ours, num_steps=STEPS, scheduler="ddim"),
        ),
        "unguided": (our_loop(generator, own_layout), ours),
    }
    return {name: loops[name] for name in args.loops}, data, judge


def request_of(batch: int, args: argparse.Namespace, names: list[str], settings: SamplingSettings) -> SynthesisRequest:
    """Returns batch number ``batch``: the same faces for every loop."""
    ids = range(batch * args.batch_size, (batch + 1) * args.batch_size)
    return SynthesisRequest.from_expressions([names[i % len(names)] for i in ids], list(ids), args.seed, settings)


def synchronised(device: str) -> float:
    """Returns the time once the device has done its work."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter()


def peak_bytes(args: argparse.Namespace) -> int:
    """Makes one batch with one loop and returns how far memory rose above that of the loaded models."""
    loops, data, _ = make_loops(args)
    ((loop, settings),) = loops.values()
    assert data.train_table is not None
    names = [name for name in LABEL_SPACES["basic7"] if name in data.label_space]
    small = argparse.Namespace(**{**vars(args), "batch_size": 2})
    loop(request_of(0, small, names, settings))  # libraries make their own buffers at first use
    if args.device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        loop(request_of(0, args, names, settings))
        return torch.cuda.max_memory_allocated() - before
    reset_peak()
    before = status_bytes("VmRSS")
    loop(request_of(0, args, names, settings))
    return status_bytes("VmHWM") - before


def reset_peak() -> None:
    """Sets the high-water mark of this process's memory to what it holds now, so that loading does not count.

    Raises:
        RuntimeError: not Linux, where this cannot be done.
    """
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError as error:
        raise RuntimeError(f"memory on a CPU is measured on Linux alone: {error}") from error


def status_bytes(name: str) -> int:
    """Returns a field of /proc/self/status in bytes: VmRSS (resident now) or VmHWM (its peak)."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024


def measured_alone(name: str) -> int:
    """Returns the peak of one loop, measured in a process of its own."""
    command = [sys.executable, __file__, *sys.argv[1:], "--memory_of", name]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"memory of '{name}': {done.stderr.strip().splitlines()[-1]}")
    return int(done.stdout.strip().splitlines()[-1])


@torch.no_grad()
def features_of(pixels: torch.Tensor, judge: ExpressionClassifier, device: str) -> torch.Tensor:
    """Returns the judge's features, (n, D), of uint8 images."""
    extractor = ClassifierFeatures(judge, "judge")
    return torch.cat([extractor(part.to(device).float() / 255) for part in pixels.split(64)]).cpu()


def real_moments(
    label: torch.Tensor, judge: ExpressionClassifier, data: ExpressionDataModule, device: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns mean and covariance of the held-out faces' features, weighted to the classes of ``label``."""
    table = data.val_table
    assert table is not None
    faces = MixedDataset(table)
    asked = torch.bincount(label, minlength=len(data.label_space))
    rows = [i for i, code in enumerate(table.label.tolist()) if asked[code]]
    pixels = torch.cat([as_rgb(faces.__getitems__(rows[i : i + 256])["image"]) for i in range(0, len(rows), 256)])
    codes = torch.from_numpy(table.label[rows])
    share = asked / torch.bincount(codes, minlength=len(data.label_space)).clamp_min(1)
    return weighted_moments(features_of(pixels, judge, device), share[codes])


@torch.no_grad()
def quality(
    images: torch.Tensor,
    label: torch.Tensor,
    judge: ExpressionClassifier,
    data: ExpressionDataModule,
    real: tuple[torch.Tensor, torch.Tensor],
    device: str,
) -> dict[str, float]:
    """Returns the judge's macro recall, the Fréchet distance to the real faces' moments, the share of near copies."""
    seen = torch.cat(
        [judge.predict_probabilities(part.to(device).float() / 255).argmax(1) for part in images.split(64)]
    )
    wrong = [name for name in data.label_space if name not in judge.label_space]
    if wrong:
        raise ValueError(f"--judge: it does not know '{wrong[0]}'")
    seen_names = [judge.label_space[index] for index in seen.tolist()]
    asked = [data.label_space[index] for index in label.tolist()]
    recalls = [
        statistics.mean(float(s == a) for s, a in zip(seen_names, asked, strict=True) if a == name)
        for name in sorted(set(asked))
    ]
    distance = frechet_distance(real, weighted_moments(features_of(images, judge, device)))
    copies = float(data.near_copies().find(images).double().mean())
    accuracy = statistics.mean(recalls)
    return {"judge_accuracy": round(accuracy, 4), "frechet": round(distance, 4), "near_copies": round(copies, 4)}


def main() -> None:
    """Measures all loops and prints one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--generator", required=True, help="trained generator: checkpoint or folder")
    parser.add_argument("--guide", required=True, help="classifier checkpoint that guides")
    parser.add_argument("--judge", required=True, help="another classifier checkpoint, which scores")
    parser.add_argument("--data", default="../shared/data/fer2013", help="FER2013 with FER+ votes, or 'drawn'")
    parser.add_argument(
        "--config",
        type=Path,
        nargs="+",
        default=[CONFIG],
        help="settings of ours: synthesis, layout, guidance; a later file changes what earlier ones say",
    )
    names = ["published", "ours", "ours_same_steps", "unguided"]
    parser.add_argument("--loops", nargs="+", choices=names, default=names)
    parser.add_argument(
        "--published_step_size", type=float, help="λ of the published loop (default: as far in all as ours may go)"
    )
    parser.add_argument("--batch_size", type=int, default=56)
    parser.add_argument("--rounds", type=int, default=5, help="batches of each loop")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--memory_of", choices=names, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.memory_of:
        args.loops = [args.memory_of]
        print(peak_bytes(args))
        return
    loops, data, judge = make_loops(args)
    expressions = [name for name in LABEL_SPACES["basic7"] if name in data.label_space]
    times: dict[str, list[float]] = {name: [] for name in loops}
    images: dict[str, list[torch.Tensor]] = {name: [] for name in loops}
    small = argparse.Namespace(**{**vars(args), "batch_size": 4})
    for loop, settings in loops.values():
        loop(request_of(0, small, expressions, settings))  # warm-up
    order = list(loops)
    for batch in range(args.rounds):
        for name in order if batch % 2 == 0 else order[::-1]:
            loop, settings = loops[name]
            request = request_of(batch, args, expressions, settings)
            started = synchronised(args.device)
            images[name].append(loop(request).cpu())
            times[name].append(synchronised(args.device) - started)
            print(f"round {batch + 1}, {name}: {times[name][-1]:.2f} s", file=sys.stderr, flush=True)
    total = args.rounds * args.batch_size
    label = torch.tensor([data.label_space.index(expressions[i % len(expressions)]) for i in range(total)])
    real = real_moments(label, judge, data, args.device)
    report: dict[str, Any] = {}
    for name in loops:
        report[name] = {
            "images_per_s": round(args.batch_size / statistics.median(times[name]), 3),
            "peak_mb": round(measured_alone(name) / 2**20, 1),
            **quality(torch.cat(images[name]), label, judge, data, real, args.device),
        }

    def ratio(first: str, second: str) -> float | None:
        """Median over the rounds of time(first) ÷ time(second)."""
        if first not in times or second not in times:
            return None
        return round(statistics.median(a / b for a, b in zip(times[first], times[second], strict=True)), 3)

    def memory(first: str, second: str) -> float | None:
        if first not in report or second not in report:
            return None
        return round(report[first]["peak_mb"] / max(report[second]["peak_mb"], 1e-9), 3)

    result = {
        "benchmark": "guided_sampling",
        "speedup": ratio("published", "ours"),
        "speedup_same_steps": ratio("published", "ours_same_steps"),
        "guided_over_unguided": ratio("ours", "unguided"),
        "memory_ratio": memory("ours", "published"),
        "memory_ratio_same_steps": memory("ours_same_steps", "published"),
        **report,
        "near_copies_real": round(data.near_copies().held_out_share(), 4),
        "published_step_size": args.published_step_size,
        "faces": total,
        "batch_size": args.batch_size,
        "rounds": args.rounds,
        "seed": args.seed,
        "device": torch.cuda.get_device_name() if args.device.startswith("cuda") else platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
