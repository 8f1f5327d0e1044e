"""What compare.py costs on 200 runs: seconds and memory of the whole command, from its start to its end.

    python tests/benchmarks/compare.py
    python tests/benchmarks/compare.py --runs 50 --rows 500

Run folders with made-up values (five ratios, four training fractions, ten seeds; metrics.csv of 2,000 rows; a sample
grid of noise in every folder) are written into a temporary folder, then ``compare.py`` runs in a process of its own.

Prints one JSON line: ``seconds`` (wall clock), ``cpu_s``, ``peak_mb`` (largest resident memory), and whether both bars
are met (at most 10 s and 500 MB).
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

PROJECT = Path(__file__).resolve().parents[2]
# Started as a file, Python looks for modules beside that file only, and finds this one under the name of compare.py.
sys.path[0] = str(PROJECT)

from tests.fixtures.synthetic_runs import write_run  # noqa: E402

MAX_SECONDS, MAX_MB = 10.0, 500.0
RATIOS = (0.0, 0.25, 0.5, 0.75, 1.0)
FRACTIONS = (0.05, 0.1, 0.2, 1.0)
VALIDATIONS = 20


def main() -> None:
    """Makes the runs, compares them, prints the line."""
    parser = argparse.ArgumentParser(description="Cost of compare.py.")
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--rows", type=int, default=2000, help="rows of each metrics.csv")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_runs(Path(folder) / "runs", options.runs, options.rows)
        start = time.perf_counter()
        done = subprocess.run(
            [sys.executable, str(PROJECT / "compare.py"), f"{folder}/runs", "--out", f"{folder}/comparison"],
            capture_output=True,
            text=True,
            cwd=folder,
        )
        seconds = time.perf_counter() - start
        if done.returncode:
            sys.exit(done.stderr)
        report_kb = (Path(folder) / "comparison" / "report.html").stat().st_size / 1024
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    peak_mb = usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    line = {
        "seconds": round(seconds, 2),
        "cpu_s": round(usage.ru_utime + usage.ru_stime, 2),
        "peak_mb": round(peak_mb, 1),
        "runs": options.runs,
        "rows": options.rows,
        "report_kb": round(report_kb),
        "met": seconds <= MAX_SECONDS and peak_mb <= MAX_MB,
        "machine": platform.processor() or platform.machine(),
    }
    print(json.dumps(line))


def write_runs(folder: Path, runs: int, rows: int) -> None:
    """Writes run folders that differ in ratio, training fraction and seed, with accuracies that follow from them."""
    draw = random.Random(0)
    noise = np.random.default_rng(0).integers(0, 255, (480, 480, 3), dtype=np.uint8)
    per_seed = len(RATIOS) * len(FRACTIONS)
    for number in range(runs):
        seed, cell = 1 + number // per_seed, number % per_seed
        ratio, fraction = RATIOS[cell % len(RATIOS)], FRACTIONS[cell // len(RATIOS)]
        accuracy = 0.5 + 0.15 * fraction + 0.2 * ratio * (1 - ratio) + draw.gauss(0, 0.01)
        run = write_run(
            folder / f"run-{number:03d}",
            ratio,
            seed,
            accuracy,
            history=[accuracy * (1 - 0.5 ** (1 + epoch)) for epoch in range(VALIDATIONS)],
            rows_per_value=max(1, rows // VALIDATIONS),
            data__training_fraction=fraction,
            splits={"train": f"{fraction}-{seed}", "val": "same"},
        )
        (run / "samples").mkdir()
        Image.fromarray(noise).save(run / "samples" / "grid-step0000100.png")


if __name__ == "__main__":
    main()
