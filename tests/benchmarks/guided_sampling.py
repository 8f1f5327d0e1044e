r"""What guided sampling costs: the published loop, ours, and plain sampling, side by side on the same weights.

    python tests/benchmarks/guided_sampling.py --generator runs/generator-fer2013/checkpoints/last.ckpt \
        --guide runs/guide-ferplus/checkpoints/last.ckpt --judge runs/judge-ferplus/checkpoints/last.ckpt

All loops make the same requested faces (expressions, sample ids, seed, layout sources), batch after batch in turn,
in changing order, so that whatever else the machine does falls on all alike. They begin at noise, or at layouts where
``--config`` says so (``configs/mixed/fer2013.yaml configs/mixed/layout.yaml``). Each step of ours comes on top of the
one before:

* ``published``: SynFER as it is written down. 50 DDIM steps, from a layout the last 35 of them, inverted from a random
  training face, guided from the 15th on: conditional pass with gradients, decoding, guide, backward, and after that
  classifier-free guidance on a doubled batch.
* ``text``: ``ExpressionGenerator.synthesise`` as the configs had it until they went through the latents: 12 steps, or
  12 of 14 from a layout, guided through the text (``--text_step``, ``--text_every``).
* ``latents``: guided as ``--config`` says, through the latents.
* ``steps``: and with as many steps as it says.
* ``interval``: and classifier-free guidance in the steps that it says alone, where it says so.
* ``cold``: from layouts, with a cache of them that is empty before each batch.
* ``ours``: all of ``--config``, the layouts in the cache before each batch.
* ``distilled``, ``few_steps``: ours by the students of ``--students`` (docs/distillation.md): guidance in one pass, and
  their own few steps.
* ``entropy``, ``calibrated``: ours with ``--entropy_weight``, or with the guide's temperatures in ``--calibration``, a
  file that a run with ``guidance.calibration`` has written.
* ``unguided``: ours without guidance.
* ``ours_same_steps``: through the text on the published schedule.

All run under the same autocast. Prints one JSON line. ``speedup`` is ours ÷ published in images/s, ``speedup_cold``
the same of ``cold``, ``speedup_distilled`` and ``speedup_few_steps`` of the students, ``guided_over_unguided`` time
of ours ÷ unguided, ``memory_ratio`` peak of ours ÷ published: medians over the rounds that both have, memory from one
batch in a process of its own (peak above what was resident when it began; on a GPU what CUDA allocated). ``…_cpu``
are the same of the processor's time instead of the clock's, which is what to look at where others share the machine.
``passes`` are faces through the UNet for each face made, a backward pass counted as two, ``guide_passes`` those
through the guide (forward and backward as one). ``judge_accuracy`` is the macro recall of the judge, ``frechet`` the
Fréchet distance in the judge's features to the PublicTest faces, weighted to the same classes, ``recall`` improved
recall in them, ``near_copies`` the share of faces that are near copies of a training face, without which that
distance says nothing: it rewards copying (``near_copies_real``: of PublicTest faces). Distance and recall depend on
how many faces there are (``faces`` of each loop). The guide must not be the judge.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
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
from synfer.metrics.precision_recall import improved_precision_recall
from synfer.networks.feature_extractor import ClassifierFeatures
from synfer.pictures.face_comparison import save_expression_grid
from synfer.synthesis.diffusion.layout_cache import LayoutCache
from synfer.synthesis.request import SamplingSettings, SynthesisRequest

CONFIG = Path(__file__).resolve().parents[2] / "configs" / "mixed" / "fer2013.yaml"
STEPS, INVERTED, GUIDED_FROM = 50, 35, 15
"""The published schedule (METHOD.md: 50 DDIM steps, 35 inverted, guidance from the 15th of those)."""

BEFORE_NOISE, BEFORE_LAYOUT = 12, (14, 12)
"""Steps of ours, and those inverted, before guidance went through the latents."""

STUDENTS = ("distilled", "few_steps")
LOOPS = (
    "published",
    "text",
    "latents",
    "steps",
    "interval",
    "cold",
    "ours",
    *STUDENTS,
    "entropy",
    "calibrated",
    "unguided",
    "ours_same_steps",
)
UNASKED = ("ours_same_steps", "entropy", "calibrated")
"""Loops that run where they are named alone."""

Loop = Callable[[SynthesisRequest], torch.Tensor]


def published_loop(
    generator: ExpressionGenerator, layout: LayoutInitialisation | None, guide: ExpressionClassifier, step_size: float
) -> Loop:
    """Returns SynFER's loop, written down plainly; it makes uint8 images (n, 3, H, W)."""

    @torch.no_grad()
    def run(request: SynthesisRequest) -> torch.Tensor:
        settings = request.settings
        assert settings is not None
        state = generator.synthesiser.start(request)
        if layout is not None:
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


