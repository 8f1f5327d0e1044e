"""``synfer set enlarge SET --model FOLDER --out FOLDER``: a synthetic set with its faces super-resolved."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

from experiments.command_line.device import device_named


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of this task to its parser."""
    parser.add_argument("set", type=Path, help="folder of a finished synthetic set")
    parser.add_argument(
        "--model", type=Path, required=True, help="folder of a super-resolution model in transformers' layout (Swin2SR)"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the new set; one begun before is finished")
    parser.add_argument(
        "--image_size",
        type=int,
        default=None,
        help="side in pixels of the new faces (default: as the model makes them)",
    )
    parser.add_argument("--device", default="cpu", help="where the model works: cpu (default), auto, cuda, cuda:1")


def enlarge(options: argparse.Namespace) -> None:
    """Writes the larger set, or what is missing of it.

    Raises:
        FileNotFoundError, ValueError: the set, the model or an option cannot be used.
    """
    source: Path = options.set
    if not source.is_dir():
        raise FileNotFoundError(
            f"enlarge: found no folder '{source}', expected a synthetic set that predict has written"
        )
    if options.image_size is not None and options.image_size < 8:
        raise ValueError(f"--image_size: found {options.image_size}, expected at least 8 pixels")
    from datamodules.synthetic.enlarged_set import Enlargement, enlarge_set  # seconds to import
    from synfer.networks.super_resolution import SuperResolution

    network = SuperResolution(options.model, device_named(options.device))
    made_by = Enlargement(network.fingerprint(), network.scale, options.image_size)
    larger = partial(network.enlarge, image_size=options.image_size)
    faces = enlarge_set(source, options.out, larger, made_by, lambda line: print(line, file=sys.stderr))
    print(f"{options.out}: {faces} faces (--data.synthetic_reader.init_args.root {options.out})")
