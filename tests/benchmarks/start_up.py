"""What a user waits for before anything happens, in CPU seconds, which other processes disturb less than the clock.

    python tests/benchmarks/start_up.py
    python tests/benchmarks/start_up.py --repeats 1 --parts help typo       # a look
    python tests/benchmarks/start_up.py --project ../other --parts typo     # another checkout, an older one say

Prints one JSON line of medians; each figure is of a process of its own, user and system time together:

- ``torch_cpu_s``: ``python -c "import torch"``, which no training starts without; ``…_ratio`` is a figure divided
  by it, to be compared between machines;
- ``help_cpu_s``: ``synfer --help``;
- ``fit_help_cpu_s``: ``synfer fit --help``, all options of a training;
- ``typo_cpu_s``: ``fit --data.batchsize 3``, a misspelt key of a group; ``class_typo_cpu_s``: one of a class that a
  config names, ``--model.learningrate``;
- ``first_step_cpu_s``: from the command ``fit`` to the end of the first training step (448 drawn faces, W&B offline).

A checkout without the ``synfer`` command is measured through its ``train.py``.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

PROJECT = Path(__file__).resolve().parents[2]
RUN = ("--config=configs/data/drawn.yaml", "--config=configs/classifier/tiny.yaml")
PARTS = ("help", "fit_help", "typo", "class_typo", "first_step")
ENVIRONMENT = {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "OMP_NUM_THREADS": "1"}


def cpu_seconds(command: list[str], project: Path, expected: int) -> float:
    """Returns the CPU seconds of a process and of those that it waits for.

    Args:
        command: what to run, there.
        project: working folder.
        expected: its exit code.

    Raises:
        RuntimeError: another exit code.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, env={**os.environ, **ENVIRONMENT})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != expected:
        raise RuntimeError(
            f"{' '.join(command)}: exit code {done.returncode}, expected {expected}: {done.stderr[-500:]}"
        )
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def first_step(start: list[str], project: Path) -> float:
    """Returns the CPU seconds of the process of a ``fit`` until its first step was done."""
    with tempfile.TemporaryDirectory() as folder:
        stamp = Path(folder) / "stamp"
        callback = {"class_path": "tests.benchmarks.first_step.FirstStep", "init_args": {"path": str(stamp)}}
        (Path(folder) / "stamp.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks": [callback]}}))
        command = [*start, "fit", *RUN, f"--config={folder}/stamp.yaml", f"--run_dir={folder}/run"]
        command += ["--trainer.max_steps=1", "--data.reader.init_args.count={train: 448, val: 56, test: 56}"]
        cpu_seconds(command, project, 0)
        return float(json.loads(stamp.read_text())[1])


def measure(part: str, project: Path) -> float:
    """Returns one figure, once."""
    own = (project / "synfer" / "__main__.py").is_file()
    start = [sys.executable, "-m", "synfer"] if own else [sys.executable, "train.py"]
    if part == "torch":
        return cpu_seconds([sys.executable, "-c", "import torch"], project, 0)
    if part == "first_step":
        return first_step(start, project)
    words, expected = {
        "help": (["--help"], 0),
        "fit_help": (["fit", "--help"], 0),
        "typo": (["fit", *RUN, "--data.batchsize", "3"], 2),
        "class_typo": (["fit", *RUN, "--model.learningrate", "3"], 2),
    }[part]
    return cpu_seconds([*start, *words], project, expected)


def main() -> None:
    """Measures in turn, so that whatever else the machine does falls on all alike, and prints the line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--project", type=Path, default=PROJECT, help="the checkout that is measured")
    options = parser.parse_args()
    found: dict[str, list[float]] = {part: [] for part in ("torch", *options.parts)}
    for _ in range(options.repeats):
        for part, seconds in found.items():
            seconds.append(measure(part, options.project.resolve()))
    medians = {part: statistics.median(seconds) for part, seconds in found.items()}
    figures = {f"{part}_cpu_s": round(seconds, 2) for part, seconds in medians.items()}
    ratios = {f"{part}_ratio": round(medians[part] / medians["torch"], 2) for part in options.parts}
    print(json.dumps({**figures, **ratios, "repeats": options.repeats}))


if __name__ == "__main__":
    main()
