"""The W&B side of a run: offline unless logged in, never a prompt, never in the way of training."""

from __future__ import annotations

import functools
import json
import os
import re
import sys
from argparse import Namespace
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.loggers.logger import rank_zero_experiment
from lightning.pytorch.utilities.rank_zero import rank_zero_only, rank_zero_warn
from torch import Tensor

from synfer.foundation.file_reading import one_line
from synfer.runs.flat_settings import flat_settings
from synfer.runs.wandb_login import choose_mode

CONNECT_SECONDS = 30
"""How long a run waits for the W&B server before it goes on offline."""

FINISH_SECONDS = 120
"""How long a run that is over waits for its last uploads; ``WANDB_FINISH_TIMEOUT`` overrides it (0 = without end)."""

MAX_FAILURES = 3
"""After so many failed calls in a row W&B is left alone: each failure may have taken its time."""


@dataclass(frozen=True)
class WandbOptions:
    """How a run appears on W&B (config group ``wandb``).

    Args:
        project: W&B project; ``WANDB_PROJECT`` overrides it.
        name: name of the run; null = name of the run folder.
        group: group of the run; null = ``WANDB_RUN_GROUP``, else the sweep or the folder of runs, else the configs.
        tags: tags beside those that say what is trained on what.
        log_checkpoints: whether a finished fit uploads its last and best checkpoints, which hold trained parts only.
        faces: synthetic faces in the table of samples; 0 = no table.

    Raises:
        ValueError: a tag that W&B would refuse, or a negative number of faces.
    """

    project: str = "synfer"
    name: str | None = None
    group: str | None = None
    tags: list[str] = field(default_factory=list)
    log_checkpoints: bool = False
    faces: int = 36

    def __post_init__(self) -> None:
        for tag in self.tags:
            if not 1 <= len(tag) <= 64:
                raise ValueError(f"wandb.tags: found '{tag}' of {len(tag)} characters, expected 1 to 64")
        if self.faces < 0:
            raise ValueError(f"wandb.faces: found {self.faces}, expected at least 0")


_DEFAULTS = WandbOptions()


def _harmless(method: Callable[..., Any]) -> Callable[..., Any]:
    """Makes a logging method that warns where it fails, for no reason is good enough to end a training."""

    @functools.wraps(method)
    def guarded(self: WandbRun, *args: Any, **kwargs: Any) -> Any:
        if self._is_guarded:  # called by another logging method, which is to hear of the failure
            return method(self, *args, **kwargs)
        if self.failures >= MAX_FAILURES:
            return None
        self._is_guarded = True
        try:
            result = method(self, *args, **kwargs)
        except Exception as error:
            self.failures += 1
            what = "left alone from here on" if self.failures >= MAX_FAILURES else "training goes on"
            rank_zero_warn(f"W&B {method.__name__} failed ({type(error).__name__}: {one_line(error)}): {what}")
            return None
        finally:
            self._is_guarded = False
        self.failures = 0
        return result

    return guarded


