"""A Lightning callback that may act on synthesis."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, Trainer

from synfer.synthesis.diffusion.denoising import DenoisingState


class SynthesisCallback(Callback):
    """Callback with three more hooks, called by ``generator.synthesise(request, hooks)`` wherever faces are made.

    Whoever asks for faces passes :func:`active_hooks` of its trainer, so that the same callbacks act on the fly, in
    prediction and in a generator's test.

    Args:
        enabled: whether the callback takes part.

    Attributes:
        changes_picture: whether a face would look different without this callback.
    """

    changes_picture = True

    def __init__(self, enabled: bool = False) -> None:
        self.enabled = enabled

    def recipe(self) -> dict[str, Any]:
        """Returns what of this callback a face depends on, as plain values: for the record of a synthetic set."""
        return {}

    def on_synthesis_start(self, state: DenoisingState) -> None:
        """Called once, noise drawn and text encoded: may set latents and the first step."""

    def on_denoising_step(self, state: DenoisingState) -> None:
        """Called before the network runs at each step: may move the text tokens."""

    def on_synthesis_end(self, state: DenoisingState) -> None:
        """Called with the finished images: may soften or discard labels."""


def active_hooks(trainer: Trainer) -> list[SynthesisCallback]:
    """Returns the enabled synthesis callbacks of a trainer, in their order."""
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    return [c for c in callbacks if isinstance(c, SynthesisCallback) and c.enabled]
