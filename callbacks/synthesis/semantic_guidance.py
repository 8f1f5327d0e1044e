"""When semantic guidance acts, and with which guide."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from callbacks.synthesis.guide_temperature import GuideTemperature
from callbacks.synthesis.synthesis_callback import SynthesisCallback
from callbacks.synthesis.voter_level import check_level
from lightning_modules.aligned_faces import tell_of_other_alignment
from lightning_modules.trainer_access import command_name
from lightning_modules.voter import LoadedVoter, load_voter
from synfer.faces.expressions import canonical_expression
from synfer.labels.voters import Guide
from synfer.networks.latent_codec import LatentCodec
from synfer.synthesis.diffusion.denoising_state import DenoisingState
from synfer.synthesis.diffusion.guidance import (
    GuidanceStep,
    guidance_step,
    latent_guidance_step,
    moved_output,
    normalised_gradient_step,
)

DEFAULT_TEXT_STEP = 0.1
DEFAULT_LATENT_STEP = 4.0


class SemanticGuidance(SynthesisCallback):
    """Has a classifier see the wanted expression in the faces (SynFER, arXiv 2410.09865).

    Through the text, the published way: at each guided step the conditional output is computed with gradients, the
    guide's loss on the predicted clean face is differentiated through guide, decoder and UNet to the text tokens, and
    the tokens take one step down, used from the next denoising step on. The conditional output is left for
    classifier-free guidance, which saves its pass.

    Through the latents: the loss is differentiated through guide and decoder to the clean face that the output under
    classifier-free guidance predicts; this face takes one step down, and the sampler steps from it. No backward pass
    through the UNet.

    Args:
        enabled: whether to guide.
        guide: checkpoint of an :class:`ExpressionClassifier`, or a timm or CLIP folder as
            :func:`lightning_modules.voter.load_voter` reads it. A classifier trained on this generator's latents
            (``model.latents_of``) is asked without decoding. It must not be the judge of the results.
        through: what is moved: the "text" or the "latents" of the predicted face.
        step_size: λ_g through the text, length of each step in embedding units, > 0; null = 0.1.
        latent_step_size: λ through the latents, length of each step in units of the noise at that step, √(1 − ᾱ), > 0.
        start_step: first guided step, counted from the first denoising step that is run.
        end_step: steps from here on are not guided; null = to the end.
        every: guide every n-th step.
        norm: L2 norm of the gradient over the whole embedding ("global") or, of the text, over each token ("token").
        expressions: guide these alone; null = all.
        targets: the soft label that a wanted expression is guided to, {"fear": {"fear": 0.8, "surprise": 0.2}}; an
            expression without one is guided to itself.
        entropy_weight: w of the loss −log p(y) + w · H(p) that is gone down: above 0 the guide is to make up its mind,
            below 0 to keep it open, for more variety. A soft target is then left for its largest share, or overshot
            towards an even one. 0 = without that term.
        calibration: JSON file with the guide's temperature at each noise level, by which its logits are divided. Where
            no file is yet, they are fitted on training faces before the first face is made, and written. null = none.
        stop_above: a sample pays no more guidance once the guide is this sure of it, a probability in (0, 1]; for soft
            targets exp(−KL). null = never stop.
        chunk: samples per guided pass, for less memory; null = the whole batch.
        gradient_checkpointing: recompute the UNet's activations in the backward pass through the text: less memory,
            more time.

    Raises:
        ValueError: a value out of range, an unknown expression, or enabled without a guide.
        FileNotFoundError: no such checkpoint.
    """

    config_group = "guidance"

    def __init__(
        self,
        enabled: bool = False,
        guide: str | None = None,
        through: Literal["text", "latents"] = "text",
        step_size: float | None = None,
        latent_step_size: float = DEFAULT_LATENT_STEP,
        start_step: int = 15,
        end_step: int | None = None,
        every: int = 1,
        norm: Literal["global", "token"] = "global",
        expressions: list[str] | None = None,
        targets: dict[str, dict[str, float]] | None = None,
        entropy_weight: float = 0.0,
        calibration: str | None = None,
        stop_above: float | None = None,
        chunk: int | None = None,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__(enabled)
        if step_size is not None and step_size <= 0:
            raise ValueError(f"guidance.step_size: found {step_size}, expected a number above 0")
        if latent_step_size <= 0:
            raise ValueError(f"guidance.latent_step_size: found {latent_step_size}, expected a number above 0")
        if through == "latents" and step_size is not None:  # in another unit: nobody may take the one for the other
            raise ValueError(
                f"guidance.step_size: found {step_size:g}, a step of the text, with guidance.through=latents, expected "
                "guidance.latent_step_size (or guidance.through=text)"
            )
        if through == "latents" and norm != "global":
            raise ValueError(f"guidance.norm: found {norm} with guidance.through=latents, expected global")
        if start_step < 0 or (end_step is not None and end_step <= start_step):
            raise ValueError(f"guidance: start_step {start_step} and end_step {end_step}, expected 0 ≤ start < end")
        if every < 1:
            raise ValueError(f"guidance.every: found {every}, expected at least 1")
        if not math.isfinite(entropy_weight):
            raise ValueError(f"guidance.entropy_weight: found {entropy_weight}, expected a finite number")
        if stop_above is not None and not 0 < stop_above <= 1:
            raise ValueError(f"guidance.stop_above: found {stop_above}, expected a probability in (0, 1] or null")
        if chunk is not None and chunk < 1:
            raise ValueError(f"guidance.chunk: found {chunk}, expected at least 1 or null")
        if enabled and guide is None:
            raise ValueError("guidance.guide: found none, expected a classifier checkpoint (guidance.enabled=true)")
        if enabled and not Path(str(guide)).exists():
            raise FileNotFoundError(f"guidance.guide '{guide}': no such file, expected a classifier checkpoint")
        self.guide_path = guide
        self.through = through
        self.step_size = DEFAULT_TEXT_STEP if step_size is None else step_size
        self.latent_step_size = latent_step_size
        self.start_step = start_step
        self.end_step = end_step
        self.every = every
        self.norm = norm
        self.expressions = None if expressions is None else frozenset(canonical_expression(n) for n in expressions)
        self.targets = {canonical_expression(name): _soft_target(name, soft) for name, soft in (targets or {}).items()}
        self.entropy_weight = entropy_weight
        self._temperature = GuideTemperature(calibration) if enabled and calibration is not None else None
        self.stop_above = stop_above
        self.chunk = chunk
        self.gradient_checkpointing = gradient_checkpointing
        self._guide: Guide | None = None
        self._loaded: LoadedVoter | None = None
        self._codec_checked = False
        self._target: Tensor | None = None
        self._active: Tensor | None = None
        self.losses: list[float] = []
        self.guided_passes = 0

    @property
    def guide(self) -> Guide:
        """The guide, loaded when first asked for.

        Raises:
            ValueError: what is there cannot guide.
        """
        if self._guide is None:
            self._loaded = load_voter(str(self.guide_path))
            network = self._loaded.network
            if not isinstance(network, Guide):
                raise ValueError(
                    f"guidance.guide '{self.guide_path}': found a {type(network).__name__}, expected a classifier with "
                    "gradients from its logits to the face (an ExpressionClassifier, a timm or a CLIP folder)"
                )
            self._guide = network
        return self._guide

    @property
    def own_step(self) -> float:
        """Length of each step of what is moved: ``step_size`` of the text, ``latent_step_size`` of the latents."""
        return self.step_size if self.through == "text" else self.latent_step_size

    @own_step.setter
    def own_step(self, length: float) -> None:
        if self.through == "text":
            self.step_size = length
        else:
            self.latent_step_size = length

    def in_words(self) -> str:
        """Names the guide, its step size and its steps."""
        end = "" if self.end_step is None else f" to {self.end_step}"
        mind = "" if self._temperature is None else ", calibrated"
        mind += "" if self.entropy_weight == 0 else f", entropy weight {self.entropy_weight:g}"
        return (
            f"guided by {self.guide_path} through the {self.through} (step size {self.own_step:g}, from step "
            f"{self.start_step}{end}{mind})"
        )

    def guide_fingerprint(self) -> str | None:
        """Returns the fingerprint of the guide's weights, for whoever must not be judged by it; None while disabled."""
        return self.guide.weights_fingerprint() if self.enabled else None

    def recipe(self) -> dict[str, Any]:
        """Returns the settings, and the guide by its weights; what only saves memory is left out.

        Raises:
            ValueError: the guide is calibrated for another generator than that of a prediction.
        """
        text: dict[str, Any] = {"step_size": self.step_size}  # as in the records of sets that go on
        latents = {"through": "latents", "latent_step_size": self.latent_step_size}
        return {
            "guide": self.guide_fingerprint(),
            **(text if self.through == "text" else latents),
            "start_step": self.start_step,
            "end_step": self.end_step,
            "every": self.every,
            "norm": self.norm,
            "expressions": None if self.expressions is None else sorted(self.expressions),
            "targets": self.targets,
            "stop_above": self.stop_above,
            # Only where it acts: sets of before it go on.
            **({} if self.entropy_weight == 0 else {"entropy_weight": self.entropy_weight}),
            **({} if self._temperature is None else {"calibration": self._temperature.recipe(self.guide)}),
        }

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Checks that gradients will be there and loads the guide.

        Raises:
            ValueError: test or prediction in inference mode, which cannot be undone inside, a guide that has learned
                from rows that are held out for validation, or a calibration of another guide.
        """
        if not self.enabled:
            return
        stage = command_name(stage)
        loop: Any = {"test": trainer.test_loop, "predict": trainer.predict_loop, "validate": trainer.validate_loop}.get(
            stage
        )
        if loop is not None and loop.inference_mode:
            raise ValueError(
                f"guidance.enabled=true in {stage} needs gradients: found trainer.inference_mode=true, expected "
                "--trainer.inference_mode=false"
            )
        self.guide.to(pl_module.device)
        tell_of_other_alignment(trainer, self.guide, f"guidance.guide '{self.guide_path}'")
        if stage == "fit" and self._loaded is not None:
            check_level("guidance.guide", self._loaded, trainer)
        if self._temperature is not None:
            learned_from = None if self._loaded is None else self._loaded.trained_on
            maker = getattr(pl_module, "synthesiser", None) if stage == "predict" else None
            self._temperature.setup(trainer, self.guide, learned_from, getattr(maker, "network_fingerprint", None))

    def on_denoising_start(self, state: DenoisingState) -> None:
        """Maps the targets to the guide's classes by name and forgets what was of the last batch.

        Raises:
            ValueError: the guide does not know a target, reads latents of another codec, or is calibrated for another
                generator.
        """
        guide = self.guide.to(state.latents.device)
        self._check_codec(guide, state)
        if self._temperature is not None:
            self._temperature.prepare(state, guide, *self._look())
        names = state.request.expressions
        guided = [self.expressions is None or name in self.expressions for name in names]
        rows = {name: self._target_of(name, guide.label_space) for name, on in zip(names, guided, strict=True) if on}
        nothing = torch.zeros(len(guide.label_space))
        self._target = torch.stack([rows.get(name, nothing) for name in names]).to(state.latents.device)
        self._active = torch.tensor(guided, device=state.latents.device)
        self.losses = []
        self.guided_passes = 0

    def _check_codec(self, guide: Guide, state: DenoisingState) -> None:
        codec = _codec_of(guide)
        if codec is None or self._codec_checked:
            return
        found, expected = codec.fingerprint(), state.codec_fingerprint()
        if found != expected:
            raise ValueError(
                f"guidance.guide '{self.guide_path}' reads latents of another codec than the generator's: found "
                f"{found}, expected {expected}"
            )
        self._codec_checked = True  # once per run: hashing a large autoencoder takes time

    def _target_of(self, name: str, label_space: tuple[str, ...]) -> Tensor:
        """Returns the soft label, (K,) over the guide's classes, to which an expression is guided."""
        target = torch.zeros(len(label_space))
        for wanted, share in self.targets.get(name, {name: 1.0}).items():
            if wanted not in label_space:
                raise ValueError(
                    f"guidance.guide '{self.guide_path}' does not know '{wanted}': it has {list(label_space)}"
                )
            target[label_space.index(wanted)] = share
        return target

    def on_denoising_step(self, state: DenoisingState) -> None:
        """Moves the text of the samples that still need it, where the turn of this step has come.

        Raises:
            ValueError: the guide's loss is not finite.
        """
        if self.through != "text" or not (rows := self._rows_of(state)).numel():
            return
        with state.checkpointing(self.gradient_checkpointing):
            found = self._differentiate(guidance_step, state, rows)
        state.conditional_output = torch.zeros_like(state.latents).index_copy(0, rows, found.output)
        state.conditional_rows = self._active
        unsure = self._unsure(found, rows)
        moved = normalised_gradient_step(state.text[rows[unsure]], found.gradient[unsure], self.step_size, self.norm)
        state.text = state.text.index_copy(0, rows[unsure], moved)

    def on_guided_output(self, state: DenoisingState) -> None:
        """Moves the predicted faces of the samples that still need it, where the turn of this step has come.

        Raises:
            ValueError: the guide's loss is not finite.
        """
        if self.through != "latents" or not (rows := self._rows_of(state)).numel():
            return
        found = self._differentiate(latent_guidance_step, state, rows)
        unsure = self._unsure(found, rows)
        moved = moved_output(state, found.rows(unsure), rows[unsure], self.latent_step_size)
        assert state.output is not None
        state.output = state.output.index_copy(0, rows[unsure], moved)

    def _rows_of(self, state: DenoisingState) -> Tensor:
        """Returns the samples that are guided at this step, int64 (m,)."""
        step = state.step - state.first_step
        end = self.end_step if self.end_step is not None else len(state.sampler.timesteps)
        if not self.start_step <= step < end or (step - self.start_step) % self.every:
            return torch.empty(0, dtype=torch.int64)
        assert self._active is not None
        return self._active.nonzero()[:, 0]

    def _differentiate(self, by: Callable[..., GuidanceStep], state: DenoisingState, rows: Tensor) -> GuidanceStep:
        """Has the guide look at these samples, and keeps its loss.

        Raises:
            ValueError: the loss is not finite.
        """
        assert self._target is not None
        look, on_latents = self._look()
        if self._temperature is not None:
            look = _tempered(look, self._temperature.at(state))
        found = by(state, look, self._target[rows], rows, on_latents, self.chunk, self.entropy_weight)
        self.losses.append(float(found.loss.mean()))
        if (
            not math.isfinite(self.losses[-1]) and state.latents.isfinite().all()
        ):  # else it would guide nowhere, silently
            broken = state.request.sample_ids[int(rows[int((~found.loss.isfinite()).nonzero()[0, 0])])]
            raise ValueError(
                f"guidance.guide '{self.guide_path}': found a loss that is not finite at denoising step {state.step} "
                f"of face {broken}, expected a number (NaN among its weights? take another checkpoint)"
            )
        self.guided_passes += len(rows)
        return found

    def _look(self) -> tuple[Callable[[Tensor], Tensor], bool]:
        """Returns what gives the guide's logits, and whether it reads latents as they are."""
        guide: Any = self.guide
        on_latents = _codec_of(guide) is not None
        return (guide.forward_latents if on_latents else guide), on_latents

    def _unsure(self, found: GuidanceStep, rows: Tensor) -> Tensor:
        """Returns which of these samples the guide is not sure of, bool (m,); the others pay no more."""
        if self.stop_above is None:
            return torch.ones_like(rows, dtype=torch.bool)
        unsure = found.probability < self.stop_above
        self._active = torch.zeros_like(self._active).index_fill(0, rows[unsure], True)  # type: ignore[arg-type]
        return unsure


def _codec_of(guide: Guide) -> LatentCodec | None:
    return guide.codec


def _tempered(look: Callable[[Tensor], Tensor], temperature: float) -> Callable[[Tensor], Tensor]:
    return lambda seen: look(seen).float() / temperature


def _soft_target(name: str, soft: dict[str, float]) -> dict[str, float]:
    """Checks one target: shares ≥ 0 that sum to 1, by canonical name."""
    if not soft or min(soft.values()) < 0 or abs(sum(soft.values()) - 1) > 1e-3:
        raise ValueError(f"guidance.targets '{name}': found {soft}, expected shares ≥ 0 that sum to 1")
    return {canonical_expression(wanted): share for wanted, share in soft.items()}
