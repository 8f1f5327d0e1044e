"""FacePretraining: a backbone learns from faces without their labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from datamodules.batch import Batch
from lightning_modules.averaged_module import AveragedModule
from lightning_modules.backbone_weights import PRETRAINING_FILE
from lightning_modules.neighbour_scores import NeighbourScores
from lightning_modules.run_seed import run_seed
from lightning_modules.trainer_access import data_of
from synfer.faces.face_batch import check_batch
from synfer.faces.face_shape import resize_faces
from synfer.foundation.counter_based_random import keyed_uniform, keys_of
from synfer.foundation.module_file import KIND
from synfer.foundation.random_streams import Stream
from synfer.foundation.renamed_settings import present_settings
from synfer.foundation.validate import check_same_settings, check_setting
from synfer.networks.backbone import Stem, averaged_for_grey, build_backbone, normalisation
from synfer.networks.backbone_source import with_source
from synfer.networks.channels_last import to_channels_last
from synfer.optimisation.optimiser import OptimiserName, optimiser_of
from synfer.optimisation.schedule import Schedule
from synfer.representation.losses import embedding_spread
from synfer.representation.masked_faces import MaskedFaces
from synfer.representation.methods import (
    BYOL,
    MAE,
    DecoderSettings,
    HeadSettings,
    Method,
    MethodName,
    MoCoV3,
    SimCLR,
)
from synfer.representation.momentum import cosine_momentum
from synfer.representation.progress import CollapseSettings, NeighbourSettings
from synfer.representation.views import ViewSettings, make_view, view_numbers

_LOOKS_EVERY = 10
"""Steps between two looks at whether the embeddings have collapsed: each waits for the device."""


class FacePretraining(AveragedModule):
    """Pre-trains a timm network on faces, real or synthetic, whose labels it does not see.

    Two views of each face are made on the device (:mod:`synfer.representation.views`); the method says what they have
    to do with each other (:mod:`synfer.representation.methods`). Negatives, and the batch norms of the heads, are those
    of all ranks, so that two ranks are one process with the joined batch; a backbone with batch norm needs
    ``trainer.sync_batchnorm`` for that. The data's own augmentation comes before the views: switch it off
    (``data.augmentation.enabled=false``).

    After each epoch of ``val`` the validation faces are named by the nearest training faces: ``val/knn_accuracy`` and
    ``val/knn_mean_class_accuracy``, the one place where labels are looked at; nothing learns from them.
    ``train/embedding_std`` is the spread of the embeddings over all ranks, 1 = even, 0 = collapsed.

    A classifier starts from the checkpoint by ``model.backbone_weights``.

    Args:
        method: "simclr", "moco_v3", "byol", or "mae" for ViTs.
        backbone: name of a timm network; "hf_hub:<owner>/<model>" or a folder in timm's layout for its weights as well.
        backbone_kwargs: further arguments of that network.
        pretrained: whether timm fetches ImageNet weights to start from (needs the network).
        pretrained_path: a local file of weights in timm's layout instead.
        stem: "small" keeps the resolution of small faces, "half" halves it once, "native" is timm's own, "auto" is
            small up to 64 pixels.
        image_size: side in pixels of the views.
        in_channels: 3 for RGB; 1 has the network see the mean over the colours (grey data sets).
        views: how the views of a face differ.
        head: projection and prediction of SimCLR, MoCo v3 and BYOL.
        temperature: τ of SimCLR and MoCo v3, > 0.
        decoder: of MAE.
        teacher_momentum: of MoCo v3 and BYOL at the start, in [0, 1]; rises to 1 along a cosine.
        frozen_patches: whether the layer that cuts a ViT's patches stays as it is, for a steadier MoCo v3.
        neighbours: of the classifier that shows the progress.
        collapse: when to give up.
        optimizer: "lars" for batches of thousands, "adamw", "sgd" (Nesterov) or "muon".
        learning_rate: peak rate.
        weight_decay: applied to matrices and kernels, not to biases and norms.
        momentum: of LARS, SGD and Muon, in [0, 1).
        schedule: "cosine", "one_cycle" or "constant", stepped every optimiser step over the whole training.
        warmup_fraction: share of all steps in which the rate rises, in [0, 1).
        channels_last: memory layout of the network; faster for convolutions.
        mean: per channel, for images in [0, 1]; None takes what the backbone's weights expect.
        std: likewise.

    Raises:
        ValueError: a value out of range, or a backbone that cannot be built or does not go with the method.
        FileNotFoundError: no file at ``pretrained_path``.
    """

    file_format = PRETRAINING_FILE
    uses_unlabelled_rows = True
    ema = None

    def __init__(
        self,
        method: MethodName = "simclr",
        backbone: str = "resnet18",
        backbone_kwargs: dict[str, Any] | None = None,
        pretrained: bool = False,
        pretrained_path: str | None = None,
        stem: Stem = "auto",
        image_size: int = 48,
        in_channels: Literal[1, 3] = 3,
        views: ViewSettings = ViewSettings(),  # noqa: B008 (frozen)
        head: HeadSettings = HeadSettings(),  # noqa: B008 (frozen)
        temperature: float = 0.2,
        decoder: DecoderSettings = DecoderSettings(),  # noqa: B008 (frozen)
        teacher_momentum: float = 0.99,
        frozen_patches: bool = False,
        neighbours: NeighbourSettings = NeighbourSettings(),  # noqa: B008 (frozen)
        collapse: CollapseSettings = CollapseSettings(),  # noqa: B008 (frozen)
        optimizer: OptimiserName = "adamw",
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-4,
        momentum: float = 0.9,
        schedule: Schedule = "cosine",
        warmup_fraction: float = 0.1,
        channels_last: bool = True,
        mean: list[float] | None = None,
        std: list[float] | None = None,
    ) -> None:
        config = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        super().__init__()
        groups = {"views": (views, ViewSettings), "head": (head, HeadSettings), "decoder": (decoder, DecoderSettings)}
        groups |= {"neighbours": (neighbours, NeighbourSettings), "collapse": (collapse, CollapseSettings)}
        made: dict[str, Any] = {  # files hold mappings
            name: kind(**value) if isinstance(value, Mapping) else value for name, (value, kind) in groups.items()
        }
        config |= {name: asdict(value) for name, value in made.items()}  # plain types only, for weights_only=True
        self.save_hyperparameters(ignore=list(made), logger=False)
        for name in made:
            self.hparams[name] = config[name]
        config, pretrained_path = with_source(config)
        self._config = config
        check_setting(temperature > 0, "temperature", temperature, "a number > 0")
        check_setting(0 <= teacher_momentum <= 1, "teacher_momentum", teacher_momentum, "a number in [0, 1]")
        check_setting(image_size >= 8, "image_size", image_size, "at least 8 pixels")
        check_setting(in_channels in (1, 3), "in_channels", in_channels, "1 or 3")
        check_setting(learning_rate > 0, "learning_rate", learning_rate, "a number > 0")
        check_setting(weight_decay >= 0, "weight_decay", weight_decay, "a number ≥ 0")
        check_setting(0 <= momentum < 1, "momentum", momentum, "a number in [0, 1)")
        check_setting(0 <= warmup_fraction < 1, "warmup_fraction", warmup_fraction, "a number in [0, 1)")

        self.image_size, self.in_channels, self.channels_last = image_size, int(in_channels), channels_last
        self.views: ViewSettings = made["views"]
        self.collapse: CollapseSettings = made["collapse"]
        name = config["backbone"]
        self.backbone = build_backbone(
            name,
            0,
            image_size=image_size,
            in_channels=self.in_channels,
            stem=stem,
            kwargs=config["backbone_kwargs"],
            pretrained=pretrained,
            pretrained_path=pretrained_path,
        )
        if channels_last:
            to_channels_last(self.backbone)
        expected_mean, expected_std = normalisation(self.backbone)
        self.mean: Tensor
        self.std: Tensor
        for key, values in (("mean", config["mean"] or expected_mean), ("std", config["std"] or expected_std)):
            values = averaged_for_grey(values, self.in_channels)
            check_setting(len(values) == self.in_channels, key, values, f"{self.in_channels} numbers")
            self.register_buffer(key, torch.tensor(values).view(1, -1, 1, 1), persistent=False)
        check_setting(bool((self.std > 0).all()), "std", config["std"], "numbers > 0")
        if frozen_patches:
            patches = getattr(self.backbone, "patch_embed", None)
            check_setting(isinstance(patches, nn.Module), "frozen_patches", True, f"false: '{name}' cuts no patches")
            patches.requires_grad_(False)  # type: ignore[union-attr]
        self.method: Method = self._build_method(name, made["head"], made["decoder"])
        self._neighbours = NeighbourScores(made["neighbours"])

    def _build_method(self, name: str, head: HeadSettings, decoder: DecoderSettings) -> Method:
        method, temperature = self._config["method"], self._config["temperature"]
        if method == "mae":
            behind = MaskedFaces(self.backbone, name, self.image_size, self.in_channels, **asdict(decoder))
            return MAE(behind)
        with torch.no_grad():
            shape = (1, self.in_channels, self.image_size, self.image_size)
            features = self.backbone.eval()(torch.zeros(shape)).shape[1]
        self.backbone.train()
        if method == "simclr":
            return SimCLR(features, head, temperature)
        if method == "moco_v3":
            return MoCoV3(self.backbone, features, head, temperature)
        check_setting(method == "byol", "method", method, "simclr, moco_v3, byol or mae")
        return BYOL(self.backbone, features, head)

    # ------------------------------------------------------------------ the network

    def forward(self, image: Tensor) -> Tensor:
        """Returns features (B, F) of images (B, 3, H, W), or grey (B, 1, H, W), in [0, 1].

        Raises:
            ValueError: images of whole numbers, or of another shape.
        """
        check_batch(image)
        image = resize_faces(image.expand(-1, 3, -1, -1), self.image_size)
        features: Tensor = self.backbone(self._prepared(image))
        return features

    def _prepared(self, image: Tensor) -> Tensor:
        image = image.mean(1, keepdim=True) if self.in_channels == 1 else image
        image = (image - self.mean) / self.std
        return image.contiguous(memory_format=torch.channels_last) if self.channels_last else image

    # ------------------------------------------------------------------ training

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Returns the loss of one batch.

        Raises:
            RuntimeError: the embeddings have collapsed.
        """
        ids = batch["sample_id"]
        stream = (run_seed(self._trainer), self.trainer.current_epoch, self.trainer.global_step)
        views = [
            make_view(batch["image"], self.views, view_numbers(ids, view, *stream), view, self.image_size)
            for view in range(self.method.num_views)
        ]

        def draw(columns: int) -> Tensor:
            seed, *now = stream
            numbers = keyed_uniform(keys_of(ids), columns, seed, Stream.HIDDEN_PATCHES, *now)
            return torch.from_numpy(numbers).float()

        loss, embedding = self.method.loss(self.backbone, [self._prepared(view) for view in views], draw)
        spread = embedding_spread(embedding)
        self.log("train/loss", loss.detach(), prog_bar=True, batch_size=len(ids))
        self.log("train/embedding_std", spread, batch_size=len(ids))
        self._look_for_collapse(spread)
        return loss

    def _look_for_collapse(self, spread: Tensor) -> None:
        step, limit = self.trainer.global_step, self.collapse
        if not limit.below or step < limit.grace_steps or step % _LOOKS_EVERY:
            return
        found = float(spread)  # the same on all ranks
        if not found >= limit.below:  # also true for NaN
            raise RuntimeError(
                f"model.collapse: the embeddings of all faces are becoming one: found a spread of {found:.3g} after "
                f"{step} steps, expected at least {limit.below:g} (another learning_rate, warmup_fraction or "
                "teacher_momentum; model.collapse.below=0 goes on all the same)"
            )

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Takes a step, and the teacher after it: a checkpoint holds both, or neither."""
        step = self.trainer.global_step
        super().optimizer_step(*args, **kwargs)
        if self.method.has_teacher:
            total = self.trainer.estimated_stepping_batches
            self.method.follow(self.backbone, cosine_momentum(step, total, self._config["teacher_momentum"]))

    def build_optimiser(self) -> Optimizer:
        """Returns the optimiser that the settings name, over backbone and heads."""
        return optimiser_of(self.parameters(), self._config)

    def learning_rate_schedule(self) -> tuple[Schedule, float]:
        """Returns the schedule that the settings name."""
        return self._config["schedule"], self._config["warmup_fraction"]

    # ------------------------------------------------------------------ evaluation

    def on_validation_epoch_start(self) -> None:
        """Computes the features of the training faces that are to name the others."""
        self._neighbours.open(data_of(self.trainer), self.trainer, self, self.device)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Takes one batch into the score."""
        if self._neighbours.is_open and len(batch["sample_id"]):  # a rank may have no row
            self._neighbours.update(self(batch["image"]), batch["label"])

    def on_validation_epoch_end(self) -> None:
        """Logs the scores of all ranks."""
        if not self._neighbours.is_open:
            return
        for name, value in self._neighbours.scores(self.trainer).items():
            shown = name == "accuracy"
            self.log(f"val/{_named(name)}", value, prog_bar=shown, rank_zero_only=False, sync_dist=True)

    # ------------------------------------------------------------------ checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the kind of module and its settings; backbone, heads and teacher are in the state already."""
        checkpoint[KIND] = self.file_format.kind
        checkpoint[str(self.file_format.entry)] = {"config": self._config, "ema": None}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Compares what the weights mean with this module.

        Raises:
            ValueError: the checkpoint is not of this class, or of another method, backbone or stem.
        """
        entry = checkpoint.get(str(self.file_format.entry))
        if entry is None:
            raise ValueError(f"no checkpoint of FacePretraining: it lacks the key '{self.file_format.entry}'")
        saved = present_settings(self.file_format.kind, entry["config"])
        same: Sequence[str] = ("method", "backbone", "stem", "in_channels")
        if self._trainer is not None and self._trainer.state.fn == "fit":
            same = (*same, "optimizer")
        check_same_settings(saved, self._config, tuple(same))


def _named(score: str) -> str:
    """Returns the name under which a score of the nearest faces is logged: "knn_recall/happy"."""
    return f"knn_{score}"
