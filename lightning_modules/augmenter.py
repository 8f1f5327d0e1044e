"""SemanticAugmenter: a VAE-GAN that makes faces of rare expressions from codes of real ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import torch
from lightning.pytorch import Callback
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import AdamW, Optimizer

from datamodules.batch import Batch
from datamodules.rows.source_faces import TrainingSources, training_sources
from lightning_modules.aligned_faces import tell_of_other_alignment
from lightning_modules.augmenter_pictures import save_latent_pictures
from lightning_modules.classifier import ExpressionClassifier
from lightning_modules.face_grid import log_face_grid
from lightning_modules.synthesiser_module import SynthesiserModule
from lightning_modules.trainer_access import data_of
from synfer.faces.expressions import resolve_label_space
from synfer.foundation.counter_based_random import keyed_seed
from synfer.foundation.module_file import KIND, ModuleFormat
from synfer.foundation.random_streams import Stream
from synfer.foundation.validate import check_setting
from synfer.metrics.masked_mean import MaskedMean
from synfer.networks.feature_extractor import backbone_fingerprint
from synfer.networks.perception import ExpressionPerception
from synfer.networks.vae_gan import VAEGAN, VAEGANSettings
from synfer.optimisation.ema import ParameterEMA
from synfer.optimisation.optimiser import decay_groups
from synfer.optimisation.schedule import Schedule, scheduled
from synfer.synthesis.request import SynthesisSettings
from synfer.synthesis.sources import SourceFaces
from synfer.synthesis.vae_gan.losses import distance, kl_divergence, peak_signal_to_noise
from synfer.synthesis.vae_gan.perturbation import PerturbationSettings
from synfer.synthesis.vae_gan.synthesiser import VAEGANSynthesiser
from synfer.synthesis.vae_gan.training_losses import LossSettings, draw_wishes, training_losses

_BETAS = (0.5, 0.99)  # a shorter memory than usual: the other network changes what is to be learned
_DISCRIMINATOR = "networks.discriminator."


class SemanticAugmenter(SynthesiserModule):
    """VAE-GAN for the long tail (arXiv 2411.17254): learns from the faces of all classes, to make those of rare ones.

    Lightning's manual optimisation, for there are two optimisers; one backward pass gives all three networks their
    gradients (``synfer/synthesis/vae_gan/training_losses.py``). ``trainer.global_step`` counts batches, as with one
    optimiser: of the two steps, the one of encoder and decoder goes through Lightning.

    Each rank draws the noise of its codes from a generator keyed by (seed, rank, step, batch).

    Args:
        label_space: name of a label space or a list of expressions.
        image_size: side of the images in pixels, a multiple of 2 to the power of the number of widths.
        network: sizes of the three networks.
        loss: weights of the losses.
        guide: checkpoint of an :class:`ExpressionClassifier`, frozen, whose view of the made faces counts where
            ``loss.perceptual_weight`` or ``loss.expression_weight`` is above 0; never the judge of a test. It is needed
            for training alone, and no file of the augmenter holds it.
        learning_rate: peak rate of AdamW for encoder and decoder.
        discriminator_learning_rate: peak rate for the discriminator; None = the same.
        weight_decay: decoupled weight decay of matrices and kernels.
        warmup_fraction: share of the steps with rising rate; then a half cosine.
        clip_norm: largest norm of the gradients of encoder and decoder together, and of the discriminator's; None = not
            clipped. In place of ``trainer.gradient_clip_val``, which Lightning refuses for two optimisers.
        ema_decay: decay of the average over encoder and decoder; None = off.
        perturbation: how the codes of real faces are changed in synthesis.
        bf16_sampling: whether synthesis runs the networks in bfloat16 autocast.
        initial_weights: checkpoint, run folder or folder of ``save_trained`` of an augmenter to start from; None = its
            own, drawn by the seed. A folder has no discriminator. Only ``fit`` looks at it, and not when it goes on
            from ``--ckpt_path``.
        grid_samples: faces per expression in the grid logged after each validation; 0 = none.

    Raises:
        ValueError: a value out of range, or parts that do not fit each other.
    """

    file_format = ModuleFormat("vae_gan", "networks", "SemanticAugmenter", name="augmenter")
    setting_groups = {"network": VAEGANSettings, "loss": LossSettings, "perturbation": PerturbationSettings}
    decide_weights = ("label_space", "network", "image_size")
    au_names: tuple[str, ...] = ()

    def __init__(
        self,
        label_space: str | list[str] = "ferplus8",
        image_size: int = 48,
        network: VAEGANSettings = VAEGANSettings(),  # noqa: B008 (frozen)
        loss: LossSettings = LossSettings(),  # noqa: B008 (frozen)
        guide: str | None = None,
        learning_rate: float = 4e-4,
        discriminator_learning_rate: float | None = None,
        weight_decay: float = 1e-4,
        warmup_fraction: float = 0.03,
        clip_norm: float | None = 1.0,
        ema_decay: float | None = 0.999,
        perturbation: PerturbationSettings = PerturbationSettings(),  # noqa: B008 (frozen)
        bf16_sampling: bool = True,
        initial_weights: str | None = None,
        grid_samples: int = 8,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        groups: dict[str, Any] = {"network": network, "loss": loss, "perturbation": perturbation}
        self.save_hyperparameters(ignore=list(groups), logger=False)
        for name, group in groups.items():  # plain types only: a checkpoint must load with weights_only=True
            self.hparams[name] = asdict(group)
        check_setting(learning_rate > 0, "learning_rate", learning_rate, "a number above 0")
        fine = discriminator_learning_rate is None or discriminator_learning_rate > 0
        check_setting(fine, "discriminator_learning_rate", discriminator_learning_rate, "a number above 0 or null")
        check_setting(weight_decay >= 0, "weight_decay", weight_decay, "a number of at least 0")
        check_setting(0 <= warmup_fraction < 1, "warmup_fraction", warmup_fraction, "a share in [0, 1)")
        check_setting(clip_norm is None or clip_norm > 0, "clip_norm", clip_norm, "a number above 0 or null")
        check_setting(grid_samples >= 0, "grid_samples", grid_samples, "at least 0")
        relabelled = loss.relabelled_share > 0
        expected = "0 where network.class_conditional is false: such a decoder cannot be asked for an expression"
        check_setting(
            network.class_conditional or not relabelled, "loss.relabelled_share", loss.relabelled_share, expected
        )
        self.label_space = resolve_label_space(label_space)
        self.networks = VAEGAN(network, image_size, len(self.label_space))
        self.synthesiser = VAEGANSynthesiser(
            self.networks, self.label_space, image_size, perturbation, bf16_sampling, self._fitting_step
        )
        # Holds, but is no part of this module: the names in checkpoints stay those of ``networks``.
        averaged = nn.ModuleDict({"encoder": self.networks.encoder, "decoder": self.networks.decoder})
        self.ema = None if ema_decay is None else ParameterEMA(averaged, ema_decay)
        self._loss = loss
        self._perception: ExpressionPerception | None = None  # no submodule: frozen, and in no checkpoint
        self._total_steps = 1.0
        self._grid_names: list[str] = []
        self._validation = nn.ModuleDict({name: MaskedMean() for name in ("loss", "psnr", "kl")})

    @property
    def image_size(self) -> int:
        """Side of its faces in pixels."""
        return self.networks.image_size

    @property
    def sampling(self) -> PerturbationSettings:
        """Default settings of synthesis."""
        return self.synthesiser.sampling

    # ---------------------------------------------------------------- files

    def weights_fingerprint(self) -> str:
        """Returns 16 hex digits of SHA-256 over encoder and decoder: what a face is a function of."""
        return self.synthesiser.weights_fingerprint()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes over what a checkpoint holds beside the weights.

        Raises:
            ValueError: the checkpoint is of another label space: its weights would pass for other expressions.
        """
        settings = checkpoint.get("hyper_parameters", {})
        found = resolve_label_space(settings.get("label_space", list(self.label_space)))
        if checkpoint.get(KIND) == self.file_format.kind and found != self.label_space:
            raise ValueError(
                f"label space of the checkpoint: found {', '.join(found)}, expected {', '.join(self.label_space)} "
                "(model.label_space)"
            )
        super().on_load_checkpoint(checkpoint)

    def _not_in_folders(self) -> set[str]:
        """The discriminator, which makes no face."""
        return {name for name in self.state_dict() if name.startswith(_DISCRIMINATOR)}

    def _completed(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        own = self.state_dict()
        return {**{name: own[name] for name in self._not_in_folders()}, **weights}

    # ---------------------------------------------------------------- before training

    def configure_callbacks(self) -> list[Callback]:
        """Adds none: here, before Lightning's own words on them, settings of other modules are refused.

        Raises:
            ValueError: clipping or accumulation by the trainer.
        """
        trainer = self.trainer
        if trainer.state.fn == "fit":
            clip, batches = trainer.gradient_clip_val, trainer.accumulate_grad_batches
            check_setting(not clip, "gradient_clip_val", clip, "none with two optimisers (model.clip_norm)", "trainer")
            expected = "1 with two optimisers (a larger data.batch_size)"
            check_setting(batches == 1, "accumulate_grad_batches", batches, expected, "trainer")
        return []

    def setup(self, stage: str) -> None:
        """Checks data and precision, and takes the training faces that others will be made from.

        Raises:
            ValueError: other expressions or another size than the data's, a precision that scales losses, or an
                expression to be made of which there is no training face.
        """
        data = data_of(self.trainer)
        found = getattr(data, "label_space", self.label_space)
        if tuple(found) != self.label_space:
            raise ValueError(f"data has the label space {list(found)}, the augmenter {list(self.label_space)}")
        side = getattr(data, "image_size", None)
        check_setting(
            side in (None, self.image_size), "image_size", side, f"{self.image_size} (model.image_size)", "data"
        )
        scaled = self.trainer.precision == "16-mixed"
        expected = "bf16-mixed or 32-true: losses of two optimisers are not scaled"
        check_setting(stage != "fit" or not scaled, "precision", "16-mixed", expected, "trainer")
        if stage == "fit" and self._loss.needs_perception and getattr(data, "folds", None) is not None:
            raise ValueError(
                f"model.guide beside data.folds={data.folds}: the guide may have learned from the rows that this fold "
                "holds out, with their labels; expected one or the other"
            )
        if stage == "fit" and self._loss.needs_perception and self._perception is None:
            expected = "a classifier's checkpoint, for loss.perceptual_weight or loss.expression_weight above 0"
            check_setting(self.hparams["guide"] is not None, "guide", None, expected)
            classifier = ExpressionClassifier.load_trained(str(self.hparams["guide"]))
            tell_of_other_alignment(self.trainer, classifier, f"model.guide '{self.hparams['guide']}'")
            self._perception = ExpressionPerception(classifier, self.label_space)
            self._remember(backbone_fingerprint(classifier))
        elif stage == "fit" and self.hparams["guide"] is not None and not self._loss.needs_perception:
            rank_zero_info(
                "model.guide: not looked at, as model.loss.perceptual_weight and model.loss.expression_weight are 0"
            )
        if stage == "predict":
            self.use_sources(training_sources(data, "source face"), data.planned_set.expressions)
        elif stage == "fit" and self.hparams["grid_samples"] > 0 and hasattr(data, "train_table"):
            # Pictures alone: what is trained on may be an evaluation image here, which a set or a pool refuses.
            sources = TrainingSources(data.train_table, (), "face of the grid")
            least = 2 if self.sampling.mode == "interpolate" else 1
            self._grid_names = [name for name in self.label_space if len(sources.rows_of(name)) >= least]
            self.use_sources(sources, self._grid_names)

    def build_optimiser(self) -> Optimizer:
        """Returns AdamW over encoder and decoder."""
        networks = self.networks
        return self._adamw(self.hparams["learning_rate"], networks.encoder, networks.decoder)

    def build_discriminator_optimiser(self) -> Optimizer:
        """Returns AdamW over the discriminator."""
        rate = self.hparams["discriminator_learning_rate"]
        return self._adamw(self.hparams["learning_rate"] if rate is None else rate, self.networks.discriminator)

    def _adamw(self, learning_rate: float, *networks: nn.Module) -> Optimizer:
        parameters = [p for network in networks for p in network.parameters()]
        return AdamW(decay_groups(parameters, self.hparams["weight_decay"]), lr=learning_rate, betas=_BETAS)

    def learning_rate_schedule(self) -> tuple[Schedule, float]:
        """Returns a half cosine after a linear rise."""
        return "cosine", self.hparams["warmup_fraction"]

    def configure_optimizers(self) -> Any:
        """Returns the optimiser of encoder and decoder and that of the discriminator, on the same schedule.

        Raises:
            ValueError: the length of the training is unknown.
        """
        self._total_steps = self.trainer.estimated_stepping_batches
        schedule, warmup_fraction = self.learning_rate_schedule()
        optimisers = self.build_optimiser(), self.build_discriminator_optimiser()
        return [scheduled(optimiser, schedule, self._total_steps, warmup_fraction) for optimiser in optimisers]

    # ---------------------------------------------------------------- training

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Takes one step of all three networks; returns the sum of their losses."""
        face = self._faces(batch)
        generator = torch.Generator(self.device).manual_seed(
            keyed_seed(self._seed, self.global_rank, self.global_step, batch_idx, Stream.POSTERIOR_NOISE)
        )
        networks, settings, step = self.networks, self._loss, self.global_step
        wishes = draw_wishes(batch["label"], networks.latent_size, len(self.label_space), settings, generator)
        losses = training_losses(networks, face, wishes, settings, step, step / self._total_steps, self._perception)
        self._step(losses.total)
        total = losses.total.detach()
        self.log("train/loss", total, prog_bar=True)
        self.log_dict({f"train/{name}": term for name, term in losses.terms.items()})
        return total

    def _step(self, loss: Tensor) -> None:
        """Takes a step of both optimisers and their schedules, and the weights after it into the average."""
        counted, _ = self._pair(self.optimizers())
        own, discriminators = self._pair(self.optimizers(use_pl_optimizer=False))
        own.zero_grad()
        discriminators.zero_grad()
        self.manual_backward(loss)
        self._clip(discriminators)
        discriminators.step()  # past Lightning, which would count a second step
        counted.step()
        for schedule in self._pair(self.lr_schedulers()):
            schedule.step()
        if self.ema is not None:
            self.ema.update()

    @staticmethod
    def _pair(found: Any) -> tuple[Any, Any]:
        augmenter, discriminator = found
        return augmenter, discriminator

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Clips the gradients of encoder and decoder, after the callbacks have seen them."""
        self._clip(optimizer)

    def _clip(self, optimizer: Optimizer) -> None:
        norm = self.hparams["clip_norm"]
        if norm is not None:
            clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], norm)

    def _faces(self, batch: Batch) -> Tensor:
        """Returns the faces as the networks take them; another size than theirs is an error."""
        found, expected = tuple(batch["image"].shape[-2:]), self.image_size
        if found != (expected, expected):
            raise ValueError(
                f"model.image_size is {expected}, but the data has images of {found[0]}x{found[1]}: set "
                "data.image_size=model"
            )
        return self.networks.faces(batch["image"])

    # ---------------------------------------------------------------- evaluation

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Takes the reconstructions of one batch, from the means of their codes, into the validation."""
        if not len(batch["label"]):  # a rank may have no row
            return
        face, settings = self._faces(batch), self._loss
        mean, log_variance = self.networks.encoder(face)
        made = self.networks.decoder(mean, batch["label"]).float()
        kl = kl_divergence(mean, log_variance)
        rebuilt = torch.stack([distance(a, b, settings.distance) for a, b in zip(made, face, strict=True)])
        loss = settings.pixel_weight * rebuilt + settings.kl_weight * kl / face[0].numel()
        values = {"loss": loss, "psnr": peak_signal_to_noise(made, face), "kl": kl}
        for name, value in values.items():
            self._means()[name].update(value)

    def on_validation_epoch_start(self) -> None:
        """Forgets the last validation."""
        for mean in self._means().values():
            mean.reset()

    def on_validation_epoch_end(self) -> None:
        """Logs the means over the faces of all ranks (loss, PSNR in dB, KL divergence in nats), and a grid of faces."""
        for name, mean in self._means().items():
            self.log(f"val/{name}", mean.compute(), prog_bar=name == "psnr", sync_dist=True)
        if self._grid_names and self.trainer.state.fn == "fit" and not self.trainer.sanity_checking:
            log_face_grid(self, self.hparams["grid_samples"], self._seed, self.trainer, self._grid_names)

    def _means(self) -> dict[str, MaskedMean]:
        return cast("dict[str, MaskedMean]", dict(self._validation.items()))

    def on_test_epoch_end(self) -> None:
        """Writes pictures of the latent space into ``samples/``, on rank 0 alone."""
        sources = self.synthesiser.sources
        if sources is not None and self.trainer.is_global_zero:
            folder = Path(self.trainer.default_root_dir) / "samples"
            save_latent_pictures(self.synthesiser, sources, self.label_space, self._seed, folder)

    # ---------------------------------------------------------------- synthesis

    def use_sources(
        self, sources: SourceFaces, expressions: Sequence[str], settings: SynthesisSettings | None = None
    ) -> None:
        """Sets the training faces that are encoded: see :meth:`VAEGANSynthesiser.use_sources`."""
        self.synthesiser.use_sources(sources, expressions, settings)

    def recipe(self) -> dict[str, Any]:
        """Returns what its faces are a function of beside weights, settings and seed."""
        return self.synthesiser.recipe()
