"""Whoever may vote on the expression of a face, or guide its synthesis: what it has, and how its files are known."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from synfer.foundation.late_import import imported_late
from synfer.foundation.module_file import kind_of_checkpoint


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
        loader: "module:function", imported when it is asked for, or the function: from (path, device) to the voter, in
            evaluation mode and without gradients.
        option: key of a ``.json`` file that this kind alone supports, beside "path", and the loader's keyword for it;
            None = there is none.
    """

    name: str
    is_mine: Callable[[Path, Mapping[str, Any]], bool]
    loader: str | Callable[..., Voter]
    option: str | None = None

    def load(self, path: Path, device: Any, option: Any = None) -> Voter:
        """Loads a voter of this kind.

        Args:
            path: file or folder.
            device: where to.
            option: value of the kind's option, None = not given.
        """
        load = imported_late(self.loader) if isinstance(self.loader, str) else self.loader
        voter: Voter = load(path, device) if self.option is None else load(path, device, **{self.option: option})
        return voter


VOTERS: list[VoterKind] = [
    VoterKind(
        "an annotator",
        lambda _, found: kind_of_checkpoint(found) == "annotator",
        "lightning_modules.annotator:LabelAnnotator.load_trained",
        option="generator",
    ),
    VoterKind(
        "a classifier",
        lambda _, found: kind_of_checkpoint(found) == "classifier",
        "lightning_modules.classifier:ExpressionClassifier.load_trained",
    ),
    VoterKind(
        "a CLIP model",
        lambda path, found: path.is_dir() and found.get("model_type") == "clip",
        "synfer.networks.external_classifiers:load_clip",
        option="prompts",
    ),
    VoterKind(
        "a timm network",
        lambda path, found: path.is_dir() and "architecture" in found,
        "synfer.networks.external_classifiers:load_timm",
    ),
]
"""Every kind of voter; the first that calls a file its own loads it. A new kind is one more entry."""
