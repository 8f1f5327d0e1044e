"""``make fer2013``: the networks that everything on FER2013 begins with, trained from nothing, in order.

    python -m demo.fer2013 --list              # what is trained, what for, how long
    python -m demo.fer2013 --quick             # three steps of each, to see that data and machine are right
    python -m demo.fer2013 --data path/to/fer2013

Each is an ordinary run of ``train.py`` in ``runs/fer2013/``, whose command line is printed. Started again, it keeps
what is finished and goes on with what was stopped.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from demo.chained_runs import DemoError, Part, Progress, do_what_is_missing, run_part
from experiments.command_line.project import PROJECT, shipped
from synfer.runs.run_format import read_summary

FOLDER = Path("runs/fer2013")
DATA = Path("../shared/data/fer2013")


@dataclass(frozen=True)
class Step:
    """One network, or the test of one.

    Attributes:
        name: of its run folder.
        purpose: what it is for.
        minutes: of one core with units for bfloat16, as docs/results/ measured them; several times as many without.
        figure: metric that tells how good it is.
        configs: files of configs/.
        options: further options.
        quick: options that make it a matter of seconds.
        task: of ``train.py``.
    """

    name: str
    purpose: str
    minutes: int
    figure: str
    configs: tuple[str, ...]
    options: tuple[str, ...] = ()
    quick: tuple[str, ...] = ()
    task: str = "fit"


_SHORT_FIT = (
    "--trainer.max_epochs=1",
    "--trainer.check_val_every_n_epoch=1",
    "--trainer.limit_train_batches=3",
    "--trainer.limit_val_batches=1",
)

STEPS = (
    Step(
        "classifier",
        "what a paper compares: FER2013's own seven labels",
        54,
        "val/accuracy",
        ("data/fer2013.yaml", "classifier/fer2013.yaml"),
        ("--trainer.check_val_every_n_epoch=4",),
        _SHORT_FIT,
    ),
    Step(
        "judge",
        "scores generated faces and takes no part in making them (FER+, 8 expressions)",
        46,
        "val/accuracy",
        ("data/ferplus.yaml", "classifier/judge_ferplus.yaml"),
        (),
        _SHORT_FIT,
    ),
    Step(
        "guide",
        "steers the generator by its gradient; of another family than the judge",
        13,
        "val/accuracy",
        ("data/ferplus.yaml", "classifier/guide_ferplus.yaml"),
        (),
        _SHORT_FIT,
    ),
    Step(
        "generator",
        "makes faces with a wanted expression",
        61,
        "val/loss",
        ("data/ferplus_majority.yaml", "generator/fer2013.yaml"),
        ("--trainer.max_steps=3800",),
        ("--trainer.max_steps=3", "--trainer.limit_val_batches=1", "--trainer.check_val_every_n_epoch=1"),
    ),
    Step(
        "guided_test",
        "how many of 1,000 guided faces show what was asked, to the judge",
        10,
        "test/fer_accuracy",
        ("data/ferplus_majority.yaml", "generator/fer2013.yaml"),
        (
            "--guidance.enabled=true",
            "--guidance.step_size=6",
            "--guidance.start_step=2",
            "--guidance.every=2",
            "--guidance.stop_above=0.9",
            "--trainer.inference_mode=false",
        ),
        ("--test.samples=14", "--test.nearest_training=16"),
        "test",
    ),
)


def parts(folder: Path, data: Path | None = None, quick: bool = False) -> list[Part]:
    """Returns the runs, in the order in which they must happen.

    Args:
        folder: where their run folders go.
        data: folder of FER2013; None = where the configs look for it.
        quick: a few steps of each.
    """
    made: dict[str, Part] = {}
    for step in STEPS:
        configs = [f"configs/{name}" for name in step.configs]
        options = [word for config in configs for word in ("--config", config)]
        options += step.options
        reads = [shipped(config) for config in configs]
        if data is not None:
            options.append(f"--data.reader.init_args.root={data}")
        if not _fast_bfloat16():
            options.append("--trainer.precision=32-true")
            if "generator/fer2013.yaml" in step.configs:
                options.append("--model.execution.bf16_sampling=false")
        if step.task == "test":
            options.append(f"--ckpt_path={made['generator'].checkpoint}")
            options.append(f"--test.judge={made['judge'].checkpoint}")
            options.append(f"--guidance.guide={made['guide'].checkpoint}")
            reads += [made[name].checkpoint for name in ("generator", "judge", "guide")]
        if quick:
            options += step.quick
        trains = step.task == "fit"
        made[step.name] = Part(step.name, tuple(options), folder, tuple(reads), step.task, goes_on=trains, threads=None)
    return list(made.values())


def _fast_bfloat16() -> bool:
    # Here and not above: it loads torch, and what is missing should be said at once.
    from synfer.foundation.bfloat16 import computes_bfloat16_fast

    return computes_bfloat16_fast("cpu") or _has_gpu()


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def main(args: Sequence[str] | None = None) -> None:
    """Trains what is missing and prints a table of the figures.

    Raises:
        DemoError: the data are missing, or a run failed.
        KeyboardInterrupt: stopped by the user; started again it goes on.
    """
    options = _parser().parse_args(args)
    if options.list:
        print(table(None))
        return
    if (PROJECT / "pyproject.toml").is_file():
        data = None if options.data is None else options.data.resolve()
        os.chdir(PROJECT)
    else:
        data = options.data
    looked_in = data or DATA
    if not looked_in.is_dir():
        raise DemoError(
            f"found no folder {looked_in}, expected FER2013 with the votes of FER+ in it (docs/data.md says which "
            "files): python -m demo.fer2013 --data path/to/fer2013"
        )
    folder = FOLDER.with_name(f"{FOLDER.name}-quick") if options.quick else FOLDER
    progress = Progress()
    for part in parts(folder, data, options.quick):
        do_what_is_missing(part, progress, run_part)
    told = table(folder)
    (folder / "report.txt").write_text(told + "\n")
    progress.say("done")
    print(f"\n{told}\n\nRuns: {folder}; what to do with them: docs/synthesis.md, docs/mixing.md", flush=True)


def table(folder: Path | None) -> str:
    """Returns what is trained, what for, for how long, and how good it became where it has finished."""
    rows = [("run", "minutes of a core", "figure", "for")]
    for step in STEPS:
        summary = {} if folder is None else read_summary(folder / step.name)
        found = summary.get("metrics", {}).get(step.figure)
        seconds = summary.get("cpu_s")
        minutes = f"about {step.minutes}" if seconds is None else f"{seconds / 60:.1f}"
        rows.append((step.name, minutes, step.figure if found is None else f"{step.figure} {found:.4f}", step.purpose))
    widths = [max(len(row[place]) for row in rows) for place in range(4)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m demo.fer2013", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help=f"folder of FER2013 with FER+'s votes (default: {DATA})")
    parser.add_argument("--quick", action="store_true", help="three steps of each, into a folder of its own")
    parser.add_argument("--list", action="store_true", help="print what would be trained, and stop")
    return parser


def _stop(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _stop)
    try:
        main()
    except DemoError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        print("\nstopped; run it again to go on where it was", file=sys.stderr, flush=True)
        raise SystemExit(130) from None
