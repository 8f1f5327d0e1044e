"""``train.py`` and ``synfer fit``: one run, or the settings of one without running it."""

from __future__ import annotations

import contextlib
import logging
import sys
import warnings
from collections.abc import Iterator
from typing import Any

from jsonargparse import ArgumentParser, Namespace
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import LightningCLI

from callbacks.recording.wandb_run import finish_wandb
from experiments.cluster.attendance import ATTENDANCE, end_line
from experiments.cluster.early_signals import deaf_from_here, ended_by_signals
from experiments.cluster.meeting import EndedElsewhereError
from experiments.command_line.cli import SynferCLI
from experiments.command_line.config_files import check_config_files
from experiments.command_line.errors import one_line_errors
from experiments.command_line.parent_watch import end_with_parent
from experiments.command_line.parser import SynferParser
from experiments.command_line.project import PROJECT
from experiments.command_line.shorthands import written_out


class _ParsedOnly(SynferCLI):
    """Stops after parsing: nothing is seeded, made or written."""

    def _set_seed(self) -> None: ...

    def before_instantiate_classes(self) -> None:
        """Does nothing."""

    def instantiate_classes(self) -> None:
        """Does nothing."""

    def _run_subcommand(self, subcommand: str) -> None: ...


def main(args: list[str] | None = None) -> SynferCLI:
    """Runs one command.

    Args:
        args: command line without the program's name; None = ``sys.argv[1:]``. More than one device needs None: every
            rank that Lightning starts runs ``sys.argv`` again.

    Returns:
        The command line object after the run (``trainer``, ``model``, ``datamodule``, ``run_dir``).

    Raises:
        SystemExit: 2 after an error in the configuration, 1 after an error in the run, 128 + its number after a signal;
            one line has been printed. ``SYNFER_DEBUG=1`` lets an error itself through instead.
    """
    _quieten()
    exit_code, error = 1, None
    at_the_end = end_with_parent()
    with ended_by_signals():
        try:
            with _as_command_line(args), one_line_errors(exit_code=1):
                with one_line_errors(exit_code=2):
                    _write_out()
                done = _command_line(SynferCLI)
            exit_code = 0
            return done
        except BaseException as ended:
            error = ended
            if isinstance(ended, EndedElsewhereError):
                ATTENDANCE.end_together()
            if isinstance(ended, SystemExit):
                exit_code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
            raise
        finally:
            deaf_from_here()
            at_the_end.set()
            finish_wandb(exit_code)
            ATTENDANCE.requeue(exit_code)
            ATTENDANCE.leave(exit_code, None if error is None else end_line(error))


def parse(args: list[str]) -> Namespace:
    """Returns the resolved configuration of a command line (the subcommand's part) without making anything.

    Raises:
        SystemExit: 2 after an error in the configuration; one line has been printed.
    """
    with _as_command_line(args):
        with one_line_errors(exit_code=2):
            _write_out()
        config = _command_line(_ParsedOnly).config
    return config[config.subcommand]


def make_parser() -> ArgumentParser:
    """Returns the parser of the four commands, without parsing anything that a user has said."""
    stored = ("configs/data/drawn.yaml", "configs/classifier/tiny.yaml")  # the least that a command needs
    with _as_command_line(["fit", *(f"--config={PROJECT / name}" for name in stored)]):
        return _command_line(_ParsedOnly).parser


def _write_out() -> None:
    """Puts what shorthands stand for into ``sys.argv``, which the ranks that are started run again, and checks files.

    Raises:
        ValueError: an unknown preset, or a file that is no config.
    """
    sys.argv = [sys.argv[0], *written_out(sys.argv[1:])]
    check_config_files(sys.argv[1:])


def _command_line(kind: type[SynferCLI]) -> SynferCLI:
    from datamodules.expression_data_module import ExpressionDataModule

    parser_kwargs: dict[str, Any] = {"parser_mode": "omegaconf+", "allow_abbrev": False}
    parser_kwargs.update({name: dict(parser_kwargs) for name in LightningCLI.subcommands()})
    return kind(
        LightningModule,
        ExpressionDataModule,
        subclass_mode_model=True,
        save_config_callback=None,  # RunRecord writes config.yaml into the run folder
        seed_everything_default=1,
        trainer_defaults={"num_sanity_val_steps": 0, "log_every_n_steps": 50},
        parser_class=SynferParser,
        parser_kwargs=parser_kwargs,
        auto_configure_optimizers=False,
        load_from_checkpoint_support=False,  # hyperparameters are what __init__ received, plain types
    )


def _quieten() -> None:
    """Silences what says nothing about the run: a curated list, each with its reason."""
    # Lightning 2.6 calls a spelling that newer torch is about to drop.
    warnings.filterwarnings("ignore", message=".*LeafSpec.*is deprecated")
    # Our modules reduce over ranks before they log (torchmetrics); reducing again would be wrong for most of them.
    warnings.filterwarnings("ignore", message=".*It is recommended to use `self.log.*sync_dist=True")
    # The size in MB of the model summary, which nobody reads under mixed precision.
    warnings.filterwarnings("ignore", message=".*is not supported by the model summary")
    # A run that goes on in its folder; another run's folder is refused by us.
    warnings.filterwarnings("ignore", message="Checkpoint directory .* exists and is not empty")
    # A process that srun has not started is no mistake where one is asked for; where more are, our own line says so.
    warnings.filterwarnings("ignore", message="The `srun` command is available on your system but is not used")
    # Advertisements of other packages, and what the lines of RunProgress say better.
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(_says_something)


_SAYS_NOTHING = (
    "💡",  # "Tip: …"
    "GPU available: ",  # one that is there and not used is a warning, and the line of the model names the device
    "TPU available: ",
    "Loading `train_dataloader` to estimate",
    "`Trainer.fit` stopped: `max_",  # the last line of the run says why it ended
)
"""How lines of Lightning begin that say nothing about the run; information alone, never a warning."""


def _says_something(record: logging.LogRecord) -> bool:
    return record.levelno > logging.INFO or not record.getMessage().lstrip().startswith(_SAYS_NOTHING)


@contextlib.contextmanager
def _as_command_line(args: list[str] | None) -> Iterator[None]:
    """Puts given arguments in place of ``sys.argv`` for the time of the run."""
    before = sys.argv
    if args is not None:
        sys.argv = [str(PROJECT / "train.py"), *args]
    try:
        yield
    finally:
        sys.argv = before