class OurLoop:
    """The framework's own way to the same faces."""

    def __init__(self, generator: ExpressionGenerator, hooks: list[Any]) -> None:
        self.generator, self.hooks = generator, hooks

    def __call__(self, request: SynthesisRequest) -> torch.Tensor:
        """Returns uint8 images (n, 3, H, W)."""
        return self.generator.synthesise(request, self.hooks).images


class Loops:
    """What is measured: name → loop and its settings, everything loaded.

    Raises:
        ValueError: guide and judge are one network, or the guide has other classes than the generator.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        config = OmegaConf.to_container(OmegaConf.merge(*map(OmegaConf.load, args.config)))
        assert isinstance(config, dict)
        self.args, self.config = args, config
        self.generator = ExpressionGenerator.load_trained(args.generator, args.device)
        taught = [ExpressionGenerator.load_trained(path, args.device) for path in args.students]
        self.students = dict(zip(STUDENTS, taught, strict=False))
        for each in (self.generator, *taught):
            each.synthesiser.bf16 &= not args.float32
        self.guide = ExpressionClassifier.load_trained(args.guide, args.device)
        self.judge = ExpressionClassifier.load_trained(args.judge, args.device)
        if self.guide.weights_fingerprint() == self.judge.weights_fingerprint():
            raise ValueError(f"--judge '{args.judge}' is the guide's own network: a judge must be independent of it")
        if self.guide.label_space != self.generator.label_space:
            raise ValueError(
                f"--guide '{args.guide}': found the classes {list(self.guide.label_space)}, expected the generator's "
                f"{list(self.generator.label_space)}"
            )
        self.data = read_data(args, self.generator)
        self.from_layout: bool = config["layout"]["enabled"]
        self.settings = SamplingSettings(**config["synthesis"]["sampling"])
        self.settings = replace(self.settings, guidance_interval=tuple(self.settings.guidance_interval))  # type: ignore[arg-type]
        run = BEFORE_LAYOUT[1] if self.from_layout else BEFORE_NOISE
        if args.text_step is None:
            args.text_step = 3.0 if self.from_layout else 6.0  # what the configs said until they went through latents
        if args.text_every is None:
            args.text_every = 1 if self.from_layout else 2
        if args.published_step_size is None:  # the text may go as far as in ours, in more and smaller steps
            own = len(range(config["guidance"]["start_step"], run, args.text_every))
            steps = (INVERTED if self.from_layout else STEPS) - GUIDED_FROM
            args.published_step_size = args.text_step * own / steps
        self.caches: dict[str, Path] = {}
        self.guides: dict[str, SemanticGuidance] = {}
        same = [] if self.from_layout else ["cold", "interval"]  # as ours
        if self.settings.guidance_interval == (0.0, 1.0):
            same.append("interval" if self.from_layout else "steps")
        same += [name for name in STUDENTS if name not in self.students]
        self.loops = {name: self._loop(name) for name in args.loops if name not in same}

    def _loop(self, name: str) -> tuple[Loop, SamplingSettings]:
        long = SamplingSettings(num_steps=STEPS, guidance_scale=self.settings.guidance_scale)
        if name == "published":
            layout = self._layout(INVERTED) if self.from_layout else None
            return published_loop(self.generator, layout, self.guide, self.args.published_step_size), long
        everywhere = replace(self.settings, guidance_interval=(0.0, 1.0))
        before = replace(everywhere, num_steps=BEFORE_LAYOUT[0] if self.from_layout else BEFORE_NOISE)
        settings = {"text": before, "latents": before, "steps": everywhere, "ours_same_steps": long}.get(
            name, self.settings
        )
        generator = self.students.get(name, self.generator)
        few = generator.synthesiser.distilled[1]
        if few is not None:
            settings = replace(settings, num_steps=few, scheduler="few_step")
        inverted = {"text": BEFORE_LAYOUT[1], "latents": BEFORE_LAYOUT[1], "ours_same_steps": INVERTED}.get(
            name, self.config["layout"]["num_inverted"] if few is None else few - 1
        )
        hooks: list[Any] = []
        if self.from_layout:
            keeps = name in ("cold", "ours", "entropy", "calibrated", "unguided", *STUDENTS)
            if keeps:
                self.caches[name] = Path(tempfile.mkdtemp(prefix="layouts-"))
            hooks.append(self._layout(inverted, str(self.caches[name]) if keeps else None))
        if name != "unguided":
            hooks.append(self._guidance(name))
        return OurLoop(generator, hooks), settings

    def _layout(self, inverted: int, cache: str | None = None) -> LayoutInitialisation:
        found = {**self._group("layout"), "num_inverted": inverted, "cache_dir": cache}
        callback = LayoutInitialisation(True, **found)
        assert self.data.train_table is not None and self.data.val_table is not None
        callback.use_table(self.data.train_table, [self.data.val_table])
        callback._weights_stay = True  # as in a run: named once
        return callback

    def _guidance(self, name: str) -> SemanticGuidance:
        found = self._group("guidance")
        if name in ("text", "ours_same_steps"):
            found |= {"through": "text", "step_size": self.args.text_step, "every": self.args.text_every}
        if name == "ours_same_steps":
            found |= {"start_step": GUIDED_FROM, "step_size": self.args.published_step_size, "every": 1}
        if name == "entropy":
            found["entropy_weight"] = self.args.entropy_weight
        if name == "calibrated":
            found["calibration"] = self.args.calibration
        self.guides[name] = SemanticGuidance(True, self.args.guide, **found)
        return self.guides[name]

    def _group(self, group: str) -> dict[str, Any]:
        return {name: value for name, value in self.config[group].items() if name not in ("enabled", "guide")}

    def prepare(self, name: str, request: SynthesisRequest) -> None:
        """Brings the cache of layouts into the state in which a batch is to be made: empty, or holding these."""
        if name not in self.caches:
            return
        (layout,) = [hook for hook in self.hooks(name) if isinstance(hook, LayoutInitialisation)]
        assert layout.cache is not None
        if name == "cold":
            layout.cache.close()
            shutil.rmtree(self.caches[name])
            layout.cache = LayoutCache(self.caches[name], layout.cache.most_bytes)
            return
        with torch.no_grad():
            layout.on_denoising_start(self.students.get(name, self.generator).synthesiser.start(request))
        layout.cache.flush()

    def hooks(self, name: str) -> list[Any]:
        """Returns the hooks of one of our loops."""
        loop: Any = self.loops[name][0]
        return loop.hooks

    def close(self) -> None:
        """Removes the caches."""
        for folder in self.caches.values():
            shutil.rmtree(folder, ignore_errors=True)


def read_data(args: argparse.Namespace, generator: ExpressionGenerator) -> ExpressionDataModule:
    """Returns the data whose faces are layouts, and the measure of the others."""
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
    return data


class Passes:
    """Counts faces through UNet and guides.

    Args:
        unets: what denoises.
        guides: what guides.
    """

    def __init__(self, unets: Sequence[torch.nn.Module], guides: Sequence[torch.nn.Module]) -> None:
        self.unet = self.guide = 0
        for unet in unets:
            unet.register_forward_pre_hook(self._through_unet)
        for guide in guides:
            guide.register_forward_pre_hook(self._through_guide)

    def _through_unet(self, module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        self.unet += len(inputs[0]) * (3 if torch.is_grad_enabled() else 1)

    def _through_guide(self, module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        self.guide += len(inputs[0])


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
    made = Loops(args)
    (name,) = args.loops
    loop, settings = made.loops[name]
    names = [name for name in LABEL_SPACES["basic7"] if name in made.data.label_space]
    small = argparse.Namespace(**{**vars(args), "batch_size": 2})
    made.prepare(name, request_of(0, args, names, settings))
    loop(request_of(0, small, names, settings))  # libraries make their own buffers at first use
    if args.device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        loop(request_of(0, args, names, settings))
        return torch.cuda.max_memory_allocated() - before
    reset_peak()
    before = status_bytes("VmRSS")
    loop(request_of(0, args, names, settings))
    peak = status_bytes("VmHWM") - before
    made.close()
    return peak


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


def real_features(
    label: torch.Tensor, judge: ExpressionClassifier, data: ExpressionDataModule, device: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the held-out faces' features, (n, D), and weights, (n,), that make their classes those of ``label``."""
    table = data.val_table
    assert table is not None
    faces = MixedDataset(table)
    asked = torch.bincount(label, minlength=len(data.label_space))
    rows = [i for i, code in enumerate(table.label.tolist()) if asked[code]]
    pixels = torch.cat([as_rgb(faces.__getitems__(rows[i : i + 256])["image"]) for i in range(0, len(rows), 256)])
    codes = torch.from_numpy(table.label[rows])
    share = asked / torch.bincount(codes, minlength=len(data.label_space)).clamp_min(1)
    return features_of(pixels, judge, device), share[codes]


