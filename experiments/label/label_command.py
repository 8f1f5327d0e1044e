"""Expressions of the faces in pictures: ``python label.py PATH… --checkpoint RUN --out labels.csv``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from experiments.command_line.commands import called_as
from experiments.command_line.device import device_named
from experiments.command_line.errors import exit_code_of
from experiments.command_line.one_line_parser import OneLineParser

SOME_BAD, INTERRUPTED = 1, 130


def main(args: Sequence[str] | None = None) -> int:
    """Labels pictures and writes one table.

    Args:
        args: command line without the program's name; None = ``sys.argv[1:]``.

    Returns:
        0; 1 where some pictures cannot be used, each named on stderr, and the table has the others; 2 after one line
        on stderr, and nothing has been written; 130 after Ctrl-C, and the table has what was done.
    """
    options = _parser().parse_args(args)
    return exit_code_of(partial(_label, options))


def _label(options: argparse.Namespace) -> int:
    from experiments.label.sources import find_sources  # what decodes pictures takes a second to import
    from synfer.faces.face_detector import load_detector
    from synfer.labels.labelled_faces import check_out

    check_out(options.out, options.overwrite)
    sources = find_sources(options.paths)
    detector = load_detector(options.detector or "haar") if options.faces else None

    from experiments.label.labelling import Labelling
    from experiments.label.progress import Progress
    from lightning_modules.labeller import Labeller

    labeller = Labeller.load_trained(options.checkpoint, device_named(options.device), options.batch_size)
    alignment = labeller.prepare.alignment
    if alignment is not None and not options.crops:
        if options.margin:
            raise ValueError(
                f"--margin: found {options.margin:g} for a classifier trained on aligned faces, expected none: "
                "data.alignment of its run says how much of a face is seen"
            )
        detector = detector or load_detector(options.detector or alignment.searched_by or "haar")
    for line in sources.left_out:
        print(f"left out: {line}", file=sys.stderr)
    lone = len(sources.names) == 1  # of which one line says all
    labelling = Labelling(labeller, detector, options.margin, options.workers, names_bad=not lone)
    progress = Progress(None if sources.moving else len(sources.names), "pictures")
    labelling.run(sources.pictures(options.every, options.max_frames), progress)
    if not len(labelling.faces):
        _nothing_usable(labelling)
    labelling.faces.write(options.out, labeller.classifier.weights_fingerprint())
    print(f"{options.out}: {_told(labelling, progress)}")
    if labelling.interrupted:
        print("interrupted: the table holds what was labelled until then", file=sys.stderr)
        return INTERRUPTED
    if labelling.bad and lone:
        print(f"cannot be used: {labelling.bad[0]}", file=sys.stderr)
    elif labelling.bad:
        print(f"{len(labelling.bad)} of {progress.done:,} pictures cannot be used, named above", file=sys.stderr)
    return SOME_BAD if labelling.bad else 0


def _nothing_usable(labelling: Any) -> None:
    if labelling.interrupted:
        raise ValueError("interrupted: found no labelled face yet, so that nothing was written")
    if not labelling.names_bad:
        raise ValueError(labelling.bad[0])
    raise ValueError(
        f"found no picture that can be used ({len(labelling.bad)} cannot, named above), expected at least one"
    )


def _told(labelling: Any, progress: Any) -> str:
    counts = ", ".join(f"{name} {count:,}" for name, count in labelling.faces.counts().items())
    usable = progress.done - len(labelling.bad)
    line = f"{labelling.faces.faces:,} faces in {usable:,} pictures ({counts or 'none'})"
    if labelling.without_face:
        line += f", {labelling.without_face:,} without a face"
    return f"{line}, {progress.rate:.1f} pictures/s"


def _at_least_one(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"found '{text}', expected a whole number of at least 1")
    return number


def _share(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 2:
        raise argparse.ArgumentTypeError(f"found '{text}', expected a number in [0, 2]")
    return number


def _parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog=called_as("label", sys.argv[0]),
        description="Label the faces in pictures with a trained classifier.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "paths", nargs="+", metavar="PATH", help="an image, a folder with images at any depth, a video, or camera:0"
    )
    parser.add_argument(
        "--checkpoint", type=Path, required=True, help="of a classifier: a checkpoint, a run folder, or save_trained's"
    )
    parser.add_argument("--out", type=Path, required=True, help="table to write: .csv or .parquet")
    parser.add_argument("--overwrite", action="store_true", help="write --out also where there is a file already")
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--crops",
        action="store_true",
        help="each picture is the crop of one face (default, unless the classifier was trained with data.alignment)",
    )
    what.add_argument("--faces", action="store_true", help="find the faces first; needs the extra 'faces'")
    parser.add_argument("--detector", help="who finds them (default: that of the training, or haar)")
    parser.add_argument(
        "--margin", type=_share, default=0.0, help="cut so much more on each side of a found box (default: 0)"
    )
    parser.add_argument("--every", type=_at_least_one, default=1, help="of a video, each so many-th frame (default: 1)")
    parser.add_argument("--max_frames", type=_at_least_one, help="of a video or camera, at most so many frames")
    parser.add_argument("--batch_size", type=_at_least_one, default=64, help="faces at once (default: 64)")
    parser.add_argument(
        "--workers", type=_at_least_one, default=_cores(), help="threads that read and search (default: %(default)s)"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, … (default: auto)")
    return parser


def _cores() -> int:
    """Returns the number of cores that this process may use, at most four: more hardly decode faster."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(4, allowed)


if __name__ == "__main__":
    sys.exit(main())
