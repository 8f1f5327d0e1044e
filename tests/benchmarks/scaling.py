"""What a second rank is worth: images/s of synthesis and of mixed training on two ranks ÷ twice those of one.

    python tests/benchmarks/scaling.py                       # four rounds of both
    python tests/benchmarks/scaling.py --rounds 1 --parts synthesis

Each rank has one core and one thread, and the same work alone as beside another: a set of so many faces for each
(``predict``, written to Parquet), or as many steps with the same batch for each (a mixed ``fit``, half of each batch
made on the fly, gradients summed over gloo). Runs are those of ``train.py``, started as ``srun`` starts them, from
processes that are forked (`tests.fixtures.forked_ranks`); runs on one rank and on two alternate, in changing order,
and the median round counts.

- ``wall``: images/s by the clock. It says something on a machine with two free cores, and nothing beside other jobs.
- ``ceiling``: the same of two runs of one rank each at the same time, which know nothing of each other. Below 1 it is
  what two cores of this machine cost each other (a shared clock, caches, two threads of one core); ``of_ceiling`` is
  ``wall`` ÷ that: what is ours.
- ``cpu``: the same in CPU seconds: images per CPU second alone ÷ those of the slower of two ranks. It holds the work
  that a second rank adds (collectives, DDP's copies) and the uneven division of the work, and not what ranks wait while
  bytes are under way; on one host that is memory.

Prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # one core a rank; and a process with threads cannot be forked
# Started as a file, Python looks for modules beside that file only.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch

import lightning_modules.classifier  # noqa: F401  (each once, before ranks are forked)
from tests.fixtures.forked_ranks import Job

PROJECT = Path(__file__).resolve().parents[2]
CONFIGS, GENERATOR = PROJECT / "configs", PROJECT / "demo" / "weights" / "drawn_generator"
PARTS = ("synthesis", "mixed")
WARM_UP = 2
LIMIT_S = 1800.0


def clock(last: int = 0) -> str:
    """Returns the option that adds the clock."""
    given = {"class_path": "tests.fixtures.segment_clock.SegmentClock", "init_args": {"first": WARM_UP, "last": last}}
    return f"--trainer.callbacks+={json.dumps(given)}"


def command(part: str, ranks: int, options: argparse.Namespace) -> list[str]:
    """Returns the command line of one run; each rank has as much to do as one alone."""
    common = [f"--trainer.devices={ranks}", "--trainer.accelerator=cpu", "--trainer.precision=32-true"]
    common += ["--trainer.logger=false", *(["--trainer.strategy=ddp"] if ranks > 1 else [])]
    if part == "synthesis":
        batches = WARM_UP + options.batches
        return [
            "predict",
            f"--config={CONFIGS / 'generator' / 'drawn.yaml'}",
            "--data.reader.init_args.count={train: 14, val: 7, test: 7}",
            f"--config={CONFIGS / 'synthesise' / 'plain.yaml'}",
            f"--ckpt_path={GENERATOR}",
            f"--data.eval_batch_size={options.batch_size}",
            f"--data.synthesis_count={batches * options.batch_size * ranks}",
            "--model.init_args.sampling.num_steps=6",
            *common,
            clock(),
        ]
    steps = WARM_UP + options.steps
    return [
        "fit",
        f"--config={CONFIGS / 'classifier' / 'tiny.yaml'}",
        f"--config={CONFIGS / 'demo' / 'few_faces.yaml'}",
        f"--config={CONFIGS / 'demo' / 'mixed.yaml'}",
        f"--synthesis.generator={GENERATOR}",
        "--data.reader.init_args.count={train: 112, val: 7, test: 7}",
        f"--data.batch_size={2 * options.batch_size}",
        # As many batches of faces in each stretch of steps, on every rank.
        f"--synthesis.batch_size={options.batch_size}",
        f"--synthesis.initial_samples={options.batch_size}",
        "--synthesis.max_reuse=2",
        "--synthesis.sampling.num_steps=6",
        f"--trainer.max_steps={steps}",
        "--trainer.max_epochs=-1",
        "--trainer.limit_val_batches=0",
        *common,
        clock(steps),
    ]


def measure(
    part: str, ranks: int, folder: Path, number: int, options: argparse.Namespace, apart: bool = False
) -> dict[str, float]:
    """Returns images/s by the clock, and images per CPU second of the slowest rank, of one run.

    Args:
        part: one of ``PARTS``.
        ranks: a core each.
        folder: for runs and logs.
        number: of the job.
        options: of the command line.
        apart: each rank is a run of its own.

    Raises:
        RuntimeError: a run failed, or did not do what was asked.
    """
    cores = sorted(os.sched_getaffinity(0))
    places = [cores[rank % len(cores)] for rank in range(ranks)]
    if apart:
        each_command = command(part, 1, options)
        jobs = [Job(each_command, folder / str(i), number + 500 * (1 + i), 1, [core]) for i, core in enumerate(places)]
    else:
        jobs = [Job(command(part, ranks, options), folder, number, ranks, places)]
    for job in jobs:
        job.start()
    for job in jobs:
        if not job.wait(LIMIT_S) or set(job.codes.values()) != {0}:
            log = (job.folder / "log").read_text()[-3000:]
            raise RuntimeError(f"{part} on {ranks} ranks: exit codes {job.codes}\n{log}")
    clocks = [json.loads((job.run / f"clock{rank}.json").read_text()) for job in jobs for rank in range(job.world_size)]
    images = {found["images"] for found in clocks}
    if len(images) > 1 or not all(images):
        raise RuntimeError(f"{part} on {ranks} ranks: {clocks}, expected as many images on each")
    (each,) = images
    wall, cpu = max(found["wall_s"] for found in clocks), max(found["cpu_s"] for found in clocks)
    return {"wall": ranks * each / wall, "cpu": ranks * each / cpu}


def main() -> None:
    """Measures both parts and prints one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--rounds", type=int, default=4, help="runs on one rank and on two, of each part")
    parser.add_argument("--batch_size", type=int, default=28, help="faces made at a time; half a batch of training")
    parser.add_argument("--batches", type=int, default=8, help="timed batches of a set, per rank")
    parser.add_argument("--steps", type=int, default=16, help="timed steps of a fit")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name in [name for name in os.environ if name.startswith(("SLURM_", "SYNFER_"))]:
        del os.environ[name]
    result: dict[str, Any] = {"benchmark": "scaling"}
    number = 3000
    with tempfile.TemporaryDirectory() as temporary:
        for part in options.parts:
            found: dict[str, list[dict[str, float]]] = {"1": [], "2": [], "apart": []}
            for turn in range(options.rounds):
                for name in list(found) if turn % 2 == 0 else list(found)[::-1]:
                    number += 1
                    folder, ranks = Path(temporary) / f"{part}-{turn}-{name}", 1 if name == "1" else 2
                    found[name].append(measure(part, ranks, folder, number, options, name == "apart"))
                    print(json.dumps({part: {name: found[name][-1]}}), file=sys.stderr, flush=True)
            said: dict[str, Any] = {}
            walls = {name: [one["wall"] for one in rates] for name, rates in found.items()}
            for kind, first, times, second in (("ceiling", "apart", 2, "1"), ("of_ceiling", "2", 1, "apart")):
                rounds = [a / (times * b) for a, b in zip(walls[first], walls[second], strict=True)]
                said[kind], said[f"{kind}_rounds"] = round(statistics.median(rounds), 3), [round(x, 3) for x in rounds]
            for kind in ("wall", "cpu"):
                alone, beside = ([one[kind] for one in found[name]] for name in ("1", "2"))
                ratios = [two / (2 * one) for one, two in zip(alone, beside, strict=True)]
                said[kind] = round(statistics.median(ratios), 3)
                said[f"{kind}_rounds"] = [round(ratio, 3) for ratio in ratios]
                said[f"{kind}_images_per_s"] = [round(statistics.median(rates), 2) for rates in (alone, beside)]
            result[part] = said
    result |= {"rounds": options.rounds, "cores": os.cpu_count(), "machine": platform.machine()}
    print(json.dumps({**result, "torch": torch.__version__}))


if __name__ == "__main__":
    main()
