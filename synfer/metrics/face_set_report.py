"""What a set of generated faces is worth beside real ones, in numbers: recognised, near, varied, copied."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from synfer.faces.expressions import map_label_space
from synfer.metrics.action_unit_scores import action_unit_scores
from synfer.metrics.frechet_distance import frechet_distance, weighted_moments
from synfer.metrics.kid import kid_over_subsets
from synfer.metrics.precision_recall import improved_precision_recall

NEIGHBOURS = 3
"""k of improved precision and recall, as in their paper."""

Rows = dict[str, Tensor]
"""Columns of faces: "label" int64 (n,), "probabilities" (n, K of the judge), "features" (n, D), "au_seen" and
"au_truth" (n, A)."""


@dataclass(frozen=True)
class ComparedFaces:
    """Generated and real faces of the expressions that both have.

    Attributes:
        generated: rows of the generated faces.
        real: rows of the real faces.
        weights: float64, one for each real face: share of its class among the generated faces.
    """

    generated: Rows
    real: Rows
    weights: Tensor

    @property
    def effective_real_faces(self) -> float:
        """(Σw)² / Σw²: how many equally weighted faces estimate a mean as well."""
        return float(self.weights.sum().square() / self.weights.square().sum())


@dataclass(frozen=True)
class FaceSetReport:
    """Metrics of generated faces against real ones, all over the expressions of a test.

    * ``test/fer_accuracy`` and ``test/fer_recall/<name>``: in which share of faces the judge sees what was asked;
      ``test/judge_on_real_…``: the same judge on real faces, the ceiling.
    * ``test/frechet/<extractor>``, ``test/kid/<extractor>`` with ``test/kid_std/…``, ``test/improved_precision/…`` and
      ``test/improved_recall/…``: distance to the real faces in the features of the named extractor.
    * ``test/nearest_training/…``: distance of each face to the nearest training face (``generated``), the same of real
      test faces (``held_out``), their ``ratio`` (well under 1 = copies, but features can overlook them: see near
      copies) and the share of generated faces that are
      nearer to a training face than the nearest hundredth of real test faces (``closer_than_1_percent``; 0.01 is what
      real faces have). Means; distances are Euclidean. A copy of a training face that is not searched goes unseen.
    * ``test/source_similarity``: median correlation of the faces from a layout with their source;
      ``test/expression_gain``: accuracy on these faces minus that of the same wishes on their sources.
    * ``test/au_f1/<AU>`` and ``test/au_f1_mean``: F1 of the action units that were asked for, as an estimator sees
      them; ``test/au_f1_on_real…``: the same on real faces where the data knows them.

    Class shares: generated faces hold the asked expressions alike, real test faces do not. Real faces of other
    expressions are left out and the rest get importance weights (share of the class among generated faces ÷ number of
    real faces of the class) in the Fréchet moments, in the recall and in the nearest-neighbour figures; KID averages
    pairs within classes. Balancing by leaving faces out would keep only seven times the rarest class. The weights cost
    precision: ``test/effective_real_faces`` is (Σw)² / Σw², the number of equally weighted faces that estimate a mean
    as well. Precision takes the real faces as they are.

    Statistics are in float64. What cannot be estimated from so few faces is NaN.

    Args:
        names: expressions of the test.
        label_space: what the labels of the rows mean.
        judge_space: what the columns of "probabilities" mean.
        extractor: name of what gave "features", part of the metrics' names.
        seed: of the draws in KID.
        au_names: what the columns of "au_seen" and "au_truth" mean; empty = no such columns.
        au_present_above: intensity in [0, 1) above which an action unit counts as present.
    """

    names: Sequence[str]
    label_space: Sequence[str]
    judge_space: Sequence[str]
    extractor: str
    seed: int
    au_names: Sequence[str] = ()
    au_present_above: float = 0.5

    def recalls(self, prefix: str, rows: Rows) -> dict[str, float]:
        """Returns recall per expression and their mean ("accuracy": macro) over the expressions that occur."""
        seen, recalls = self.seen(rows["probabilities"]), {}
        for name in self.names:
            mine = rows["label"] == self.label_space.index(name)
            if mine.any():
                recalls[name] = float((seen[mine] == rows["label"][mine]).cpu().double().mean())
        macro = sum(recalls.values()) / max(1, len(recalls))
        return {f"{prefix}_accuracy": macro, **{f"{prefix}_recall/{name}": value for name, value in recalls.items()}}

    def seen(self, probabilities: Tensor) -> Tensor:
        """Returns the label (n,) that the judge sees in each face; −1 = none of the generator's."""
        # By name: the judge may know other expressions, in another order.
        own = torch.from_numpy(map_label_space(self.label_space, self.judge_space)).to(probabilities.device)
        return own[probabilities.argmax(1)]

    def action_units(self, prefix: str, rows: Rows) -> dict[str, float]:
        """Returns F1 per action unit and their mean; nothing without an estimator."""
        if not self.au_names:
            return {}
        scores = action_unit_scores(rows["au_seen"], rows["au_truth"], self.au_names, self.au_present_above)
        return {f"{prefix}_mean" if name == "mean" else f"{prefix}/{name}": value for name, value in scores.items()}

    def compared(self, fake: Rows, real: Rows) -> ComparedFaces:
        """Returns generated and real rows of the expressions that both have, and the weights of the real rows."""
        found = fake["label"].device
        device = torch.device("cpu") if found.type == "mps" else found  # MPS knows no float64
        rows = []
        for own, other in ((fake, real), (real, fake)):
            shared = torch.isin(own["label"], other["label"])
            rows.append({name: values[shared].to(device) for name, values in own.items()})
        wanted, counts = (torch.bincount(r["label"], minlength=len(self.label_space)) for r in rows)
        weights = (wanted.double() / counts.clamp_min(1))[rows[1]["label"]]
        return ComparedFaces(rows[0], rows[1], weights)

    def distances(self, faces: ComparedFaces) -> dict[str, float]:
        """Returns Fréchet distance, KID, precision and recall."""
        generated, references, weights = faces.generated["features"], faces.real["features"], faces.weights
        kid, kid_std = kid_over_subsets(generated, references, faces.generated["label"], faces.real["label"], self.seed)
        precision, recall = improved_precision_recall(generated, references, NEIGHBOURS, weights)
        frechet = frechet_distance(weighted_moments(references, weights), weighted_moments(generated))
        return {
            f"test/frechet/{self.extractor}": frechet,
            f"test/kid/{self.extractor}": kid,
            f"test/kid_std/{self.extractor}": kid_std,
            f"test/improved_precision/{self.extractor}": precision,
            f"test/improved_recall/{self.extractor}": recall,
            "test/real_faces": float(len(references)),
            "test/effective_real_faces": faces.effective_real_faces,
        }

    def nearest(self, generated: Tensor, held_out: Tensor, weights: Tensor) -> dict[str, float]:
        """Returns how near faces are to training faces.

        Args:
            generated: distance of each generated face to its nearest training face, float64 (n,).
            held_out: that of each real face, (m,).
            weights: of the real faces, (m,).
        """
        share = weights / weights.sum()
        typical = (held_out * share).sum()
        order = held_out.argsort()
        # The smallest distance that at least a hundredth of the weight lies at or below.
        threshold = held_out[order][(share[order].cumsum(0) >= 0.01).nonzero()[0, 0]]
        key = "test/nearest_training/{}/" + self.extractor
        return {
            key.format("generated"): float(generated.mean()),
            key.format("held_out"): float(typical),
            key.format("ratio"): float(generated.mean() / typical),
            key.format("closer_than_1_percent"): float((generated < threshold).double().mean()),
        }

    def against_sources(self, similarity: Tensor, made: Rows, sources: Rows) -> dict[str, float]:
        """Compares faces from a layout with the faces that it was taken from.

        Args:
            similarity: correlation of each face with its source, (n,).
            made: "label" and "probabilities" of the faces.
            sources: the same wishes, and what the judge sees in the sources.
        """
        accuracy = [self.recalls("of", rows)["of_accuracy"] for rows in (made, sources)]
        return {
            "test/source_similarity": float(similarity.median()),
            "test/expression_gain": accuracy[0] - accuracy[1],
        }
