"""When semantic guidance acts, and with which guide."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from callbacks.synthesis import SynthesisCallback
from datamodules.expressions import map_label_space
from lightning_modules.classifier import ExpressionClassifier
from lightning_modules.sampling.denoising import DenoisingState
from lightning_modules.sampling.guidance import descend, guidance_gradient


class SemanticGuidance(SynthesisCallback):
    """Moves the text embedding so that a classifier sees the wanted expression (SynFER, arXiv 2410.09865).

    At each guided step the conditional output is computed with gradients, the guide's loss on the predicted clean face
    is differentiated through guide, decoder and UNet to the text tokens, and the tokens take one step down, used from
    the next denoising step on. The conditional output is left for classifier-free guidance, which saves its pass.

    Args:
        enabled: whether to guide.
        guide: checkpoint of an :class:`ExpressionClassifier`. It must not be the judge of the results.
        step_size: λ_g, length of each step in embedding units, > 0.
        start_step: first guided step, counted from the first denoising step that is run.
        end_step: steps from here on are not guided; null = to the end.
        every: guide every n-th step.
        norm: L2 norm of the gradient over the whole embedding ("global") or over each token ("token").

    Raises:
        ValueError: a value out of range, or enabled without a guide.
        FileNotFoundError: no such checkpoint.
    """

    def __init__(
        self,
        enabled: bool = False,
        guide: str | None = None,
        step_size: float = 0.1,
        start_step: int = 15,
        end_step: int | None = None,
        every: int = 1,
        norm: Literal["global", "token"] = "global",
    ) -> None:
        super().__init__(enabled)
        if step_size <= 0:
            raise ValueError(f"guidance.step_size: found {step_size}, expected a number above 0")
        if start_step < 0 or (end_step is not None and end_step <= start_step):
            raise ValueError(f"guidance: start_step {start_step} and end_step {end_step}, expected 0 ≤ start < end")
        if every < 1:
            raise ValueError(f"guidance.every: found {every}, expected at least 1")
        if enabled and guide is None:
            raise ValueError("guidance.guide: found none, expected a classifier checkpoint (guidance.enabled=true)")
        if enabled and not Path(str(guide)).is_file():
            raise FileNotFoundError(f"guidance.guide '{guide}': no such file, expected a classifier checkpoint")
        self.guide_path = guide
        self.step_size = step_size
        self.start_step = start_step
        self.end_step = end_step
        self.every = every
        self.norm = norm
        self._guide: ExpressionClassifier | None = None
        self._columns: Tensor | None = None
        self.losses: list[float] = []

    @property
    def guide(self) -> ExpressionClassifier:
        """The guide, loaded when first asked for."""
        if self._guide is None:
            self._guide = ExpressionClassifier.load_trained(str(self.guide_path))
        return self._guide

    def guide_fingerprint(self) -> str | None:
        """Returns the fingerprint of the guide's weights, for whoever must not be judged by it; None while disabled."""
        return self.guide.weights_fingerprint() if self.enabled else None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Checks that gradients will be there and loads the guide.

        Raises:
            ValueError: test or prediction in inference mode, which cannot be undone inside.
        """
        if not self.enabled:
            return
        loop: Any = {"test": trainer.test_loop, "predict": trainer.predict_loop, "validate": trainer.validate_loop}.get(
            stage
        )
        if loop is not None and loop.inference_mode:
            raise ValueError(
                f"guidance.enabled=true in {stage} needs gradients: found trainer.inference_mode=true, expected "
                "--trainer.inference_mode=false"
            )
        self.guide.to(pl_module.device)

    def on_synthesis_start(self, state: DenoisingState) -> None:
        """Maps the guide's classes to the generator's by name and forgets the losses of the last batch.

        Raises:
            ValueError: the guide does not know a requested expression.
        """
        guide = self.guide.to(state.latents.device)
        columns = map_label_space(guide.label_space, state.label_space)
        for name in sorted(set(state.request.expressions)):
            if columns[state.label_space.index(name)] < 0:
                raise ValueError(
                    f"guidance.guide '{self.guide_path}' does not know '{name}': it has {list(guide.label_space)}"
                )
        self._columns = torch.from_numpy(columns).to(state.latents.device)
        self.losses = []

    def on_denoising_step(self, state: DenoisingState) -> None:
        """Guides this step where its turn has come."""
        step = state.step - state.first_step
        end = self.end_step if self.end_step is not None else len(state.scheduler.timesteps)
        if not self.start_step <= step < end or (step - self.start_step) % self.every:
            return
        assert self._columns is not None
        gradient, loss, output = guidance_gradient(state, self.guide, self._columns[state.label])
        state.text = descend(state.text, gradient, self.step_size, self.norm)
        state.conditional_output = output
        self.losses.append(float(loss.mean()))
