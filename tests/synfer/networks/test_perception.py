from __future__ import annotations

from typing import Any

import pytest
import torch

from lightning_modules.classifier import ExpressionClassifier
from synfer.networks.perception import ExpressionPerception
from tests.fixtures.tiny_generator import tiny_classifier

RESNET: dict[str, Any] = {
    "backbone": "resnet10t",
    "backbone_kwargs": {"stem_width": 4, "channels": [4, 4, 8, 8]},
    "image_size": 32,
}


def resnet(**changes: Any) -> ExpressionClassifier:
    return tiny_classifier(("happy", "sad", "neutral"), **{**RESNET, **changes}).requires_grad_(False)


@pytest.mark.parametrize("in_channels", [1, 3])
@pytest.mark.parametrize("channels", [1, 3])
def test_logits_are_the_classifier_s_own_by_name(in_channels: int, channels: int) -> None:
    classifier = resnet(in_channels=in_channels)
    face = torch.rand(5, channels, 32, 32) * 2 - 1
    logits, maps = ExpressionPerception(classifier, ("neutral", "happy"))(face)
    expected = classifier((face / 2 + 0.5).expand(-1, 3, -1, -1))
    torch.testing.assert_close(logits, expected[:, [2, 0]])
    sides = [stage.shape[-1] for stage in maps]
    assert len(maps) >= 3 and sides == sorted(sides, reverse=True) and all(len(stage) == 5 for stage in maps)


def test_what_is_seen_can_be_differentiated_in_the_face_alone() -> None:
    classifier = resnet()
    face = (torch.rand(2, 1, 24, 24) * 2 - 1).requires_grad_()  # of another size than the classifier's
    logits, maps = ExpressionPerception(classifier, ("sad", "happy"))(face)
    (logits.sum() + sum(stage.sum() for stage in maps)).backward()
    assert face.grad is not None and face.grad.abs().amax() > 0
    assert all(parameter.grad is None for parameter in classifier.parameters())


def test_classifiers_that_cannot_look_on() -> None:
    with pytest.raises(ValueError, match=r"model.guide: found a classifier of happy, sad, neutral, .* knows 'fear'"):
        ExpressionPerception(resnet(), ("happy", "fear"))
    with pytest.raises(ValueError, match=r"found a classifier of latents, expected one of pixels"):
        ExpressionPerception(_of_latents(resnet()), ("happy", "sad"))
    plain = resnet()
    plain.backbone = torch.nn.Identity()
    with pytest.raises(ValueError, match=r"found a Identity, which gives no feature maps"):
        ExpressionPerception(plain, ("happy", "sad"))


def _of_latents(classifier: ExpressionClassifier) -> Any:
    class OfLatents:
        codec = object()
        label_space, backbone = classifier.label_space, classifier.backbone

    return OfLatents()
