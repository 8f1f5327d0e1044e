"""When the temperatures of a guide are fitted, on which faces, and where they are kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from datamodules.rows.folds import hash_numbers
from datamodules.rows.grey_or_colour import as_rgb
from datamodules.rows.row_choice import even_order
from datamodules.rows.sample_table import SampleTable
from datamodules.rows.source_faces import evaluation_tables, rows_fingerprint
from lightning_modules.trainer_access import data_of
from synfer.labels.voters import Guide
from synfer.synthesis.diffusion.denoising_state import DenoisingState
from synfer.synthesis.diffusion.guide_calibration import calibrated_levels
from synfer.synthesis.diffusion.temperature_table import TemperatureTable, read_temperatures

MOST_FACES = 512
"""Training faces that the temperatures are fitted on: one number per noise level needs no more."""

_KEY = "guidance.calibration"
_AT_ONCE = 64


@dataclass(frozen=True)
class CalibrationFaces:
    """Training faces whose expression the guide knows.

    Attributes:
        table: the rows.
        label: int64 (n,), among the guide's classes.
        seen: how many of them the guide has learned from; None = not known.
    """

    table: SampleTable
    label: np.ndarray
    seen: int | None

    def images(self) -> Tensor:
        """Returns uint8 (n, 3, H, W)."""
        return as_rgb(self.table.images.batch(np.arange(len(self.table))))

    def fingerprint(self) -> str:
        """Returns 16 hex digits over pixels and labels."""
        return rows_fingerprint(self.table.content_hash, self.label)


def calibration_faces(
    datamodule: Any, label_space: tuple[str, ...], learned_from: np.ndarray | None, most: int = MOST_FACES
) -> CalibrationFaces:
    """Returns training rows in use, the classes in their own shares, none of which repeats an evaluation image (C8).

    Args:
        datamodule: the run's; splits that have not been read are read.
        label_space: the guide's classes; rows of others are left out.
        learned_from: content hashes of the rows that the guide has learned from, int64; None = not known.
        most: rows at most.

    Raises:
        ValueError: no such row.
    """
    train: SampleTable = datamodule.training_table()
    code = np.array([label_space.index(name) if name in label_space else -1 for name in (*train.label_space, "")])
    known = code[train.label] >= 0  # an unlabelled row takes the last entry
    for table in evaluation_tables(datamodule):
        known &= ~np.isin(train.content_hash, table.content_hash)
    order = even_order(train.label, train.sample_id, seed=0)
    rows = order[known[order]][:most]
    if not len(rows):
        raise ValueError(
            f"{_KEY}: found no training face among {len(train)} whose expression is known to the guide "
            f"{list(label_space)} and that is no evaluation image, expected some to fit it on"
        )
    chosen = train.select(rows)
    seen = None if learned_from is None else int(np.isin(hash_numbers(chosen.content_hash), learned_from).sum())
    return CalibrationFaces(chosen, code[chosen.label], seen)


class GuideTemperature:
    """The temperatures of a guide: read from a file, or fitted on training faces and written there.

    They are fitted before the first face of a run is made, by each rank for itself, on the same faces with the same
    noise; rank 0 writes.

    Args:
        path: of the file; its folder is made.

    Raises:
        FileError: another file is there.
        ValueError: a folder is there.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if self.path.is_dir():
            raise ValueError(f"{_KEY} '{self.path}': found a folder, expected a .json file, or nothing yet")
        self._table: TemperatureTable | None = read_temperatures(self.path) if self.path.exists() else None
        self._faces: CalibrationFaces | None = None
        self._data: Any = None
        self._writes = True
        self._learned_from: np.ndarray | None = None
        self._generator: Callable[[], str] | None = None
        self._fits = ""  # the generator that the table has been compared with

    def setup(
        self,
        trainer: Trainer,
        guide: Guide,
        learned_from: np.ndarray | None = None,
        generator: Callable[[], str] | None = None,
    ) -> None:
        """Remembers where training faces are, and compares the file with the guide.

        Args:
            trainer: of the run.
            guide: the guide.
            learned_from: content hashes of the rows that it has learned from, int64; None = not known.
            generator: returns the fingerprint of the diffusion model once its weights are there; None = it is told by
                the first request.

        Raises:
            ValueError: the file is of another guide, or there is neither a file nor a data module with training rows.
        """
        self._data, self._writes, self._learned_from = data_of(trainer), trainer.is_global_zero, learned_from
        self._faces, self._fits, self._generator = None, "", generator
        self._look()
        if self._table is None and not hasattr(self._data, "training_table"):
            self._refuse_nothing()
        if self._table is not None:
            self._check("guide", self._table.guide, guide.weights_fingerprint())

    def recipe(self, guide: Guide) -> str:
        """Returns what decides the temperatures, beside guide and generator: the faces that they are fitted on.

        Raises:
            ValueError: the file is of another generator.
        """
        self._look()
        if self._table is not None and self._generator is not None:  # before a set is begun with it
            self._check("generator", self._table.generator, self._generator())
        return self._own_faces(guide).fingerprint() if self._table is None else self._table.rows

    def prepare(self, state: DenoisingState, guide: Guide, look: Callable[[Tensor], Tensor], on_latents: bool) -> None:
        """Sees to it that there are temperatures for this guide on the faces of this generator.

        Args:
            state: of the first request, or a later one.
            guide: the guide.
            look: what it says of images in [0, 1], or latents, as logits.
            on_latents: which of them.

        Raises:
            ValueError: the file is of another guide or generator.
        """
        if self._fits:
            return
        self._look()
        generator = state.network_fingerprint()
        if self._table is None:
            self._table = self._fit(state, guide, look, on_latents, generator)
        self._check("guide", self._table.guide, guide.weights_fingerprint())
        self._check("generator", self._table.generator, generator)
        self._fits = generator

    def at(self, state: DenoisingState) -> float:
        """Returns the temperature at the current step."""
        assert self._table is not None, "GuideTemperature.prepare() has not run"
        return self._table.temperature(float(state.sampler.noise_levels(state.step)[0][1]))

    def _look(self) -> None:
        """Reads the file where another run or rank has written it by now."""
        if self._table is None and self.path.exists():
            self._table = read_temperatures(self.path)

    def _own_faces(self, guide: Guide) -> CalibrationFaces:
        if self._data is None:
            self._refuse_nothing()
        if self._faces is None:
            self._faces = calibration_faces(self._data, guide.label_space, self._learned_from)
        return self._faces

    def _fit(
        self, state: DenoisingState, guide: Guide, look: Callable[[Tensor], Tensor], on_latents: bool, generator: str
    ) -> TemperatureTable:
        faces = self._own_faces(guide)
        rank_zero_info(f"{_KEY}: fitting the guide's temperatures on {len(faces.label)} training faces")
        label = torch.from_numpy(faces.label)
        levels = calibrated_levels(state, look, faces.images(), label, on_latents, min(_AT_ONCE, len(state.request)))
        table = TemperatureTable(guide.weights_fingerprint(), generator, faces.fingerprint(), len(faces.label), levels)
        if self._writes:
            table.write(self.path)
        low, high = levels[0], levels[-1]
        learned = "" if not faces.seen else f"; {faces.seen} of the faces are among those that it has learned from"
        rank_zero_info(
            f"{_KEY} '{self.path}': temperature {low.temperature:g} at noise {low.noise:.2f} to {high.temperature:g} "
            f"at {high.noise:.2f}{learned}"
        )
        return table

    def _check(self, whose: str, found: str, expected: str) -> None:
        if found != expected:
            raise ValueError(
                f"{_KEY} '{self.path}': found the temperatures of another {whose} ({found}), expected {expected} "
                "(without a file there, this run fits its own)"
            )

    def _refuse_nothing(self) -> None:
        raise ValueError(
            f"{_KEY} '{self.path}': found no such file and no training faces to fit it on, expected the file of a run"
        )
