"""A Lightning callback that may act on synthesis."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback

from synfer.synthesis.faces import Faces


class SynthesisCallback(Callback):
    """A callback that is a :class:`FaceHook`, called by ``synthesise(request, hooks)`` wherever faces are made.

    Whoever asks for faces passes :func:`synfer.synthesis.hooks.active_hooks` of its trainer's callbacks, so that the
    same ones act on the fly, in prediction and in a generator's test. One that also has ``on_denoising_start`` and
    ``on_denoising_step`` is a :class:`DenoisingHook`.

    Args:
        enabled: whether the callback takes part.

    Attributes:
        changes_picture: whether a face would look different without this callback.
        config_group: the group of settings that switches it on and off, for errors; "" = none.
    """

    changes_picture = True
    config_group = ""

    def __init__(self, enabled: bool = False) -> None:
        self.enabled = enabled

    def recipe(self) -> dict[str, Any]:
        """Returns what of this callback a face depends on, as plain values: for the record of a synthetic set."""
        return {}

    def in_words(self) -> str:
        """Returns what it does to the faces of a run, in a few words: "vote of 2"; "" = nothing to tell."""
        return ""

    def on_faces(self, faces: Faces) -> None:
        """Called with finished faces: may soften or discard labels."""
