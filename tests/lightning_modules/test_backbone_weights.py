"""A classifier begins with the backbone of a pre-training, or of another classifier, or says why it cannot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from datamodules.expression_data_module import ExpressionDataModule
from datamodules.rows.folds import hash_numbers
from lightning_modules.backbone_weights import read_backbone
from lightning_modules.classifier import ExpressionClassifier
from lightning_modules.pretraining import FacePretraining
from tests.fixtures.tiny_data import TinyReader, tiny_table
from tests.lightning_modules.test_pretraining import SETTINGS, data, trainer

NETWORK: dict[str, Any] = {
    "backbone": "resnet10t",
    "backbone_kwargs": {"stem_width": 8, "channels": [8, 8, 16, 16]},
    "stem": "small",
    "image_size": 16,
}
PROBE: dict[str, Any] = {
    **NETWORK,
    "freeze_backbone": True,
    "optimizer": "adamw",
    "learning_rate": 0.1,
    "ema_decay": None,
}


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pretrained")
    model = FacePretraining(**{**SETTINGS, **NETWORK, "mean": [0.4, 0.4, 0.4], "std": [0.2, 0.2, 0.2]})
    run = trainer(folder)
    run.fit(model, datamodule=data())
    run.save_checkpoint(folder / "run.ckpt")
    return folder / "run.ckpt"


def weights(path: Path) -> dict[str, torch.Tensor]:
    state = torch.load(path, weights_only=True)["state_dict"]
    return {n.removeprefix("backbone."): t for n, t in state.items() if n.startswith("backbone.")}


def test_a_linear_probe_of_a_pretraining(pretrained: Path, tmp_path: Path) -> None:
    probe = ExpressionClassifier(**PROBE, backbone_weights=str(pretrained))
    assert probe.mean.flatten().tolist() == pytest.approx([0.4] * 3)  # as it was pre-trained
    run = trainer(tmp_path)
    run.fit(probe, datamodule=data())
    now, before = probe.backbone.state_dict(), weights(pretrained)
    assert set(now) - set(before) == {"fc.weight", "fc.bias"}
    assert all(torch.equal(now[name], tensor) for name, tensor in before.items())  # norms' statistics as well

    run.save_checkpoint(tmp_path / "probe.ckpt")
    entry = torch.load(tmp_path / "probe.ckpt", weights_only=True)["expression_classifier"]
    assert entry["backbone_source"] == read_backbone(str(pretrained)).source()
    assert entry["backbone_source"]["kind"] == "pretraining" and len(entry["backbone_source"]["fingerprint"]) == 16
    pretrained_name, gone = str(pretrained), pretrained.with_suffix(".gone")
    pretrained.rename(gone)
    try:  # the probe's own checkpoint is enough, and still tells where it came from
        loaded = ExpressionClassifier.load_trained(tmp_path / "probe.ckpt")
        loaded.save_trained(tmp_path / "folder")
        again = ExpressionClassifier.load_trained(tmp_path / "folder")
    finally:
        gone.rename(pretrained)
    assert again._config["backbone_weights"] == pretrained_name
    image = torch.rand(2, 3, 16, 16)
    assert torch.equal(again.predict_probabilities(image), probe.eval().predict_probabilities(image))


def test_a_random_backbone_is_a_control_that_is_asked_for(pretrained: Path, tmp_path: Path) -> None:
    """The network of the source without its weights: frozen, and as the seed makes it."""
    settings = {**PROBE, "backbone": "stored", "backbone_weights": str(pretrained), "random_backbone": True}
    torch.manual_seed(3)
    probe = ExpressionClassifier(**settings)
    torch.manual_seed(3)
    plain = ExpressionClassifier(**NETWORK)
    assert {name: probe._config[name] for name in NETWORK} == NETWORK and probe.weights_source is None
    first = {name: tensor.clone() for name, tensor in probe.backbone.state_dict().items()}
    assert all(torch.equal(tensor, plain.backbone.state_dict()[name]) for name, tensor in first.items())
    run = trainer(tmp_path)
    run.fit(probe, datamodule=data())
    moved = {name for name, tensor in probe.backbone.state_dict().items() if not torch.equal(tensor, first[name])}
    assert moved == {"fc.weight", "fc.bias"}
    run.save_checkpoint(tmp_path / "probe.ckpt")
    assert ExpressionClassifier.load_trained(tmp_path / "probe.ckpt")._config["random_backbone"]

    with pytest.raises(ValueError, match=r"freeze_backbone.*model\.random_backbone=true for the control"):
        trainer(tmp_path / "not").fit(ExpressionClassifier(**PROBE), datamodule=data())
    with pytest.raises(
        ValueError, match=r"^model\.random_backbone: found True, expected false beside model\.pretrained"
    ):
        ExpressionClassifier(**NETWORK, pretrained=True, random_backbone=True)


def test_the_network_of_the_source(pretrained: Path) -> None:
    found = ExpressionClassifier(backbone="stored", backbone_weights=str(pretrained))
    assert {name: found._config[name] for name in NETWORK} == NETWORK and found.image_size == 16
    assert all(torch.equal(found.backbone.state_dict()[name], tensor) for name, tensor in weights(pretrained).items())


def test_fine_tuning_moves_everything(pretrained: Path, tmp_path: Path) -> None:
    model = ExpressionClassifier(**{**PROBE, "freeze_backbone": False}, backbone_weights=str(pretrained))
    trainer(tmp_path).fit(model, datamodule=data())
    now, before = model.backbone.state_dict(), weights(pretrained)
    assert not any(torch.equal(now[name], tensor) for name, tensor in before.items() if name.endswith("conv1.weight"))


def test_from_another_classifier_of_other_classes(tmp_path: Path) -> None:
    first = ExpressionClassifier(**NETWORK, label_space=["happy", "sad"])
    first.save_trained(tmp_path / "first")
    second = ExpressionClassifier(**NETWORK, backbone_weights=str(tmp_path / "first"))
    ours, theirs = second.backbone.state_dict(), first.backbone.state_dict()
    assert all(torch.equal(ours[n], t) for n, t in theirs.items() if not n.startswith("fc."))
    assert ours["fc.weight"].shape == (7, 16)
    assert second.weights_source is not None and second.weights_source["kind"] == "classifier"


def test_bare_safetensors_and_what_is_wrong_with_them(tmp_path: Path) -> None:
    state = {n: t.contiguous() for n, t in ExpressionClassifier(**NETWORK).backbone.state_dict().items()}
    file = tmp_path / "w.safetensors"
    save_file(state, file)
    found = ExpressionClassifier(**NETWORK, backbone_weights=str(file))
    assert torch.equal(found.backbone.state_dict()["bn1.weight"], state["bn1.weight"])

    lacking = {n: t for n, t in state.items() if n != "bn1.weight"}
    save_file(lacking, file)
    with pytest.raises(ValueError, match=r"backbone_weights .*: found no 'bn1.weight' \(1 weights missing, 0 left"):
        ExpressionClassifier(**NETWORK, backbone_weights=str(file))
    save_file({**state, "more.weight": torch.ones(2)}, file)
    with pytest.raises(ValueError, match=r"found 'more.weight' \(0 weights missing, 1 left over\)"):
        ExpressionClassifier(**NETWORK, backbone_weights=str(file))
    save_file({**state, "bn1.weight": torch.ones(2)}, file)
    with pytest.raises(ValueError, match=r"found 'bn1.weight' of shape 2, expected 16|found 'bn1.weight' of shape 2"):
        ExpressionClassifier(**NETWORK, backbone_weights=str(file))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stem": "native"}, r"model\.stem: found native, expected small, as in the checkpoint"),
        ({"backbone": "resnet18"}, r"model\.backbone: found resnet18, expected resnet10t"),
        ({"pretrained_path": "x.safetensors"}, r"model\.backbone_weights: .* expected null beside model\.pretrained"),
    ],
)
def test_refusals(pretrained: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ExpressionClassifier(**{**NETWORK, **changes}, backbone_weights=str(pretrained))


def test_nothing_there_and_something_else(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"model\.backbone_weights: found no file"):
        read_backbone(str(tmp_path / "none.ckpt"))
    torch.save({"state_dict": {}, "kind": "diffusion"}, tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match="found a model of the kind diffusion, expected a checkpoint or run folder of"):
        read_backbone(str(tmp_path / "other.ckpt"))


class TrainingAlone(TinyReader):
    """A data set without validation rows of its own."""

    def has_split(self, split: str) -> bool:
        return split == "train"


def test_a_backbone_that_has_seen_rows_held_out_now(pretrained: Path, tmp_path: Path) -> None:
    table = tiny_table(16, "train")  # what it was pre-trained on
    seen = read_backbone(str(pretrained)).trained_on
    assert seen is not None and set(seen) == set(hash_numbers(table.content_hash))
    held = ExpressionDataModule(TrainingAlone(train=table), batch_size=4, val_fraction=0.5, seed=0)
    with pytest.raises(ValueError, match=r"^model\.backbone_weights .*: found a model that has learned from \d+ of"):
        trainer(tmp_path).fit(ExpressionClassifier(**PROBE, backbone_weights=str(pretrained)), datamodule=held)
    assert np.isin(seen, hash_numbers(table.content_hash)).all()
