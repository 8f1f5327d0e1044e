"""What may act on synthesis: on finished faces, whoever makes them, or between the steps of denoising."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from synfer.synthesis.faces import Faces

if TYPE_CHECKING:
    from synfer.synthesis.diffusion.denoising_state import DenoisingState


@runtime_checkable
class FaceHook(Protocol):
    """Acts once the pixels exist: a vote, a table of faces, a filter."""

    def on_faces(self, faces: Faces) -> None:
        """Called with finished faces: may soften or discard labels."""
        ...


@runtime_checkable
class DenoisingHook(FaceHook, Protocol):
    """Acts on denoising too; only a diffusion model has a use for it."""

    def on_denoising_start(self, state: DenoisingState) -> None:
        """Called once, noise drawn and text encoded: may set latents and the first step."""
        ...

    def on_denoising_step(self, state: DenoisingState) -> None:
        """Called before the network runs at each step: may move the text tokens."""
        ...


@runtime_checkable
class OutputHook(DenoisingHook, Protocol):
    """Acts also on what the network says at each step."""

    def on_guided_output(self, state: DenoisingState) -> None:
        """Called once classifier-free guidance has given ``state.output``: may change it before the sampler's step."""
        ...


def active_hooks(callbacks: Iterable[object]) -> list[FaceHook]:
    """Returns the hooks among a trainer's callbacks, in their order, without those whose ``enabled`` is False."""
    return [found for found in callbacks if isinstance(found, FaceHook) and getattr(found, "enabled", True)]


def refuse_denoising_hooks(hooks: Sequence[FaceHook], synthesiser: object) -> None:
    """Says that a synthesiser cannot do what a hook needs, in place of making faces on which it never acted.

    Args:
        hooks: those of a request.
        synthesiser: one that does not denoise.

    Raises:
        ValueError: one of the hooks acts on denoising.
    """
    for hook in hooks:
        if isinstance(hook, DenoisingHook):
            group = getattr(hook, "config_group", None)
            setting = f"{group}.enabled=true" if group else type(hook).__name__
            raise ValueError(
                f"{setting}: found {type(hook).__name__}, which acts while a diffusion model denoises, beside "
                f"{type(synthesiser).__name__}, which does not denoise; expected "
                + (f"{group}.enabled=false" if group else "none such hook")
            )
