"""ExpressionGenerator: a diffusion model that makes faces with a wanted expression, from text and action units."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Literal

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.optim import Optimizer

from datamodules.batch import Batch
from datamodules.rows.unlabelled import expression_names
from lightning_modules.caption_words import check_caption_words
from lightning_modules.face_grid import log_face_grid
from lightning_modules.generator_file import GeneratorFile
from lightning_modules.trainer_access import data_of
from synfer.faces.action_units import ACTION_UNITS
from synfer.faces.expressions import resolve_label_space
from synfer.foundation.counter_based_random import keyed_seed
from synfer.foundation.random_streams import Stream
from synfer.foundation.validate import check_setting
from synfer.metrics.masked_mean import MaskedMean
from synfer.networks.au_adapter import (
    AUTokens,
    attach_au_adapter,
    embed_action_units,
    region_masks,
)
from synfer.networks.diffusion import load_diffusion_model, small_diffusion_model
from synfer.networks.latent_codec import AutoencoderKLCodec
from synfer.networks.network_settings import NetworkSettings
from synfer.optimisation.ema import ParameterEMA
from synfer.optimisation.schedule import Schedule
from synfer.synthesis.conditions import fill_action_units
from synfer.synthesis.diffusion.condition_dropout import ConditionDropout
from synfer.synthesis.diffusion.execution import ExecutionSettings
from synfer.synthesis.diffusion.prediction import min_snr_weight, signal_and_noise, training_target
from synfer.synthesis.diffusion.synthesiser import DiffusionSynthesiser
from synfer.synthesis.request import SamplingSettings


class ExpressionGenerator(GeneratorFile):
    """Latent diffusion with text and AU conditioning (SynFER, arXiv 2410.09865).

    Trains E‖target − f_θ(x_t, c_text, c_au, t)‖² with min-SNR weights; text, AUs and both are dropped at random, so
    that classifier-free guidance has a trained unconditional branch. The small configuration trains everything; on a
    ``base`` in diffusers' layout, ``trained`` chooses what learns and the rest stays frozen and out of checkpoints.

    Each rank draws its noise from a generator keyed by (seed, rank, step, batch): different on every rank, the same
    when a run is repeated or resumed.

    Args:
        label_space: name of a label space or a list of expressions.
        image_size: side of the images in pixels.
        base: diffusers folder or Hub id; None builds the small model that ``network`` describes.
        network: what differs from the small model; on a ``base``, the noise schedule alone counts.
        autoencoder_steps: the first steps of a fit train a learned codec, the rest the diffusion model.
        trained: what learns on a ``base``: everything ("all"), the AU adapter ("adapter"), LoRA and adapter ("lora").
        lora_rank: rank and alpha of LoRA on the attention projections.
        drop: shares of samples that train without caption, without AUs, or without either.
        null_caption: caption of samples without one, in training and where the negative prompt is empty. One that names
            all expressions makes the network used to the prompt that :class:`LabelAnnotator` reads with.
        min_snr_gamma: γ of min-SNR weighting; None = unweighted.
        learning_rate: peak rate of AdamW.
        weight_decay: decoupled weight decay.
        warmup_fraction: share of the steps with rising rate; then a half cosine.
        ema_decay: decay of the average over trained parameters; None = off.
        execution: how the UNet is laid out, rounded and compiled.
        sampling: default settings of synthesis.
        grid_samples: faces per expression in the grid logged after each validation; 0 = none.

    Raises:
        ValueError: a value out of range, or parts that do not fit each other.
        FileNotFoundError: ``base`` is missing.
    """

    uses_unlabelled_rows = True
    """Their caption is all that is known of them: their action units stay unknown."""

    def __init__(
        self,
        label_space: str | list[str] = "ferplus8",
        image_size: int = 48,
        base: str | None = None,
        network: NetworkSettings = NetworkSettings(),  # noqa: B008 (frozen)
        autoencoder_steps: int = 0,
        trained: Literal["all", "adapter", "lora"] = "all",
        lora_rank: int = 4,
        drop: ConditionDropout = ConditionDropout(),  # noqa: B008 (frozen)
        null_caption: str = "",
        min_snr_gamma: float | None = 5.0,
        learning_rate: float = 4e-4,
        weight_decay: float = 1e-2,
        warmup_fraction: float = 0.03,
        ema_decay: float | None = 0.999,
        execution: ExecutionSettings = ExecutionSettings(),  # noqa: B008 (frozen)
        sampling: SamplingSettings = SamplingSettings(),  # noqa: B008 (frozen)
        grid_samples: int = 8,
    ) -> None:
        super().__init__()
        self.region_masks: Tensor
        groups: dict[str, Any] = {"network": network, "drop": drop, "execution": execution, "sampling": sampling}
        self.save_hyperparameters(ignore=list(groups), logger=False)
        for name, group in groups.items():  # plain types only: a checkpoint must load with weights_only=True
            self.hparams[name] = asdict(group)
        self.label_space = resolve_label_space(label_space)
        self._dropout = drop
        check_setting(
            min_snr_gamma is None or min_snr_gamma > 0, "min_snr_gamma", min_snr_gamma, "a number above 0 or null"
        )
        if network.codec == "autoencoder_kl" and base is None and autoencoder_steps < 1:
            raise ValueError("model.autoencoder_steps: found 0, expected at least 1 to train codec 'autoencoder_kl'")
        self.au_names = ACTION_UNITS
        if base is None:
            self.model = small_diffusion_model(
                network.unet or {},
                network.text_encoder or {},
                network.scheduler or {},
                network.codec,
                network.codec_config or {},
                image_size,
            )
        else:
            self.model = load_diffusion_model(base, network.scheduler or {})
            unit = self.model.codec.downscale
            check_setting(image_size % unit == 0, "image_size", image_size, f"a multiple of {unit}")
        self.register_buffer("region_masks", region_masks(self.au_names), persistent=False)
        attach_au_adapter(self.model.unet, len(self.au_names))
        if base is not None:
            self.model.choose_trained(trained, lora_rank)
        elif trained != "all":
            raise ValueError(f"model.trained: found '{trained}' without model.base, expected 'all'")
        if execution.channels_last:
            self.model.unet.to(memory_format=torch.channels_last)
        if execution.compile_backend is not None:
            self.model.unet.compile(backend=execution.compile_backend)  # in place: the names in checkpoints stay
        # No module: names in checkpoints are those of ``model``, which both hold.
        self.synthesiser = DiffusionSynthesiser(
            self.model,
            self.label_space,
            image_size,
            sampling,
            null_caption,
            execution.bf16_sampling,
            compiled=execution.compile_backend is not None,
            training_step=self._fitting_step,
        )
        self.prediction = self.synthesiser.prediction
        self.ema = None if ema_decay is None else ParameterEMA(self.model, ema_decay)
        self._validation_loss = MaskedMean()

    @property
    def image_size(self) -> int:
        """Side of its faces in pixels."""
        return self.synthesiser.image_size

    @property
    def sampling(self) -> SamplingSettings:
        """Default settings of synthesis."""
        return self.synthesiser.sampling

    @property
    def needs_checkpoint(self) -> bool:
        """Whether the weights are random numbers: a ``base`` makes faces without any training of ours."""
        return self.hparams["base"] is None

    # ---------------------------------------------------------------- parts

    def network(self, latents: Tensor, timestep: Tensor | int, text: Tensor, au: Tensor | AUTokens) -> Tensor:
        """Runs the UNet: (B, C, h, w), timestep int or (B,), text (B, L, D), AU input (B, R, 2A) → (B, C, h, w)."""
        return self.synthesiser.network(latents, timestep, text, au)

    def weights_fingerprint(self) -> str:
        """Returns 16 hex digits of SHA-256 over the trained weights (C6: an image is a function of them)."""
        return self.synthesiser.weights_fingerprint()

    def build_fingerprint(self) -> str:
        """Returns 16 hex digits over what decides the outputs beside the weights: codec, noise schedule, networks."""
        return self.model.build_fingerprint()

    # ---------------------------------------------------------------- training

    def setup(self, stage: str) -> None:
        """Checks that the data has the generator's label space, and that the strategy fits a codec that learns.

        Raises:
            ValueError: it does not.
        """
        found = getattr(data_of(self.trainer), "label_space", self.label_space)
        if tuple(found) != self.label_space:
            raise ValueError(f"data has the label space {list(found)}, the generator {list(self.label_space)}")
        if stage == "fit":
            named = self.sampling.mention_expression
            check_caption_words(data_of(self.trainer), self.model.tokenizer, self.hparams["base"] is None, named)
        options = getattr(self.trainer.strategy, "_ddp_kwargs", None)
        learned = self.model.codec.learned and self.hparams["base"] is None
        if stage == "fit" and learned and options is not None and not options.get("find_unused_parameters"):
            raise ValueError(
                "model.network.codec 'autoencoder_kl' learns in turn with the UNet: found strategy ddp, expected "
                "--trainer.strategy=ddp_find_unused_parameters_true"
            )
        if stage != "test":
            return
        if not any(type(callback).__name__ == "GeneratorTest" for callback in self.trainer.callbacks):  # type: ignore[attr-defined]
            rank_zero_warn("test: found no GeneratorTest among the trainer's callbacks, so no face is made and scored")

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Returns the loss of one batch: of a learned codec in the first steps, of the diffusion model after them."""
        generator = torch.Generator(self.device).manual_seed(
            # With the batch, because accumulated batches share a step.
            keyed_seed(self._seed, self.global_rank, self.global_step, batch_idx, Stream.TRAINING_NOISE)
        )
        image = self._images(batch)
        if self.global_step < self.hparams["autoencoder_steps"] and isinstance(self.model.codec, AutoencoderKLCodec):
            loss, psnr = self.model.codec.loss(image, generator)
            self.log("train/autoencoder_loss", loss, prog_bar=True)
            self.log("train/autoencoder_psnr", psnr)
            return loss
        with torch.no_grad():
            latents = self.model.codec.encode(image)
        text, au = self._conditions(batch, generator)
        loss = self._loss(latents, text, au, generator)
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def _images(self, batch: Batch) -> Tensor:
        """Returns the images in [−1, 1]; another size than the one that is synthesised is an error."""
        found, expected = tuple(batch["image"].shape[-2:]), self.hparams["image_size"]
        if found != (expected, expected):
            raise ValueError(
                f"model.image_size is {expected}, but the data has images of {found[0]}x{found[1]}: set data.image_size"
            )
        return batch["image"] * 2 - 1

    def _conditions(self, batch: Batch, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """Returns text tokens and AU input of a batch, with condition dropout where a generator is given."""
        captions = batch["caption"]
        au = self._fill_action_units(batch)
        if generator is not None:
            no_text, no_au = self._dropout.draw(len(captions), generator)
            null = self.hparams["null_caption"]
            captions = [null if drop else c for c, drop in zip(captions, no_text.tolist(), strict=True)]
            au = au.masked_fill(no_au[:, None], torch.nan)
        unique = sorted(set(captions))
        tokens = self.model.encode_text(unique)
        return tokens[[unique.index(caption) for caption in captions]], embed_action_units(au, self.region_masks)

    def _fill_action_units(self, batch: Batch) -> Tensor:
        """Gives samples without any known AU a draw from their expression's FACS prototype."""
        names = expression_names(batch["label"].tolist(), self.label_space)
        stream = (self._seed, self.global_step if self.training else 0, Stream.TRAINING_ACTION_UNITS)
        filled = fill_action_units(batch["au"].cpu().numpy(), names, batch["sample_id"], *stream)
        return torch.from_numpy(filled).to(batch["au"])

    def _loss(self, latents: Tensor, text: Tensor, au: Tensor, generator: torch.Generator) -> Tensor:
        alphas = self.model.scheduler.alphas_cumprod
        timestep = torch.randint(len(alphas), (len(latents),), generator=generator, device=self.device)
        eps = torch.randn(latents.shape, generator=generator, device=self.device)
        signal, noise = signal_and_noise(alphas, timestep, latents)
        output = self.network(signal * latents + noise * eps, timestep, text, au).float()
        target = training_target(latents, eps, signal, noise, self.prediction)
        weight = min_snr_weight(signal, noise, self.hparams["min_snr_gamma"], self.prediction)
        return (weight * (output - target) ** 2).mean()

    def build_optimiser(self) -> Optimizer:
        """Returns AdamW over what is trained."""
        return torch.optim.AdamW(
            [p for p in self.parameters() if p.requires_grad],
            lr=self.hparams["learning_rate"],
            weight_decay=self.hparams["weight_decay"],
            betas=(0.9, 0.99),
        )

    def learning_rate_schedule(self) -> tuple[Schedule, float]:
        """Returns a half cosine after a linear rise."""
        return "cosine", self.hparams["warmup_fraction"]

    # ---------------------------------------------------------------- evaluation

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Takes the loss of one batch into the validation, under the same noise in every epoch."""
        if not len(batch["label"]):  # a rank may have no row
            return
        # The same noise in every epoch, so that the curve shows the model and not the draw.
        generator = torch.Generator(self.device).manual_seed(
            keyed_seed(self._seed, self.global_rank, batch_idx, Stream.VALIDATION_NOISE)
        )
        text, au = self._conditions(batch, None)
        latents = self.model.codec.encode(self._images(batch))
        loss = self._loss(latents, text, au, generator)
        self._validation_loss.update(loss.detach().expand(len(latents)))

    def on_validation_epoch_start(self) -> None:
        """Forgets the last validation."""
        self._validation_loss.reset()

    def on_validation_epoch_end(self) -> None:
        """Logs the mean loss of all ranks, and a grid of faces where asked."""
        self.log("val/loss", self._validation_loss.compute(), prog_bar=True, sync_dist=True)
        if self.hparams["grid_samples"] > 0 and not self.trainer.sanity_checking:
            log_face_grid(self, self.hparams["grid_samples"], self._seed, self.trainer)
