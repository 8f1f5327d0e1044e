"""What a mixed run costs, this build beside an older one: classifier training at ratio 0.5, each face used four times.

    git worktree add ../older cacc19f
    python tests/benchmarks/mixed_run.py --older ../older --generator runs/generator-fer2013/checkpoints/last.ckpt \
        --guide runs/guide-ferplus/checkpoints/last.ckpt --judge runs/judge-ferplus/checkpoints/last.ckpt

Both builds run ``train.py fit`` with their own ``configs/mixed/fer2013.yaml`` on FER2013 with FER+'s votes, the same
classifier, weights, voters, seeds and numbers, in turn, in changing order, each in a process of its own and with one
thread. What a step costs is the processor's time of a run less that of a run of one step, which pays for the start, the
first faces and the validation. ``--runs ours ahead`` compares this build with itself where it makes faces beside the
training (``synthesis.ahead``), which wants a second core that is idle.

Prints one JSON line. ``speedup`` is steps per second, ours ÷ the older build's, the median over seeds of processor
time; ``speedup_clock`` the same by the clock; ``ahead_clock`` that of the build with ``synthesis.ahead`` ÷ without.
``accuracy`` and ``mean_class_accuracy`` on PublicTest are of each seed in turn: so few steps say whether the faces are
worse, not what a training reaches.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parents[2]
BAR = 1.8
RUNS = ("ours", "older", "ahead")
_SCORES = ("val/accuracy", "val/mean_class_accuracy")


def arguments(options: argparse.Namespace, name: str, steps: int, seed: int, run_dir: Path) -> list[str]:
    """Returns the command line of one fit, which both builds understand."""
    configs = ("data/ferplus", "classifier/ferplus_small", "mixed/fer2013", "trainer/cpu")
    given = [word for name in configs for word in ("--config", f"configs/{name}.yaml")]
    given += ["--data.synthetic_ratio", "0.5", "--synthesis.max_reuse", "4", "--synthesis.initial_samples", "56"]
    given += ["--synthesis.generator", str(options.generator), "--guidance.guide", str(options.guide)]
    given += [f"--pseudo_labels.voters=[{options.guide},{options.judge}]", "--data.batch_size", str(options.batch_size)]
    given += ["--trainer.max_epochs", "1", "--trainer.limit_train_batches", str(steps), "--trainer.logger", "false"]
    given += ["--trainer.check_val_every_n_epoch", "1"]
    given += ["--seed_everything", str(seed), "--run_dir", str(run_dir)]
    return [*given, *(["--synthesis.ahead", "true"] if name == "ahead" else [])]


def fit(options: argparse.Namespace, name: str, steps: int, seed: int) -> dict[str, Any]:
    """Runs one fit, and returns what it took and scored."""
    build = options.older if name == "older" else HERE
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "train.py", "fit", *arguments(options, name, steps, seed, Path(folder) / "run")]
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        done = subprocess.run(
            command, cwd=build, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False
        )
        clock, after = time.monotonic() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
        if done.returncode:
            raise RuntimeError(f"{build}: {' '.join(command)}\n{done.stderr[-2000:]}")
        summary = json.loads((Path(folder) / "run" / "summary.json").read_text())
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    metrics = {**summary.get("best", {}), **summary["metrics"]}
    return {"cpu": cpu, "clock": clock, **{name: metrics.get(name) for name in _SCORES}, "counts": summary["counts"]}


def main() -> None:
    """Runs both builds and prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--older", type=Path, help="checkout of the other build")
    parser.add_argument("--runs", nargs="+", choices=RUNS, default=["ours", "older"])
    for name in ("generator", "guide", "judge"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    options = parser.parse_args()
    if "older" in options.runs and options.older is None:
        parser.error("--older: found none, expected a checkout of the other build (or --runs ours ahead)")
    for name in ("older", "generator", "guide", "judge"):
        if (path := getattr(options, name)) is not None:
            setattr(options, name, path.resolve())
    start = {name: fit(options, name, 1, options.seeds[0]) for name in options.runs}
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in options.runs}
    for turn, seed in enumerate(options.seeds):
        for name in sorted(options.runs, reverse=bool(turn % 2)):
            runs[name].append(fit(options, name, options.steps, seed))
            print(f"seed {seed}, {name}: {runs[name][-1]}", file=sys.stderr, flush=True)

    def ratio(slow: str, fast: str, of: str) -> float | None:
        if not {slow, fast} <= set(runs):
            return None
        took = {name: [run[of] - start[name][of] for run in found] for name, found in runs.items()}
        return round(statistics.median(a / b for a, b in zip(took[slow], took[fast], strict=True)), 2)

    figures: dict[str, Any] = {"speedup": ratio("older", "ours", "cpu"), "bar": BAR}
    figures |= {"speedup_clock": ratio("older", "ours", "clock"), "ahead_clock": ratio("ours", "ahead", "clock")}
    figures |= {"steps": options.steps, "batch_size": options.batch_size, "seeds": options.seeds}
    for name, found in runs.items():
        seconds = statistics.median(run["cpu"] - start[name]["cpu"] for run in found) / (options.steps - 1)
        figures[name] = {"cpu_s_per_step": round(seconds, 3), "counts": [run["counts"] for run in found]}
        for score in _SCORES:
            figures[name][score.removeprefix("val/")] = [run[score] for run in found]
    print(json.dumps({**figures, "machine": platform.processor() or platform.machine()}))


if __name__ == "__main__":
    main()
