"""The command line of one run: its settings, the folder and record of it, and what takes part in it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import Namespace
from lightning.fabric.plugins import CheckpointIO
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import LearningRateMonitor
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from callbacks.agreed_stop import AgreedStop, exit_code_of_stop, stop_is_agreed
from callbacks.attribute_scores import AttributeScores
from callbacks.recording.atomic_checkpoint_io import AtomicCheckpointIO
from callbacks.recording.metrics_csv import MetricsCsv
from callbacks.recording.run_checkpoint import RunCheckpoint
from callbacks.recording.run_folder_lock import RunFolderLock
from callbacks.recording.run_record import RunRecord
from callbacks.recording.throughput import Throughput
from callbacks.recording.wandb_run import WandbOptions, WandbRun
from callbacks.step_seed import StepSeed
from callbacks.synthesis.face_table import FaceTable
from experiments.cluster.attendance import ATTENDANCE
from experiments.cluster.cluster_options import ClusterOptions
from experiments.cluster.launch import find_launch, tell_lightning
from experiments.cluster.slurm_options import SlurmOptions, requeues_of, slurm_world
from experiments.cluster.submission import program_again, submit
from experiments.cluster.world import fit_to_launch
from experiments.command_line.checkpoint_argument import check_fits, is_file_name, locate
from experiments.command_line.commands import is_synfer
from experiments.command_line.errors import debugging, one_line_errors, report, this_rank
from experiments.command_line.lost_rank import how_ranks_ended
from experiments.command_line.parent_watch import announce_parent
from experiments.command_line.parser import with_interpolations
from experiments.command_line.project import shipped
from experiments.command_line.run_folder import RunPlace, choose_place, refuse_occupied, tell_started_ranks
from experiments.command_line.signs_of_life import say_the_end, use_run_progress, without_table
from synfer.foundation.bfloat16 import computes_bfloat16_fast, warn_of_slow_bfloat16
from synfer.foundation.checkpoint_file import read_checkpoint
from synfer.runs.lost_connection import is_lost_connection

SWITCHED_GROUPS = ("synthesis", "layout", "guidance", "pseudo_labels")
"""Config groups of callbacks that take part only where ``<group>.enabled`` is true."""

TEST_GROUP = "test"
"""Config group of the callback that tests a generator; it takes part where the model makes faces."""


class SynferCLI(LightningCLI):
    """Command line of one run (C3): one data module class, any LightningModule, synthesis callbacks as config groups.

    Precedence: command line > later --config > earlier --config > defaults. A checkpoint gives weights and state, never
    settings.

    Attributes:
        is_submitted: whether SLURM has the run now, and this process nothing more to do.
    """

    is_submitted = False

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds the run folder and the groups of callbacks."""
        from callbacks.generator_test import GeneratorTest
        from callbacks.misclassified_faces import MisclassifiedFaces
        from callbacks.synthesis.layout_initialisation import LayoutInitialisation
        from callbacks.synthesis.online_synthesis import OnlineSynthesis
        from callbacks.synthesis.pseudo_labeller import PseudoLabeller
        from callbacks.synthesis.semantic_guidance import SemanticGuidance

        parser.add_argument(
            "--run_dir",
            type=str | None,
            default=None,
            help="folder of this run (default: runs/<task>-<UTC time>-<4 hex>)",
        )
        groups = (OnlineSynthesis, LayoutInitialisation, SemanticGuidance, PseudoLabeller)
        for name, callback in zip(SWITCHED_GROUPS, groups, strict=True):
            parser.add_lightning_class_args(callback, name)
        parser.add_lightning_class_args(MisclassifiedFaces, "misclassified")
        parser.add_lightning_class_args(GeneratorTest, TEST_GROUP)
        assert parser.groups is not None
        self._test_group = parser.groups.pop(TEST_GROUP)  # a name that the arguments of trainer.test take as well
        parser.add_class_arguments(WandbOptions, "wandb")
        parser.add_class_arguments(ClusterOptions, "cluster")
        parser.add_class_arguments(SlurmOptions, "slurm")
        parser.add_lightning_class_args(RunCheckpoint, "checkpoint")
        # The newest state is kept, or the best with --checkpoint.monitor=val/accuracy --checkpoint.mode=max; last.ckpt
        # is the newest in both cases. (With save_top_k=0 Lightning would write nothing before the end of training.)
        parser.set_defaults(
            {"checkpoint.save_last": True, "checkpoint.save_top_k": 1, "checkpoint.enable_version_counter": False}
        )

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        parser.groups = {**(parser.groups or {}), TEST_GROUP: self._test_group}
        parser.epilog = (
            "shorthands: --preset NAME is the config of that name in configs/presets (synfer presets); --data FOLDER "
            "is the root of a reader of image folders (docs/command_line.md)"
        )
        parser.set_defaults({"weights_only": True})  # a checkpoint is data: nothing in it may run
        if subcommand == "predict":  # callbacks write predictions; kept in memory, a large set would fill it
            parser.set_defaults({"return_predictions": False})
        return parser

    def _parse_ckpt_path(self) -> None:
        # Lightning would let the hyperparameters stored in the checkpoint override the command line, silently.
        settings = self.config[self.config.subcommand]
        if is_file_name(settings.get("ckpt_path")):
            with one_line_errors(exit_code=2):
                settings.ckpt_path = locate(str(shipped(str(settings.ckpt_path))), fit=self.config.subcommand == "fit")

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
            self.is_submitted = self._submit(config, subcommand)
            if self.is_submitted:
                return
            self._find_the_others(config, subcommand)
            self.stored = self._stored_record() if fit else {}
            self._refuse_mixtures(config, fit)
            self._refuse_idle_test(config, self._parser(subcommand))
        # Without what belongs to this start alone, so that --config runs/x/config.yaml starts a new run, instead of
        # writing into that one or going on from its last checkpoint.
        again = config.clone()
        again.run_dir = None
        if fit:
            again.ckpt_path = None
        self.config_yaml = with_interpolations(
            self._parser(subcommand).dump(again, skip_unset=False), self._written_interpolations(subcommand)
        )
        if config.synthesis.generator is not None:  # that of the demo is found from any folder, as its config is
            config.synthesis.generator = str(shipped(config.synthesis.generator))
        config.trainer.default_root_dir = str(self.run_dir)
        config.checkpoint.dirpath = config.checkpoint.dirpath or str(self.run_dir / "checkpoints")
        self.continues = fit and bool(config.get("ckpt_path"))

    def _submit(self, config: Namespace, subcommand: str) -> bool:
        """Submits the run to SLURM where that is asked for, after all that can be refused here.

        Raises:
            ValueError: says what is refused, or that settings of ``slurm`` do nothing.
        """
        options = SlurmOptions(**config.slurm.as_dict())
        if not options.enabled:
            idle = [word for word in sys.argv[1:] if word.startswith("--slurm.")]
            if idle and not any(word.startswith("--slurm.enabled") for word in idle):
                raise ValueError(f"{idle[0].partition('=')[0]}: found no --slurm, expected it, to submit the run")
            return False
        launch = find_launch()
        if launch.kind != "shell":
            raise ValueError(f"--slurm: found a rank that {launch.kind} has started, expected a shell that submits")
        world = slurm_world(options, config.trainer)
        requeues = requeues_of(options, config.cluster.requeues)
        self.run_dir = Path(choose_place(config.run_dir, subcommand, launch).run_dir)

        def refuse() -> None:
            self.stored = self._stored_record() if subcommand == "fit" else {}
            self._refuse_mixtures(config, subcommand == "fit")
            self._refuse_idle_test(config, self._parser(subcommand))

        command = [*program_again(sys.argv[0], is_synfer(sys.argv[0])), *sys.argv[1:]]
        print(submit(options, world, requeues, command, self.run_dir, refuse), flush=True)
        return True

    def _find_the_others(self, config: Namespace, subcommand: str) -> None:
        """Has all ranks agree on where the run lives; a restart of the same job goes on in its own folder."""
        self.launch = find_launch()
        tell_lightning(self.launch)
        options = ClusterOptions(**config.cluster.as_dict())
        ATTENDANCE.requeue_on_signal(self.launch, options.requeues or 0)

        def decide(launch_name: str, start: int, before: Mapping[str, Any]) -> dict[str, Any]:
            return asdict(choose_place(config.run_dir, subcommand, self.launch, launch_name, start, before))

        self.place = RunPlace(**ATTENDANCE.agree(self.launch, options, decide))
        tell_started_ranks(self.place)
        self.run_dir = Path(self.place.run_dir)
        if self.place.checkpoint is not None:
            config.ckpt_path = self.place.checkpoint
            if self.launch.rank == 0:
                again = f"start {self.place.restarts + 1} of " if self.place.restarts else ""
                rank_zero_info(f"{again}job '{self.place.job}': goes on from {self.place.checkpoint}")

    def _refuse_mixtures(self, config: Namespace, fit: bool) -> None:
        """Refuses to write two runs into one folder, and one run with two seeds.

        Raises:
            ValueError: says which.
        """
        if not fit or this_rank() != 0:
            return
        checkpoint = self._checkpoint_to_continue()
        if not config.get("ckpt_path") or checkpoint is not None:
            refuse_occupied(self.run_dir, checkpoint, self.stored.get("run_id"))
        done, wanted = self.stored.get("epoch", 0), config.trainer.max_epochs
        if wanted not in (None, -1) and done > wanted:
            raise ValueError(
                f"trainer.max_epochs={wanted}: found a checkpoint of a run with {done} whole epochs, expected at least "
                "as many to go on from it"
            )
        before, seed = self.stored.get("attempts") or [{}], config.seed_everything
        if before[0].get("seed", seed) != seed:
            raise ValueError(
                f"seed_everything={seed}: found a checkpoint of a run with seed {before[0]['seed']}, expected the same "
                "to go on from it"
            )

    def _refuse_idle_test(self, config: Namespace, parser: LightningArgumentParser) -> None:
        """Refuses settings of a generator's test where the model makes no faces.

        Raises:
            ValueError: names the first of them.
        """
        module, _, name = config.model.class_path.rpartition(".")
        model = getattr(import_module(module), name)
        if makes_faces(model):
            return
        for name, value in config[TEST_GROUP].items():
            if value != parser.get_default(f"{TEST_GROUP}.{name}"):
                raise ValueError(
                    f"{TEST_GROUP}.{name}: found {value} with the model {model.__name__}, expected a model that makes "
                    "faces (lightning_modules.ExpressionGenerator), or no such setting"
                )

    def _written_interpolations(self, subcommand: str) -> dict[str, Any]:
        """Returns the settings of this command that refer to something else, as the user wrote them."""
        written = getattr(self.parser, "interpolations", {})
        return {key.removeprefix(f"{subcommand}."): text for key, text in written.items()}

    def instantiate_classes(self) -> None:
        """Makes model, data and trainer; an error of theirs is an error of the configuration.

        Raises:
            ValueError: weights that nothing has trained are to be evaluated.
        """
        if self.is_submitted:
            return
        with one_line_errors(exit_code=2, any_origin=True):
            super().instantiate_classes()
            settings = self.config[str(self.subcommand)]
            if (
                self.subcommand != "fit"
                and not settings.get("ckpt_path")
                and getattr(self.model, "needs_checkpoint", False)
            ):
                last = self.run_dir / "checkpoints" / "last.ckpt"
                raise ValueError(
                    f"{self.subcommand}: found no --ckpt_path, expected the checkpoint of a trained "
                    f"{type(self.model).__name__}: its weights are random numbers"
                    + (f" (--ckpt_path {last})" if last.is_file() else "")
                )
            ckpt_path = self.config[str(self.subcommand)].get("ckpt_path")
            if is_file_name(ckpt_path):
                check_fits(str(ckpt_path), self.model)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Makes the trainer with the run's loggers and callbacks."""
        subcommand = str(self.subcommand)
        settings = self.config[subcommand]
        parser = self._parser(subcommand)
        callbacks: list[Callback] = [
            self._get(self.config_init, key) for key in parser.callback_keys if self._takes_part(key, settings)
        ]
        callbacks.insert(0, AgreedStop())  # hears signals before a pool is filled
        has_faces = settings[SWITCHED_GROUPS[0]].enabled or subcommand != "fit"
        idle = [key for key in SWITCHED_GROUPS[1:] if settings[key].enabled and not has_faces]
        if idle and not makes_faces(type(self.model)):
            raise ValueError(
                f"{idle[0]}.enabled=true, but no face is made in this fit: found synthesis.enabled=false, expected true"
            )
        self.lock = RunFolderLock(self.run_dir)
        callbacks.append(self.lock)
        config, options = yaml.safe_load(self.config_yaml), self._get(self.config_init, "wandb")
        if subcommand == "fit" and settings[SWITCHED_GROUPS[0]].enabled and options.faces:
            callbacks.append(FaceTable(options.faces))  # after the vote, whose outcome it shows
        if subcommand in ("test", "validate"):
            callbacks.append(AttributeScores())
        if subcommand == "fit":
            callbacks += [Throughput(), StepSeed()]
        self.record = RunRecord(
            self.run_dir,
            subcommand,
            config,
            self.config_yaml,
            self.continues,
            options.log_checkpoints,
            self.stored,
            self.place.as_record(),
        )
        callbacks.append(self.record)
        given = self._get(self.config_init, "trainer")
        csv = MetricsCsv(self.run_dir, self.continues or subcommand != "fit", before_step=self.stored.get("step"))
        if given.logger in (None, True):
            loggers: list[Any] = [
                csv,
                WandbRun(
                    self.run_dir,
                    run_id=self.stored.get("wandb_id") or self.place.wandb_id,
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
            loggers = [csv, *(given.logger if isinstance(given.logger, list) else [given.logger])]
        if loggers and subcommand == "fit":
            callbacks.append(LearningRateMonitor(logging_interval="step"))
        plugins = given.plugins if isinstance(given.plugins, list) else [given.plugins] if given.plugins else []
        if not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
            plugins = [*plugins, AtomicCheckpointIO()]
        chosen = {**given, "logger": loggers or False, "plugins": plugins, **kwargs}
        use_run_progress(chosen, callbacks, settings, subcommand)
        trainer = self._instantiate_trainer(chosen, callbacks)
        fit_to_launch(trainer, self.launch, self._get(self.config_init, "cluster"))
        precision, device = str(trainer.precision), trainer.strategy.root_device.type
        if precision.startswith("bf16") and not computes_bfloat16_fast(device):
            warn_of_slow_bfloat16("trainer.precision", precision, "32-true")
        rank_zero_info(f"run folder: {self.run_dir}")
        return trainer

    def _takes_part(self, key: str, settings: Namespace) -> bool:
        if key == TEST_GROUP:
            return makes_faces(type(self.model))
        return key not in SWITCHED_GROUPS or settings[key].enabled

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        return without_table(super()._prepare_subcommand_kwargs(subcommand))

    def _run_subcommand(self, subcommand: str) -> None:
        if self.is_submitted:
            return
        launcher = self.trainer.strategy.launcher
        starts_ranks = (
            isinstance(launcher, _SubprocessScriptLauncher)
            and self.trainer.world_size > 1
            and not launcher.cluster_environment.creates_processes_externally  # torchrun, srun
        )
        if starts_ranks and not _from_shell() and "LOCAL_RANK" not in os.environ:
            self.parser.error(
                f"trainer.devices: found {self.trainer.num_devices} in a run started from Python, expected 1 "
                "(every rank runs the command line again: start python train.py in a process of its own)"
            )
        if starts_ranks:
            announce_parent()
        try:
            if self.trainer.is_global_zero:
                ATTENDANCE.on_lost(self.record.note_loss)
                with one_line_errors(exit_code=2):
                    self.lock.take()
                    if subcommand == "fit":  # a run may have come and gone since the first look
                        self._refuse_mixtures(self.config[subcommand], fit=True)
            with exit_code_of_stop(self.trainer):
                super()._run_subcommand(subcommand)
        except BaseException as error:
            lost = is_lost_connection(error)
            gone = ATTENDANCE.who_has_gone() if lost else None
            if stop_is_agreed(self.trainer) or gone is not None:
                ATTENDANCE.end_together()
            started = launcher.procs if starts_ranks and isinstance(launcher, _SubprocessScriptLauncher) else []
            if lost or isinstance(error, SystemExit):  # another rank failed: let it say why; or all stop together
                with contextlib.suppress(subprocess.TimeoutExpired):
                    for rank in started:
                        rank.wait(timeout=10)
            why = gone or how_ranks_ended(started)
            if starts_ranks and isinstance(launcher, _SubprocessScriptLauncher):
                # Ranks that wait for this one would wait for ever, or end in a long traceback about a lost connection.
                launcher.kill(signal.SIGKILL)
            if lost and not debugging():
                if self.trainer.is_global_zero:
                    self.record.note_loss(why)
                report(why)
                raise SystemExit(1) from None
            raise
        finally:
            self.lock.release()
            if this_rank() == 0:
                if words := self.record.last_words():
                    print(words, file=sys.stderr, flush=True)
                say_the_end(self.run_dir, subcommand, self.model)

    def _checkpoint_to_continue(self) -> Path | None:
        """Returns the file that a fit goes on from; None where there is none, or none on this machine."""
        path = self.config[str(self.subcommand)].get("ckpt_path")
        if path == "last":
            path = self.run_dir / "checkpoints" / "last.ckpt"
        return Path(path) if path and Path(path).is_file() else None

    def _stored_record(self) -> dict[str, Any]:
        """Returns what the checkpoint that is continued knows of its run: W&B starts before it is restored."""
        path = self._checkpoint_to_continue()
        if path is None:
            return {}
        state = read_checkpoint(path, "ckpt_path", mmap=True)
        record = state.get("callbacks", {}).get("RunRecord", {})
        position = state.get("ExpressionDataModule", {}).get("position", {})
        epoch = position.get("epoch", state.get("epoch", 0))
        counts = {name: int(position[name]) for name in ("real", "synthetic") if name in position}
        return {**record, "step": int(state.get("global_step", 0)), "epoch": int(epoch), "counts": counts}


def makes_faces(model: type) -> bool:
    """Whether a class of models can synthesise."""
    return hasattr(model, "synthesise")


def _from_shell() -> bool:
    """Whether this process was started as ``python train.py`` or ``synfer``, with its own arguments."""
    program = getattr(sys.modules["__main__"], "__file__", None) or ""
    return Path(program).name == "train.py" or is_synfer(program)