@torch.no_grad()
def quality(
    images: torch.Tensor,
    label: torch.Tensor,
    judge: ExpressionClassifier,
    data: ExpressionDataModule,
    real: tuple[torch.Tensor, torch.Tensor],
    device: str,
) -> dict[str, float]:
    """Returns the judge's macro recall, Fréchet distance and recall beside real features, the share of near copies."""
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
    features, (references, weights) = features_of(images, judge, device), real
    return {
        "faces": len(images),
        "judge_accuracy": round(statistics.mean(recalls), 4),
        "frechet": round(frechet_distance(weighted_moments(references, weights), weighted_moments(features)), 4),
        "recall": round(improved_precision_recall(features, references, real_weights=weights)[1], 4),
        "near_copies": round(float(data.near_copies().find(images).double().mean()), 4),
    }


def main() -> None:
    """Measures all loops and prints one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--generator", required=True, help="trained generator: checkpoint or folder")
    parser.add_argument(
        "--students",
        nargs="*",
        default=[],
        help="of the generator: one whose guidance is distilled, and one distilled to few steps",
    )
    parser.add_argument("--float32", action="store_true", help="no bfloat16, for a processor without its units")
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
    parser.add_argument("--loops", nargs="+", choices=LOOPS, help=f"default: all but {', '.join(UNASKED)}")
    parser.add_argument("--memory", nargs="*", choices=LOOPS, help="loops whose memory is measured (default: all)")
    parser.add_argument(
        "--published_step_size",
        type=float,
        help="λ of the published loop (default: as far in all as the text may go)",
    )
    parser.add_argument("--text_step", type=float, help="λ of the loop 'text' (default: 6 from noise, 3 from layouts)")
    parser.add_argument("--text_every", type=int, help="its guided steps (default: 2 from noise, 1 from layouts)")
    parser.add_argument("--entropy_weight", type=float, default=0.5, help="of the loop 'entropy'")
    parser.add_argument("--calibration", help="file of the guide's temperatures, of the loop 'calibrated'")
    parser.add_argument("--batch_size", type=int, default=56)
    parser.add_argument("--rounds", type=int, default=5, help="batches of each loop")
    parser.add_argument("--published_rounds", type=int, help="batches of the published loop, which is slow")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--pictures", type=Path, help="folder for a grid of each loop's faces; they show real people")
    parser.add_argument("--memory_of", choices=LOOPS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.memory_of:
        args.loops = [args.memory_of]
        print(peak_bytes(args))
        return
    if "calibrated" in (args.loops or []) and args.calibration is None:
        parser.error("loop 'calibrated': found no --calibration, expected the file of a guide's temperatures")
    if args.loops is None:
        args.loops = [name for name in LOOPS if name not in UNASKED]
    made = Loops(args)
    try:
        print(json.dumps(measured(made)))
    finally:
        made.close()


def measured(made: Loops) -> dict[str, Any]:
    """Runs all loops in turn and returns what the JSON line holds."""
    args, data = made.args, made.data
    loops = made.loops
    expressions = [name for name in LABEL_SPACES["basic7"] if name in data.label_space]
    clock: dict[str, list[float]] = {name: [] for name in loops}
    processor: dict[str, list[float]] = {name: [] for name in loops}
    passes: dict[str, list[float]] = {}
    images: dict[str, list[torch.Tensor]] = {name: [] for name in loops}
    unets = [each.model.unet for each in (made.generator, *made.students.values())]
    counted = Passes(unets, [made.guide, *(hook.guide for hook in made.guides.values())])  # type: ignore[list-item]
    small = argparse.Namespace(**{**vars(args), "batch_size": 4})
    for loop, settings in loops.values():
        loop(request_of(0, small, expressions, settings))  # warm-up
    order = list(loops)
    for batch in range(args.rounds):
        for name in order if batch % 2 == 0 else order[::-1]:
            if name == "published" and batch >= (args.published_rounds or args.rounds):
                continue
            loop, settings = loops[name]
            request = request_of(batch, args, expressions, settings)
            made.prepare(name, request)
            counted.unet = counted.guide = 0
            started, used = synchronised(args.device), time.process_time()
            images[name].append(loop(request).cpu())
            clock[name].append(synchronised(args.device) - started)
            processor[name].append(time.process_time() - used)
            passes[name] = [counted.unet / len(request), counted.guide / len(request)]
            print(f"round {batch + 1}, {name}: {clock[name][-1]:.2f} s", file=sys.stderr, flush=True)
    total = args.rounds * args.batch_size
    label = torch.tensor([data.label_space.index(expressions[i % len(expressions)]) for i in range(total)])
    real = real_features(label, made.judge, data, args.device)
    report: dict[str, Any] = {}
    for name in loops:
        faces = torch.cat(images[name])
        asked = label[: len(faces)]
        report[name] = {
            "images_per_s": round(args.batch_size / statistics.median(clock[name]), 3),
            "images_per_cpu_s": round(args.batch_size / statistics.median(processor[name]), 3),
            "passes": round(passes[name][0], 2),
            "guide_passes": round(passes[name][1], 2),
            **quality(faces, asked, made.judge, data, real, args.device),
        }
        if args.memory is None or name in args.memory:
            report[name]["peak_mb"] = round(measured_alone(name) / 2**20, 1)
        if args.pictures is not None:
            args.pictures.mkdir(parents=True, exist_ok=True)
            codes = [data.label_space.index(each) for each in expressions]
            save_expression_grid(faces, asked, codes, expressions, args.pictures / f"{name}.png")

    def ratio(first: str, second: str, times: dict[str, list[float]]) -> float | None:
        """Median over the rounds of time(first) ÷ time(second)."""
        if first not in times or second not in times:
            return None
        return round(statistics.median(a / b for a, b in zip(times[first], times[second], strict=False)), 3)

    def memory(first: str, second: str) -> float | None:
        if "peak_mb" not in report.get(first, {}) or "peak_mb" not in report.get(second, {}):
            return None
        return round(report[first]["peak_mb"] / max(report[second]["peak_mb"], 1e-9), 3)

    ratios = {
        "speedup": ("published", "ours"),
        "speedup_cold": ("published", "cold"),
        "speedup_distilled": ("published", "distilled"),
        "speedup_few_steps": ("published", "few_steps"),
        "speedup_same_steps": ("published", "ours_same_steps"),
        "guided_over_unguided": ("ours", "unguided"),
    }
    return {
        "benchmark": "guided_sampling",
        "begins_at": "layout" if made.from_layout else "noise",
        **{name: ratio(*pair, clock) for name, pair in ratios.items()},
        **{f"{name}_cpu": ratio(*pair, processor) for name, pair in ratios.items()},
        "memory_ratio": memory("ours", "published"),
        "memory_ratio_same_steps": memory("ours_same_steps", "published"),
        **report,
        "near_copies_real": round(data.near_copies().held_out_share(), 4),
        "published_step_size": args.published_step_size,
        "text_step": args.text_step,
        "batch_size": args.batch_size,
        "rounds": args.rounds,
        "seed": args.seed,
        "device": torch.cuda.get_device_name() if args.device.startswith("cuda") else platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


if __name__ == "__main__":
    main()
