"""Makes faces with a latent diffusion model that hears text and action units."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor

from synfer.faces.action_units import ACTION_UNITS
from synfer.foundation.bfloat16 import bfloat16_autocast
from synfer.foundation.fingerprint import fingerprint
from synfer.networks.au_adapter import AUTokens, embed_action_units, region_masks, set_au_scale
from synfer.networks.diffusion import DiffusionModel
from synfer.networks.prediction_type import PredictionType
from synfer.networks.scale_input import embed_scale, hears_scale
from synfer.networks.stable_diffusion.number_format import in_stored_format, to_half
from synfer.synthesis.conditions import asked_captions
from synfer.synthesis.diffusion.denoising import denoise
from synfer.synthesis.diffusion.denoising_state import DenoisingState
from synfer.synthesis.diffusion.distilled_sampling import check_distilled_sampling
from synfer.synthesis.diffusion.execution import attention_kernel
from synfer.synthesis.diffusion.expression_strength import strengthened_text
from synfer.synthesis.diffusion.samplers import make_sampler
from synfer.synthesis.faces import Faces
from synfer.synthesis.finite_faces import check_finite_faces
from synfer.synthesis.hooks import DenoisingHook, FaceHook
from synfer.synthesis.request import SamplingSettings, SynthesisRequest, initial_noise
from synfer.synthesis.synthesiser import check_request

_OVERFLOW = (
    "overflow while sampling: --model.execution.bf16_sampling=false, a smaller guidance.step_size or guidance_scale"
)
_CHECKPOINTING = "gradient_checkpointing"  # diffusers' flag on each block


class DiffusionSynthesiser:
    """A diffusion model with the settings that it makes faces under; whoever trains it holds the same model.

    Args:
        model: networks, codec and noise schedule, the AU adapter attached.
        label_space: names of the expressions.
        image_size: side of the faces in pixels.
        sampling: default settings.
        null_caption: caption where the negative prompt is empty.
        bf16: run the networks in bfloat16 autocast.
        compiled: whether the UNet is compiled.
        decode_batch: finished latents decoded at a time; None = all together.
        distilled: largest guidance scale that the network hears, and number of steps that it was distilled to; None =
            it hears none, any.
        training_step: returns the step of the training that the model is in; None = in none. For errors.
    """

    au_names = ACTION_UNITS

    def __init__(
        self,
        model: DiffusionModel,
        label_space: tuple[str, ...],
        image_size: int,
        sampling: SamplingSettings,
        null_caption: str = "",
        bf16: bool = True,
        compiled: bool = False,
        decode_batch: int | None = None,
        training_step: Callable[[], int | None] | None = None,
        distilled: tuple[float | None, int | None] = (None, None),
    ) -> None:
        check_distilled_sampling(sampling, *distilled, group="model")
        self.distilled = distilled
        self.model = model
        self.label_space = label_space
        self.image_size = image_size
        self.sampling = sampling
        self.null_caption = null_caption
        self.bf16 = bf16
        self.compiled = compiled
        self.decode_batch = decode_batch
        self.prediction: PredictionType = model.scheduler.config.prediction_type
        self._training_step = training_step
        self._rounded_from: str | None = None
        self._masks = region_masks(self.au_names)

    @property
    def device(self) -> torch.device:
        """Where the model lies."""
        return next(self.model.parameters()).device

    def to(self, device: Any) -> DiffusionSynthesiser:
        """Moves the model."""
        self.model.to(device)
        return self

    def weights_fingerprint(self) -> str:
        """Returns 16 hex digits of SHA-256 over all weights of the model (C6: an image is a function of them)."""
        return self._rounded_from or fingerprint(self.model.named_parameters())

    @property
    def is_rounded(self) -> bool:
        """Whether :meth:`round_weights` has been called."""
        return self._rounded_from is not None

    def round_weights(self) -> None:
        """Rounds the UNet's weights to bfloat16 for good, but for its normalisation; the fingerprint stays.

        Under bfloat16 autocast they are rounded at each use, so that the faces are those of before.
        """
        self._rounded_from = self.weights_fingerprint()
        to_half(self.model.unet, torch.bfloat16)

    def network_fingerprint(self) -> str:
        """Returns hex digits over the weights and all that decides the outputs beside them."""
        return f"{self.weights_fingerprint()}-{self.model.build_fingerprint()}"

    # ---------------------------------------------------------------- the networks

    def network(
        self,
        latents: Tensor,
        timestep: Tensor | int,
        text: Tensor,
        au: Tensor | AUTokens,
        scale: Tensor | float = 1.0,
    ) -> Tensor:
        """Runs the UNet: (B, C, h, w), timestep int or (B,), text (B, L, D), AU input (B, R, 2A) → (B, C, h, w).

        A network that hears the guidance scale takes it, one or (B,); no other looks at it.
        """
        unet = self.model.unet
        embeds = au if isinstance(au, AUTokens) else [au]
        if self.compiled:
            timestep = torch.as_tensor(timestep, device=latents.device)  # each Python number would be compiled anew
        heard = None
        if hears_scale(unet):
            scales = torch.as_tensor(scale, dtype=torch.float32, device=latents.device).expand(len(latents))
            heard = embed_scale(scales, unet.config.time_cond_proj_dim)
        with self._attention_kernel(latents.device), in_stored_format(unet):
            return unet(latents, timestep, text, timestep_cond=heard, added_cond_kwargs={"image_embeds": embeds}).sample

    def _network_on_tokens(
        self, latents: Tensor, timestep: Tensor | int, text: Tensor, au: Tensor, scale: float = 1.0
    ) -> Tensor:
        return self.network(latents, timestep, text, AUTokens([au]), scale)

    @property
    def latent_side(self) -> int:
        """Rows, and columns, of the latents of a face."""
        return self.image_size // self.model.codec.downscale

    def _attention_kernel(self, device: torch.device) -> AbstractContextManager[Any]:
        return attention_kernel(device, self.latent_side**2)

    @contextmanager
    def _checkpointing(self, enabled: bool) -> Iterator[None]:
        """Has the UNet recompute its activations in backward passes inside the context, for less memory."""
        if not enabled:
            yield
            return
        unet = self.model.unet
        before = {module: module.gradient_checkpointing for module in unet.modules() if hasattr(module, _CHECKPOINTING)}
        if not any(before.values()):  # else as the training has set it up
            unet.enable_gradient_checkpointing()
        try:
            with self._attention_kernel(self.device):  # what is recomputed must be what was computed
                yield
        finally:
            for module, was in before.items():
                module.gradient_checkpointing = was

    def au_input(self, au: Tensor) -> Tensor:
        """Returns the UNet's AU input, (n, R, 2A), of action units (n, A), NaN = unknown."""
        return embed_action_units(au, self._masks.to(au.device))

    def _au_tokens(self, au: Tensor) -> Tensor:
        """Returns AU tokens (n, R, D), float32, of action units (n, A); equal for all steps of a synthesis.

        Without an AU adapter there are none: (n, 0, 0).
        """
        if self.model.unet.encoder_hid_proj is None:
            return au.new_zeros(len(au), 0, 0)
        with self._autocast():
            return self.model.unet.encoder_hid_proj([self.au_input(au)])[0].float()

    def _autocast(self) -> AbstractContextManager[Any]:
        return bfloat16_autocast(self.device, self.bf16, "model.execution.bf16_sampling")

    def encode_text(self, captions: list[str]) -> Tensor:
        """Returns float32 text tokens, (len(captions), L, D); equal captions are encoded once."""
        unique = sorted(set(captions))
        with self._autocast():
            tokens = self.model.encode_text(unique)
        rows = [unique.index(caption) for caption in captions]
        return tokens.float()[rows]

    def _decode(self, latents: Tensor) -> Tensor:
        with self._autocast():
            return self.model.codec.decode(latents).float()

    # ---------------------------------------------------------------- synthesis

    @torch.no_grad()
    def synthesise(self, request: SynthesisRequest, hooks: Sequence[FaceHook] = ()) -> Faces:
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
        check_request(self, request)
        was_training = {module: module.training for module in self.model.modules()}
        self.model.eval()
        try:
            state = self.start(request)
            on_denoising = [hook for hook in hooks if isinstance(hook, DenoisingHook)]
            for hook in on_denoising:
                hook.on_denoising_start(state)
            latents = denoise(state, on_denoising)
            parts = latents.split(self.decode_batch or len(latents))
            image = (torch.cat([self._decode(part) for part in parts]) + 1) / 2
            self._check_finite(image, request)
            image = image.clamp(0, 1)
            images = (image * 255).round().to(torch.uint8)
            number_format = torch.bfloat16 if self.bf16 else torch.float32
            faces = Faces.as_asked(request, images, self.label_space, number_format)
            for each in hooks:
                each.on_faces(faces)
        finally:
            set_au_scale(self.model.unet, 1.0)  # training goes on at full strength
            # Per module, so that frozen parts stay in the mode they were in.
            for module, mode in was_training.items():
                module.training = mode
        return faces

    def start(self, request: SynthesisRequest) -> DenoisingState:
        """Returns the state in which denoising of a request begins, the model in evaluation mode."""
        n = len(request)
        settings = request.settings if isinstance(request.settings, SamplingSettings) else self.sampling
        check_distilled_sampling(settings, *self.distilled)
        set_au_scale(self.model.unet, settings.au_scale)
        captions = asked_captions(request.captions, settings)
        text = self.encode_text([settings.negative_prompt or self.null_caption, *captions])
        strength = settings.expression_strength
        wanted = strengthened_text(text[1:], captions, request.expressions, strength, self.encode_text)
        au = torch.from_numpy(request.action_units).to(self.device)
        shape = (self.model.codec.latent_channels, self.latent_side, self.latent_side)
        sampler = make_sampler(settings.scheduler, self.model.scheduler.config, settings.num_steps)
        return DenoisingState(
            request=request,
            settings=settings,
            network=self._network_on_tokens,
            encode_text=self.encode_text,
            image_size=self.image_size,
            encode=self.model.codec.encode,
            decode=self._decode,
            prediction=self.prediction,
            sampler=sampler,
            latents=initial_noise(request, shape).to(self.device) * sampler.initial_scale,
            text=wanted,
            null_text=text[:1].expand(n, -1, -1),
            au=self._au_tokens(au),
            null_au=self._au_tokens(torch.full_like(au[:1], torch.nan)).expand(n, -1, -1),
            codec_fingerprint=self.model.codec.fingerprint,
            network_fingerprint=self.network_fingerprint,
            autocast=self._autocast,
            checkpointing=self._checkpointing,
            hears_scale=hears_scale(self.model.unet),
        )

    def _check_finite(self, image: Tensor, request: SynthesisRequest) -> None:
        """Refuses faces with NaN or infinite pixels, and says where they come from."""
        step = None if self._training_step is None else self._training_step()
        check_finite_faces(image, request, self.model.named_parameters(), _OVERFLOW, step)