class WandbRun(WandbLogger):
    """W&B run of one run folder, whatever the number of ranks; its files lie in ``<run_dir>/wandb``.

    W&B sends in a process of its own, so a slow network does not slow training; a call that fails is a warning. What
    was not sent stays in the folder for ``wandb sync``.

    Args:
        run_dir: the run folder.
        run_id: id of the W&B run to continue; None = a new one.
        task: fit, validate, test or predict: the W&B job type.
        config: the resolved configuration, from which tags are made.
        config_names: names of the configs given, which name the group of a run that has no folder of its own kind.
        options: name, group, tags, project.
    """

    data_dir: str | None = None
    """What an earlier run of this process made of ``WANDB_DATA_DIR``."""

    def __init__(
        self,
        run_dir: str | Path,
        run_id: str | None = None,
        task: str = "fit",
        config: Mapping[str, Any] | None = None,
        config_names: Sequence[str] = (),
        options: WandbOptions = _DEFAULTS,
    ) -> None:
        run_dir = Path(run_dir)
        super().__init__(
            name=options.name or run_dir.name,
            save_dir=run_dir,
            id=run_id,
            project=os.environ.get("WANDB_PROJECT", options.project),
            group=(options.group or choose_group(run_dir, config_names))[:128],
            job_type=task,
            tags=sorted({*options.tags, *choose_tags(config or {}), *_tags_of_environment()}),
            mode=choose_mode(),
        )
        # Lightning always passes it, and W&B warns that it means nothing any more.
        self._wandb_init.pop("anonymous", None)
        self.failures = 0
        self._is_guarded = False
        # By their state and not by their time: somebody may set the clock back.
        self._there_before = {str(path): _state_of(path) for path in run_dir.glob("*/*.png")}
        self._shown: set[str] = set()

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The W&B run; made at the first use, offline where the server cannot be reached, else a run that is none."""
        while self._experiment is None:
            import wandb

            # W&B picks another folder, with a warning, where this one does not exist yet.
            Path(str(self._save_dir)).mkdir(parents=True, exist_ok=True)
            # Artifacts wait for their upload here too, so that the folder is all that `wandb sync` needs.
            if os.environ.get("WANDB_DATA_DIR") in (None, WandbRun.data_dir):  # not the user's own choice
                WandbRun.data_dir = os.environ["WANDB_DATA_DIR"] = str(Path(str(self._save_dir)).resolve() / "wandb")
            settings: dict[str, Any] = {"init_timeout": CONNECT_SECONDS, "quiet": True}
            if "WANDB_FINISH_TIMEOUT" not in os.environ:
                settings["finish_timeout"] = FINISH_SECONDS
            self._wandb_init["settings"] = wandb.Settings(**settings)
            try:
                return WandbLogger.experiment.fget(self)  # type: ignore[attr-defined]
            except (wandb.errors.Error, OSError) as error:
                mode = self._wandb_init["mode"]
                if mode == "disabled":
                    raise
                why, folder = one_line(error), f"{self._save_dir}/wandb"
                if mode == "offline":
                    rank_zero_warn(f"W&B cannot write to {folder} ({why}): this run is not logged there")
                else:
                    rank_zero_warn(f"W&B cannot be reached ({why}): this run is kept offline in {folder}")
                self._wandb_init["mode"] = "disabled" if mode == "offline" else "offline"
                os.environ["WANDB_MODE"] = self._wandb_init["mode"]
        return WandbLogger.experiment.fget(self)  # type: ignore[attr-defined]

    @rank_zero_only
    @_harmless
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Logs settings under their keys of the command line, such as ``data.synthetic_ratio``."""
        given = vars(params) if isinstance(params, Namespace) else params
        self.experiment.config.update(flat_settings(given), allow_val_change=True)

    @rank_zero_only
    @_harmless
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Logs metrics; ``step`` is the number of optimiser steps done."""
        super().log_metrics(metrics, step)

    @rank_zero_only
    @_harmless
    def log_image(self, key: str, images: list[Any], step: int | None = None, **kwargs: Any) -> None:
        """Logs pictures; of files it is remembered that they were logged."""
        super().log_image(key, images, step, **kwargs)
        self._shown |= {str(image) for image in images if isinstance(image, (str, Path))}

    @rank_zero_only
    @_harmless
    def log_new_pictures(self, folder: Path) -> None:
        """Logs the pictures that this run has written into a folder and not logged yet."""
        for path in sorted(folder.glob("*.png")):
            if str(path) not in self._shown and self._there_before.get(str(path)) != _state_of(path):
                super().log_image(f"samples/{path.stem}", [str(path)])
                self._shown.add(str(path))

    @rank_zero_only
    @_harmless
    def log_faces(self, key: str, faces: Sequence[Tensor], columns: Mapping[str, Sequence[Any]]) -> None:
        """Logs a table with a face in each row.

        Args:
            key: name of the table.
            faces: n images, uint8 (3, H, W), RGB.
            columns: name → n values.
        """
        import wandb

        images = [wandb.Image(face.permute(1, 2, 0).cpu().numpy()) for face in faces]
        rows = [[image, *values] for image, *values in zip(images, *columns.values(), strict=True)]
        self.log_table(key, columns=["image", *columns], data=rows)

    @rank_zero_only
    @_harmless
    def summarise(self, values: Mapping[str, Any]) -> None:
        """Writes values into the summary of the W&B run, by their names."""
        self.experiment.summary.update(dict(values))

    @rank_zero_only
    @_harmless
    def log_artifact(
        self, name: str, kind: str, files: Iterable[Path] = (), contents: Mapping[str, Any] | None = None
    ) -> None:
        """Logs an artifact; W&B makes a new version only where the content is new.

        Args:
            name: name of the artifact.
            kind: its type on W&B.
            files: files to copy into it.
            contents: file name → what is written there as JSON.
        """
        import wandb

        artifact = wandb.Artifact(re.sub(r"[^\w.-]", "-", name)[:128], kind)
        for path in files:
            artifact.add_file(str(path))
        for file_name, content in (contents or {}).items():
            with artifact.new_file(file_name) as file:
                file.write(json.dumps(content, indent=2, sort_keys=True))
        self.experiment.log_artifact(artifact)


def choose_group(run_dir: Path, config_names: Sequence[str] = ()) -> str:
    """Returns the W&B group of a run: its sweep, else the folder that holds it with its like, else its configs.

    ``runs`` is where all runs lie and groups nothing.
    """
    if os.environ.get("WANDB_RUN_GROUP"):
        return os.environ["WANDB_RUN_GROUP"]
    if os.environ.get("WANDB_SWEEP_ID"):
        return f"sweep-{os.environ['WANDB_SWEEP_ID']}"
    folder = run_dir.resolve().parent.name
    return " + ".join(config_names) if folder == "runs" and config_names else folder


def choose_tags(config: Mapping[str, Any]) -> list[str]:
    """Returns what one looks for among many runs: model, network, data set, label space and what makes faces."""
    flat = flat_settings(config)
    named = [flat.get(key) for key in ("model.class_path", "data.reader.class_path")]
    tags = [str(name).rpartition(".")[2] for name in named if name]
    tags += [value for key in ("model.backbone", "model.label_space") if isinstance(value := flat.get(key), str)]
    if flat.get("data.synthetic_ratio"):
        tags.append("mixed" if flat["data.synthetic_ratio"] < 1 else "synthetic only")
    tags += [key.removesuffix(".enabled") for key in flat if re.fullmatch(r"\w+\.enabled", key) and flat[key]]
    return [tag[:64] for tag in tags]


def finish_wandb(exit_code: int = 0) -> None:
    """Ends this process's W&B run, so that the next run of the process does not write into it; never raises.

    Args:
        exit_code: that of the run; W&B shows a run as failed where it is not 0.
    """
    wandb = sys.modules.get("wandb")
    if wandb is None or getattr(wandb, "run", None) is None:
        return
    try:
        wandb.finish(exit_code=exit_code)
    except Exception as error:
        rank_zero_warn(f"W&B could not finish ({type(error).__name__}: {one_line(error)})")


def _state_of(path: Path) -> tuple[int, int, int]:
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


def _tags_of_environment() -> list[str]:
    # W&B reads WANDB_TAGS only where it is given no tags.
    return [tag.strip()[:64] for tag in os.environ.get("WANDB_TAGS", "").split(",") if tag.strip()]
