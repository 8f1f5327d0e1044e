"""Whoever may vote on the expression of a face, or guide its synthesis: what it has, and how its files are known."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from torch import Tensor


@runtime_checkable
class Voter(Protocol):
    """A network that says which expression a face shows.

    Attributes:
        label_space: names of its K classes.
    """

    label_space: tuple[str, ...]

    def predict_probabilities(self, image: Tensor) -> Tensor:
        """Returns probabilities float32 (B, K) of images (B, 3, H, W) in [0, 1]."""

    def weights_fingerprint(self) -> str:
        """Returns 16 hex digits that tell whether two voters are the same one."""

    def to(self, device: Any) -> Any:
        """Moves it to a device."""


@runtime_checkable
class Guide(Voter, Protocol):
    """A voter whose answer can be differentiated in the face, so that it may guide a synthesis."""

    @property
    def codec(self) -> Any:
        """The codec whose latents it reads in place of pixels (``forward_latents``); None = it reads pixels."""

    def logits(self, image: Tensor) -> Tensor:
        """Returns logits (B, K) of images (B, 3, H, W) in [0, 1], differentiable in the images."""


@dataclass(frozen=True)
class VoterKind:
    """One kind of voter: how its files are known, and how they are loaded.

    Attributes:
        name: with its article, for errors: "an annotator".
        is_mine: whether a file or folder is of this kind, by its path and by what a checkpoint holds or the folder's
            ``config.json`` says.
        load: returns the voter, in evaluation mode and without gradients, of (path, device, option). It imports what it
            needs when it is called.
        option: key of a ``.json`` file that this kind alone listens to, beside "path"; None = none.
    """

    name: str
    is_mine: Callable[[Path, Mapping[str, Any]], bool]
    load: Callable[[Path, Any, Any], Voter]
    option: str | None = None
