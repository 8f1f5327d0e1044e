"""Whoever makes faces: what it must be able to do, and how a trained one is loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from synfer.foundation.late_import import imported_late
from synfer.foundation.module_file import kind_of
from synfer.synthesis.faces import Faces
from synfer.synthesis.hooks import FaceHook
from synfer.synthesis.request import SynthesisRequest, SynthesisSettings
from synfer.synthesis.sources import SourceFaces

SYNTHESISERS = {
    "diffusion": "lightning_modules.generator:ExpressionGenerator.load_trained",
    "vae_gan": "lightning_modules.augmenter:SemanticAugmenter.load_trained",
}
"""Kind of a checkpoint or a folder → "module:function" that loads one from its path, imported when it is asked for."""

OLDEST_KIND = "diffusion"
"""What files are that say nothing of their kind."""


@runtime_checkable
class Synthesiser(Protocol):
    """Makes faces. An image is a function of (weights, settings, seed, sample id) alone (contract C6)."""

    @property
    def label_space(self) -> tuple[str, ...]:
        """Names of the expressions that it can make."""
        ...

    @property
    def au_names(self) -> tuple[str, ...]:
        """Names of the action units that it takes."""
        ...

    @property
    def image_size(self) -> int:
        """Side of its faces in pixels."""
        ...

    @property
    def sampling(self) -> SynthesisSettings:
        """Its own settings, for requests without any."""
        ...

    def synthesise(self, request: SynthesisRequest, hooks: Sequence[FaceHook] = ()) -> Faces:
        """Makes the requested faces and shows them to each hook, in order.

        Raises:
            ValueError: an expression that it does not know, or a hook that it cannot serve.
        """
        ...

    def weights_fingerprint(self) -> str:
        """Returns 16 hex digits over the weights that its faces are a function of."""
        ...

    def to(self, device: Any) -> Any:
        """Moves it to a device."""
        ...


@runtime_checkable
class TakesSources(Protocol):
    """A synthesiser that makes its faces from real ones, and names each in ``layout_source``."""

    def use_sources(
        self, sources: SourceFaces, expressions: Sequence[str], settings: SynthesisSettings | None = None
    ) -> None:
        """Sets the real faces that it may use, before it makes any.

        Args:
            sources: training faces, none of them an evaluation image (contract C8).
            expressions: names that are to be made of them.
            settings: how; None = its own.

        Raises:
            ValueError: they cannot serve one of these expressions.
        """
        ...


def load_synthesiser(path: str | Path) -> Synthesiser:
    """Loads a synthesiser of any kind, ready to make faces on the CPU.

    Args:
        path: a checkpoint, a run folder, or a folder of weights.

    Raises:
        FileNotFoundError: nothing there.
        ValueError: a kind that nobody knows, or a damaged file.
    """
    kind = kind_of(path, "generator") or OLDEST_KIND
    if kind not in SYNTHESISERS:
        raise ValueError(
            f"synthesiser '{path}': found the kind '{kind}', expected one of {', '.join(SYNTHESISERS)} (a run of "
            "configs/generator/ or configs/augmenter/)"
        )
    synthesiser: Synthesiser = imported_late(SYNTHESISERS[kind])(path)
    return synthesiser


def check_request(synthesiser: Synthesiser, request: SynthesisRequest) -> None:
    """Refuses what a synthesiser cannot make.

    Raises:
        ValueError: an expression outside its label space, AU columns that do not fit, or settings of another kind.
    """
    unknown = [name for name in request.expressions if name not in synthesiser.label_space]
    if unknown:
        raise ValueError(f"cannot synthesise '{unknown[0]}': the generator knows {', '.join(synthesiser.label_space)}")
    if request.action_units.shape[1] != len(synthesiser.au_names):
        raise ValueError(
            f"request has {request.action_units.shape[1]} action units, the generator {len(synthesiser.au_names)}"
        )
    check_settings(synthesiser, request.settings)


def check_settings(synthesiser: Synthesiser, settings: SynthesisSettings | None) -> None:
    """Refuses settings of another kind of synthesiser; None = its own.

    Raises:
        ValueError: of another kind.
    """
    expected = type(synthesiser.sampling)
    if settings is not None and not isinstance(settings, expected):
        raise ValueError(
            f"synthesis settings: found {type(settings).__name__} for a {type(synthesiser).__name__}, expected "
            f"{expected.__name__} (synthesis.sampling is of diffusion models alone; synthesis.settings of any kind)"
        )


def changed_settings(synthesiser: Synthesiser, changes: Mapping[str, Any], key: str) -> SynthesisSettings:
    """Returns a synthesiser's own settings with some values replaced.

    Args:
        synthesiser: whose settings.
        changes: value by name.
        key: where they were given, for errors.

    Raises:
        ValueError: a name that these settings do not have, or a value that is none of theirs.
    """
    own = synthesiser.sampling
    names = [field.name for field in fields(own)]
    unknown = [name for name in changes if name not in names]
    if unknown:
        raise ValueError(
            f"{key}: found '{unknown[0]}' for a {type(synthesiser).__name__}, expected some of {', '.join(names)}"
        )
    try:
        return replace(own, **changes)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{key} {dict(changes)}: {error}") from None
