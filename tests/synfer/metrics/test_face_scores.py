from __future__ import annotations

import pytest
import torch

from synfer.faces.captions import ADJECTIVES, TEMPLATES, caption_for, expression_in
from synfer.metrics.face_scores import JudgeAgreement, metric_of


class SaysAsBright:
    """A judge whose probability of "sad" is a face's brightness."""

    label_space = ("sad", "happy")

    def predict_probabilities(self, image: torch.Tensor) -> torch.Tensor:
        sad = image.mean((1, 2, 3))
        return torch.stack([sad, 1 - sad], 1)


def test_agreement_is_the_probability_of_what_was_asked() -> None:
    score = JudgeAgreement(SaysAsBright())
    images = torch.tensor([0.25, 0.25, 0.75]).view(3, 1, 1, 1).expand(3, 3, 4, 4)
    agreed = score(images, [caption_for(name) for name in ("sad", "happy", "sad")])
    assert agreed.tolist() == pytest.approx([0.25, 0.75, 0.75])
    assert metric_of(score) == "test/score/agreement"


def test_every_caption_names_its_expression() -> None:
    for name, adjective in ADJECTIVES.items():
        assert {expression_in(template.format(adjective)) for template in TEMPLATES} == {name}
    for caption in ("a face", "a happy and sad face"):
        with pytest.raises(ValueError, match=r"expressions in it, expected one"):
            expression_in(caption)
