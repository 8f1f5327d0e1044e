"""ExpressionGenerator: a diffusion model that makes faces with a wanted expression, from text and action units."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.optim import Optimizer

from datamodules.batch import Batch
from datamodules.rows.unlabelled import expression_names
from lightning_modules.aligned_generator import AlignedGenerator
from lightning_modules.caption_words import check_caption_words
from lightning_modules.face_grid import log_face_grid
from lightning_modules.generator_checks import check_generator
from lightning_modules.rounded_generator import RoundedGenerator
from lightning_modules.sharding_checks import check_sharding
from lightning_modules.trainer_access import data_of
from lightning_modules.training_cache import TrainingCache
from synfer.export.lora_file import start_from_lora
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
from synfer.networks.diffusion import LORA_TARGETS, TrainedPart, load_diffusion_model, small_diffusion_model
from synfer.networks.frozen_layers import keep_less
from synfer.networks.latent_codec import AutoencoderKLCodec
from synfer.networks.lora_layers import fuse_lora
from synfer.networks.network_settings import NetworkSettings
from synfer.networks.scale_input import add_scale_input, scale_layer
from synfer.networks.stable_diffusion.number_format import FrozenFormat
from synfer.optimisation.diffusion_optimiser import DiffusionOptimiser, diffusion_optimiser
from synfer.optimisation.ema import ParameterEMA
from synfer.optimisation.schedule import Schedule
from synfer.synthesis.conditions import fill_action_units
from synfer.synthesis.diffusion.cache_settings import CacheSettings
from synfer.synthesis.diffusion.condition_dropout import ConditionDropout
from synfer.synthesis.diffusion.distribution_matching import distance_of_means
from synfer.synthesis.diffusion.execution import ExecutionSettings, checkpoint_activations
from synfer.synthesis.diffusion.prediction import min_snr_weight, offset_noise, signal_and_noise, training_target
from synfer.synthesis.diffusion.representation_alignment import AlignmentSettings
from synfer.synthesis.diffusion.synthesiser import DiffusionSynthesiser
from synfer.synthesis.diffusion.timestep_draw import TimestepDraw
from synfer.synthesis.request import SamplingSettings


class ExpressionGenerator(AlignedGenerator, RoundedGenerator):
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
        trained: what learns on a ``base``: UNet and AU adapter ("all"), the adapter ("adapter"), LoRA and the adapter
            ("lora"); "unet_only" and "lora_only" have no adapter, and do not hear action units.
        lora_rank: rank r of LoRA.
        lora_alpha: its update is scaled by alpha ÷ r; None = r.
        lora_targets: the layers that it changes, by the ends of their names; None = the attention projections.
        au_rank: rank of what the AU branch's keys and values learn beyond the text's, on a ``base``; None = they learn
            whole (19 of 20 million weights on Stable Diffusion 1.5).
        frozen_dtype: number format in memory of what does not learn on a ``base``; what learns is float32.
        lora_weights: file, folder or Hub id of a LoRA in diffusers' layout to start from.
        initial_weights: checkpoint, run folder or folder of ``save_trained`` of a generator to start from; None = its
            own, drawn by the seed. Only ``fit`` looks at it, and not when it goes on from ``--ckpt_path``.
        drop: shares of samples that train without caption, without AUs, or without either.
        null_caption: caption of samples without one, in training and where the negative prompt is empty. One that names
            all expressions makes the network used to the prompt that :class:`LabelAnnotator` reads with.
        min_snr_gamma: γ of min-SNR weighting; None = unweighted.
        timesteps: how often a training sees each noise level; a validation sees all alike.
        noise_offset: share of noise that is the same all over a channel, so that brightness is learned too (Guttenberg
            2023 has 0.1); 0 = none.
        distribution_matching: weight of the distance between the means, over the batches of all ranks, of what the
            network gives and of its targets (Real-Fake, arXiv 2310.10402: 0.19 on means is its 0.003 on sums of eight);
            0 = off. Accumulated batches count one by one.
        alignment: with whose features an inner map of the UNet is aligned, in training alone.
        learning_rate: peak rate.
        weight_decay: decoupled weight decay.
        optimizer: "adamw", or "muon" for matrices and kernels, the first and last layers excepted, and AdamW for the
            rest.
        momentum: of Muon, in [0, 1).
        matrix_rate: Muon's peak rate, as a multiple of ``learning_rate``.
        warmup_fraction: share of the steps with rising rate; then a half cosine.
        ema_decay: decay of the average over trained parameters; None = off.
        cache: latents and text tokens on disk, in place of codec and text encoder at every step.
        execution: how the UNet is laid out, rounded and compiled.
        sampling: default settings of synthesis.
        grid_samples: faces per expression in the grid logged after each validation; 0 = none.

    Raises:
        ValueError: a value out of range, or parts that do not fit each other.
        FileNotFoundError: ``base`` is missing.
    """

    decide_weights = ("base", "network", "trained", "lora_rank", "lora_alpha", "lora_targets", "au_rank")
    uses_unlabelled_rows = True
    """Their caption is all that is known of them: their action units stay unknown."""

    def __init__(
        self,
        label_space: str | list[str] = "ferplus8",
        image_size: int = 48,
        base: str | None = None,
        network: NetworkSettings = NetworkSettings(),  # noqa: B008 (frozen)
        autoencoder_steps: int = 0,
        trained: TrainedPart = "all",
        lora_rank: int = 4,
        lora_alpha: float | None = None,
        lora_targets: list[str] | None = None,
        au_rank: int | None = None,
        frozen_dtype: FrozenFormat = "float32",
        lora_weights: str | None = None,
        initial_weights: str | None = None,
        drop: ConditionDropout = ConditionDropout(),  # noqa: B008 (frozen)
        null_caption: str = "",
        min_snr_gamma: float | None = 5.0,
        timesteps: TimestepDraw = TimestepDraw(),  # noqa: B008 (frozen)
        noise_offset: float = 0.0,
        distribution_matching: float = 0.0,
        alignment: AlignmentSettings = AlignmentSettings(),  # noqa: B008 (frozen)
        learning_rate: float = 4e-4,
        weight_decay: float = 1e-2,
        optimizer: DiffusionOptimiser = "adamw",
        momentum: float = 0.95,
        matrix_rate: float = 1.0,
        warmup_fraction: float = 0.03,
        ema_decay: float | None = 0.999,
        cache: CacheSettings = CacheSettings(),  # noqa: B008 (frozen)
        execution: ExecutionSettings = ExecutionSettings(),  # noqa: B008 (frozen)
        sampling: SamplingSettings = SamplingSettings(),  # noqa: B008 (frozen)
        grid_samples: int = 8,
    ) -> None:
        super().__init__()
        self.region_masks: Tensor
        groups: dict[str, Any] = {"network": network, "drop": drop, "execution": execution, "sampling": sampling}
        groups |= {"timesteps": timesteps, "alignment": alignment}
        self.save_hyperparameters(ignore=[*groups, "cache"], logger=False)  # where a cache lies is not the model's
        for name, group in groups.items():  # plain types only: a checkpoint must load with weights_only=True
            self.hparams[name] = asdict(group)
        self.label_space = resolve_label_space(label_space)
        self._dropout, self._timesteps, self._alignment_settings = drop, timesteps, alignment
        check_generator(self.hparams, cache.path)
        self._cache_settings = cache
        self._cache: TrainingCache | None = None
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
            self.model = load_diffusion_model(
                base, network.scheduler or {}, frozen_dtype, unet_learns=trained in ("all", "unet_only")
            )
            unit = self.model.codec.downscale
            check_setting(image_size % unit == 0, "image_size", image_size, f"a multiple of {unit}")
        self.register_buffer("region_masks", region_masks(self.au_names), persistent=False)
        if network.largest_scale is not None:
            add_scale_input(self.model.unet)
        if not trained.endswith("_only"):
            attach_au_adapter(self.model.unet, len(self.au_names), rank=au_rank)
        if base is not None:
            self.model.choose_trained(trained, lora_rank, lora_alpha, lora_targets or LORA_TARGETS)
            if network.largest_scale is not None:
                scale_layer(self.model.unet).requires_grad_(True)  # no base has our weights of it
            start_from_lora(self.model.unet, lora_weights)
            fuse_lora(self.model.unet)
            keep_less(self.model.unet, gates_alone=not execution.lean_backward)
        elif trained != "all":
            raise ValueError(f"model.trained: found '{trained}' without model.base, expected 'all'")
        elif frozen_dtype != "float32":
            raise ValueError(f"model.frozen_dtype: found '{frozen_dtype}' without model.base, expected 'float32'")
        if execution.channels_last:
            self.model.unet.to(memory_format=torch.channels_last)
        if base is not None:  # it runs forward alone, and a tenth faster so
            self.model.codec.to(memory_format=torch.channels_last)
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
            decode_batch=execution.decode_batch,
            training_step=self._fitting_step,
            distilled=(network.largest_scale, network.few_steps),
        )
        self.prediction = self.synthesiser.prediction
        if execution.gradient_checkpointing:
            checkpoint_activations(self.model.unet, self.synthesiser.latent_side**2)
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

    @property
    def autoencoder_steps(self) -> int:
        """The first steps of a fit, in which a learned codec learns."""
        return int(self.hparams["autoencoder_steps"])

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
        """Checks that the generator makes the expressions of the data, and that the strategy fits a codec that learns.

        Raises:
            ValueError: it does not.
        """
        super().setup(stage)
        self._check_label_space_of_data(stage)
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
        if stage == "fit":
            self._begin_alignment()
        if stage == "fit" and self._cache_settings.path is not None:
            self._cache = TrainingCache(self._cache_settings, self.model, self.image_size, self.trainer)
        if stage != "test":
            return
        if not any(type(callback).__name__ == "GeneratorTest" for callback in self.trainer.callbacks):  # type: ignore[attr-defined]
            rank_zero_warn("test: found no GeneratorTest among the trainer's callbacks, so no face is made and scored")

    def configure_model(self) -> None:
        """Shards a base's UNet over the ranks where the strategy asks for it; a collective."""
        strategy = self.trainer.strategy
        check_sharding(self.hparams, self.trainer)
        if isinstance(strategy, ModelParallelStrategy):
            from synfer.networks.sharded_unet import shard_unet  # a second to import

            shard_unet(self.model.unet, strategy.device_mesh["data_parallel"])
            self.strict_loading = False  # the strategy reads checkpoints itself, which hold what learns alone

    def on_fit_start(self) -> None:
        """Fills the cache."""
        super().on_fit_start()
        if self._cache is not None:
            self._cache.fill([self.hparams["null_caption"]])

    def on_fit_end(self) -> None:
        """Puts back what the cache took out of memory."""
        if self._cache is not None:
            self._cache.close()
            self._cache = None

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Returns the loss of one batch: of a learned codec in the first steps, of the diffusion model after them."""
        generator = torch.Generator(self.device).manual_seed(
            # With the batch, because accumulated batches share a step.
            keyed_seed(self._seed, self.global_rank, self.global_step, batch_idx, Stream.TRAINING_NOISE)
        )
        if self._cache is not None:
            return self._diffusion_loss(self._cache.latents(batch), batch, generator)
        image = self._images(batch)
        if self.global_step < self.autoencoder_steps and isinstance(self.model.codec, AutoencoderKLCodec):
            loss, psnr = self.model.codec.loss(image, generator)
            self.log("train/autoencoder_loss", loss, prog_bar=True)
            self.log("train/autoencoder_psnr", psnr)
            return loss
        with torch.no_grad():
            latents = self.model.codec.encode(image)
        return self._diffusion_loss(latents, batch, generator)

    def _diffusion_loss(self, latents: Tensor, batch: Batch, generator: torch.Generator) -> Tensor:
        text, au = self._conditions(batch, generator)
        with self._listening() as heard:
            residual, weight = self._residual(latents, text, au, generator, self._timesteps)
        loss = (weight * residual**2).mean()
        self.log("train/loss", loss, prog_bar=True)
        if self.hparams["distribution_matching"] > 0:
            distance, ratio = distance_of_means(weight * residual)
            self.log("train/distribution_loss", distance)
            self.log("train/distribution_ratio", ratio)
            loss = loss + self.hparams["distribution_matching"] * distance
        return self._with_alignment(loss, heard, batch)

    def _pass_of_nothing(self) -> None:
        latents = torch.zeros(1, self.model.unet.config.in_channels, *[self.synthesiser.latent_side] * 2)
        self.network(latents.to(self.device), 0, self.model.encode_text([""]), self._unknown_units())

    def _unknown_units(self) -> Tensor:
        """Returns the AU input of one face of which no unit is known, (1, R, 2A)."""
        return self.synthesiser.au_input(torch.full((1, len(self.au_names)), torch.nan, device=self.device))

    def _images(self, batch: Batch) -> Tensor:
        """Returns the images in [−1, 1]; another size than the one that is synthesised is an error."""
        found, expected = tuple(batch["image"].shape[-2:]), self.hparams["image_size"]
        if found != (expected, expected):
            raise ValueError(
                f"model.image_size is {expected}, but the data has images of {found[0]}x{found[1]}: set "
                "data.image_size=model"
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
        in_training = generator is not None
        tokens = self._cache.text(unique) if self._cache is not None and in_training else self.model.encode_text(unique)
        return tokens[[unique.index(caption) for caption in captions]], embed_action_units(au, self.region_masks)

    def _fill_action_units(self, batch: Batch) -> Tensor:
        """Gives samples without any known AU a draw from their expression's FACS prototype."""
        names = expression_names(batch["label"].tolist(), self.label_space)
        stream = (self._seed, self.global_step if self.training else 0, Stream.TRAINING_ACTION_UNITS)
        filled = fill_action_units(batch["au"].cpu().numpy(), names, batch["sample_id"], *stream)
        return torch.from_numpy(filled).to(batch["au"])

    def _loss(self, latents: Tensor, text: Tensor, au: Tensor, generator: torch.Generator) -> Tensor:
        residual, weight = self._residual(latents, text, au, generator)
        return (weight * residual**2).mean()

    def _residual(
        self,
        latents: Tensor,
        text: Tensor,
        au: Tensor,
        generator: torch.Generator,
        timesteps: TimestepDraw = TimestepDraw(),  # noqa: B008 (frozen)
    ) -> tuple[Tensor, Tensor]:
        """Returns output minus target of the network at drawn noise, (B, C, h, w), and the weights (B, 1, 1, 1)."""
        alphas = self.model.scheduler.alphas_cumprod
        timestep = timesteps.draw(len(latents), alphas, generator)
        eps = self._draw_noise(latents, generator)
        signal, noise = signal_and_noise(alphas, timestep, latents)
        output = self.network(signal * latents + noise * eps, timestep, text, au).float()
        target = training_target(latents, eps, signal, noise, self.prediction)
        weight = min_snr_weight(signal, noise, self.hparams["min_snr_gamma"], self.prediction)
        return output - target, weight

    def _draw_noise(self, latents: Tensor, generator: torch.Generator) -> Tensor:
        eps = torch.randn(latents.shape, generator=generator, device=self.device)
        return offset_noise(eps, self.hparams["noise_offset"], generator)

    def build_optimiser(self) -> Optimizer:
        """Returns the optimiser that the settings name, over what is trained."""
        return diffusion_optimiser(self, self.hparams, getattr(self.trainer.precision_plugin, "scaler", None))

    def learning_rate_schedule(self) -> tuple[Schedule, float]:
        """Returns a half cosine after a linear rise."""
        return "cosine", self.hparams["warmup_fraction"]

    # ---------------------------------------------------------------- evaluation

    def on_validation_start(self) -> None:
        """Puts the averaged weights in place, and frozen networks back into memory."""
        super().on_validation_start()
        if self._cache is not None:
            self._cache.restore()

    def on_validation_end(self) -> None:
        """Puts the training weights back, and frozen networks out of memory."""
        super().on_validation_end()
        if self._cache is not None:
            self._cache.unload()

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
