"""How a classifier is stored: as a checkpoint, or as a folder of what labelling needs and nothing else."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch.random import fork_rng

from datamodules.rows.alignment_record import AlignmentRecord, alignment_record
from datamodules.rows.face_preparation import FacePreparation
from lightning_modules.aligned_faces import alignment_of_run, tell_of_other_alignment
from lightning_modules.expression_module import ExpressionModule
from synfer.foundation.checkpoint_file import check_finite, find_checkpoint
from synfer.foundation.file_reading import reading
from synfer.foundation.module_file import (
    WEIGHTS_ALONE,
    ModuleFormat,
    StoredModule,
    is_folder_of_weights,
    with_average,
    write_folder,
)
from synfer.foundation.renamed_settings import present_settings
from synfer.networks.latent_codec import LatentCodec
from synfer.runs.run_format import CONFIG

_CODEC = "_codec"  # beside the settings of a folder: fingerprint of the codec whose latents are read
_ALIGNMENT = "_alignment"  # likewise: how the faces of the training were aligned

Module = TypeVar("Module", bound="ClassifierFile")


class ClassifierFile(ExpressionModule):
    """A classifier that can be loaded for use alone.

    Attributes:
        face_alignment: how the faces of its training were aligned; {} = they were taken as they were, None = its file
            does not say.
    """

    face_alignment: AlignmentRecord | None = None
    file_format = ModuleFormat("classifier", "backbone", "ExpressionClassifier", entry="expression_classifier")

    @property
    @abstractmethod
    def codec(self) -> LatentCodec | None:
        """The codec whose latents the network reads; None = it reads pixels."""

    @classmethod
    @fork_rng(devices=[])  # building networks draws random numbers, and must not disturb a training beside
    def load_trained(
        cls: type[Module],
        path: str | Path,
        map_location: str | torch.device = "cpu",
        label_space: str | Sequence[str] | None = None,
        names_expressions: bool = True,
    ) -> Module:
        """Loads a trained classifier for use: averaged weights if there are any, evaluation mode, gradients off.

        Args:
            path: a checkpoint of this class, a run folder, which means its last one, or a folder of
                :meth:`save_trained`.
            map_location: device to load to.
            label_space: the label space that the caller needs; None takes any.
            names_expressions: whether the caller needs expressions: one that rates valence and arousal alone is
                refused.

        Raises:
            FileNotFoundError: no file there.
            ValueError: not a checkpoint, not one of this class, of another label space, one that names no expressions,
                or weights that are not finite.
        """
        path = find_checkpoint(path, "classifier")
        if path.is_dir() and not is_folder_of_weights(path):
            raise FileNotFoundError(
                f"classifier '{path}': found a folder without checkpoints/last.ckpt and without model.safetensors, "
                "expected a checkpoint, a run folder that has one, or a folder of save_trained"
            )
        stored = cls.file_format.read_trained(path, map_location)
        with reading("classifier checkpoint", path, "one written by training"):
            classifier = cls._restored(path, stored, label_space)
        if names_expressions and (stored.settings.get("affect") or {}).get("alone", False):
            raise ValueError(
                f"classifier '{path}': found one of valence and arousal alone (model.affect.alone), expected one that "
                "names expressions"
            )
        return classifier.to(map_location).eval().requires_grad_(False)

    @classmethod
    def _restored(
        cls: type[Module], path: Path, stored: StoredModule, label_space: str | Sequence[str] | None
    ) -> Module:
        """Returns the classifier of a file with its averaged weights, if there are any."""
        settings = dict(stored.settings)
        trained_on, alignment = settings.pop(_CODEC, None), settings.pop(_ALIGNMENT, None)
        make: Any = cls  # arguments by their names in the file
        # The weights come from this file: nothing is to be fetched or read a second time.
        alone: dict[str, Any] = {"pretrained": False, "pretrained_path": None, "backbone_weights": None}
        came_from = {"backbone_weights": settings.get("backbone_weights")}
        if "head" in settings:
            alone["head"] = {**settings["head"], "stream_weights": None}
            came_from["head"] = settings["head"]
        classifier: Module = make(**{**settings, **alone})
        classifier._config |= came_from  # still tells
        classifier._check_label_space(path, label_space)
        found = None if classifier.codec is None else classifier.codec.fingerprint()
        expected = stored.entry.get("codec", trained_on or found)
        if found != expected:
            raise ValueError(
                f"classifier checkpoint {path} was trained on the latents of another codec than that of "
                f"'{settings['latents_of']}' now: found {found}, expected {expected}"
            )
        classifier.load_state_dict(stored.weights)
        classifier.face_alignment = stored.entry.get("alignment", alignment)
        if classifier.face_alignment is None and path.is_file():  # older than the record: its run may say it
            run = FacePreparation.of_run(path.absolute().parent.parent / CONFIG, int(settings["image_size"] or 0))
            classifier.face_alignment = alignment_record(run.alignment, run.data_size) or None
        return classifier

    def save_trained(self, folder: str | Path) -> None:
        """Writes what labelling needs, and nothing else: ``model.safetensors`` (float32) and ``config.json``.

        Averaged weights where there are any. In float32, so that the folder has the fingerprint of the checkpoint, and
        a guide is known as itself when it is given as the judge. :meth:`load_trained` reads it, and whatever takes a
        classifier's checkpoint to use it.

        Args:
            folder: made if missing.

        Raises:
            ValueError: a weight is not finite, and nothing is written.
        """
        average = None if self.ema is None or self.ema.is_swapped else self.ema.state_dict()
        weights = with_average(self.state_dict(), average, self.file_format.submodule)
        check_finite(weights, "classifier", Path(folder))
        settings = {**self._config, _CODEC: None if self.codec is None else self.codec.fingerprint()}
        settings |= {} if self.face_alignment is None else {_ALIGNMENT: self.face_alignment}
        write_folder(Path(folder), self.file_format.kind, settings, weights)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds how the faces of the training are aligned."""
        super().on_save_checkpoint(checkpoint)
        if self._trainer is not None and self.trainer.state.fn == "fit":
            self.face_alignment = alignment_of_run(self.trainer)
        if self.face_alignment is not None:
            checkpoint[str(self.file_format.entry)]["alignment"] = self.face_alignment

    def _load_alignment(self, saved: Mapping[str, Any]) -> None:
        """Takes over how the faces of a checkpoint's training lay, and says so where those of this run lie otherwise.

        Args:
            saved: what :meth:`on_save_checkpoint` has added.
        """
        self.face_alignment = saved.get("alignment", saved["config"].get(_ALIGNMENT))
        tell_of_other_alignment(self._trainer, self, "ckpt_path")

    def _entry_of(self, checkpoint: dict[str, Any]) -> dict[str, Any]:
        if checkpoint.get(WEIGHTS_ALONE):
            return {"config": present_settings(self.file_format.kind, checkpoint["hyper_parameters"]), "ema": None}
        return super()._entry_of(checkpoint)
