from __future__ import annotations

import torch

from synfer.synthesis.faces import Faces
from tests.fixtures.tiny_generator import request_for

WIDE = ("contempt", "sad", "happy", "neutral")
NARROW = ("happy", "neutral", "sad")


def faces() -> Faces:
    made = Faces.as_asked(request_for(["happy", "sad", "neutral"]), torch.zeros(3, 3, 4, 4, dtype=torch.uint8), WIDE)
    made.soft_label = torch.tensor([[0.5, 0.1, 0.4, 0.0], [0.0, 1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]])
    made.votes = {"voter": torch.tensor([[0.0, 0.0, 1.0, 0.0], [0.2, 0.2, 0.2, 0.4], [1.0, 0.0, 0.0, 0.0]])}
    return made


def test_labels_go_by_name_into_another_label_space() -> None:
    found = faces().in_label_space(NARROW)
    assert found.label_space == NARROW and [NARROW[k] for k in found.label] == ["happy", "sad", "neutral"]
    # The share of an expression that is not there goes to the others; where nothing else is, the wish stands.
    expected = torch.tensor([[0.8, 0.0, 0.2], [0.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
    torch.testing.assert_close(found.soft_label, expected)
    votes = torch.tensor([[1.0, 0.0, 0.0], [0.25, 0.5, 0.25], [1 / 3, 1 / 3, 1 / 3]])
    torch.testing.assert_close(found.votes["voter"], votes)


def test_faces_of_the_same_label_space_stay_as_they_are() -> None:
    made = faces()
    assert made.in_label_space(WIDE) is made
