"""The expression classifier: a timm backbone that learns from hard or soft labels, real or synthetic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from datamodules.batch import Batch
from datamodules.row_record import refuse_seen
from datamodules.rows.sample_table import UNLABELLED
from lightning_modules.affect_rows import affect_in, check_affect_rows
from lightning_modules.backbone_weights import read_backbone, with_stored
from lightning_modules.class_statistics import adapt_to_classes, named_weights, real_class_counts
from lightning_modules.classifier_checks import check_classifier_settings
from lightning_modules.classifier_file import ClassifierFile
from lightning_modules.classifier_network import build_classifier_network
from lightning_modules.classifier_outputs import check_same_outputs
from lightning_modules.classifier_scores import EvaluationScores, save_evaluation_pictures
from lightning_modules.training_averages import TrainingAverages
from synfer.faces.expressions import resolve_label_space
from synfer.faces.face_batch import check_batch, check_range_of_batch
from synfer.faces.face_shape import resize_faces
from synfer.foundation.fingerprint import fingerprint
from synfer.foundation.rank_states import own_state, states_of_ranks
from synfer.foundation.validate import check_setting
from synfer.labels.affect_losses import AffectSettings, affect_loss
from synfer.labels.long_tail_losses import LOSSES, LossSettings
from synfer.labels.mined_knowledge import MinedKnowledge
from synfer.labels.soft_label_loss import expected_losses
from synfer.metrics.masked_mean import MaskedMean
from synfer.networks.affect_head import AFFECT_OUTPUTS, split_outputs
from synfer.networks.backbone import Stem, channel_values, normalisation
from synfer.networks.backbone_source import with_source
from synfer.networks.class_activation import check_has_maps, with_mirrored_maps
from synfer.networks.classifier_head import ClassifierHeadSettings
from synfer.networks.frozen_backbone import as_frozen, check_worth_freezing
from synfer.networks.latent_codec import LatentCodec, load_codec
from synfer.optimisation.ema import ParameterEMA
from synfer.optimisation.optimiser import OptimiserName
from synfer.optimisation.schedule import Schedule
from synfer.optimisation.sharpness_aware import SharpnessAware, check_accumulation, is_perturbed


class ExpressionClassifier(TrainingAverages, ClassifierFile):
    """Classifies facial expressions with a timm network, and rates valence and arousal with it where asked.

    Trains with the cross-entropy between the network's probabilities and ``batch["soft_label"]``, or another ``loss``;
    samples marked ``is_synthetic`` may weigh less. Evaluates the plain logits, whatever the loss, with the moving
    average of the weights and, optionally, with the mean over an image and its mirror image.

    With ``affect.enabled`` the last layer has two more outputs, valence and arousal
    (:mod:`synfer.networks.affect_head`), with a loss of their own. Rows then need an expression, a rating or one of
    its two numbers, and not all of them: what a row lacks neither teaches nor scores
    (:class:`synfer.metrics.affect_scores.AffectScores`).

    Args:
        label_space: "basic7", "ferplus8" or a list of expression names; the order of the K logits.
        backbone: name of a timm network; "hf_hub:<owner>/<model>" or a folder in timm's layout for its weights as well;
            "stored" = that of ``backbone_weights``, with its stem, size, channels and further arguments.
        backbone_kwargs: further arguments of that network.
        pretrained: whether timm fetches ImageNet weights (needs the network).
        pretrained_path: a local file of weights in timm's layout instead.
        backbone_weights: where the backbone begins instead: a checkpoint or run folder of a ``FacePretraining`` or of a
            classifier, a folder of ``save_trained``, or a file of safetensors. All but the last layer must be there,
            and nothing else.
        random_backbone: whether the backbone begins at random on purpose, as the control of a probe: the network is
            that of ``backbone_weights`` (or of ``backbone``), its weights are not.
        head: what reads the backbone's maps (:class:`synfer.networks.classifier_head.ClassifierHeadSettings`).
        affect: valence and arousal, and their loss (:class:`synfer.labels.affect_losses.AffectSettings`).
        freeze_backbone: whether the last layer alone learns, and the pretrained rest stays: for hundreds of faces, and
            for linear probes.
        stem: "small" keeps the resolution of small faces, "half" halves it once, "native" is timm's own, "auto" is
            small up to 64 pixels.
        image_size: side in pixels that the network works on; images of another size are resized in ``forward``.
        in_channels: 3 for RGB; 1 has the network see the mean over the colours (grey data sets).
        latents_of: a generator (checkpoint or folder), or a diffusers folder, whose latents the network reads in place
            of pixels: a guide that needs no decoding. ``in_channels`` then means nothing; the codec stays frozen and
            out of checkpoints.
        drop_rate: dropout before the head, in [0, 1).
        label_smoothing: share of each label spread over all classes, in [0, 1); evenly, or as ``loss.smoothing``.
        class_weights: K weights of the classes in the loss; "balanced" (rows / (K · rows of the class)); or
            "effective_number" (``loss.beta``; Cui et al. 2019, arXiv 1901.05555). Of the real rows in use, however
            often they are drawn. ``loss.defer_from`` says from when on.
        loss: which loss, and its settings (:class:`synfer.labels.long_tail_losses.LossSettings`).
        synthetic_loss_weight: weight of a synthetic sample relative to a real one, ≥ 0.
        optimizer: "sgd" (Nesterov), "adamw" or "muon".
        sam_rho: steps by the gradient at the worst place so far from the weights (SAM, arXiv 2010.01412), at twice the
            cost; 0.05 is usual. null = plain steps.
        learning_rate: peak rate.
        weight_decay: applied to matrices and kernels, not to biases and norms.
        momentum: of SGD and Muon, in [0, 1).
        schedule: "one_cycle", "cosine" or "constant", stepped every optimiser step over the whole training.
        warmup_fraction: share of all steps in which the rate rises, in [0, 1).
        ema_decay: of the moving average of weights and BatchNorm statistics; None evaluates the raw weights.
        flip_tta: whether evaluation averages over the image and its mirror image.
        channels_last: memory layout of the network; faster for convolutions.
        mean: per channel, for images in [0, 1]; None takes what the backbone's weights expect.
        std: likewise.

    Raises:
        ValueError: a value out of range, an unknown label space or a backbone that cannot be built.
        FileNotFoundError: no file at ``pretrained_path``, ``backbone_weights`` or ``latents_of``.
    """

    def __init__(
        self,
        label_space: str | list[str] = "basic7",
        backbone: str = "resnet18",
        backbone_kwargs: dict[str, Any] | None = None,
        pretrained: bool = False,
        pretrained_path: str | None = None,
        stem: Stem = "auto",
        image_size: int = 48,
        in_channels: Literal[1, 3] = 3,
        latents_of: str | None = None,
        drop_rate: float = 0.0,
        label_smoothing: float = 0.0,
        class_weights: list[float] | Literal["balanced", "effective_number"] | None = None,
        loss: LossSettings = LossSettings(),  # noqa: B008 (frozen)
        synthetic_loss_weight: float = 1.0,
        optimizer: OptimiserName = "sgd",
        learning_rate: float = 0.1,
        weight_decay: float = 5e-4,
        momentum: float = 0.9,
        schedule: Schedule = "one_cycle",
        warmup_fraction: float = 0.25,
        ema_decay: float | None = 0.999,
        flip_tta: bool = True,
        channels_last: bool = True,
        mean: list[float] | None = None,
        std: list[float] | None = None,
        freeze_backbone: bool = False,
        backbone_weights: str | None = None,
        sam_rho: float | None = None,
        affect: AffectSettings = AffectSettings(),  # noqa: B008 (frozen)
        random_backbone: bool = False,
        head: ClassifierHeadSettings = ClassifierHeadSettings(),  # noqa: B008 (frozen)
    ) -> None:
        config = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        super().__init__()
        if isinstance(loss, Mapping):  # as files hold it
            loss = LossSettings(**loss)
        if isinstance(affect, Mapping):
            affect = AffectSettings(**affect)
        if isinstance(head, Mapping):
            head = ClassifierHeadSettings(**head)
        # Plain types only: a checkpoint must load with weights_only=True.
        groups = {"loss": asdict(loss), "affect": asdict(affect), "head": asdict(head)}
        config |= groups
        self.save_hyperparameters(ignore=list(groups), logger=False)
        self.hparams.update(groups)
        # The hyperparameters that Lightning saves have another form under the command line; load_trained reads these.
        stored = None if backbone_weights is None else read_backbone(backbone_weights)
        if stored is not None:
            check_setting(not pretrained and pretrained_path is None, "backbone_weights", backbone_weights, _ALONE)
            config = with_stored(config, stored)
        config, pretrained_path = with_source(config)
        self._config = config
        backbone, mean, std = (config[name] for name in ("backbone", "mean", "std"))
        image_size, in_channels = config["image_size"], config["in_channels"]
        known = pretrained or pretrained_path is not None
        check_setting(not (random_backbone and known), "random_backbone", True, _RANDOM)
        self._may_be_frozen = known or stored is not None or random_backbone
        begins = None if random_backbone else stored
        self.weights_source = None if begins is None else begins.source()
        self._backbone_trained_on = None if begins is None else begins.trained_on
        self.label_space = resolve_label_space(label_space)
        k = len(self.label_space)
        check_classifier_settings(config, self.label_space, loss, affect)

        self.image_size = image_size
        # In a list, so that the codec is no submodule: it is neither trained nor saved.
        self._codec = [] if latents_of is None else [load_codec(latents_of)]
        side, channels = image_size, int(in_channels)
        if self._codec:
            side, channels = image_size // self._codec[0].downscale, self._codec[0].latent_channels
            mean, std = mean or [0.0] * channels, std or [1.0] * channels  # latents have about unit variance
        self.in_channels = channels
        self.label_smoothing = label_smoothing
        self.synthetic_loss_weight = synthetic_loss_weight
        self.flip_tta = flip_tta
        self.channels_last = channels_last
        outputs = k + (AFFECT_OUTPUTS if affect.enabled else 0)
        self.backbone = build_classifier_network(config, stored, outputs, (channels, side), pretrained_path, loss, head)
        self.freeze_backbone = freeze_backbone
        expected_mean, expected_std = normalisation(self.backbone)
        self.register_buffer("mean", channel_values("mean", mean or expected_mean, channels), persistent=False)
        self.register_buffer("std", channel_values("std", std or expected_std, channels), persistent=False)
        self.mean: Tensor
        self.std: Tensor
        check_setting(bool((self.std > 0).all()), "std", std, "numbers > 0")
        weights = torch.tensor(class_weights) if isinstance(class_weights, list) else torch.ones(k)
        self.register_buffer("class_weights", weights.float(), persistent=False)
        self.class_weights: Tensor
        self._weights_name = class_weights if isinstance(class_weights, str) else None
        self.loss_settings, self.affect = loss, affect
        self.class_losses = LOSSES[loss.kind](loss, k)
        self.mined_knowledge = MinedKnowledge(k) if loss.mines_knowledge else None
        if loss.consistency:
            check_has_maps(self.backbone, backbone, (1, channels, side, side))

        self.ema = None if ema_decay is None else ParameterEMA(self.backbone, ema_decay)

        tracked = ("loss", "loss_real", "loss_synthetic", "accuracy", *(["loss_affect"] if affect.enabled else []))
        self.train_metrics = nn.ModuleDict({name: MaskedMean() for name in tracked})
        self.evaluation_metrics = nn.ModuleDict(
            {f"{stage}_stage": EvaluationScores(k, affect) for stage in ("val", "test")}
        )

    @property
    def uses_unlabelled_rows(self) -> bool:
        """Whether rows without an expression will do: their valence and arousal may be known."""
        return self.affect.enabled

    scores_unlabelled_rows = uses_unlabelled_rows

    # ------------------------------------------------------------------ the network

    def forward(self, image: Tensor) -> Tensor:
        """Returns logits (B, K) of images (B, 3, H, W), or grey (B, 1, H, W), in [0, 1]; differentiable in the images.

        Raises:
            ValueError: images of whole numbers, or of another shape.
        """
        return self.logits_and_affect(image)[0]

    def logits(self, image: Tensor) -> Tensor:
        """Returns logits (B, K) of RGB images (B, 3, H, W), as calling it does."""
        return self(image)

    def logits_and_affect(self, image: Tensor) -> tuple[Tensor, Tensor | None]:
        """Returns logits (B, K), and valence and arousal (B, 2) in [-1, 1] or None, of images as for ``forward``.

        Of a network that rates valence and arousal alone all logits are 0: it says nothing of expressions.

        Raises:
            ValueError: images of whole numbers, or of another shape.
        """
        check_batch(image)
        image = resize_faces(image.expand(-1, 3, -1, -1), self.image_size)
        if self._codec:
            return self._outputs(self._codec[0].to(self.device).encode(image * 2 - 1))
        return self._outputs(image.mean(1, keepdim=True) if self.in_channels == 1 else image)

    def forward_latents(self, latents: Tensor) -> Tensor:
        """Returns logits (B, K) of clean latents (B, C, h, w) of the codec that this classifier was trained on.

        Raises:
            ValueError: it reads pixels.
        """
        if not self._codec:
            raise ValueError("this classifier reads pixels, not latents: it was trained without model.latents_of")
        return self._outputs(latents)[0]

    @property
    def codec(self) -> LatentCodec | None:
        """The codec whose latents the network reads, on this module's device; None = it reads pixels."""
        return self._codec[0].to(self.device) if self._codec else None

    def _outputs(self, picture: Tensor) -> tuple[Tensor, Tensor | None]:
        picture = (picture - self.mean) / self.std
        if self.channels_last:
            picture = picture.contiguous(memory_format=torch.channels_last)
        logits, affect = split_outputs(self.backbone(picture), len(self.label_space))
        return (logits * 0 if self.affect.alone else logits), affect

    def predict_probabilities(self, image: Tensor, flip: bool | None = None) -> Tensor:
        """Returns probabilities float32 (B, K) of images (B, 3, H, W) in [0, 1].

        Args:
            image: the images.
            flip: whether to average over each image and its mirror image; None does what the config says.

        Raises:
            ValueError: images of whole numbers, of another shape or, where it is cheap to see, far outside of [0, 1].
        """
        return self.probabilities_and_affect(image, flip)[0]

    def probabilities_and_affect(self, image: Tensor, flip: bool | None = None) -> tuple[Tensor, Tensor | None]:
        """Returns probabilities float32 (B, K), and valence and arousal float32 (B, 2) or None, of images (B, 3, H, W).

        As :meth:`predict_probabilities`; a mirror image has the same valence and arousal.
        """
        check_range_of_batch(image)
        image = resize_faces(image, self.image_size)  # before it is mirrored: both show the same part of the picture
        logits, affect = self.logits_and_affect(image)
        probabilities, affect = logits.float().softmax(1), None if affect is None else affect.float()
        if self.flip_tta if flip is None else flip:
            mirrored, affect_of_mirrored = self.logits_and_affect(image.flip(-1))
            probabilities = (probabilities + mirrored.float().softmax(1)) / 2
            if affect is not None and affect_of_mirrored is not None:
                affect = (affect + affect_of_mirrored.float()) / 2
        return probabilities, affect

    def weights_fingerprint(self) -> str:
        """Returns 16 hex digits of SHA-256 over all parameters: tells whether two classifiers are the same one."""
        return fingerprint(self.backbone.named_parameters())

    # ------------------------------------------------------------------ training

    def setup(self, stage: str) -> None:
        """Checks that data and classifier speak of the same classes, and tells the loss how rare each of them is.

        Raises:
            ValueError: other classes, or another order, in the data, or data that do not say what the loss needs.
        """
        super().setup(stage)
        if stage != "fit":
            return
        if self.freeze_backbone:
            check_worth_freezing(self._may_be_frozen)
        if self._config["sam_rho"] is not None:
            check_accumulation(self.trainer.accumulate_grad_batches)
        if self.weights_source is not None:
            who = f"model.backbone_weights '{self.weights_source['path']}'"
            refuse_seen(getattr(self._data, "val_table", None), self._backbone_trained_on, who)
        if self.affect.enabled:
            check_affect_rows(self._data, self.affect.alone, self.loss_settings.kind, self.class_losses.needs)
        if self._weights_name is not None:
            self.class_weights.copy_(named_weights(self._weights_name, self._data, self.loss_settings.beta))
        adapt_to_classes(self.class_losses, self._data, self.synthetic_loss_weight)
        if self.mined_knowledge is not None:
            self.mined_knowledge.adapt(torch.from_numpy(real_class_counts(self._data, "model.loss")))

    def train(self, mode: bool = True) -> ExpressionClassifier:
        """Puts the network into training mode, but for what is frozen."""
        super().train(mode)
        if self.freeze_backbone:
            as_frozen(self.backbone)
        return self

    def build_optimiser(self) -> Optimizer:
        """Returns the optimiser that the settings name, over the network."""
        plain, rho = super().build_optimiser(), self._config["sam_rho"]
        return plain if rho is None else SharpnessAware(plain, rho)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Returns the mean loss of one batch, weighted by class and by origin."""
        consistency, synthetic = self.loss_settings.consistency, batch["is_synthetic"]
        if consistency and self.mined_knowledge is not None:
            outputs, *maps = with_mirrored_maps(self.backbone, self.logits_and_affect, batch["image"])
            maps = [of_outputs[:, : len(self.label_space)] for of_outputs in maps]
            penalty = consistency * self.mined_knowledge.inconsistency(*maps)
        else:
            outputs, penalty = self.logits_and_affect(batch["image"]), torch.zeros((), device=self.device)
        logits, rated = outputs[0].float(), outputs[1]
        losses = self._losses(logits, batch["soft_label"], synthetic) + penalty
        if rated is None:
            named, loss = torch.ones_like(synthetic), self._mean_loss(losses, synthetic)
        else:
            named = (batch["label"] != UNLABELLED) & (not self.affect.alone)
            of_affect = affect_loss(rated, affect_in(batch), synthetic, self.affect, self.synthetic_loss_weight)
            loss = self.affect.weight * of_affect + self._mean_loss(losses, synthetic, named)
            self._track("loss_affect", of_affect.detach().expand(len(losses)), ~affect_in(batch).isnan().all(1))

        if self._config["sam_rho"] is not None and is_perturbed(self.optimizers()):  # the loss of another place
            return loss
        losses = losses.detach()
        self._track("loss", loss.detach().expand(len(losses)))
        self._track("loss_real", losses, named & ~synthetic)
        self._track("loss_synthetic", losses, named & synthetic)
        self._track("accuracy", (logits.argmax(1) == batch["label"]).float(), named)
        self.log("train/loss_step", loss.detach(), prog_bar=True, on_step=True, on_epoch=False, batch_size=len(losses))
        return loss

    def _losses(self, logits: Tensor, soft_label: Tensor, synthetic: Tensor | None = None) -> Tensor:
        smoothing = self.label_smoothing
        if self.mined_knowledge is not None and self.loss_settings.smoothing == "rebalanced":
            soft_label, smoothing = self.mined_knowledge.smoothed(soft_label, smoothing), 0.0
        return expected_losses(self.class_losses(logits, synthetic), soft_label, smoothing, self._class_weights_now())

    def _class_weights_now(self) -> Tensor | None:
        """Returns the weights of the classes at this step of the training; None = all 1."""
        deferred = self.loss_settings.defer_from
        if deferred and self.trainer.global_step < deferred * self.trainer.estimated_stepping_batches:
            return None
        return self.class_weights

    # ------------------------------------------------------------------ evaluation

    def _clear_evaluation(self, stage: str) -> None:
        self._scores(stage).reset()

    def _scores(self, stage: str) -> EvaluationScores:
        scores = self.evaluation_metrics[f"{stage}_stage"]
        assert isinstance(scores, EvaluationScores)
        return scores

    def _evaluate(self, stage: str, batch: Batch) -> Tensor | None:
        probabilities, rated = self.probabilities_and_affect(batch["image"])
        self._scores(stage).update(probabilities, rated, batch)
        return None if self.affect.alone else probabilities

    def _report_evaluation(self, stage: str) -> None:
        # All ranks compute (a collective) and so all log the same numbers; only the pictures are rank 0's alone.
        scores, drawn = self._scores(stage).compute(self.label_space)
        self._log_scores(stage, scores, in_progress_bar=("accuracy", "mean_class_accuracy", "ccc_mean"))
        if drawn is not None and self._writes_pictures:
            save_evaluation_pictures(self.trainer, stage, self.label_space, *drawn)

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """Returns the sample ids (B strings) and probabilities float32 (B, K) of one batch; affect (B, 2) if rated."""
        if not self.affect.enabled or not len(batch["sample_id"]):
            return super().predict_step(batch, batch_idx)
        probabilities, rated = self.probabilities_and_affect(batch["image"])
        return {"sample_id": batch["sample_id"], "probabilities": probabilities, "affect": rated}

    # ------------------------------------------------------------------ checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds what :meth:`load_trained` needs, in plain types and tensors."""
        super().on_save_checkpoint(checkpoint)
        entry = checkpoint[str(self.file_format.entry)]
        entry["codec"] = None if self.codec is None else self.codec.fingerprint()
        entry["backbone_source"] = self.weights_source
        if self._trainer is not None and self.trainer.state.fn == "fit":
            sums = {name: metric.sums() for name, metric in self._train_metrics()}
            entry["epoch_so_far"] = states_of_ranks(sums)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes over the moving average.

        Raises:
            ValueError: the checkpoint is not of this class, of another label space, backbone or stem, or, in ``fit``,
                of another optimiser.
        """
        saved = self._entry_of(checkpoint)
        self._check_same_task(saved["config"], ("stem", "backbone"))
        check_same_outputs(saved["config"], self._config)
        self._load_average(saved["ema"])
        self._load_alignment(saved)
        sums = own_state(saved.get("epoch_so_far")) or {}
        for name, metric in self._train_metrics():
            metric.add_sums(*sums.get(name, (0.0, 0)))


_ALONE = "null beside model.pretrained and model.pretrained_path"
_RANDOM = "false beside model.pretrained, model.pretrained_path and a backbone that comes with weights"
