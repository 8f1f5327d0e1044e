"""``make demo``: from nothing to a mixed-training result on drawn faces, in minutes, on two cores, without a download.

Two classifiers with the same number of optimiser steps: one sees few real faces alone, the other sees half real and
half synthetic ones, which the generator of ``demo/weights/`` makes while it trains (guided and labelled by the first
classifier). Each is an ordinary run of ``train.py``, started as a user would start it. At the end there is a table and
``runs/demo/report.png``.

Run again, it does only what is missing: a finished run is kept while its command line, its configs and the weights that
it reads are the same.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

from demo.chained_runs import DemoError, Part, Progress, do_what_is_missing, run_part
from experiments.command_line.project import PROJECT, shipped

FOLDER = Path("runs/demo")
"""Where everything goes: in the checkout, or in the folder from which an installed demo is started."""

GENERATOR = Path("demo/weights/drawn_generator")
CONFIGS = ("configs/classifier/tiny.yaml", "configs/demo/few_faces.yaml")
"""What both runs share."""

MIXED_CONFIGS = ("configs/demo/mixed.yaml",)
"""What the mixed run has on top."""

PACKAGES = ("torch", "lightning", "diffusers", "transformers", "timm", "jsonargparse", "matplotlib", "safetensors")


def parts() -> tuple[Part, Part]:
    """Returns the real-only run and the mixed run, in the order in which they must happen."""
    generator = shipped(GENERATOR)
    shared = [word for config in CONFIGS for word in ("--config", config)]
    # One thread: networks this small lose more by waiting for a second one than they gain, and the numbers do not
    # depend on how many cores there are.
    real_only = Part("real_only", tuple(shared), FOLDER, tuple(shipped(config) for config in CONFIGS))
    mixed = Part(
        "mixed",
        (
            *shared,
            *(word for config in MIXED_CONFIGS for word in ("--config", config)),
            f"--synthesis.generator={generator}",
            "--guidance.enabled=true",
            f"--guidance.guide={real_only.checkpoint}",
            "--pseudo_labels.enabled=true",
            f"--pseudo_labels.voters=[{real_only.checkpoint}]",
        ),
        FOLDER,
        (
            *real_only.reads,
            *(shipped(config) for config in MIXED_CONFIGS),
            generator / "config.json",
            generator / "model.safetensors",
            real_only.checkpoint,
        ),
    )
    return real_only, mixed


def main() -> None:
    """Runs what is missing, prints the table and draws the picture.

    Raises:
        DemoError: something is missing, or a run failed.
        KeyboardInterrupt: stopped by the user; the run that was going on has ended.
    """
    if (PROJECT / "pyproject.toml").is_file():  # a checkout keeps its runs; an installed package has no place for them
        os.chdir(PROJECT)
    check_installation()
    progress = Progress()
    real_only, mixed = parts()
    for part in (real_only, mixed):
        do_what_is_missing(part, progress, run_part)
    progress.say("report: some more faces for the picture")
    table = report(real_only, mixed)
    progress.say("done")
    print(f"\n{table}\n\nPicture: {FOLDER / 'report.png'}\nRuns: {real_only.run_dir}, {mixed.run_dir}", flush=True)


def report(real_only: Part, mixed: Part) -> str:
    """Writes ``report.png`` and ``report.txt`` and returns the table."""
    # Here and not above: it takes seconds to load, and what is missing should be said at once.
    from demo.report import draw_report, read_run, result_table

    results = read_run(real_only.run_dir), read_run(mixed.run_dir)
    draw_report(*results, path=FOLDER / "report.png")
    table = result_table(*results)
    (FOLDER / "report.txt").write_text(table + "\n")
    return table


def check_installation() -> None:
    """Checks that everything is there before anything is started.

    Raises:
        DemoError: a package, a config or the generator is missing.
    """
    lost = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if lost:
        raise DemoError(f"package '{lost[0]}' is not installed for {sys.executable}: run make demo, or make install")
    _, mixed = parts()
    for path in mixed.reads:
        if not path.is_file() and FOLDER not in path.parents:
            hint = (
                " (configs/generator/drawn.yaml says how to train it anew)"
                if GENERATOR.name == path.parent.name
                else ""
            )
            raise DemoError(f"found no {path}, expected it in {PROJECT}{hint}")
