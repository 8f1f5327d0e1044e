"""The figures of stored faces, those of a generator's test: recognised, near, varied, copied."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from callbacks.copies_of_training import near_copies, nearest_training
from callbacks.scoring_networks import BATCH, ScoringFiles, ScoringNetworks, as_float
from datamodules.expression_data_module import ExpressionDataModule
from datamodules.rows.reference_faces import ReferenceFaces, real_test_faces, some_training_faces
from datamodules.rows.sample_table import SampleTable
from datamodules.synthetic.synthetic_shards import TAUGHT_BY
from experiments.score.stored_faces import StoredFaces, stored_faces
from synfer.faces.action_units import action_unit_indices
from synfer.faces.expressions import EXPRESSIONS, map_label_space
from synfer.metrics.face_set_report import FaceSetReport, Rows

_PREFIX = "test/"


class SetScore:
    """Scores stored faces against the real faces of a data module's test split.

    The figures are those of :class:`synfer.metrics.face_set_report.FaceSetReport` and of the generator's test
    (:class:`callbacks.generator_test.GeneratorTest`), without "test/" before their names.

    Args:
        data: its test split is what the faces are compared with, its training split where copies are searched.
        files: judge, extractor, estimator of action units.
        faces: of a set with more, so many are drawn.
        nearest: training faces to search in features; None = all, 0 = none.
        seed: of the draws.
        device: where the networks run.

    Raises:
        FileNotFoundError, KeyError, ValueError: data, a set or a network that cannot be used.
    """

    def __init__(
        self,
        data: ExpressionDataModule,
        files: ScoringFiles,
        faces: int,
        nearest: int | None,
        seed: int,
        device: str,
    ) -> None:
        self._data, self._files, self._faces, self._nearest, self._seed = data, files, faces, nearest, seed
        self._device = torch.device(device)
        data.setup("test")
        assert data.test_table is not None
        found = data.test_table.images.batch(np.zeros(1, dtype=np.int64)).shape[-2:]
        self._side = data.image_size or int(min(found))
        self._training: ReferenceFaces | None = None
        self._sides: dict[tuple[tuple[str, ...], ...], _RealSide] = {}

    @torch.no_grad()
    def of(self, path: str) -> dict[str, Any]:
        """Returns name → figure of one set, with "faces" (in the set), "scored" and "expressions".

        Args:
            path: as :func:`experiments.score.stored_faces.stored_faces` takes it.
        """
        made = stored_faces(path, self._side, self._faces, self._seed)
        space, known = made.table.label_space, self._data.label_space
        asked = [name for name in EXPRESSIONS if made.table.class_counts().get(name) and name in known]
        if not asked:
            raise ValueError(
                f"'{path}': found faces of {', '.join(space)}, expected an expression of the data ({', '.join(known)})"
            )
        side = self._real_side(tuple(asked), tuple(space))
        networks, report, real = side.networks, side.report, side.rows
        _refuse_the_guide(networks, made, path)
        images = made.images(self._side)
        codes = map_label_space(report.label_space, space)
        fake = self._rows(networks, made.table, lambda some: images[some], codes)
        found = report.recalls(f"{_PREFIX}judge", fake) | report.recalls(f"{_PREFIX}judge_on_real", real)
        found |= report.action_units(f"{_PREFIX}au_f1", fake)
        compared = report.compared(fake, real)
        found |= report.distances(compared)
        if self._nearest != 0:
            if self._training is None:
                self._training = some_training_faces(self._data, self._nearest, self._seed, self._side)
            distance, _ = nearest_training(compared, self._training, networks, 0, 1)
            count = len(compared.generated["label"])
            found |= report.nearest(distance[:count], distance[count:], compared.weights)
        found |= near_copies(self._data, {"images": images, "layout_source": made.source}, self._device)
        counts = {"faces": made.faces, "scored": len(made.table), "expressions": asked}
        return counts | {name.removeprefix(_PREFIX): value for name, value in found.items()}

    def _real_side(self, asked: tuple[str, ...], space: tuple[str, ...]) -> _RealSide:
        """Returns networks, report and real rows for sets of these expressions; one after the other shares them."""
        if (asked, space) not in self._sides:
            networks = ScoringNetworks(self._files, asked, [], self._device)
            known = tuple(self._data.label_space)
            names = (*known, *(name for name in space if name not in known))
            extractor, au_names = networks.extractor.name, networks.au_names
            report = FaceSetReport(asked, names, networks.judge.label_space, extractor, self._seed, au_names)
            faces = real_test_faces(self._data, asked, self._side)
            rows = self._rows(networks, faces.table, faces.images, map_label_space(names, known))
            self._sides[asked, space] = _RealSide(networks, report, rows)
        return self._sides[asked, space]

    def _rows(
        self, networks: ScoringNetworks, table: SampleTable, images: Callable[[Tensor], Tensor], codes: np.ndarray
    ) -> Rows:
        """Returns what the networks see in faces, their labels by the report's names.

        Args:
            networks: judge, extractor and estimator.
            table: rows of the faces.
            images: gives uint8 (n, 3, H, W) of row numbers.
            codes: the report's code of each name of the table, int64.
        """
        rows = networks.no_rows(self._side)
        columns = list(action_unit_indices(networks.au_names, table.au_names)) if networks.au_names else []
        for some in torch.arange(len(table)).split(BATCH):
            seen = networks.score(as_float(images(some), self._device))
            if columns:
                seen["au_truth"] = _action_units(table, some, columns)
            rows.update(some, **seen, label=torch.from_numpy(codes[table.label[some.numpy()]]))
        return rows.compute()


@dataclass(frozen=True)
class _RealSide:
    """What sets of the same expressions are compared with.

    Attributes:
        networks: judge, extractor and estimator.
        report: makes figures of rows.
        rows: what the networks see in the real faces.
    """

    networks: ScoringNetworks
    report: FaceSetReport
    rows: Rows


def _action_units(table: SampleTable, rows: Tensor, columns: Sequence[int]) -> Tensor:
    """Returns what is known of the action units of rows, float32 (n, A); NaN = unknown."""
    if table.au is None:
        return torch.full((len(rows), len(columns)), torch.nan)
    return torch.from_numpy(table.au[rows.numpy()][:, list(columns)]).float()


def _refuse_the_guide(networks: ScoringNetworks, made: StoredFaces, path: str) -> None:
    """Refuses a judge that guided faces of the set or taught their maker, and warns of one that voted on them.

    Raises:
        ValueError: the judge is a guide; judge or extractor taught a maker.
    """
    own = networks.judge.weights_fingerprint()
    for record in made.made_with:
        if own in ((record.get("SemanticGuidance") or {}).get("guide"), record.get("guide")):
            raise ValueError(
                f"--judge: found the guide of '{path}', expected a classifier that had no part in making the faces"
            )
        networks.refuse_teachers(record.get(TAUGHT_BY) or ())
    if any(own in ((record.get("PseudoLabeller") or {}).get("voters") or ()) for record in made.made_with):
        rank_zero_warn(f"--judge voted on the faces of '{path}': it sees in them what it let pass")
