from __future__ import annotations

import pytest
import torch

from synfer.metrics.face_set_report import FaceSetReport

REPORT = FaceSetReport(["happy", "sad"], ["neutral", "happy", "sad"], ["sad", "anger", "happy"], "net", seed=0)


def test_the_judge_speaks_by_name() -> None:
    rows = {"label": torch.tensor([1, 1, 2, 2]), "probabilities": torch.eye(3)[[2, 1, 0, 0]]}
    assert REPORT.seen(rows["probabilities"]).tolist() == [1, -1, 2, 2]
    assert REPORT.recalls("test/fer", rows) == {
        "test/fer_accuracy": 0.75,
        "test/fer_recall/happy": 0.5,
        "test/fer_recall/sad": 1.0,
    }


def test_real_faces_are_weighted_to_the_classes_of_the_generated_ones() -> None:
    fake = {"label": torch.tensor([0, 1, 1, 2]), "features": torch.rand(4, 2)}
    real = {"label": torch.tensor([1, 1, 1, 1, 2]), "features": torch.rand(5, 2)}
    faces = REPORT.compared(fake, real)
    assert faces.generated["label"].tolist() == [1, 1, 2]  # no real face is neutral
    assert faces.weights.tolist() == [0.5, 0.5, 0.5, 0.5, 1.0]
    assert faces.effective_real_faces == pytest.approx(9 / 2)


def test_the_nearest_hundredth_of_real_faces_is_the_threshold_for_copies() -> None:
    held_out = torch.arange(1, 201).double()  # a hundredth of the weight lies at or below 2
    generated = torch.tensor([0.0, 1.5, 2.0, 200.5]).double()
    found = REPORT.nearest(generated, held_out, torch.ones(200).double())
    assert found["test/nearest_training/closer_than_1_percent/net"] == 0.5
    assert found["test/nearest_training/held_out/net"] == pytest.approx(100.5)
    assert found["test/nearest_training/ratio/net"] == pytest.approx(51 / 100.5)


def test_faces_are_compared_with_their_sources() -> None:
    label = torch.tensor([1, 2])
    made = {"label": label, "probabilities": torch.eye(3)[[2, 0]]}
    sources = {"label": label, "probabilities": torch.eye(3)[[2, 2]]}
    found = REPORT.against_sources(torch.tensor([0.25, 0.75, 0.5]), made, sources)
    assert found == {"test/source_similarity": 0.5, "test/expression_gain": 0.5}
