"""Labelling faces with a trained classifier: whatever form they come in, seen as evaluation saw them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from datamodules.rows.face_preparation import FacePreparation, join_faces
from datamodules.rows.pictures_given import Given, take_apart
from lightning_modules.classifier import ExpressionClassifier
from synfer.faces.affect import AFFECT
from synfer.foundation.checkpoint_file import find_checkpoint
from synfer.foundation.module_file import kind_of
from synfer.foundation.validate import check_setting
from synfer.runs.run_format import CONFIG


@dataclass(frozen=True)
class FaceLabel:
    """What a classifier says of one face.

    Attributes:
        label: the most probable expression; "" of a classifier that rates valence and arousal alone.
        confidence: its probability, in [0, 1].
        probabilities: expression → probability; they sum to 1, or there are none.
        valence: how pleasant, in [-1, 1]; None = not rated.
        arousal: how activated, in [-1, 1]; None = not rated.
    """

    label: str
    confidence: float
    probabilities: dict[str, float]
    valence: float | None = None
    arousal: float | None = None


class Labeller:
    """A trained classifier, with the steps that evaluation takes before it: ``Labeller.load_trained(run).label(face)``.

    The probabilities are those of ``train.py test`` and ``predict`` on the same files.

    Args:
        classifier: in evaluation mode.
        preparation: how faces are brought to its size; None = by the classifier's own resizing alone.
        batch_size: faces that go through the network at once.
    """

    def __init__(
        self, classifier: ExpressionClassifier, preparation: FacePreparation | None = None, batch_size: int = 64
    ) -> None:
        check_setting(batch_size >= 1, "batch_size", batch_size, "at least 1", group="label")
        self.classifier = classifier
        self.prepare = preparation or FacePreparation(classifier.image_size)
        self.batch_size = batch_size

    @classmethod
    def load_trained(cls, path: str | Path, device: str | torch.device = "cpu", batch_size: int = 64) -> Labeller:
        """Loads a classifier, how its faces were aligned and, of a run folder, the sizes that they had in training.

        Args:
            path: a checkpoint, a run folder (its last checkpoint), or a folder of ``save_trained``.
            device: where the network computes.
            batch_size: faces that go through the network at once.

        Raises:
            FileNotFoundError: nothing there, or a folder without a checkpoint.
            ValueError: damaged, or a model that is no classifier.
        """
        place = find_checkpoint(path, "classifier")
        kind = kind_of(place, "classifier") if place.exists() else None
        if kind not in (None, "classifier"):
            raise ValueError(
                f"classifier '{path}': found a model of the kind '{kind}', expected one of the kind 'classifier' "
                "(lightning_modules.ExpressionClassifier)"
            )
        classifier = ExpressionClassifier.load_trained(place, device, names_expressions=False)
        preparation = FacePreparation(classifier.image_size)
        if not place.is_dir():
            preparation = FacePreparation.of_run(place.absolute().parent.parent / CONFIG, classifier.image_size)
        return cls(classifier, preparation.as_trained(classifier.face_alignment), batch_size)

    @property
    def label_space(self) -> tuple[str, ...]:
        """Names of the expressions, in the order of the probabilities."""
        return self.classifier.label_space

    @property
    def named_expressions(self) -> tuple[str, ...]:
        """Those of them that it tells apart: none where it rates valence and arousal alone."""
        return () if self.classifier.affect.alone else self.classifier.label_space

    @property
    def rates_affect(self) -> bool:
        """Whether it rates valence and arousal."""
        return self.classifier.affect.enabled

    def label(self, images: Given | Sequence[Given]) -> list[FaceLabel]:
        """Returns what the classifier says of each face, in their order.

        Args:
            images: a path, a PIL image, an array or tensor (uint8 in 0…255 or floats in [0, 1]; one picture or a batch,
                channels first or last, grey or RGB), or a list of these. Each picture is the crop of one face; for a
                classifier trained with ``data.alignment`` one that lies on its template (``prepare.face_in``).

        Raises:
            FileNotFoundError: no such file.
            ValueError: a damaged file, or numbers of another format, shape or range.
        """
        faces = [self.prepare(picture) for picture in take_apart(images)]
        probabilities, affect = self.look_at(faces)
        ratings = [None] * len(faces) if affect is None else list(affect)
        return [self.named(row, rating) for row, rating in zip(probabilities, ratings, strict=True)]

    def probabilities(self, faces: Sequence[Tensor]) -> Tensor:
        """Returns probabilities float32 (N, K), on the CPU, of N faces as ``prepare`` gives them."""
        return self.look_at(faces)[0]

    @torch.inference_mode()
    def look_at(self, faces: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
        """Returns probabilities float32 (N, K), and valence and arousal float32 (N, 2) or None, on the CPU."""
        found, rated = [torch.empty(0, len(self.label_space))], [torch.empty(0, len(AFFECT))]
        for start in range(0, len(faces), self.batch_size):
            batch = join_faces(faces[start : start + self.batch_size], self.classifier.device)
            probabilities, affect = self.classifier.probabilities_and_affect(batch)
            found.append(probabilities.float().cpu())
            if affect is not None:
                rated.append(affect.float().cpu())
        return torch.cat(found), torch.cat(rated) if self.rates_affect else None

    def named(self, probabilities: Tensor, affect: Tensor | None = None) -> FaceLabel:
        """Returns one row of probabilities (K,), and of valence and arousal (2,) where they are rated, by name."""
        valence, arousal = (None, None) if affect is None else (float(affect[0]), float(affect[1]))
        if not self.named_expressions:
            return FaceLabel("", 0.0, {}, valence, arousal)
        values = [float(value) for value in probabilities]
        best = max(range(len(values)), key=values.__getitem__)
        return FaceLabel(
            self.label_space[best], values[best], dict(zip(self.label_space, values, strict=True)), valence, arousal
        )
