"""The data of a command line of ``train.py``, without a model: the same parser, of which only the data is made."""

from __future__ import annotations

from collections.abc import Sequence

from jsonargparse import ArgumentParser, Namespace

from datamodules.expression_data_module import ExpressionDataModule
from experiments.command_line import train_command
from experiments.command_line.config_files import model_class
from experiments.command_line.project import PROJECT
from experiments.command_line.shorthands import written_out

STAND_IN = PROJECT / "configs" / "classifier" / "tiny.yaml"
"""The model of a command line that names none; it is parsed and never made."""


def data_of(words: Sequence[str], command: str = "preview") -> ExpressionDataModule:
    """Returns the data module, which has read nothing yet.

    Args:
        words: options of ``train.py fit``; those of a model may be among them.
        command: that was given them, for errors.

    Raises:
        ValueError, FileNotFoundError: no option at all, or data that is not there.
        SystemExit: 2 after a line about an option.
    """
    if not words:
        raise ValueError(
            f"{command}: found no data on the command line, expected --data FOLDER, or e.g. "
            "--config configs/data/drawn.yaml"
        )
    has_model = bool(model_class(written_out(words)))
    config = train_command.parse(["fit", *([] if has_model else [f"--config={STAND_IN}"]), *words])
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(ExpressionDataModule, "data")
    data: ExpressionDataModule = parser.instantiate_classes(Namespace(data=config.data)).data
    return data
