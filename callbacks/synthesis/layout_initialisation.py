"""Sampling that starts from the inverted layout of a real training face."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

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
from synfer.synthesis.diffusion.layout_cache import LayoutCache, layout_identity, layout_keys
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
        cache_dir: folder in which inverted faces are kept, for all ranks and runs: what they depend on is in their
            names. A face that begins at one differs by the rounding to float16. null = inverted each time.
        cache_bytes: bound on that folder; caches that nobody uses are deleted first, then no more is kept.
        cache_ahead: invert all training faces before the first synthesis, each rank its share, in place of each at its
            first use.

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
        cache_dir: str | None = None,
        cache_bytes: int = 2 * 10**9,
        cache_ahead: bool = False,
    ) -> None:
        super().__init__(enabled)
        if num_inverted < 1:
            raise ValueError(f"layout.num_inverted: found {num_inverted}, expected at least 1")
        if fixed_point_iterations < 0:
            raise ValueError(f"layout.fixed_point_iterations: found {fixed_point_iterations}, expected at least 0")
        if max_similarity is not None and not 0 < max_similarity <= 1:
            raise ValueError(f"layout.max_similarity: found {max_similarity}, expected a correlation in (0, 1] or null")
        if cache_bytes < 1:
            raise ValueError(f"layout.cache_bytes: found {cache_bytes}, expected at least 1")
        if cache_ahead and cache_dir is None:
            raise ValueError("layout.cache_ahead=true: found no layout.cache_dir, expected a folder")
        self.num_inverted = num_inverted
        self.fixed_point_iterations = fixed_point_iterations
        self.source = source
        self.max_similarity = max_similarity
        self.copies = 0
        self.cache = None if cache_dir is None else LayoutCache(cache_dir, cache_bytes)
        self.cache_ahead = cache_ahead
        self._share = (0, 1)  # of the faces that this rank inverts ahead: every n-th
        self._weights_stay = False
        self._network: str | None = None
        self._sources: TrainingSources | None = None
        self._rows = np.empty(0, dtype=np.int64)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Takes the training rows and checks that none of them is an evaluation image.

        Raises:
            ValueError: a training row has the pixels of a validation or test row.
        """
        if not self.enabled:
            return
        if self._sources is None:
            self._sources = training_sources(trainer.datamodule, _PURPOSE)  # type: ignore[attr-defined]
        if self.cache is not None:
            self._share = (trainer.global_rank, trainer.world_size)
            # Naming a large network takes seconds: once is enough, unless it is the one that learns.
            self._weights_stay = stage != "fit" or not hasattr(pl_module, "synthesiser")
            self._network = None

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Writes the layouts that are still in memory."""
        if self.cache is not None:
            self.cache.close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Writes the layouts that are still in memory."""
        if self.cache is not None:
            self.cache.flush()

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
        if self.cache is None:
            state.latents = self._inverted(state, sources, rows)
        else:
            if self.cache_ahead and not self.cache.filled_ahead:
                self._fill_ahead(state, sources, self.cache)
            state.latents = self._kept(state, sources, rows, self.cache)
        state.first_step = len(state.sampler.timesteps) - self.num_inverted

    @torch.no_grad()
    def _inverted(self, state: DenoisingState, sources: TrainingSources, rows: np.ndarray) -> Tensor:
        """Returns the latents at which faces of these rows begin, (n, C, h, w)."""
        # Inverted under what it shows, not under what is wanted: the difference between both is the edit.
        text = state.encode_text(_captions(sources, rows))
        own = replace(state, text=text, au=state.null_au[:1].expand(len(rows), -1, -1))
        image = as_rgb(sources.images(rows)).to(state.latents.device).float() / 127.5 - 1
        clean = state.encode(resize_faces(image, state.image_size))
        return ddim_invert(own, clean, self.num_inverted, self.fixed_point_iterations)

    def _kept(self, state: DenoisingState, sources: TrainingSources, rows: np.ndarray, cache: LayoutCache) -> Tensor:
        """Returns the same from the cache, where those are left that it did not have."""
        keys = layout_keys(sources.images(rows), _captions(sources, rows))
        return cache.layouts(
            self._identity(state), keys, state.latents, lambda new: self._inverted(state, sources, rows[new.numpy()])
        )

    def _fill_ahead(self, state: DenoisingState, sources: TrainingSources, cache: LayoutCache) -> None:
        """Inverts this rank's share of all training faces, as many at a time as are made."""
        first, ranks = self._share
        own, size = np.arange(len(sources))[first::ranks], len(state.request)
        for start in range(0, len(own), size):
            rows = own[start : start + size]
            keys = layout_keys(sources.images(rows), _captions(sources, rows))
            there = np.array(cache.holds(self._identity(state), keys, state.latents))
            if not there.all():
                self._kept(state, sources, rows[~there], cache)
        cache.flush()
        cache.filled_ahead = True

    def _identity(self, state: DenoisingState) -> dict[str, Any]:
        if self._network is None or not self._weights_stay:
            self._network = state.network_fingerprint()
        return layout_identity(state, self._network, self.num_inverted, self.fixed_point_iterations)

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


def _captions(sources: TrainingSources, rows: np.ndarray) -> list[str]:
    """Returns what these faces are inverted under: what they show."""
    return [caption_for(sources.label_space[index]) for index in sources.labels(rows)]
