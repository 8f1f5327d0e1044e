from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file

from synfer.networks import feature_extractor
from synfer.networks.feature_extractor import ClassifierFeatures, TimmFeatures, name_of_checkpoint
from tests.fixtures.tiny_generator import SIDE, tiny_classifier

NAME = "test_resnet"  # timm's own network for tests: 0.5 M weights, 160 pixels


@pytest.fixture(scope="module")
def network() -> Any:
    torch.manual_seed(0)
    return timm.create_model(NAME, pretrained=False, num_classes=5).eval()


@pytest.mark.parametrize("file", ["weights.safetensors", "weights.pth", "checkpoint.pth"])
def test_timm_network_gives_its_pooled_features(network: Any, file: str, tmp_path: Path) -> None:
    state, path = network.state_dict(), tmp_path / file
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save({"state_dict": state} if file.startswith("checkpoint") else state, path)
    extractor = TimmFeatures(NAME, path)
    image = torch.rand(2, 3, 160, 160)
    with torch.no_grad():
        normal = (image - extractor.mean) / extractor.std
        expected = network.forward_head(network.forward_features(normal), pre_logits=True)
        assert torch.allclose(extractor(image), expected, atol=1e-5)
        assert extractor(image[:, :, :40, :40]).shape == expected.shape
        # Another batch, the same features.
        assert torch.allclose(extractor(image[1:]), extractor(image)[1:], atol=1e-5)
    assert extractor.name == NAME and not extractor.training


def test_torchvision_inception_weights_fit() -> None:
    """Checked by names and shapes alone: 27 million weights are too many to run here."""
    from torchvision.models import inception_v3

    with torch.device("meta"):
        theirs = inception_v3(weights=None, init_weights=False).state_dict()
        ours = timm.create_model("inception_v3", pretrained=False, num_classes=0).state_dict()
    kept = {n: t.shape for n, t in theirs.items() if not n.startswith(("fc.", "AuxLogits."))}
    assert {name: tensor.shape for name, tensor in ours.items()} == kept


@pytest.mark.parametrize("backbone", ["vit_tiny_patch16_224", "resnet18", "mobilenetv3_small_050"])
def test_classifier_gives_what_its_last_layer_reads(backbone: str) -> None:
    changes: dict[str, Any] = {} if backbone.startswith("vit") else {"backbone": backbone, "backbone_kwargs": None}
    classifier = tiny_classifier(**changes)
    extractor = ClassifierFeatures(classifier, "judge")
    image = torch.rand(3, 3, SIDE, SIDE)
    with torch.no_grad():
        features, logits = extractor.features_and_logits(image)
        assert torch.equal(logits, classifier(image)) and torch.equal(features, extractor(image))
        assert torch.allclose(classifier.backbone.get_classifier()(features), logits, atol=1e-5)
    assert not classifier.backbone.get_classifier()._forward_pre_hooks


def test_names() -> None:
    assert name_of_checkpoint("runs/judge-ferplus/checkpoints/last.ckpt") == "judge-ferplus"
    assert name_of_checkpoint("weights/judge ferplus.ckpt") == "judge-ferplus"
    assert name_of_checkpoint("checkpoints/last.ckpt") == "last"


def test_weights_of_another_network_are_refused(network: Any, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file(network.state_dict(), path)
    with pytest.raises(ValueError, match=r"w.safetensors' do not fit 'test_vit'"):
        TimmFeatures("test_vit", path)


def test_files_that_are_no_weights(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such file, expected a network's weights"):
        TimmFeatures(NAME, tmp_path / "nowhere.pth")
    for name in ("text.pth", "text.safetensors"):
        (tmp_path / name).write_text("nothing")
        with pytest.raises(ValueError, match="cannot be read as weights"):
            TimmFeatures(NAME, tmp_path / name)
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(ValueError, match="found no tensors by name"):
        TimmFeatures(NAME, tmp_path / "list.pth")
    torch.save(feature_extractor.name_of_checkpoint, tmp_path / "code.pth")
    with pytest.raises(ValueError, match="cannot be read as weights"):
        TimmFeatures(NAME, tmp_path / "code.pth")


def test_an_unknown_network() -> None:
    with pytest.raises(ValueError, match=r"test.features: found 'resnet19'.*did you mean"):
        TimmFeatures("resnet19", "anything")
