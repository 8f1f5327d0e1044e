"""A trained model for other libraries: ``python export.py CHECKPOINT --what lora --out FOLDER``."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, get_args

from experiments.command_line.commands import called_as
from experiments.command_line.errors import exit_code_of
from synfer.export.exporter import EXPORTERS, ExportSettings, NothingToExportError, NumberFormat, make_exporter
from synfer.foundation.new_folder import check_new_folder, new_folder
from synfer.foundation.optional_package import MissingPackageError
from synfer.runs.run_format import CONFIG


def main(args: Sequence[str] | None = None) -> int:
    """Runs one export.

    Args:
        args: command line without the program's name; None = ``sys.argv[1:]``.

    Returns:
        0, or 2 after one line on stderr where something cannot be exported; then nothing has been written.
    """
    options = _parser().parse_args(args)
    return exit_code_of(partial(_export, options))


def _export(options: argparse.Namespace) -> None:
    check_new_folder(options.out)
    settings = ExportSettings(options.dtype, _training_command(options.checkpoint))
    exporters = {
        what: make_exporter(what, settings) for what in (EXPORTERS if options.what == "all" else [options.what])
    }
    kind = _kind(options.checkpoint, options.what, {exporter.kind for exporter in exporters.values()})
    exporters = {what: exporter for what, exporter in exporters.items() if exporter.kind == kind}
    module = _load(options.checkpoint, kind)
    if getattr(module, "face_alignment", None):
        print(
            "found a classifier of aligned faces: the graph does not align them, and its card says where they must lie",
            file=sys.stderr,
        )
    with new_folder(options.out) as folder:
        left_out = {}
        for what, exporter in exporters.items():
            try:
                exporter.export(module, folder if options.what != "all" else folder / what)
            except (NothingToExportError, MissingPackageError) as error:
                if options.what != "all":
                    raise
                left_out[what] = str(error)
        if len(left_out) == len(exporters):
            raise NothingToExportError("; ".join(left_out.values()))
    for line in left_out.values():
        print(f"left out: {line}", file=sys.stderr)
    for card in sorted(options.out.rglob("README.md")):
        print(f"{card.parent}: {card} tells how to use it")


def _kind(path: Path, what: str, kinds: set[str]) -> str:
    """Returns the kind of module in a checkpoint, as far as a file says it.

    Raises:
        ValueError: damaged, or a module of which there is no such export.
    """
    from synfer.foundation.module_file import kind_of

    found = kind_of(path, "model") if path.exists() else None
    if found is not None and found not in kinds:
        raise ValueError(
            f"--what {what}: found a model of the kind '{found}' in '{path}', expected one of the kind "
            f"{' or '.join(repr(kind) for kind in sorted(kinds))}"
        )
    return found or ("diffusion" if "diffusion" in kinds else next(iter(kinds)))


def _load(path: Path, kind: str) -> Any:
    """Returns the module in a checkpoint.

    Raises:
        FileNotFoundError: nothing there.
        ValueError: damaged.
    """
    if kind == "classifier":
        from lightning_modules.classifier import ExpressionClassifier

        return ExpressionClassifier.load_trained(path)
    from synfer.synthesis.synthesiser import load_synthesiser

    return load_synthesiser(path)


def _training_command(checkpoint: Path) -> str | None:
    """Returns the command that trains again what lies in a run folder; None where the checkpoint lies elsewhere."""
    folder = checkpoint if checkpoint.is_dir() else checkpoint.parent.parent
    config = folder / CONFIG
    return f"python train.py fit --config {shlex.quote(str(config))}" if config.is_file() else None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=called_as("export", sys.argv[0]),
        description="Write a trained generator or classifier, or a part of it, in the formats of other libraries.",
        allow_abbrev=False,
    )
    parser.add_argument("checkpoint", type=Path, help="a checkpoint, a run folder, or a folder of weights")
    parser.add_argument(
        "--what", required=True, metavar="|".join([*EXPORTERS, "all"]),
        help="of a generator LoRA, the AU adapter or a whole pipeline for diffusers; of a classifier an ONNX or "
        "TorchScript graph; or all that it has, each in a folder of its own",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, required=True, help="folder to write to: a new or an empty one")
    parser.add_argument(
        "--dtype", choices=get_args(NumberFormat), default="float32", help="number format (default: float32)"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
