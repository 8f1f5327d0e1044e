"""ZeroShot: names expressions by sentences alone, and may learn a projection for it from faces without labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from datamodules.batch import Batch
from lightning_modules.averaged_module import AveragedModule
from lightning_modules.confusion_count import ConfusionCount
from lightning_modules.frozen_features import FrozenFeatures
from lightning_modules.trainer_access import command_name, data_of
from synfer.faces.expression_prompts import PromptSet, prompts_of
from synfer.foundation.module_file import KIND, ModuleFormat
from synfer.foundation.validate import check_same_settings, check_setting
from synfer.networks.clip_folder import ClipFaces
from synfer.optimisation.optimiser import OptimiserName, optimiser_of
from synfer.optimisation.schedule import Schedule
from synfer.representation.full_precision import cosines
from synfer.representation.heads import ExpressionProjection
from synfer.representation.losses import pair_contrast
from synfer.representation.zero_shot import ensemble

_CAPTIONS = "captions"


class ZeroShot(AveragedModule):
    """A CLIP model that tells expressions by the sentences that describe them best; it is never trained.

    ``python train.py test`` and ``validate`` log ``uar`` (unweighted average recall: the mean class accuracy) and
    ``war`` (weighted: the accuracy), and recalls by name. Classes are those of the data, by name: neither the order of
    folders nor that of prompts matters.

    With a ``target`` a linear projection of both halves is trained by ``fit``, after Exp-CLIP (Zhao et al. 2024, arXiv
    2405.19100), in which a language model's features are the target. Here it is either the faces' captions, those of
    synthetic faces for example, or the features of another frozen network of faces, which needs no caption. Labels are
    looked at in ``val`` alone. A checkpoint holds the projection and not the CLIP model.

    Args:
        clip: folder of a CLIP model in transformers' layout, with its tokenizer.
        prompts: "canonical", "templates", "actions", "all" (:mod:`synfer.faces.expression_prompts`), or a map from
            expressions to sentences.
        target: what the projection learns from: "captions", or a network
            (:class:`lightning_modules.frozen_features.FrozenFeatures`); null = there is no projection.
        width: of the projection, with captions; null = that of the CLIP model. Of a network it is the network's.
        temperature: of the contrast, > 0.
        optimizer: of the projection.
        learning_rate: peak rate.
        weight_decay: of the projection.
        schedule: of the rate.
        warmup_fraction: share of all steps in which the rate rises, in [0, 1).

    Raises:
        FileNotFoundError: no network there.
        ValueError: no CLIP model, or a value out of range.
    """

    file_format = ModuleFormat("zero_shot", "projection", "ZeroShot", entry="zero_shot", name="zero-shot projection")
    uses_unlabelled_rows = True
    ema = None

    def __init__(
        self,
        clip: str,
        prompts: PromptSet | dict[str, Any] = "templates",
        target: str | None = None,
        width: int | None = None,
        temperature: float = 0.07,
        optimizer: OptimiserName = "adamw",
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-2,
        schedule: Schedule = "cosine",
        warmup_fraction: float = 0.05,
    ) -> None:
        config = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        super().__init__()
        self.save_hyperparameters(logger=False)
        self._config = {**config, "prompts": dict(prompts) if isinstance(prompts, Mapping) else prompts}
        check_setting(temperature > 0, "temperature", temperature, "a number > 0")
        check_setting(learning_rate > 0, "learning_rate", learning_rate, "a number > 0")
        check_setting(weight_decay >= 0, "weight_decay", weight_decay, "a number ≥ 0")
        check_setting(0 <= warmup_fraction < 1, "warmup_fraction", warmup_fraction, "a number in [0, 1)")
        check_setting(Path(clip).is_dir(), "clip", clip, "the folder of a CLIP model")
        faces = ClipFaces(Path(clip), "model.clip").eval()
        learns_from_network = target not in (None, _CAPTIONS)
        # In lists, so that they are no submodules: neither trained nor saved.
        self._clip = [faces]
        self._target = [FrozenFeatures(str(target), "model.target")] if learns_from_network else []
        self.image_size = faces.image_size
        self.projection: nn.Module | None = None
        if target is not None:
            if self._target:
                check_setting(
                    width is None, "width", width, "null with a network as model.target, whose width it takes"
                )
                side = self._target[0].image_size
                out = self._target[0](torch.zeros(1, 3, side, side)).shape[1]
            else:
                out = width or faces.width
            self.projection = ExpressionProjection(faces.width, out)
            with torch.no_grad():  # angles are at first those of the CLIP model, as far as there is room for them
                nn.init.orthogonal_(self.projection.weight)
        self._classes = torch.zeros(0, 0)
        self._count: ConfusionCount | None = None

    @property
    def needs_checkpoint(self) -> bool:
        """Whether there is a projection, which only a checkpoint knows."""
        return self.projection is not None

    # ------------------------------------------------------------------ the network

    @property
    def clip(self) -> ClipFaces:
        """The frozen CLIP model, on this module's device."""
        return self._clip[0].to(self.device)

    def _project(self) -> Callable[[Tensor], Tensor]:
        return (lambda rows: rows) if self.projection is None else self.projection

    def class_rows(self, names: tuple[str, ...]) -> Tensor:
        """Returns one unit row per class (K, D), by name."""
        return ensemble(self.clip.text, prompts_of(self._config["prompts"], names), self.projection)

    def forward(self, image: Tensor) -> Tensor:
        """Returns unit rows (B, D) of images (B, 3, H, W) in [0, 1], in the space of :meth:`class_rows`."""
        with torch.no_grad():
            seen = self.clip(image)
        return self._project()(seen)

    # ------------------------------------------------------------------ training

    def setup(self, stage: str) -> None:
        """Checks that there is something to train.

        Raises:
            ValueError: ``fit`` without a target.
        """
        fine = command_name(stage) != "fit" or self.projection is not None
        check_setting(fine, "target", None, "captions or a network with the command fit (zero-shot itself needs none)")

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Returns the contrast between projected faces and what belongs to them."""
        seen = self(batch["image"])
        if self._target:
            wanted = self._target[0].to(self.device)(batch["image"])
        else:
            wanted = self._project()(self.clip.text(batch["caption"]))
        loss = pair_contrast(seen, wanted, self._config["temperature"])
        self.log("train/loss", loss.detach(), prog_bar=True, batch_size=len(batch["sample_id"]))
        return loss

    def build_optimiser(self) -> Optimizer:
        """Returns the optimiser that the settings name, over the projection."""
        assert self.projection is not None
        return optimiser_of(self.projection.parameters(), self._config)

    def learning_rate_schedule(self) -> tuple[Schedule, float]:
        """Returns the schedule that the settings name."""
        return self._config["schedule"], self._config["warmup_fraction"]

    # ------------------------------------------------------------------ evaluation

    def on_validation_epoch_start(self) -> None:
        """Reads the sentences."""
        names = tuple(data_of(self.trainer).label_space)
        self._classes, self._count = self.class_rows(names), ConfusionCount(names, self.device)

    on_test_epoch_start = on_validation_epoch_start

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Takes one batch into the score."""
        assert self._count is not None
        if len(batch["sample_id"]):  # a rank may have no row
            self._count.update(batch["label"], cosines(self(batch["image"]), self._classes).argmax(1))

    test_step = validation_step

    def on_validation_epoch_end(self) -> None:
        """Logs the scores of all ranks."""
        self._report("val")

    def on_test_epoch_end(self) -> None:
        """Logs the scores of all ranks."""
        self._report("test")

    def _report(self, stage: str) -> None:
        assert self._count is not None
        scores = self._count.scores(self.trainer)
        if scores:
            scores |= {"uar": scores["mean_class_accuracy"], "war": scores["accuracy"]}
        for name, value in scores.items():
            self.log(f"{stage}/{name}", value, rank_zero_only=False, sync_dist=True)

    # ------------------------------------------------------------------ checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the kind of module, its settings, and which CLIP model the projection belongs to."""
        checkpoint[KIND] = self.file_format.kind
        entry = {"config": self._config, "ema": None, "clip": self._fingerprint()}
        checkpoint[str(self.file_format.entry)] = entry

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Compares what the projection belongs to.

        Raises:
            ValueError: the checkpoint is of another class, or of another CLIP model.
        """
        entry = checkpoint.get(str(self.file_format.entry))
        if entry is None:
            raise ValueError(f"no checkpoint of ZeroShot: it lacks the key '{self.file_format.entry}'")
        check_same_settings({"clip": entry["clip"]}, {"clip": self._fingerprint()}, ("clip",))

    def _fingerprint(self) -> str:
        from synfer.foundation.fingerprint import fingerprint

        return fingerprint(self._clip[0].model.state_dict().items())
