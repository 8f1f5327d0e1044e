"""LabelAnnotator: reads what a frozen generator sees in a face, and says which expression it shows (FERAnno)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.random import fork_rng

from datamodules.batch import Batch
from lightning_modules import annotator_checks as checks
from lightning_modules.expression_module import ExpressionModule
from lightning_modules.generator import ExpressionGenerator
from lightning_modules.run_seed import run_seed
from lightning_modules.training_provenance import TrainingProvenance
from synfer.faces.captions import ADJECTIVES
from synfer.faces.expressions import resolve_label_space
from synfer.foundation.checkpoint_file import find_checkpoint
from synfer.foundation.counter_based_random import keyed_seed
from synfer.foundation.file_reading import reading
from synfer.foundation.fingerprint import fingerprint
from synfer.foundation.module_file import ModuleFormat, StoredModule
from synfer.foundation.random_streams import Stream
from synfer.foundation.validate import check_setting
from synfer.metrics.calibrated_scores import calibrated_scores
from synfer.metrics.gathered_rows import GatheredRows
from synfer.networks.annotator_head import AnnotatorHead, Branches
from synfer.networks.backbone import Stem, build_backbone
from synfer.networks.backbone_with_maps import MapShape
from synfer.networks.channels_last import to_channels_last
from synfer.networks.feature_cache import FeatureCache
from synfer.networks.temperature import fit_temperature
from synfer.optimisation.ema import ParameterEMA
from synfer.optimisation.optimiser import OptimiserName
from synfer.optimisation.schedule import Schedule
from synfer.pictures.confusion_matrix import save_confusion_matrix
from synfer.synthesis.diffusion.generator_reader import GeneratorReader, ReadLatents

DEFAULT_MODULES = ("mid_block", "up_blocks.0", "up_blocks.1")
DEFAULT_WIDTHS = [64, 96]
DEFAULT_DEPTHS = [3, 2, 0]


class LabelAnnotator(ExpressionModule):
    """Classifies expressions from a generator's own features (FERAnno of SynFER, arXiv 2410.09865).

    The generator's UNet runs once over the face's latents at a small timestep, with one prompt that holds a word for
    every expression ("a photo of a face neutral happy sad …") and unknown action units, so that the conditioning is the
    same for every face. Feature maps of the named modules and the attention map of each word in every cross-attention
    layer go through two branches, bidirectional cross-attention and a linear layer. Only that head is trained; the
    generator is frozen, stays out of checkpoints and is recognised by its fingerprint.

    With a ``feature_cache`` each face goes through the generator once and for all: as it is and mirrored (``flip``),
    or, where the data's augmentation has a number of ``cached_views``, in each of these. Without a cache every step
    runs the generator, and any augmentation will do. With either, faces that the augmentation's ``uncached_fraction``
    draws besides are seen by the ``backbone`` alone, without a pass (but for batches with fewer than two others).

    Has the interface of :class:`lightning_modules.classifier.ExpressionClassifier` for whoever wants a voter.

    Args:
        generator: checkpoint of an :class:`ExpressionGenerator`, or a folder of its ``save_trained``.
        label_space: "basic7", "ferplus8" or a list of expression names; the order of the K logits.
        feature_modules: names of UNet submodules that are read; null = mid_block, up_blocks.0 and up_blocks.1.
            For Stable Diffusion 1.x mid_block, up_blocks.1 and up_blocks.2 (8×8 to 64×64 at 512 pixels) are usual.
            An empty list reads none of them.
        backbone: name of a convolutional timm network that reads the clean latents in the feature branch; the UNet's
            feature maps are added to its stages. Latents hold what these have lost, and are not cached: the codec
            encodes each face at every step. null = a pyramid over the UNet's maps alone.
        backbone_kwargs: further arguments of that network.
        stem: of that network: "small" keeps the resolution of small latents, "half" halves it once, "native" is timm's
            own, "auto" is small up to 64 cells.
        timestep: training timestep t at which the UNet runs, ≥ 0.
        latents: what the UNet gets. "clean" = x0 itself: the pass of the DDIM inversion step to t is the one that is
            read, one pass in all. "inverted" = x_t of that step: a second pass. "noised" = x_t with one fixed draw of
            noise: one pass, for timesteps at which clean latents would be out of place.
        map_size: side to which larger maps are pooled; sets the size of the cache.
        branches: "both", "features" or "attention" (ablations).
        width: channels of the head's tokens.
        widths: channels of the feature pyramid, from the largest maps to the smallest; the last serves all further
            sizes. null = 64, 96.
        depths: residual convolutions there, in the same way; null = 3, 2, 0.
        num_heads: attention heads of the head.
        dropout: inside the head: in attention and of whole maps, in [0, 1).
        drop_rate: dropout before the head's last layer, in [0, 1).
        label_smoothing: share of each label spread evenly, in [0, 1).
        synthetic_loss_weight: weight of a synthetic sample relative to a real one, ≥ 0.
        optimizer: of the head, "muon", "adamw" or "sgd" (Nesterov).
        learning_rate: peak rate.
        weight_decay: on matrices and kernels.
        momentum: of SGD and Muon, in [0, 1).
        schedule: of the rate, stepped every step.
        warmup_fraction: share of the steps with rising rate.
        ema_decay: of the moving average of the head's weights and BatchNorm statistics; None evaluates the raw weights.
        feature_cache: folder for cached features; null = none.
        flip: share of training faces, in [0, 1], that are mirrored where the cache is used and the data does not
            augment.
        flip_tta: average predictions over each face and its mirror image, then calibrate; doubles the passes.
        maps_tta: average them, too, over the head's view with the UNet's maps and that of its ``backbone`` alone, which
            costs no pass. For heads that learned both (``data.augmentation.uncached_fraction``); nothing without
            backbone or maps.

    Raises:
        ValueError: a value out of range, an unknown module or a word that the text encoder cannot take.
        FileNotFoundError: no generator there.
    """

    file_format = ModuleFormat("annotator", "head", "LabelAnnotator", entry="label_annotator")

    def __init__(
        self,
        generator: str,
        label_space: str | list[str] = "basic7",
        feature_modules: list[str] | None = None,
        backbone: str | None = None,
        backbone_kwargs: dict[str, Any] | None = None,
        stem: Stem = "auto",
        timestep: int = 1,
        latents: ReadLatents = "clean",
        map_size: int = 6,
        branches: Branches = "both",
        width: int = 64,
        widths: list[int] | None = None,
        depths: list[int] | None = None,
        num_heads: int = 4,
        dropout: float = 0.1,
        drop_rate: float = 0.1,
        label_smoothing: float = 0.0,
        synthetic_loss_weight: float = 1.0,
        optimizer: OptimiserName = "adamw",
        learning_rate: float = 1e-3,
        weight_decay: float = 0.05,
        momentum: float = 0.9,
        schedule: Schedule = "one_cycle",
        warmup_fraction: float = 0.2,
        ema_decay: float | None = 0.999,
        feature_cache: str | None = None,
        flip: float = 0.5,
        flip_tta: bool = False,
        maps_tta: bool = False,
    ) -> None:
        config = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        super().__init__()
        self.save_hyperparameters(logger=False)
        self.label_space = resolve_label_space(label_space)
        self.feature_modules = tuple(DEFAULT_MODULES if feature_modules is None else feature_modules)
        self._config = {**config, "feature_modules": list(self.feature_modules)}
        widths = DEFAULT_WIDTHS if widths is None else widths
        depths = DEFAULT_DEPTHS if depths is None else depths
        checks.check_annotator_settings({**self._config, "widths": widths, "depths": depths})
        frozen = ExpressionGenerator.load_trained(generator)
        steps = len(frozen.model.scheduler.alphas_cumprod)
        check_setting(0 <= timestep < steps, "timestep", timestep, f"a training timestep in 0…{steps - 1}")
        words = [ADJECTIVES[name] for name in self.label_space]
        runs = bool(self.feature_modules) or branches != "features"
        self._reader = GeneratorReader(frozen, words, self.feature_modules, timestep, latents, map_size, runs)
        self.generator_fingerprint = self._reader.fingerprint
        self.generator_data = TrainingProvenance.of_file(generator, frozen.label_space)
        self._cache: FeatureCache | None = None
        self._flip = flip
        shapes, first = self._reader.shapes, len(self.feature_modules)
        k, network = len(self.label_space), None if branches == "attention" else self._build_backbone()
        self.head = AnnotatorHead(
            shapes[:first], shapes[first:], k, branches, width, widths, depths, num_heads, dropout, drop_rate, network
        )
        self.ema = None if ema_decay is None else ParameterEMA(self.head, ema_decay)
        self.temperature: Tensor
        self.register_buffer("temperature", torch.ones(()))
        self._calibrated_at: int | None = None  # the step at which the temperature was fitted
        columns = {"logits": torch.empty(0, k), "soft_label": torch.empty(0, k), "label": torch.empty(0).long()}
        self._outcomes = {stage: GatheredRows(columns, keyed=False) for stage in ("val", "test")}

    def _build_backbone(self) -> tuple[torch.nn.Module, MapShape] | None:
        name, kwargs = self._config["backbone"], self._config["backbone_kwargs"]
        if name is None:
            check_setting(not kwargs, "backbone_kwargs", kwargs, "nothing where model.backbone is null")
            return None
        channels, side = self._reader.spatial_latents
        stem = self._config["stem"]
        network = build_backbone(name, 0, image_size=side, in_channels=channels, stem=stem, kwargs=kwargs)
        return to_channels_last(network), (channels, side)  # which the weights bring in

    # ---------------------------------------------------------------- reading the generator

    @property
    def reader(self) -> GeneratorReader:
        """What reads faces with the frozen generator, on this module's device."""
        return self._reader.to(self.device)

    @property
    def generator(self) -> ExpressionGenerator:
        """The frozen generator, on this module's device."""
        found = self.reader.generator
        assert isinstance(found, ExpressionGenerator)
        return found

    @property
    def feature_width(self) -> int:
        """Numbers per face that are kept of one pass."""
        return self._reader.feature_width

    def read(self, image: Tensor, cache: FeatureCache | None = None, mirror_too: bool = False) -> list[Tensor]:
        """Returns what the head gets of images in [0, 1], (B, 3, H, W): latents for its backbone, if any, then maps.

        Args:
            image: the images; with a cache they are rounded to whole 255ths, by which they are known.
            cache: where to look, and where to leave what is new.
            mirror_too: of an image that is new also compute the mirror image.
        """
        return self.reader.read(image, cache, mirror_too, latents_too=self.head.has_backbone)

    def cache_identity(self) -> dict[str, Any]:
        """Returns what cached features depend on besides the image."""
        return self._reader.cache_identity()

    def forward(self, image: Tensor) -> Tensor:
        """Returns logits (B, K) before calibration of images (B, 3, H, W) in [0, 1]; no gradient to the images."""
        return self._classify(self.read(image))

    def _classify(self, maps: Sequence[Tensor], has_maps: Tensor | None = None) -> Tensor:
        latents, maps = (maps[0], maps[1:]) if self.head.has_backbone else (None, maps)
        first = len(self.feature_modules)
        return self.head(maps[:first], maps[first:], latents, has_maps)

    @torch.no_grad()
    def predict_probabilities(self, image: Tensor, flip: bool | None = None) -> Tensor:
        """Returns calibrated probabilities float32 (B, K) of images (B, 3, H, W) in [0, 1].

        Args:
            image: the images.
            flip: whether to average over each image and its mirror image; None does what the config says.
        """
        if len(image) == 0:
            return image.new_zeros(0, len(self.label_space))
        return (self._logits(image, self._config["flip_tta"] if flip is None else flip) / self.temperature).softmax(1)

    def _logits(self, image: Tensor, flip: bool, cache: FeatureCache | None = None) -> Tensor:
        """Returns what the temperature divides, float32 (B, K): logits, or, of several views, log of the mean softmax.

        Without the − log n of a mean: one number for all classes is nothing to a softmax.
        """
        with self.reader.own_precision():
            faces = (image, image.flip(-1)) if flip else (image,)
            views = [view.float() for face in faces for view in self._views(self.read(face, cache))]
        return views[0] if len(views) == 1 else torch.stack([v.log_softmax(1) for v in views]).logsumexp(0)

    def _views(self, maps: Sequence[Tensor]) -> list[Tensor]:
        views = [self._classify(maps)]
        if self._averages_views:
            latents, *read = maps
            none = torch.zeros(len(latents), dtype=torch.bool, device=latents.device)
            views.append(self._classify([latents, *(m[:0] for m in read)], none))
        return views

    @property
    def _averages_views(self) -> bool:
        return self._config["maps_tta"] and self.head.has_backbone and self.feature_width > 0

    def weights_fingerprint(self) -> str:
        """Returns 16 hex digits of SHA-256 over the head and the generator's fingerprint."""
        return fingerprint(self.head.named_parameters(), self.generator_fingerprint)

    # ---------------------------------------------------------------- training

    def setup(self, stage: str) -> None:
        """Checks that data and annotator agree, and opens the cache.

        Raises:
            ValueError: other classes in the data, endlessly many views of a face for a cache, or a training that
                lacks one of the views that predictions average.
        """
        super().setup(stage)
        data = self._data
        augmentation: Any = getattr(data, "augmentation", None)
        if stage == "fit" and self._averages_views:
            checks.check_has_uncached_faces(augmentation)
        root = self._config["feature_cache"]
        if root is None or stage == "predict" or self.feature_width == 0:  # what is predicted is rarely seen twice
            return
        views = checks.views_to_cache(augmentation, self.head.has_backbone) if stage == "fit" else 1
        augmented = augmentation is not None and augmentation.enabled
        self._flip = 0.0 if augmented else self._config["flip"]  # only training mirrors
        self._cache = FeatureCache(root, self.cache_identity(), self.feature_width)
        table = getattr(data, "train_table", None)
        if stage == "fit" and table is not None:
            seen = len(data.val_table) * (2 if self._config["flip_tta"] else 1)
            checks.announce_cache(self._cache, len(table) * (2 if self._flip > 0 else views) + seen, root)

    def on_train_epoch_start(self) -> None:
        """Takes in what other ranks have cached."""
        if self._cache is not None:
            self._cache.refresh()

    def on_train_epoch_end(self) -> None:
        """Writes what this rank has newly read, so that other ranks find it in the next epoch."""
        if self._cache is not None:
            self._cache.flush()
            self.trainer.strategy.barrier()  # nobody looks before all have written

    def on_train_end(self) -> None:
        """Says so where the temperature is not of the last weights."""
        checks.warn_if_uncalibrated(self._calibrated_at, self.trainer.global_step)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Returns the mean cross-entropy of one batch with its soft labels."""
        logits = self._training_logits(batch, batch_idx).float()
        losses = self._losses(logits, batch["soft_label"])
        loss = self._mean_loss(losses, batch["is_synthetic"])
        n = len(losses)
        self.log("train/loss", loss.detach(), prog_bar=True, batch_size=n)
        self.log("train/accuracy", (logits.argmax(1) == batch["label"]).float().mean(), batch_size=n)
        return loss

    def _training_logits(self, batch: Batch, batch_idx: int) -> Tensor:
        image = batch["image"]
        # A face that is no cached view is seen by the backbone alone: it costs no pass and no place on disk. In the
        # rare batch with fewer than two others the layers that take in maps would have nothing to learn from.
        alone: Tensor | None = batch.get("is_uncached") if self.head.has_backbone else None
        if alone is None or not bool(alone.any()):
            return self._classify(self._training_maps(image, batch["is_synthetic"], batch_idx))
        read = ~alone
        if int(read.sum()) < 2:
            return self._classify(self.read(image))
        reader = self.reader
        some, *maps = self._training_maps(image[read], batch["is_synthetic"][read], batch_idx)
        latents = some.new_empty(len(image), *some.shape[1:])
        latents[read], latents[alone] = some, reader.spread(reader.encode(image[alone])).to(some)
        return self._classify([latents, *maps], read)

    def _training_maps(self, image: Tensor, synthetic: Tensor, batch_idx: int) -> list[Tensor]:
        if self._cache is None:
            return self.read(image)
        seed = keyed_seed(self._seed, self.global_rank, self.global_step, batch_idx, Stream.ANNOTATOR_FLIP)
        draw = torch.rand(len(image), generator=torch.Generator().manual_seed(seed)).to(image.device)
        image = torch.where((draw < self._flip)[:, None, None, None], image.flip(-1), image)
        if not bool(synthetic.any()):
            return self.read(image, self._cache, mirror_too=self._flip > 0)
        # Synthetic faces come and go: only real ones are worth a place on disk.
        order = torch.cat([(~synthetic).nonzero()[:, 0], synthetic.nonzero()[:, 0]]).argsort()
        parts = [self.read(image[synthetic])]
        if not bool(synthetic.all()):
            parts.insert(0, self.read(image[~synthetic], self._cache, mirror_too=self._flip > 0))
        return [torch.cat(maps)[order] for maps in zip(*parts, strict=True)]

    @property
    def _seed(self) -> int:
        return run_seed(self._trainer)

    # ---------------------------------------------------------------- evaluation

    def _clear_evaluation(self, stage: str) -> None:
        self._outcomes[stage].reset()

    def _evaluate(self, stage: str, batch: Batch) -> None:
        logits = self._logits(batch["image"], self._config["flip_tta"], self._cache)
        outcomes = self._outcomes[stage].to(self.device)
        outcomes.update(logits=logits, soft_label=batch["soft_label"], label=batch["label"])

    def _report_evaluation(self, stage: str) -> None:
        rows = self._outcomes[stage].compute()
        if stage == "val" and self.trainer.state.fn == "fit" and not self.trainer.sanity_checking:
            self.temperature.fill_(fit_temperature(rows["logits"], rows["label"]))
            self._calibrated_at = self.trainer.global_step
            self.log("val/temperature", float(self.temperature), rank_zero_only=False, sync_dist=True)
        if self._cache is not None:
            self._cache.flush()
        scores, confusion = calibrated_scores(**rows, temperature=self.temperature, label_space=self.label_space)
        if stage != "val":  # the rows that the temperature was fitted to flatter it
            scores.pop("ece_uncalibrated")
        self._log_scores(stage, scores, in_progress_bar=("accuracy",))
        if self._writes_pictures:
            folder = Path(self.trainer.default_root_dir) / "samples"
            save_confusion_matrix(confusion, self.label_space, folder / f"confusion_{stage}.png", stage)

    # ---------------------------------------------------------------- checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds what :meth:`load_trained` needs, in plain types and tensors."""
        super().on_save_checkpoint(checkpoint)
        checkpoint[str(self.file_format.entry)] |= {
            "calibrated_at": self._calibrated_at,
            "generator_fingerprint": self.generator_fingerprint,
            "generator_data": self.generator_data.state_dict(),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Checks what is loaded, and takes over the moving average.

        Raises:
            ValueError: not of this class, of another label space or build, or trained on another generator's features.
        """
        saved = self._entry_of(checkpoint)
        checks.check_settings_known(saved["config"], type(self))
        self._check_same_task(saved["config"], checks.NOT_IN_WEIGHTS)
        checks.check_same_head(checkpoint["state_dict"], self.state_dict())
        trained_on, exported_from = saved["generator_fingerprint"], self.generator.exported_from
        checks.check_same_generator(trained_on, self.generator_fingerprint, exported_from, self._config["generator"])
        if "generator_data" in saved and self.generator_data.trained_on is None:  # it may lie as bare weights now
            self.generator_data = TrainingProvenance.from_state_dict(saved["generator_data"])
        self._calibrated_at = saved.get("calibrated_at")
        self._load_average(saved["ema"])

    @classmethod
    @fork_rng(devices=[])  # building networks draws random numbers, and must not disturb a training beside
    def load_trained(
        cls,
        path: str | Path,
        map_location: str | torch.device = "cpu",
        label_space: str | Sequence[str] | None = None,
        generator: str | None = None,
    ) -> LabelAnnotator:
        """Loads a trained annotator for use: evaluation mode, gradients off, no cache.

        Args:
            path: a checkpoint of this class.
            map_location: device to load to.
            label_space: the label space that the caller needs; None takes any.
            generator: where the generator lies now; None = where it lay in training.

        Raises:
            FileNotFoundError: no file there, or no generator.
            ValueError: not a checkpoint of this class, of another label space, or of another generator.
        """
        path = find_checkpoint(path, "annotator")
        stored = cls.file_format.read_checkpoint(path)
        with reading("annotator checkpoint", path, "one written by training"):
            annotator = cls._restored(path, stored, label_space, generator)
        return annotator.to(map_location).eval().requires_grad_(False)

    @classmethod
    def _restored(
        cls, path: Path, stored: StoredModule, label_space: str | Sequence[str] | None, generator: str | None
    ) -> LabelAnnotator:
        """Returns the annotator of a checkpoint with its averaged weights, if there are any."""
        config = {**stored.settings, "feature_cache": None}
        checks.check_settings_known(config, cls)
        annotator = cls(**{**config, "generator": generator or config["generator"]})
        annotator._check_label_space(path, label_space)
        annotator.on_load_checkpoint(stored.content)
        annotator.load_state_dict(stored.weights)
        if "calibrated_at" in stored.entry:  # older ones do not say
            checks.warn_if_uncalibrated(annotator._calibrated_at, int(stored.content["global_step"]), f"{path}: ")
        return annotator
