"""One run: ``python train.py fit | validate | test | predict --config … --data.synthetic_ratio 0.5 …``."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import torch
import yaml
from jsonargparse import Namespace
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import LearningRateMonitor
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_only

from callbacks.face_table import FaceTable
from callbacks.metrics_csv import MetricsCsv
from callbacks.run_checkpoint import RunCheckpoint
from callbacks.run_folder import choose_run_dir, refuse_occupied
from callbacks.run_folder_lock import RunFolderLock
from callbacks.run_record import RunRecord
from callbacks.throughput import Throughput
from callbacks.wandb_run import WandbOptions, WandbRun, finish_wandb
from datamodules.parent_watch import announce_parent, end_with_parent
from lightning_modules.checkpoint_file import read_checkpoint

PROJECT = Path(__file__).resolve().parent
SWITCHED_GROUPS = ("synthesis", "layout", "guidance", "pseudo_labels")
"""Config groups of callbacks that take part only where ``<group>.enabled`` is true."""


class SynferParser(LightningArgumentParser):
    """Parser whose errors are one line."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Prints one line and exits with code 2."""
        if not self.exit_on_error or _debugging():
            super().error(message, ex)
        report(message)
        raise SystemExit(2)


class SynferCLI(LightningCLI):
    """Command line of one run (C3): one data module class, any LightningModule, synthesis callbacks as config groups.

    Precedence: command line > later --config > earlier --config > defaults. A checkpoint gives weights and state, never
    settings.
    """

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds the run folder and the groups of callbacks."""
        from callbacks.layout_initialisation import LayoutInitialisation
        from callbacks.online_synthesis import OnlineSynthesis
        from callbacks.pseudo_labeller import PseudoLabeller
        from callbacks.semantic_guidance import SemanticGuidance

        parser.add_argument(
            "--run_dir",
            type=str | None,
            default=None,
            help="folder of this run (default: runs/<task>-<UTC time>-<4 hex>)",
        )
        groups = (OnlineSynthesis, LayoutInitialisation, SemanticGuidance, PseudoLabeller)
        for name, callback in zip(SWITCHED_GROUPS, groups, strict=True):
            parser.add_lightning_class_args(callback, name)
        parser.add_class_arguments(WandbOptions, "wandb")
        parser.add_lightning_class_args(RunCheckpoint, "checkpoint")
        # The newest state is kept, or the best with --checkpoint.monitor=val/accuracy --checkpoint.mode=max; last.ckpt
        # is the newest in both cases. (With save_top_k=0 Lightning would write nothing before the end of training.)
        parser.set_defaults(
            {"checkpoint.save_last": True, "checkpoint.save_top_k": 1, "checkpoint.enable_version_counter": False}
        )

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        parser.set_defaults({"weights_only": True})  # a checkpoint is data: nothing in it may run
        if subcommand == "predict":  # callbacks write predictions; kept in memory, a large set would fill it
            parser.set_defaults({"return_predictions": False})
        return parser

    def _parse_ckpt_path(self) -> None:
        # Lightning would let the hyperparameters stored in the checkpoint override the command line, silently.
        ckpt_path = self.config[self.config.subcommand].get("ckpt_path")
        if ckpt_path in (None, "last", "best", "hpc") or "://" in str(ckpt_path):
            return
        if not Path(ckpt_path).exists():
            self.parser.error(f"ckpt_path: found no file '{ckpt_path}', expected a checkpoint")
        if (Path(ckpt_path) / "model.safetensors").is_file():
            self.parser.error(
                f"ckpt_path: '{ckpt_path}' is a folder of save_trained, weights alone; expected a checkpoint"
            )
        if Path(ckpt_path).is_file():  # sharded checkpoints are folders
            with one_line_errors(exit_code=2):
                read_checkpoint(Path(ckpt_path), "ckpt_path", mmap=True)

    def _set_seed(self) -> None:
        # As Lightning's, without its line of text: an error of the configuration is to be the only line.
        config = self.config[str(self.subcommand)]
        if config.seed_everything is not False:
            seed = None if config.seed_everything is True else config.seed_everything
            config.seed_everything = seed_everything(seed, workers=True, verbose=False)

    def before_instantiate_classes(self) -> None:
        """Fixes the run folder and keeps the configuration as the user may give it again."""
        subcommand = str(self.subcommand)
        config = self.config[subcommand]
        fit = subcommand == "fit"
        with one_line_errors(exit_code=2):
            self.run_dir = choose_run_dir(config.run_dir, subcommand)
            if fit and not config.get("ckpt_path") and _rank() == 0:
                refuse_occupied(self.run_dir)
        # Without the folder, so that --config runs/x/config.yaml starts a new run instead of writing into that one.
        again = config.clone()
        again.run_dir = None
        self.config_yaml = self._parser(subcommand).dump(again, skip_unset=False)
        config.trainer.default_root_dir = str(self.run_dir)
        config.checkpoint.dirpath = config.checkpoint.dirpath or str(self.run_dir / "checkpoints")
        self.continues = fit and bool(config.get("ckpt_path"))

    def instantiate_classes(self) -> None:
        """Makes model, data and trainer; an error of theirs is an error of the configuration."""
        with one_line_errors(exit_code=2, any_origin=True):
            super().instantiate_classes()

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Makes the trainer with the run's loggers and callbacks."""
        subcommand = str(self.subcommand)
        settings = self.config[subcommand]
        parser = self._parser(subcommand)
        callbacks: list[Callback] = [
            self._get(self.config_init, key)
            for key in parser.callback_keys
            if key not in SWITCHED_GROUPS or settings[key].enabled
        ]
        makes_faces = settings[SWITCHED_GROUPS[0]].enabled or subcommand != "fit"
        idle = [key for key in SWITCHED_GROUPS[1:] if settings[key].enabled and not makes_faces]
        if idle and not hasattr(self.model, "synthesise"):
            raise ValueError(
                f"{idle[0]}.enabled=true, but no face is made in this fit: found synthesis.enabled=false, expected true"
            )
        self.lock = RunFolderLock(self.run_dir)
        callbacks.append(self.lock)
        config, options = yaml.safe_load(self.config_yaml), self._get(self.config_init, "wandb")
        if subcommand == "fit" and settings[SWITCHED_GROUPS[0]].enabled and options.faces:
            callbacks.append(FaceTable(options.faces))  # after the vote, whose outcome it shows
        if subcommand == "fit":
            callbacks.append(Throughput())
        callbacks.append(
            RunRecord(self.run_dir, subcommand, config, self.config_yaml, self.continues, options.log_checkpoints)
        )
        given = self._get(self.config_init, "trainer")
        if given.logger in (None, True):
            loggers: list[Any] = [
                MetricsCsv(self.run_dir, append=self.continues or subcommand != "fit"),
                WandbRun(
                    self.run_dir,
                    run_id=self._stored_wandb_id() if self.continues else None,
                    task=subcommand,
                    config=config,
                    config_names=[
                        f"{Path(str(path)).parent.name}/{Path(str(path)).stem}" for path in settings.config or []
                    ],
                    options=options,
                ),
            ]
        elif given.logger is False:
            loggers = []
        else:
            chosen = given.logger if isinstance(given.logger, list) else [given.logger]
            loggers = [MetricsCsv(self.run_dir, append=self.continues or subcommand != "fit"), *chosen]
        if loggers and subcommand == "fit":
            callbacks.append(LearningRateMonitor(logging_interval="step"))
        trainer = self._instantiate_trainer({**given, "logger": loggers or False, **kwargs}, callbacks)
        rank_zero_info(f"run folder: {self.run_dir}")
        return trainer

    def _run_subcommand(self, subcommand: str) -> None:
        launcher = self.trainer.strategy.launcher
        starts_ranks = isinstance(launcher, _SubprocessScriptLauncher) and self.trainer.world_size > 1
        if starts_ranks and not _from_shell() and "LOCAL_RANK" not in os.environ:
            self.parser.error(
                f"trainer.devices: found {self.trainer.num_devices} in a run started from Python, expected 1 "
                "(every rank runs the command line again: start python train.py in a process of its own)"
            )
        if starts_ranks:
            announce_parent()
        try:
            if self.trainer.is_global_zero:
                with one_line_errors(exit_code=2):
                    self.lock.take()
                    if subcommand == "fit" and not self.continues:  # a run may have come and gone since the first look
                        refuse_occupied(self.run_dir)
            super()._run_subcommand(subcommand)
        except BaseException as error:
            lost = "Connection closed by peer" in str(error) or "Connection reset by peer" in str(error)
            if starts_ranks and isinstance(launcher, _SubprocessScriptLauncher):
                if lost:  # another rank failed: let it say why
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        for rank in launcher.procs:
                            rank.wait(timeout=10)
                # Ranks that wait for this one would wait for ever, or end in a long traceback about a lost connection.
                launcher.kill(signal.SIGKILL)
                if lost and not _debugging():
                    report("a rank ended early, its own error stands above")
                    raise SystemExit(1) from None
            raise
        finally:
            self.lock.release()

    def _stored_wandb_id(self) -> str | None:
        """Returns the W&B run id of the checkpoint that is continued; W&B starts before the checkpoint is restored."""
        path = Path(self.config[str(self.subcommand)].ckpt_path)
        if path.name == "last":
            path = self.run_dir / "checkpoints" / "last.ckpt"
        if not path.is_file():
            return None
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        return state.get("callbacks", {}).get("RunRecord", {}).get("wandb_id")


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
        SystemExit: 2 after an error in the configuration, 1 after an error in the run; one line has been printed.
            ``SYNFER_DEBUG=1`` lets the error itself through instead.
    """
    _quieten()
    at_the_end = end_with_parent()
    try:
        with _as_command_line(args), one_line_errors(exit_code=1):
            return _command_line(SynferCLI)
    finally:
        at_the_end.set()
        finish_wandb()


def parse(args: list[str]) -> Namespace:
    """Returns the resolved configuration of a command line (the subcommand's part) without making anything.

    Raises:
        SystemExit: 2 after an error in the configuration; one line has been printed.
    """
    with _as_command_line(args):
        config = _command_line(_ParsedOnly).config
    return config[config.subcommand]


def _command_line(kind: type[SynferCLI]) -> SynferCLI:
    from datamodules.expression import ExpressionDataModule

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


@contextlib.contextmanager
def one_line_errors(exit_code: int, any_origin: bool = False) -> Iterator[None]:
    """Turns an error that our code raised on purpose into one line on stderr and an exit code.

    Args:
        exit_code: 2 for the configuration, 1 for the run.
        any_origin: take errors of other packages as well, such as timm's for an unknown backbone.

    Raises:
        SystemExit: with the exit code, after the line. An error of another kind or origin passes through, and so does
            every error under ``SYNFER_DEBUG=1``.
    """
    try:
        yield
    except (ValueError, TypeError, RuntimeError, OSError, MisconfigurationException) as error:
        if _debugging() or not (any_origin or _meant_for_the_user(error)):
            raise
        report(str(error))
        raise SystemExit(exit_code) from None


def report(message: str) -> None:
    """Prints one line on stderr; other ranks wait first, for rank 0 mostly meets the same error and ends them."""
    rank = _rank()
    if rank > 0:
        time.sleep(2)
    # An error in a data worker arrives with the worker's whole traceback in its text; the last line is the error.
    if "Original Traceback" in message:
        message = message.strip().splitlines()[-1].partition(": ")[2]
    line = " ".join(_without_type_listing(message).split())
    print(f"error: {line}" if rank == 0 else f"error on rank {rank}: {line}", file=sys.stderr, flush=True)


def _without_type_listing(message: str) -> str:
    """Returns a parser's message without what it says about Python types that the value could also have had."""
    lines = [line.strip() for line in message.splitlines()]
    noise = (
        "Subtypes:",
        "Errors:",
        "Given value type:",
        "Given value: Namespace",
        "Given value: NestedArg",
        "Does not validate against any of the Union",
        "- Does not validate against any of the Union",
        "- Expected a <class 'NoneType'>",
    )
    kept = [line for line in lines if not line.startswith(noise)]
    return re.sub(r"<class '(\w+)'>", r"\1", " ".join(kept).removeprefix("- "))


def _meant_for_the_user(error: BaseException) -> bool:
    """Whether an error was raised by a line of ours (also inside a data worker) or names a file that is missing."""
    if isinstance(error, (FileNotFoundError, MisconfigurationException)):
        return True
    if "Original Traceback" in str(error):
        places = [line.split('"')[1] for line in str(error).splitlines() if line.strip().startswith('File "')]
        origin = places[-1] if places else ""
    else:
        frames = traceback.extract_tb(error.__traceback__)
        origin = frames[-1].filename if frames else ""
    path = Path(origin)
    return path.is_relative_to(PROJECT) and "site-packages" not in path.parts


def _quieten() -> None:
    """Silences what says nothing about the run: a curated list, each with its reason."""
    # Lightning 2.6 calls a spelling that newer torch is about to drop.
    warnings.filterwarnings("ignore", message=".*LeafSpec.*is deprecated")
    # Our modules reduce over ranks before they log (torchmetrics); reducing again would be wrong for most of them.
    warnings.filterwarnings("ignore", message=".*It is recommended to use `self.log.*sync_dist=True")
    # The size in MB of the model summary, which nobody reads under mixed precision.
    warnings.filterwarnings("ignore", message=".*is not supported by the model summary")
    # Advertisements of other packages ("💡 Tip: …").
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(_no_advertisement)


def _rank() -> int:
    return getattr(rank_zero_only, "rank", None) or 0


def _no_advertisement(record: logging.LogRecord) -> bool:
    return "💡" not in record.getMessage()


def _debugging() -> bool:
    return os.environ.get("SYNFER_DEBUG", "") not in ("", "0")


def _from_shell() -> bool:
    """Whether this process was started as ``python train.py``, with its own arguments."""
    return Path(getattr(sys.modules["__main__"], "__file__", None) or "").name == "train.py"


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


if __name__ == "__main__":
    main()
