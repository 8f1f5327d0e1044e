"""ExpressionGenerator: a diffusion model that makes faces with a wanted expression, from text and action units."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from diffusers import DPMSolverMultistepScheduler
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.optim import Optimizer
from torch.random import fork_rng

from datamodules.batch import Batch
from lightning_modules.averaged_module import AveragedModule
from lightning_modules.generator_evaluation import GeneratorEvaluation, check_test_settings
from lightning_modules.run_seed import run_seed
from lightning_modules.trainer_access import data_of
from synfer.faces.expressions import (
    ACTION_UNITS,
    resolve_label_space,
    sample_action_units,
)
from synfer.foundation.checkpoint_file import find_checkpoint
from synfer.foundation.counter_based_random import key_of, keyed_seed, keyed_uniform, keys_of
from synfer.foundation.file_reading import reading
from synfer.foundation.fingerprint import fingerprint
from synfer.foundation.module_file import ModuleFormat, StoredModule, write_folder
from synfer.foundation.validate import check_setting
from synfer.metrics.masked_mean import MaskedMean
from synfer.networks.au_adapter import (
    AUTokens,
    attach_au_adapter,
    au_adapter_parameters,
    embed_action_units,
    region_masks,
    set_au_scale,
)
from synfer.networks.diffusion import load_diffusion_model, small_diffusion_model
from synfer.networks.latent_codec import AutoencoderKLCodec
from synfer.optimisation.ema import ParameterEMA
from synfer.optimisation.schedule import Schedule
from synfer.synthesis.diffusion.denoising import DenoisingState, SynthesisHook, denoise
from synfer.synthesis.diffusion.prediction import min_snr_weight, signal_and_noise, training_target
from synfer.synthesis.plan import WorkBatch
from synfer.synthesis.request import (
    SamplingSettings,
    SynthesisRequest,
    SynthesisResult,
    edit_action_units,
    initial_noise,
)

_EXPORTED_FROM = "_exported_from"  # beside the settings of a folder: the fingerprint before rounding to float16
_EXPECTED = "a checkpoint of ExpressionGenerator or a folder of its save_trained"
_CHECKPOINTING = "gradient_checkpointing"  # diffusers' flag on each block
_NOISE_STREAM, _AU_STREAM, _VALIDATION_STREAM = 0xD1, 0xA1, 0x7A


def _tensor(gathered: Any) -> Tensor:
    """Narrows what ``all_gather`` returns for a tensor."""
    assert isinstance(gathered, Tensor)
    return gathered


class ExpressionGenerator(AveragedModule):
    """Latent diffusion with text and AU conditioning (SynFER, arXiv 2410.09865).

    Trains E‖target − f_θ(x_t, c_text, c_au, t)‖² with min-SNR weights; text, AUs and both are dropped at random, so
    that classifier-free guidance has a trained unconditional branch. The small configuration trains everything; on a
    ``base`` in diffusers' layout, ``trained`` chooses what learns and the rest stays frozen and out of checkpoints.

    Each rank draws its noise from a generator keyed by (seed, rank, step, batch): different on every rank, the same
    when a run is repeated or resumed.

    Args:
        label_space: name of a label space or a list of expressions.
        image_size: side of the images in pixels.
        base: diffusers folder or Hub id; None builds the small model from the configs below.
        unet: keys that differ from the small UNet.
        text_encoder: keys that differ from the small text encoder.
        scheduler: keys that differ from the noise schedule.
        codec: "space_to_depth" (exact, no training) or "autoencoder_kl" (learned in the same fit).
        codec_config: arguments of the codec.
        autoencoder_steps: the first steps of a fit train a learned codec, the rest the diffusion model.
        trained: what learns on a ``base``: everything ("all"), the AU adapter ("adapter"), LoRA and adapter ("lora").
        lora_rank: rank and alpha of LoRA on the attention projections.
        drop_text: share of samples that train without caption.
        drop_au: share that train without AUs.
        drop_both: share that train without either.
        null_caption: caption of samples without one, in training and where the negative prompt is empty. One that names
            all expressions makes the network used to the prompt that :class:`LabelAnnotator` reads with.
        min_snr_gamma: γ of min-SNR weighting; None = unweighted.
        learning_rate: peak rate of AdamW.
        weight_decay: decoupled weight decay.
        warmup_fraction: share of the steps with rising rate; then a half cosine.
        ema_decay: decay of the average over trained parameters; None = off.
        channels_last: memory format of the UNet, faster on CPU and GPU.
        bf16_sampling: run the network in bfloat16 autocast while sampling.
        compile_backend: backend of ``torch.compile`` for the UNet ("inductor"; on CPUs it needs a C++ compiler); None =
            not compiled. The first batch of each size then waits for the compiler.
        sampling: default settings of synthesis.
        grid_samples: faces per expression in the grid logged after each validation; 0 = none.
        test_samples: faces made for each test, spread evenly over ``test_expressions``.
        test_expressions: expressions of the test (default: the seven basic ones in the label space).
        test_batch_size: faces per batch of synthesis in a test.
        judge: checkpoint of the classifier that scores a test; never the guide.
        features: what Fréchet distance, KID, precision, recall and nearest neighbours are measured in: a classifier
            checkpoint (its penultimate features, never the guide's), or a timm name ("inception_v3", …); None = the
            judge.
        features_weights: file of weights where ``features`` is a timm name.
        au_estimator: folder of an ``ActionUnitNetwork``; a test then gives F1 per action unit.
        au_present_above: intensity in [0, 1) above which an action unit counts as present.
        nearest_training: training faces, drawn by the seed, among which a test looks for the nearest one of each
            generated face; None = all of them, 0 = no such search.

    Raises:
        ValueError: a value out of range, or parts that do not fit each other.
        FileNotFoundError: ``base``, ``judge`` or another file of the test is missing.
    """

    file_format = ModuleFormat("diffusion", "model", "ExpressionGenerator", name="generator")

    def __init__(
        self,
        label_space: str | list[str] = "ferplus8",
        image_size: int = 48,
        base: str | None = None,
        unet: dict[str, Any] | None = None,
        text_encoder: dict[str, Any] | None = None,
        scheduler: dict[str, Any] | None = None,
        codec: Literal["space_to_depth", "autoencoder_kl"] = "space_to_depth",
        codec_config: dict[str, Any] | None = None,
        autoencoder_steps: int = 0,
        trained: Literal["all", "adapter", "lora"] = "all",
        lora_rank: int = 4,
        drop_text: float = 0.05,
        drop_au: float = 0.05,
        drop_both: float = 0.05,
        null_caption: str = "",
        min_snr_gamma: float | None = 5.0,
        learning_rate: float = 4e-4,
        weight_decay: float = 1e-2,
        warmup_fraction: float = 0.03,
        ema_decay: float | None = 0.999,
        channels_last: bool = True,
        bf16_sampling: bool = True,
        compile_backend: str | None = None,
        sampling: SamplingSettings = SamplingSettings(),  # noqa: B008 (frozen)
        grid_samples: int = 8,
        test_samples: int = 1000,
        test_expressions: list[str] | None = None,
        test_batch_size: int = 100,
        judge: str | None = None,
        features: str | None = None,
        features_weights: str | None = None,
        au_estimator: str | None = None,
        au_present_above: float = 0.5,
        nearest_training: int | None = 4000,
    ) -> None:
        super().__init__()
        self.region_masks: Tensor
        self.save_hyperparameters(ignore=["sampling"], logger=False)
        # Plain types only: a checkpoint must load with weights_only=True.
        self.hparams["sampling"] = asdict(sampling)
        self.label_space = resolve_label_space(label_space)
        for name, share in (("drop_text", drop_text), ("drop_au", drop_au), ("drop_both", drop_both)):
            check_setting(0 <= share <= 1, name, share, "a share in [0, 1]")
        if drop_text + drop_au + drop_both > 1:
            raise ValueError(f"model.drop_*: shares add up to {drop_text + drop_au + drop_both:g}, expected at most 1")
        check_setting(
            min_snr_gamma is None or min_snr_gamma > 0, "min_snr_gamma", min_snr_gamma, "a number above 0 or null"
        )
        # Asked only where it matters: the list costs seconds.
        if compile_backend is not None and compile_backend not in (known := torch.compiler.list_backends(())):
            raise ValueError(f"model.compile_backend: found '{compile_backend}', expected null or one of {known}")
        for name, value in (("test_samples", test_samples), ("test_batch_size", test_batch_size)):
            if value < 1:
                raise ValueError(f"model.{name}: found {value}, expected at least 1")
        if not 0 <= au_present_above < 1:
            raise ValueError(f"model.au_present_above: found {au_present_above}, expected a number in [0, 1)")
        if nearest_training is not None and nearest_training < 0:
            raise ValueError(f"model.nearest_training: found {nearest_training}, expected at least 0, or null for all")
        check_test_settings(judge, features, features_weights, au_estimator)
        if codec == "autoencoder_kl" and base is None and autoencoder_steps < 1:
            raise ValueError("model.autoencoder_steps: found 0, expected at least 1 to train codec 'autoencoder_kl'")
        self.sampling = sampling
        self.au_names = ACTION_UNITS
        if base is None:
            self.model = small_diffusion_model(
                unet or {}, text_encoder or {}, scheduler or {}, codec, codec_config or {}, image_size
            )
        else:
            self.model = load_diffusion_model(base, scheduler or {})
            unit = self.model.codec.downscale
            check_setting(image_size % unit == 0, "image_size", image_size, f"a multiple of {unit}")
        self.prediction = self.model.scheduler.config.prediction_type
        self.register_buffer("region_masks", region_masks(self.au_names), persistent=False)
        attach_au_adapter(self.model.unet, len(self.au_names))
        self._choose_trained(base is not None, trained, lora_rank)
        if channels_last:
            self.model.unet.to(memory_format=torch.channels_last)
        if compile_backend is not None:
            self.model.unet.compile(backend=compile_backend)  # in place: the names in checkpoints stay
        self.ema = None if ema_decay is None else ParameterEMA(self.model, ema_decay)
        self.exported_from: str | None = None
        """Fingerprint of the weights that a folder of ``save_trained`` was rounded from; None = no such folder."""
        self._evaluation: GeneratorEvaluation
        self._validation_loss = MaskedMean()

    @property
    def needs_checkpoint(self) -> bool:
        """Whether the weights are random numbers: a ``base`` makes faces without any training of ours."""
        return self.hparams["base"] is None

    # ---------------------------------------------------------------- parts

    def _choose_trained(self, has_base: bool, trained: str, lora_rank: int) -> None:
        if not has_base:
            if trained != "all":
                raise ValueError(f"model.trained: found '{trained}' without model.base, expected 'all'")
            return
        self.model.codec.requires_grad_(False)
        self.model.text_encoder.requires_grad_(False)
        self.model.unet.train()  # it comes in eval mode, and Lightning leaves modes as they are
        if trained == "all":
            return
        self.model.unet.requires_grad_(False)
        if trained == "lora":
            from peft import LoraConfig

            targets = ["to_q", "to_k", "to_v", "to_out.0"]
            self.model.unet.add_adapter(LoraConfig(r=lora_rank, lora_alpha=lora_rank, target_modules=targets))
        for parameter in au_adapter_parameters(self.model.unet):
            parameter.requires_grad_(True)

    def network(self, latents: Tensor, timestep: Tensor | int, text: Tensor, au: Tensor | AUTokens) -> Tensor:
        """Runs the UNet: (B, C, h, w), timestep int or (B,), text (B, L, D), AU input (B, R, 2A) → (B, C, h, w)."""
        embeds = au if isinstance(au, AUTokens) else [au]
        if self.hparams["compile_backend"] is not None:
            timestep = torch.as_tensor(timestep, device=latents.device)  # each Python number would be compiled anew
        with self._attention_kernel(latents.device):
            return self.model.unet(latents, timestep, text, added_cond_kwargs={"image_embeds": embeds}).sample

    def _attention_kernel(self, device: torch.device) -> AbstractContextManager[Any]:
        # On a CPU the fused kernel loses to plain matrix products at these few tokens (13 % of a training step).
        return sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else nullcontext()

    @contextmanager
    def _checkpointing(self, enabled: bool) -> Iterator[None]:
        """Has the UNet recompute its activations in backward passes inside the context, for less memory."""
        if not enabled:
            yield
            return
        unet = self.model.unet
        before = {module: module.gradient_checkpointing for module in unet.modules() if hasattr(module, _CHECKPOINTING)}
        unet.enable_gradient_checkpointing()
        try:
            with self._attention_kernel(self.device):  # what is recomputed must be what was computed
                yield
        finally:
            for module, was in before.items():
                module.gradient_checkpointing = was

    def _network_on_tokens(self, latents: Tensor, timestep: Tensor | int, text: Tensor, au: Tensor) -> Tensor:
        return self.network(latents, timestep, text, AUTokens([au]))

    def _au_tokens(self, au: Tensor) -> Tensor:
        """Returns AU tokens (n, R, D), float32, of action units (n, A); equal for all steps of a synthesis."""
        with self._autocast():
            return self.model.unet.encoder_hid_proj([embed_action_units(au, self.region_masks)])[0].float()

    def _autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.hparams["bf16_sampling"])

    def weights_fingerprint(self) -> str:
        """Returns 16 hex digits of SHA-256 over the trained weights (C6: an image is a function of them)."""
        return fingerprint(self.model.named_parameters())

    def build_fingerprint(self) -> str:
        """Returns 16 hex digits over what decides the outputs beside the weights: codec, noise schedule, networks."""
        model = self.model
        builds = [dict(model.unet.config), model.text_encoder.config.to_dict(), dict(model.scheduler.config)]
        # Versions, paths and dtypes change with every saving and loading, and nothing that is computed with them.
        left_out = ("_", "transformers_version", "dtype", "torch_dtype")
        plain = [{key: v for key, v in build.items() if not key.startswith(left_out)} for build in builds]
        return fingerprint((), json.dumps([model.codec.fingerprint(), *plain], sort_keys=True, default=str))

    # ---------------------------------------------------------------- training

    def setup(self, stage: str) -> None:
        """Checks that data, strategy and generator fit each other, and loads what a test needs.

        Raises:
            ValueError: they do not.
        """
        found = getattr(data_of(self.trainer), "label_space", self.label_space)
        if tuple(found) != self.label_space:
            raise ValueError(f"data has the label space {list(found)}, the generator {list(self.label_space)}")
        options = getattr(self.trainer.strategy, "_ddp_kwargs", None)
        learned = self.model.codec.learned and self.hparams["base"] is None
        if stage == "fit" and learned and options is not None and not options.get("find_unused_parameters"):
            raise ValueError(
                "model.codec 'autoencoder_kl' learns in turn with the UNet: found strategy ddp, expected "
                "--trainer.strategy=ddp_find_unused_parameters_true"
            )
        if stage == "test":
            # No submodule: judge, extractor and estimator must not enter checkpoints.
            self._evaluation = GeneratorEvaluation(self)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Returns the loss of one batch: of a learned codec in the first steps, then of the diffusion model."""
        generator = torch.Generator(self.device).manual_seed(
            # With the batch, because accumulated batches share a step.
            keyed_seed(self._seed, self.global_rank, self.global_step, batch_idx, _NOISE_STREAM)
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
        n = len(batch["label"])
        captions = batch["caption"]
        au = self._fill_action_units(batch)
        if generator is not None:
            draw = torch.rand(n, generator=generator, device=self.device)
            text_share, au_share, both = (self.hparams[f"drop_{name}"] for name in ("text", "au", "both"))
            no_text = (draw < text_share) | ((draw >= text_share + au_share) & (draw < text_share + au_share + both))
            no_au = (draw >= text_share) & (draw < text_share + au_share + both)
            null = self.hparams["null_caption"]
            captions = [null if drop else c for c, drop in zip(captions, no_text.tolist(), strict=True)]
            au = au.masked_fill(no_au[:, None], torch.nan)
        unique = sorted(set(captions))
        tokens = self.model.encode_text(unique)
        return tokens[[unique.index(caption) for caption in captions]], embed_action_units(au, self.region_masks)

    def _fill_action_units(self, batch: Batch) -> Tensor:
        """Gives samples without any known AU a draw from their expression's FACS prototype."""
        au = batch["au"]
        unknown = torch.isnan(au).all(1).cpu().numpy()
        if not unknown.any():
            return au
        rows = np.flatnonzero(unknown)
        names = [self.label_space[label] for label in batch["label"][torch.from_numpy(rows).to(au.device)].tolist()]
        keys = keys_of(batch["sample_id"][row] for row in rows)
        step = self.global_step if self.training else 0
        uniform = keyed_uniform(keys, 2 * len(self.au_names), self._seed, step, _AU_STREAM)
        drawn = sample_action_units(names, uniform.reshape(len(rows), 2, -1), self.au_names)
        au = au.clone()
        au[torch.from_numpy(rows).to(au.device)] = torch.from_numpy(drawn).to(au)
        return au

    def _loss(self, latents: Tensor, text: Tensor, au: Tensor, generator: torch.Generator) -> Tensor:
        alphas = self.model.scheduler.alphas_cumprod
        timestep = torch.randint(len(alphas), (len(latents),), generator=generator, device=self.device)
        eps = torch.randn(latents.shape, generator=generator, device=self.device)
        signal, noise = signal_and_noise(alphas, timestep, latents)
        output = self.network(signal * latents + noise * eps, timestep, text, au).float()
        target = training_target(latents, eps, signal, noise, self.prediction)
        weight = min_snr_weight(signal, noise, self.hparams["min_snr_gamma"], self.prediction)
        return (weight * (output - target) ** 2).mean()

    @property
    def _seed(self) -> int:
        return run_seed(self._trainer)

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
        """Takes one batch into the validation's loss."""
        if not len(batch["label"]):  # a rank may have no row
            return
        # The same noise in every epoch, so that the curve shows the model and not the draw.
        generator = torch.Generator(self.device).manual_seed(
            keyed_seed(self._seed, self.global_rank, batch_idx, _VALIDATION_STREAM)
        )
        text, au = self._conditions(batch, None)
        latents = self.model.codec.encode(self._images(batch))
        loss = self._loss(latents, text, au, generator)
        self._validation_loss.update(loss.detach().expand(len(latents)))

    def on_validation_epoch_start(self) -> None:
        """Forgets the last validation."""
        self._validation_loss.reset()

    def on_validation_epoch_end(self) -> None:
        """Logs the loss of all ranks, and makes the grid of faces."""
        self.log("val/loss", self._validation_loss.compute(), prog_bar=True, sync_dist=True)
        if self.hparams["grid_samples"] > 0 and not self.trainer.sanity_checking:
            self._log_grid()

    def _log_grid(self) -> None:
        """Makes the same faces after every validation and saves them as one picture, a row per expression."""
        from synfer.pictures.sample_grid import save_sample_grid

        columns = self.hparams["grid_samples"]
        names = [name for name in self.label_space for _ in range(columns)]
        request = SynthesisRequest.from_expressions(names, range(len(names)), self._seed, self.sampling, self.au_names)
        images = self.synthesise_over_ranks(request, [], self.hparams["test_batch_size"])["images"]
        if self.trainer.is_global_zero:
            path = Path(self.trainer.default_root_dir) / "samples" / f"grid-step{self.global_step:07d}.png"
            save_sample_grid(images, self.label_space, columns, path)
            for logger in self.trainer.loggers:
                if hasattr(logger, "log_image"):
                    logger.log_image("samples/grid", [str(path)])

    # ---------------------------------------------------------------- test by a judge

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Scores one batch of real faces."""
        if len(batch["label"]):
            self._evaluation.step(batch)

    def on_test_epoch_end(self) -> None:
        """Makes the faces of the test and logs what they are worth."""
        from callbacks.synthesis.synthesis_callback import active_hooks

        self.log_dict(self._evaluation.finish(active_hooks(self.trainer)), rank_zero_only=True)

    # ---------------------------------------------------------------- prediction: a synthetic set

    def predict_step(self, batch: WorkBatch, batch_idx: int) -> SynthesisResult:
        """Makes the faces of one batch of work; ``callbacks/synthesis/synthetic_set_writer.py`` writes them.

        Raises:
            ValueError: ``predict`` on real faces.
        """
        from callbacks.synthesis.synthesis_callback import active_hooks

        if "index" not in batch:
            raise ValueError("predict of a generator: found real faces, expected data.predict_split=synthesis")
        units = batch["au"].cpu().numpy().copy()
        edit_action_units(units, self.sampling.au_edits, self.au_names)
        request = SynthesisRequest(
            tuple(batch["expression"]),
            tuple(batch["index"].tolist()),
            self._seed,
            tuple(batch["caption"]),
            units,
            self.sampling,
        )
        return self.synthesise(request, active_hooks(self.trainer))

    # ---------------------------------------------------------------- synthesis

    def _make_scheduler(self, settings: SamplingSettings) -> Any:
        config = self.model.scheduler.config
        if settings.num_steps > config.num_train_timesteps:
            raise ValueError(
                f"sampling.num_steps: found {settings.num_steps}, expected at most {config.num_train_timesteps}"
            )
        if settings.scheduler == "ddim":
            scheduler = type(self.model.scheduler).from_config(config)
        else:
            scheduler = DPMSolverMultistepScheduler.from_config(
                config, algorithm_type="dpmsolver++", final_sigmas_type="zero"
            )
        scheduler.set_timesteps(settings.num_steps)
        return scheduler

    @torch.no_grad()
    def synthesise(self, request: SynthesisRequest, hooks: Sequence[SynthesisHook] = ()) -> SynthesisResult:
        """Makes the requested faces.

        Image i is a function of (weights, settings, seed, sample id i): batch size and world size do not matter beyond
        rounding.

        Args:
            request: what to make.
            hooks: layout initialisation, semantic guidance, pseudo-labeller, …

        Returns:
            n faces with their labels.

        Raises:
            ValueError: an expression outside the generator's label space, AU columns that do not fit, or a face that is
                not finite (as uint8 it would be black).
        """
        settings = request.settings or self.sampling
        unknown = [name for name in request.expressions if name not in self.label_space]
        if unknown:
            raise ValueError(f"cannot synthesise '{unknown[0]}': the generator knows {', '.join(self.label_space)}")
        if request.action_units.shape[1] != len(self.au_names):
            raise ValueError(
                f"request has {request.action_units.shape[1]} action units, the generator {len(self.au_names)}"
            )
        was_training = {module: module.training for module in self.model.modules()}
        self.model.eval()
        try:
            state = self._start(request, settings)
            for hook in hooks:
                hook.on_synthesis_start(state)
            latents = denoise(state, hooks)
            image = (state.decode(latents) + 1) / 2
            self._check_finite(image, request)
            image = image.clamp(0, 1)
            state.images = (image * 255).round().to(torch.uint8)
            for hook in hooks:
                hook.on_synthesis_end(state)
        finally:
            set_au_scale(self.model.unet, 1.0)  # training goes on at full strength
            # Per module, so that frozen parts stay in the mode they were in.
            for module, mode in was_training.items():
                module.training = mode
        return SynthesisResult(
            request, state.images, state.label, state.soft_label, state.kept, state.layout_source, state.votes
        )

    def _check_finite(self, image: Tensor, request: SynthesisRequest) -> None:
        """Refuses faces with NaN or infinite pixels, and says where they come from."""
        broken = (~image.isfinite().flatten(1).all(1)).nonzero()[:, 0].tolist()
        if not broken:
            return
        cause = "overflow while sampling: --model.bf16_sampling=false, a smaller guidance.step_size or guidance_scale"
        weights = [name for name, weight in self.model.named_parameters() if not weight.isfinite().all()]
        if weights:
            cause = f"{len(weights)} weights of the generator are not: '{weights[0]}', …; take an earlier checkpoint"
        fitting = self._trainer is not None and self.trainer.state.fn == "fit" and self.trainer.model is self
        when = f" at step {self.global_step}" if fitting else ""
        raise ValueError(
            f"generated face {request.sample_ids[broken[0]]} (seed {request.seed}){when} and {len(broken) - 1} more of "
            f"{len(image)}: found NaN or infinite pixels, expected finite ones ({cause})"
        )

    def _start(self, request: SynthesisRequest, settings: SamplingSettings) -> DenoisingState:
        n = len(request)
        set_au_scale(self.model.unet, settings.au_scale)
        text = self._encode_text([settings.negative_prompt or self.hparams["null_caption"], *request.captions])
        au = torch.from_numpy(request.action_units).to(self.device)
        side = self.hparams["image_size"] // self.model.codec.downscale
        shape = (self.model.codec.latent_channels, side, side)
        scheduler = self._make_scheduler(settings)
        label = torch.tensor([self.label_space.index(name) for name in request.expressions], device=self.device)
        return DenoisingState(
            request=request,
            settings=settings,
            network=self._network_on_tokens,
            encode_text=self._encode_text,
            image_size=self.hparams["image_size"],
            encode=self.model.codec.encode,
            decode=self._decode,
            prediction=self.prediction,
            scheduler=scheduler,
            label=label,
            label_space=self.label_space,
            latents=initial_noise(request, shape).to(self.device) * scheduler.init_noise_sigma,
            text=text[1:],
            null_text=text[:1].expand(n, -1, -1),
            au=self._au_tokens(au),
            null_au=self._au_tokens(torch.full_like(au[:1], torch.nan)).expand(n, -1, -1),
            codec_fingerprint=self.model.codec.fingerprint,
            autocast=self._autocast,
            checkpointing=self._checkpointing,
            soft_label=torch.nn.functional.one_hot(label, len(self.label_space)).float(),
            kept=torch.ones(n, dtype=torch.bool, device=self.device),
            layout_source=[""] * n,
        )

    def _encode_text(self, captions: list[str]) -> Tensor:
        """Returns float32 text tokens, (len(captions), L, D); equal captions are encoded once."""
        unique = sorted(set(captions))
        with self._autocast():
            tokens = self.model.encode_text(unique)
        rows = [unique.index(caption) for caption in captions]
        return tokens.float()[rows]

    def _decode(self, latents: Tensor) -> Tensor:
        with self._autocast():
            return self.model.codec.decode(latents).float()

    def synthesise_over_ranks(
        self, request: SynthesisRequest, hooks: Sequence[SynthesisHook], batch_size: int
    ) -> dict[str, Tensor]:
        """Makes a large request in batches, each rank its share, and gathers all of it on all ranks.

        A collective: every rank must call it with the same request.

        Returns:
            "images" uint8 (n, 3, H, W), "label" (n,), "soft_label" (n, K), "kept" (n,) and "layout_source" int64 (n,),
            keys of the sample ids (0 = none), in the order of the request, on the CPU.
        """
        world = self.trainer.world_size if self._trainer is not None else 1
        rank = self.global_rank if self._trainer is not None else 0
        share = -(-len(request) // world)
        # The last rank's share is filled up with samples of the start, cut off again below: gathering needs equal
        # shapes.
        order = [(rank * share + i) % len(request) for i in range(share)]
        mine = SynthesisRequest(
            tuple(request.expressions[i] for i in order),
            tuple(request.sample_ids[i] for i in order),
            request.seed,
            tuple(request.captions[i] for i in order),
            request.action_units[order],
            request.settings,
        )
        parts = [self.synthesise(mine.part(i, i + batch_size), hooks) for i in range(0, share, batch_size)]
        gathered: dict[str, Tensor] = {}
        columns = {n: torch.cat([getattr(p, n) for p in parts]) for n in ("images", "label", "soft_label", "kept")}
        sources = [key_of(source) if source else 0 for part in parts for source in part.layout_source]
        columns["layout_source"] = torch.tensor(sources, device=columns["label"].device)
        for name, local in columns.items():
            if world > 1:
                local = _tensor(self.all_gather(local)).flatten(0, 1)
            gathered[name] = local[: len(request)].cpu()
        return gathered

    # ---------------------------------------------------------------- checkpoints

    def _frozen_names(self) -> set[str]:
        """State that a ``base`` gives back: it stays out of checkpoints (C7)."""
        if self.hparams["base"] is None:
            return set()
        trained = {name for name, parameter in self.named_parameters() if parameter.requires_grad}
        return set(self.state_dict()) - trained

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the moving average, and leaves out what a ``base`` gives back."""
        frozen = self._frozen_names()
        checkpoint["state_dict"] = {k: v for k, v in checkpoint["state_dict"].items() if k not in frozen}
        super().on_save_checkpoint(checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes over the moving average, and puts in what the ``base`` gives back."""
        checkpoint["state_dict"] = self._with_frozen(checkpoint["state_dict"])
        super().on_load_checkpoint(checkpoint)

    def _with_frozen(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        own = self.state_dict()
        return {**{name: own[name] for name in self._frozen_names()}, **weights}

    @classmethod
    @fork_rng(devices=[])  # building networks draws random numbers, and must not disturb a training beside
    def load_trained(cls, path: str | Path, map_location: str = "cpu") -> ExpressionGenerator:
        """Loads a generator for synthesis: averaged weights in place, eval mode, no gradients.

        Args:
            path: Lightning checkpoint, a run folder (its last one), or a folder written by :meth:`save_trained`.
            map_location: device.

        Raises:
            FileNotFoundError: no such file or folder.
            ValueError: not a generator, damaged, or weights that are not finite.
        """
        path = find_checkpoint(path, "generator")
        if not path.exists():
            raise FileNotFoundError(f"generator '{path}': no such file or folder, expected {_EXPECTED}")
        with reading("generator", path, _EXPECTED):
            files = cls.file_format
            stored = files.read_folder(path) if path.is_dir() else files.read_checkpoint(path, map_location)
            generator = cls._restored(stored)
        return generator.eval().requires_grad_(False).to(map_location)

    @classmethod
    def _restored(cls, stored: StoredModule) -> ExpressionGenerator:
        """Returns a generator with these settings and weights."""
        parameters = dict(stored.settings)
        sampling = SamplingSettings(**parameters.pop("sampling", {}))
        exported_from = parameters.get(_EXPORTED_FROM)
        parameters = {key: value for key, value in parameters.items() if not key.startswith("_")}
        generator = cls(sampling=sampling, **parameters)
        generator.load_state_dict(generator._with_frozen(stored.weights))
        generator.ema = None  # the weights are its average
        generator.exported_from = exported_from
        return generator

    def save_trained(self, folder: str | Path) -> None:
        """Writes what was trained, and nothing else: ``model.safetensors`` (float16) and ``config.json``.

        Averaged weights where there are any. The folder is read by :meth:`load_trained`.

        Args:
            folder: made if missing.

        Raises:
            ValueError: a weight is not finite in float16, and nothing is written.
        """
        folder = Path(folder)
        frozen = self._frozen_names()
        with nullcontext() if self.ema is None else self.ema.swapped():
            config = {**self.hparams, _EXPORTED_FROM: self.weights_fingerprint()}
            tensors = {
                name: tensor.detach().half() if tensor.is_floating_point() else tensor
                for name, tensor in self.state_dict().items()
                if name not in frozen
            }
        broken = [
            name for name, tensor in tensors.items() if tensor.is_floating_point() and not tensor.isfinite().all()
        ]
        if broken:
            raise ValueError(
                f"generator: {len(broken)} weights are not finite in float16, '{broken[0]}' the first; expected finite "
                f"ones to write into '{folder}' (take an earlier checkpoint)"
            )
        write_folder(folder, self.file_format.kind, config, tensors)
