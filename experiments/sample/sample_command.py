"""Faces from a trained generator: ``python sample.py --expression happy --seed 1 --out happy.png``."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.command_line.errors import exit_code_of
from experiments.command_line.one_line_parser import OneLineParser, finite_number, whole_number
from experiments.command_line.project import SHIPPED_GENERATOR
from synfer.faces.expressions import EXPRESSIONS

if TYPE_CHECKING:
    from experiments.sample.face_maker import FaceMaker
    from experiments.sample.face_order import FaceOrder

ALL = "all"

_WORDS = {
    "sampling.guidance_scale": "--guidance-scale",
    "sampling.expression_strength": "--strength",
    "sampling.num_steps": "--steps",
    "perturbation.strength": "--strength",
    "guidance.step_size": "--guidance-step-size",
    "guidance.guide": "--guide",
    "guidance.calibration": "--guidance-calibration",
    "calibration of a guide": "--guidance-calibration",
    "layout.num_inverted": "--layout-steps",
    "guidance_scale": "--guidance-scale",
    "expression_strength": "--strength",
    "num_steps": "--steps",
    "guidance_step_size": "--guidance-step-size",
    "guide": "--guide",
    "first_id": "--sample-id",
    "action units": "--au",
    "action unit": "--au",
    "model.base": "--checkpoint",
    **{name: f"--{name}" for name in ("expression", "strength", "seed", "count", "caption", "layout", "checkpoint")},
}
"""How an error begins → what the option is called here."""


def main(args: Sequence[str] | None = None) -> int:
    """Makes the faces and writes them.

    Args:
        args: command line without the program's name; None = ``sys.argv[1:]``.

    Returns:
        0, or 2 after one line on stderr where they cannot be made; then nothing has been written.
    """
    options = _parser().parse_args(args)
    try:
        return exit_code_of(partial(_sample, options), as_options)
    except KeyboardInterrupt:
        print("stopped, nothing was written", file=sys.stderr)
        return 130


def as_options(line: str) -> str:
    """Returns an error in the words of the command line, whose options it is about."""
    return re.sub(r"^[\w. ]+?(?=:| '| AU)", lambda match: _WORDS.get(match[0], match[0]), line, count=1)


def _sample(options: argparse.Namespace) -> None:
    guidance, order = guidance_of(options), _order(options)
    out = _check_out(options)
    from experiments.sample.face_files import write_faces
    from experiments.sample.face_maker import (
        FaceMaker,
        suit_threads,
    )  # seconds to import: what is misspelt is said before

    maker = FaceMaker(options.checkpoint, options.guide, options.device, **guidance)
    suit_threads(maker)
    order = _with_all(order, options, maker)
    out = out or Path(f"{'-'.join(order.expressions)}.png")
    maker.request(order)  # refuses what it does not know
    if unknown := maker.unknown_words(order):
        shown = ", ".join(f"'{word}'" for word in unknown[:5])
        print(f"--caption: found {shown}, which this small generator reads as one unknown word", file=sys.stderr)
    print(write_faces(maker, order, out, options.zoom))


def _order(options: argparse.Namespace) -> FaceOrder:
    """Returns what is wanted, checked as far as it can be without the generator."""
    from experiments.sample.face_order import FaceOrder, StartFace

    start = None
    if options.layout is not None:
        if not options.layout.is_file():
            raise FileNotFoundError(f"--layout '{options.layout}': found no such file, expected an image of a face")
        start = StartFace(options.layout, options.layout_expression, options.layout_steps)
    elif options.layout_steps is not None:
        raise ValueError("--layout-steps: found it without --layout, expected an image of a face")
    return FaceOrder(
        tuple(name for name in options.expression if name != ALL) or (EXPRESSIONS[0],),
        seed=options.seed,
        first_id=options.sample_id,
        count=options.count,
        action_units=_action_units(options.au),
        strength=options.strength,
        guidance_scale=options.guidance_scale,
        steps=options.steps,
        caption=options.caption,
        start=start,
        guidance_step_size=options.guidance_step_size,
    )


def add_guidance(parser: argparse.ArgumentParser) -> None:
    """Adds the options that say how a guide guides."""
    parser.add_argument("--guidance-through", choices=("text", "latents"), help="what it moves (default: text)")
    parser.add_argument(
        "--guidance-calibration", metavar="FILE", help="its temperatures, from a run that has fitted them"
    )


def guidance_of(options: argparse.Namespace) -> dict[str, Any]:
    """Returns those options in the words of a face maker.

    Raises:
        ValueError: one of them, or another of guidance, without a guide.
    """
    of_guide = ("guidance_step_size", "guidance_through", "guidance_calibration")
    given = {name: value for name in of_guide if (value := getattr(options, name, None)) is not None}
    for name in given if options.guide is None else ():
        option = name.replace("_", "-")
        raise ValueError(f"--{option}: found it without --guide, expected the checkpoint of a guide")
    given.pop("guidance_step_size", None)  # an order's, not the maker's
    return {name.removeprefix("guidance_"): value for name, value in given.items()}


def _with_all(order: FaceOrder, options: argparse.Namespace, maker: FaceMaker) -> FaceOrder:
    from dataclasses import replace

    return replace(order, expressions=maker.label_space) if ALL in options.expression else order


def _action_units(words: Sequence[str]) -> dict[str, float]:
    found = {}
    for word in words:
        name, _, value = word.partition("=")
        try:
            found[name.strip().upper()] = float(value)
        except ValueError:
            raise ValueError(
                f"--au: found '{word}', expected a name and an intensity in [0, 1], such as AU12=0.8"
            ) from None
    return found


def _check_out(options: argparse.Namespace) -> Path | None:
    out: Path | None = options.out
    if out is None:
        return None
    if out.suffix.lower() not in ("", ".png") and not out.is_dir():
        raise ValueError(f"--out '{out}': found the ending '{out.suffix}', expected a .png file or a folder")
    if out.is_dir() and out.suffix.lower() == ".png":
        raise ValueError(f"--out '{out}': found a folder of that name, expected a file to write")
    if out.suffix.lower() != ".png" and out.is_file():
        raise ValueError(f"--out '{out}': found a file, expected a .png file or a folder")
    if options.layout is not None and out.exists() and out.samefile(options.layout):
        raise ValueError(f"--out '{out}': found the image of --layout, expected another file")
    return out


def _parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog="sample.py",
        description="Make faces with a trained generator. No option but the expression is needed.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add(
        "--expression",
        action="append",
        required=True,
        metavar="NAME",
        help=f"may be repeated; {ALL} = all that it knows",
    )
    add(
        "--au",
        action="append",
        default=[],
        metavar="AU12=0.8",
        help="intensity of an action unit in [0, 1]; may be repeated",
    )
    add("--seed", type=whole_number, default=1, help="of the faces (default: 1)")
    add("--count", type=whole_number, default=1, metavar="N", help="faces of each expression (default: 1)")
    add(
        "--sample-id",
        type=whole_number,
        default=0,
        metavar="I",
        help="number of the first face, as in a set of predict (default: 0)",
    )
    add("--out", type=Path, help="a .png file, of several faces a grid; or a folder (default: EXPRESSION.png)")
    add(
        "--checkpoint",
        default=SHIPPED_GENERATOR,
        metavar="PATH",
        help="checkpoint, run folder, folder of weights, Stable Diffusion (default: the generator of drawn faces)",
    )
    add("--strength", type=finite_number, metavar="S", help="0 = neutral, 1 = the expression, above 1 = more of it")
    add("--guidance-scale", type=finite_number, metavar="G", help="of classifier-free guidance, 1 = off")
    add("--steps", type=whole_number, metavar="N", help="of denoising")
    add("--caption", metavar="TEXT", help="in place of the one that names the expression")
    add("--guide", metavar="PATH", help="checkpoint of a classifier that guides")
    add_guidance(parser)
    add("--guidance-step-size", type=finite_number, metavar="X", help="length of each of its steps")
    add("--layout", type=Path, metavar="IMAGE", help="a face to begin at: its layout, or its code with a VAE-GAN")
    add("--layout-expression", default="neutral", metavar="NAME", help="what that face shows (default: neutral)")
    add("--layout-steps", type=whole_number, metavar="N", help="how many steps are inverted: more = less of it is left")
    add(
        "--zoom",
        type=whole_number,
        metavar="N",
        help="enlarge the pixels so many times (default: 1; of a grid, to about 96 pixels a face)",
    )
    add("--device", metavar="NAME", help="cpu or cuda (default: an accelerator where there is one)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
