"""DistilledGenerator: a generator that learns to do in fewer passes what a finished one does."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from lightning_modules.base_generator import generator_of_base
from lightning_modules.generator import ExpressionGenerator
from lightning_modules.initial_weights import check_settings
from synfer.foundation.validate import check_setting
from synfer.networks.scale_input import hears_scale
from synfer.synthesis.diffusion.distillation import draw_scales, few_step_target
from synfer.synthesis.diffusion.prediction import min_snr_weight, predict_clean, signal_and_noise
from synfer.synthesis.diffusion.samplers import few_step_timesteps
from synfer.synthesis.diffusion.timestep_draw import TimestepDraw


class DistilledGenerator(ExpressionGenerator):
    """A student of a generator: the same networks, fewer passes for a face.

    Without ``network.few_steps`` it learns classifier-free guidance: one pass that takes the guidance scale gives what
    the teacher gives in two (Meng et al., CVPR 2023, arXiv 2210.03142), at any number of steps. With it, each of the
    few steps of the sampler "few_step" learns to end where ``substeps`` of the teacher's end (progressive distillation,
    Salimans and Ho, ICLR 2022, arXiv 2202.00512). It begins with the teacher's weights. Text encoder and codec stay as
    they are, so that both hear and see the same. What it gives is an :class:`ExpressionGenerator`, and loads as one.

    Draws of noise, timesteps and scales are keyed by (seed, rank, step, batch).

    Args:
        teacher: checkpoint, run folder or folder of ``save_trained`` of a generator with the same networks, distilled
            before or not; None on a ``base`` = the base itself. Read by ``fit`` and ``validate`` alone.
        substeps: steps of the teacher that one of the few covers; a few-step teacher takes exactly
            ``substeps · few_steps`` steps itself.
        settings: of an :class:`ExpressionGenerator`; ``network.largest_scale`` is needed.

    Raises:
        ValueError: a value out of range.
    """

    begins_with = "teacher"
    may_differ_at_the_start = ("largest_scale", "few_steps")
    may_be_new_at_the_start = ("model.unet.time_embedding.cond_proj.weight",)  # takes the scale

    def __init__(self, teacher: str | None = None, substeps: int = 2, **settings: Any) -> None:
        super().__init__(**settings)
        network = self.hparams["network"]
        check_setting(network["largest_scale"] is not None, "network.largest_scale", None, "a number above 1")
        check_setting(substeps >= 1, "substeps", substeps, "at least 1")
        begins = self.hparams.get("initial_weights")
        check_setting(begins is None, "initial_weights", begins, "null: it begins with model.teacher")
        self._teacher: list[ExpressionGenerator] = []  # in a list, it is no submodule: not trained, moved or saved
        self._null_text: Tensor | None = None
        self.model.text_encoder.requires_grad_(False)
        self.model.codec.requires_grad_(False)

    @property
    def autoencoder_steps(self) -> int:
        """None: the codec is the teacher's."""
        return 0

    @property
    def teacher(self) -> ExpressionGenerator:
        """What it learns from, on this module's device.

        Raises:
            RuntimeError: outside of ``fit`` and ``validate``.
        """
        if not self._teacher:
            raise RuntimeError("DistilledGenerator: the teacher is loaded by fit and validate, found neither")
        found = self._teacher[0]
        if found.device != self.device:
            found.to(self.device)
        return found

    # ---------------------------------------------------------------- training

    def setup(self, stage: str) -> None:
        """Loads the teacher, and checks that it is one.

        Raises:
            FileNotFoundError: nothing there.
            ValueError: no teacher, or one that this student cannot follow.
        """
        super().setup(stage)
        if stage not in ("fit", "validate"):
            return
        sharded = isinstance(self.trainer.strategy, ModelParallelStrategy)
        check_setting(not sharded, "strategy", "ModelParallelStrategy", "ddp: a teacher is not sharded", "trainer")
        path, base = self.hparams["teacher"], self.hparams["base"]
        check_setting(path is not None or base is not None, "teacher", None, "a checkpoint, run folder or folder")
        self._teacher = [generator_of_base(base) if path is None else ExpressionGenerator.load_trained(path)]
        self._check_teacher(f"model.teacher '{base if path is None else path}'")
        self._null_text = None

    def _check_teacher(self, named: str) -> None:
        teacher, mine = self._teacher[0], self.hparams["network"]
        if self.hparams["teacher"] is not None:
            same = (*self.decide_weights, "image_size", "label_space", "null_caption")
            check_settings(self, dict(teacher.hparams), same, named, self.may_differ_at_the_start)
        theirs = teacher.hparams["network"]
        scale, steps = theirs["largest_scale"], theirs["few_steps"]
        if mine["few_steps"] is None and hears_scale(teacher.model.unet):
            raise ValueError(
                f"{named} is distilled already (network.largest_scale {scale}): found model.network.few_steps null, "
                "expected a number of steps"
            )
        if scale is not None and scale < mine["largest_scale"]:
            raise ValueError(
                f"{named} hears scales up to {scale:g}: found model.network.largest_scale {mine['largest_scale']:g}"
            )
        wanted = None if mine["few_steps"] is None else mine["few_steps"] * self.hparams["substeps"]
        if steps is not None and steps != wanted:
            raise ValueError(
                f"{named} takes {steps} steps: found few_steps {mine['few_steps']} · substeps "
                f"{self.hparams['substeps']} = {wanted}, expected {steps}"
            )
        passes = 1 if hears_scale(teacher.model.unet) else 2
        each = passes if wanted is None else passes * int(self.hparams["substeps"])
        rank_zero_info(f"{named}: {each} of its passes for each of the student's")

    def _residual(
        self,
        latents: Tensor,
        text: Tensor,
        au: Tensor,
        generator: torch.Generator,
        timesteps: TimestepDraw = TimestepDraw(),  # noqa: B008 (frozen)
    ) -> tuple[Tensor, Tensor]:
        """Returns what the student gives minus what it should, (B, C, h, w), and the weights (B, 1, 1, 1)."""
        n, network = len(latents), self.hparams["network"]
        scale = draw_scales(n, network["largest_scale"], generator)
        alphas, steps = self.model.scheduler.alphas_cumprod, network["few_steps"]
        if steps is None:
            timestep = timesteps.draw(n, alphas, generator)
        else:  # it will run at these alone
            drawn = torch.randint(steps, (n,), generator=generator, device=self.device)
            timestep = few_step_timesteps(len(alphas), steps).to(self.device)[drawn]
        signal, noise = signal_and_noise(alphas, timestep, latents)
        noisy = signal * latents + noise * self._draw_noise(latents, generator)

        def teacher(x: Tensor, at: Tensor) -> Tensor:
            return self._guided(x, at, text, au, scale)

        output = self.synthesiser.network(noisy, timestep, text, au, scale).float()
        if steps is None:
            weight = min_snr_weight(signal, noise, self.hparams["min_snr_gamma"], self.prediction)
            return output - teacher(noisy, timestep), weight
        with torch.no_grad():
            wanted = few_step_target(teacher, noisy, drawn, steps, self.hparams["substeps"], alphas, self.prediction)
        # In the x̂0 that a step ends with, times SNR + 1 (their weighting): at pure noise SNR alone is zero.
        return predict_clean(output, noisy, signal, noise, self.prediction) - wanted, noise**-2

    @torch.no_grad()
    def _guided(self, x: Tensor, timestep: Tensor, text: Tensor, au: Tensor, scale: Tensor) -> Tensor:
        """Returns the teacher's output under guidance, float32 (B, C, h, w)."""
        network = self.teacher.synthesiser.network
        if hears_scale(self.teacher.model.unet):
            return network(x, timestep, text, au, scale).float()
        null_text = self._null_tokens().expand(len(x), -1, -1)
        null_au = self._unknown_units().expand(len(x), -1, -1)
        both = network(
            torch.cat([x, x]), torch.cat([timestep] * 2), torch.cat([null_text, text]), torch.cat([null_au, au])
        ).float()
        unconditional, conditional = both.chunk(2)
        return unconditional + scale[:, None, None, None] * (conditional - unconditional)

    def _null_tokens(self) -> Tensor:
        """Returns the text tokens of the null caption, (1, L, D): the text encoder does not learn."""
        if self._null_text is None or self._null_text.device != self.device:
            self._null_text = self.teacher.model.encode_text([self.hparams["null_caption"]])
        return self._null_text
