"""Sampling that starts from the inverted layout of a real training face."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer

from callbacks.synthesis.synthesis_callback import SynthesisCallback
from datamodules.rows.grey_or_colour import as_rgb
from datamodules.rows.near_copies import pixel_correlation
from datamodules.rows.sample_table import SampleTable
from datamodules.rows.source_faces import TrainingSources, training_sources
from synfer.faces.captions import caption_for
from synfer.faces.face_shape import resize_faces
from synfer.foundation.counter_based_random import keyed_uniform
from synfer.foundation.random_streams import Stream
from synfer.foundation.rank_states import counters, states_of_ranks
from synfer.synthesis.diffusion.denoising_state import DenoisingState
from synfer.synthesis.diffusion.inversion import ddim_invert
from synfer.synthesis.faces import Faces
from synfer.synthesis.sources import choose_sources

_PURPOSE = "layout source"


class LayoutInitialisation(SynthesisCallback):
    """DDIM-inverts a random training face and starts sampling there, so that faces are laid out naturally (SynFER).

    The face is inverted under its own caption at guidance scale 1 and sampled under the wanted one. Which face is used
    is a function of (seed, sample id). Only training faces without a duplicate in an evaluation split may be used (C8).

    Args:
        enabled: whether to act.
        num_inverted: inverted steps, out of the sampling steps: the more, the less of the face is left.
        fixed_point_iterations: of each inverted step beyond the plain one, ≥ 0; 0 = plain DDIM inversion.
        source: "any" training face, or one of the "same" expression.
        max_similarity: correlation of the grey pixels, in (0, 1], above which a finished face is a copy of its source
            and is discarded; null = keep all. What else is a copy is counted where faces are made
            (``datamodules/rows/near_copies.py``), not discarded.

    Raises:
        ValueError: a value out of range.
    """

    config_group = "layout"

    def __init__(
        self,
        enabled: bool = False,
        num_inverted: int = 35,
        fixed_point_iterations: int = 0,
        source: Literal["any", "same"] = "any",
        max_similarity: float | None = None,
    ) -> None:
        super().__init__(enabled)
        if num_inverted < 1:
            raise ValueError(f"layout.num_inverted: found {num_inverted}, expected at least 1")
        if fixed_point_iterations < 0:
            raise ValueError(f"layout.fixed_point_iterations: found {fixed_point_iterations}, expected at least 0")
        if max_similarity is not None and not 0 < max_similarity <= 1:
            raise ValueError(f"layout.max_similarity: found {max_similarity}, expected a correlation in (0, 1] or null")
        self.num_inverted = num_inverted
        self.fixed_point_iterations = fixed_point_iterations
        self.source = source
        self.max_similarity = max_similarity
        self.copies = 0
        self._sources: TrainingSources | None = None
        self._rows = np.empty(0, dtype=np.int64)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Takes the training rows and checks that none of them is an evaluation image.

        Raises:
            ValueError: a training row has the pixels of a validation or test row.
        """
        if self.enabled and self._sources is None:
            self._sources = training_sources(trainer.datamodule, _PURPOSE)  # type: ignore[attr-defined]

    def in_words(self) -> str:
        """Says where the layouts are from."""
        whose = "of the same expression" if self.source == "same" else "of any expression"
        return f"layouts of training faces {whose} ({self.num_inverted} steps inverted)"

    def use_table(self, training: SampleTable, evaluation: list[SampleTable]) -> None:
        """Sets the faces whose layout may be taken.

        Raises:
            ValueError: one of them is an evaluation image; ``data.drop_duplicates=true`` removes such duplicates.
        """
        self._sources = TrainingSources(training, evaluation, _PURPOSE)

    def recipe(self) -> dict[str, Any]:
        """Returns the settings."""
        # Under its former name, as in the records of sets that go on.
        found = {
            "num_inverted": self.num_inverted,
            "refinements": self.fixed_point_iterations,
            "source": self.source,
        }
        # Only where it acts: sets of before it go on.
        return found if self.max_similarity is None else {**found, "max_similarity": self.max_similarity}

    @property
    def counts(self) -> dict[str, int]:
        """Faces discarded as copies of their source: for summary.json."""
        return {"copies": self.copies} if self.enabled and self.max_similarity is not None else {}

    def on_denoising_start(self, state: DenoisingState) -> None:
        """Replaces the starting noise by inverted training faces.

        Raises:
            ValueError: no training face of a wanted expression (source="same").
        """
        assert self._sources is not None, "LayoutInitialisation.setup() has not run"
        sources = self._sources
        rows = self._rows = self._choose(state, sources)
        # Inverted under what it shows, not under what is wanted: the difference between both is the edit.
        names = [sources.label_space[index] for index in sources.labels(rows)]
        own = replace(state, text=state.encode_text([caption_for(name) for name in names]), au=state.null_au)
        image = as_rgb(sources.images(rows)).to(state.latents.device).float() / 127.5 - 1
        with torch.no_grad():
            clean = state.encode(resize_faces(image, state.image_size))
        state.latents = ddim_invert(own, clean, self.num_inverted, self.fixed_point_iterations)
        state.first_step = len(state.sampler.timesteps) - self.num_inverted

    def on_denoising_step(self, state: DenoisingState) -> None:
        """Leaves the steps alone."""

    def on_faces(self, faces: Faces) -> None:
        """Names the sources, and discards the faces that are copies of theirs, each for itself, whatever the batch."""
        assert self._sources is not None, "LayoutInitialisation.setup() has not run"
        faces.layout_source = self._sources.sample_ids(self._rows)
        if self.max_similarity is None:
            return
        sources = self._sources.images(self._rows).to(faces.images.device)
        copies = pixel_correlation(faces.images, sources) > self.max_similarity
        self.copies += int(copies.sum())
        faces.kept = faces.kept & ~copies

    def state_dict(self) -> dict[str, Any]:
        """Returns every rank's count; a collective."""
        return {"ranks": states_of_ranks({"copies": self.copies})} if self.counts else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on counting."""
        self.copies = int(counters(state_dict.get("ranks", []), ("copies",))["copies"])

    def _choose(self, state: DenoisingState, sources: TrainingSources) -> np.ndarray:
        request = state.request
        uniform = keyed_uniform(request.sample_ids, 1, request.seed, Stream.LAYOUT_SOURCE)[:, 0]
        wanted = request.expressions if self.source == "same" else ["any"] * len(request)
        try:
            return choose_sources(sources, wanted, uniform)
        except ValueError as error:
            raise ValueError(f"layout.source={self.source}: {error}") from None
