"""The networks that score a generator's test: a judge, an extractor of features, an estimator of action units."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_modules.classifier import ExpressionClassifier
from synfer.faces.captions import caption_for
from synfer.foundation.checkpoint_file import find_checkpoint
from synfer.foundation.module_file import is_folder_of_weights
from synfer.metrics.face_scores import JudgeAgreement
from synfer.metrics.gathered_rows import GatheredRows
from synfer.networks.au_estimator import ActionUnitNetwork, read_config
from synfer.networks.feature_extractor import (
    ClassifierFeatures,
    TimmFeatures,
    backbone_fingerprint,
    check_timm_name,
    name_of_checkpoint,
)

BATCH = 64
"""Faces through a scoring network at once; a CPU is slower on more."""


def _is_trained(path: str, key: str) -> bool:
    return find_checkpoint(path, key).is_file() or is_folder_of_weights(path)


@dataclass(frozen=True)
class ScoringFiles:
    """Where the networks of a test are; checked before anything is loaded.

    Args:
        judge: checkpoint of a classifier, or a folder of its ``save_trained``.
        features: the same, or a timm name; None = the judge.
        features_weights: file of weights where ``features`` is a timm name.
        au_estimator: folder of an ``ActionUnitNetwork``; None = action units are not scored.

    Raises:
        FileNotFoundError: one of them is missing.
        ValueError: a name that timm does not know, weights without a name, or an AU estimator of unknown units.
    """

    judge: str | None = None
    features: str | None = None
    features_weights: str | None = None
    au_estimator: str | None = None

    def __post_init__(self) -> None:
        if self.judge is not None and not _is_trained(self.judge, "test.judge"):
            raise FileNotFoundError(f"test.judge '{self.judge}': no such file, expected a classifier checkpoint")
        if self.features_weights is not None:
            if self.features is None:
                raise ValueError(
                    "test.features_weights: found weights without test.features, expected a timm name there"
                )
            check_timm_name(self.features, "test.features")
            if not Path(self.features_weights).is_file():
                raise FileNotFoundError(
                    f"test.features_weights '{self.features_weights}': no such file, expected weights of "
                    f"'{self.features}'"
                )
        elif self.features is not None and not _is_trained(self.features, "test.features"):
            import timm  # seconds to import, and only for this error

            if timm.is_model(self.features):
                raise ValueError(
                    f"test.features '{self.features}': expected test.features_weights, a file of its weights"
                )
            raise FileNotFoundError(
                f"test.features '{self.features}': no such file, expected a classifier checkpoint or a timm name"
            )
        if self.au_estimator is not None:
            read_config(self.au_estimator)


class ScoringNetworks:
    """Loads the networks of a test and runs them on faces, in float32 whatever the trainer's precision.

    Args:
        files: where they are.
        names: expressions of the test, which the judge must know.
        callbacks: the trainer's; a guide among them must not be judge or extractor, whatever its head
            (METHOD: guide ≠ judge).
        device: where they run.
        taught_by: fingerprints of networks that the generator learned by, which count as guides.

    Attributes:
        judge: says which expression a face shows.
        extractor: gives the features that distances are measured in.
        estimator: sees action units; None = there is none.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: no judge, one that lacks an expression, a judge or extractor that is the guide, or weights that do
            not fit.
    """

    def __init__(
        self,
        files: ScoringFiles,
        names: Sequence[str],
        callbacks: Sequence[Any],
        device: torch.device,
        taught_by: Sequence[str] = (),
    ) -> None:
        self.device = device
        self._scoring: list[tuple[str | None, str, str]] = []  # fingerprint, setting, role
        self._guides = [c for c in callbacks if hasattr(c, "guide_fingerprint")]
        self.judge = self._load_judge(files, names)
        self.extractor = self._load_extractor(files)
        self.refuse_teachers(taught_by)
        self.estimator = None if files.au_estimator is None else ActionUnitNetwork.load(files.au_estimator).to(device)

    def _load_judge(self, files: ScoringFiles, names: Sequence[str]) -> ExpressionClassifier:
        if files.judge is None:
            raise ValueError("test.judge: found none, expected the checkpoint of a classifier that scores the test")
        path = find_checkpoint(files.judge, "test.judge")
        judge = ExpressionClassifier.load_trained(path, self.device)
        unknown = [name for name in names if name not in judge.label_space]
        if unknown:
            raise ValueError(
                f"test.judge '{path}' does not know '{unknown[0]}': found {', '.join(judge.label_space)}, "
                f"expected all expressions of the test ({', '.join(names)})"
            )
        self._refuse_the_guide(judge, f"test.judge '{path}'", "judge")
        return judge

    def _load_extractor(self, files: ScoringFiles) -> ClassifierFeatures | TimmFeatures:
        if files.features is None:
            return ClassifierFeatures(self.judge, name_of_checkpoint(find_checkpoint(str(files.judge), "test.judge")))
        if files.features_weights is not None:
            network = TimmFeatures(files.features, files.features_weights).to(self.device)
            self._refuse_the_guide(network, f"test.features_weights '{files.features_weights}'", "feature extractor")
            return network
        path = find_checkpoint(files.features, "test.features")
        classifier = ExpressionClassifier.load_trained(path, self.device)
        self._refuse_the_guide(classifier, f"test.features '{path}'", "feature extractor")
        return ClassifierFeatures(classifier, name_of_checkpoint(path))

    def _refuse_the_guide(self, network: ExpressionClassifier | TimmFeatures, where: str, role: str) -> None:
        own = backbone_fingerprint(network)
        for callback in self._guides:
            if callback.guide_fingerprint() is None:  # disabled
                continue
            if own is not None and own == backbone_fingerprint(callback.guide):
                raise ValueError(
                    f"{where} is the guide's own network: a {role} must be independent of it, expected the checkpoint "
                    "of another classifier"
                )
        self._scoring.append((own, where, role))

    def refuse_teachers(self, taught_by: Sequence[str]) -> None:
        """Refuses a judge or an extractor that the generator learned by.

        Args:
            taught_by: fingerprints, of weights that may have been loaded after this was made.

        Raises:
            ValueError: names the setting.
        """
        for own, where, role in self._scoring:
            if own in taught_by:
                raise ValueError(
                    f"{where} is the network that the generator learned by (its model.guide or "
                    f"model.alignment.features): a {role} must be independent of it"
                )

    @property
    def au_names(self) -> tuple[str, ...]:
        """The action units that the estimator sees; empty without one."""
        return () if self.estimator is None else tuple(self.estimator.au_names)

    @torch.no_grad()
    def score(self, image: Tensor) -> dict[str, Tensor]:
        """Returns "features", "probabilities" and, with an estimator, "au_seen" of images in [0, 1], (b, 3, H, W)."""
        # A bf16 trainer would otherwise score real faces in bf16 and generated ones, outside its context, in float32.
        with torch.autocast(self.device.type, enabled=False):
            image = image.to(self.device).float()
            if isinstance(self.extractor, ClassifierFeatures) and self.extractor.classifier is self.judge:
                features, logits = self.extractor.features_and_logits(image)
                probabilities = logits.float().softmax(1)
                if self.judge.flip_tta:
                    mirrored = self.judge.predict_probabilities(image.flip(-1), flip=False)
                    probabilities = (probabilities + mirrored) / 2
            else:
                features, probabilities = self.extractor(image), self.judge.predict_probabilities(image)
            scores = {"features": features, "probabilities": probabilities}
            if self.estimator is not None:
                scores["au_seen"] = self.estimator(image)
        return scores

    def no_rows(self, side: int, scores: Sequence[str] = ()) -> GatheredRows:
        """Returns a place for rows of what :meth:`score` gives, "label", "au_truth" and further scores.

        Args:
            side: of the images in pixels.
            scores: names of columns with one number per face.
        """
        with torch.inference_mode(False), torch.no_grad():
            columns = self.score(torch.zeros(1, 3, side, side))
        columns["label"] = torch.empty(0, dtype=torch.int64)
        if self.estimator is not None:
            columns["au_truth"] = torch.empty(0, len(self.au_names))
        return GatheredRows({**columns, **{name: torch.empty(0) for name in scores}}).to(self.device)

    @torch.no_grad()
    def features(self, image: Tensor) -> Tensor:
        """Returns features (b, D) of images in [0, 1], (b, 3, H, W)."""
        with torch.autocast(self.device.type, enabled=False):
            return self.extractor(image.to(self.device).float())

    @torch.no_grad()
    def agreement(self, images: Tensor, name: str) -> list[float]:
        """Returns the judge's probability of an expression in uint8 faces (n, 3, H, W)."""
        with torch.autocast(self.device.type, enabled=False):
            return JudgeAgreement(self.judge)(as_float(images, self.device), [caption_for(name)] * len(images)).tolist()


def as_float(images: Tensor, device: torch.device) -> Tensor:
    """Returns uint8 images as float in [0, 1] on a device."""
    return images.to(device).float() / 255
