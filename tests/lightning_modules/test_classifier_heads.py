"""A classifier with another head than its backbone's own: trained, stored, used, and as a start of another one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_modules.classifier import ExpressionClassifier
from synfer.export.onnx_graph import OnnxExporter
from synfer.export.torchscript_graph import TorchScriptExporter
from tests.lightning_modules.test_backbone_weights import NETWORK
from tests.lightning_modules.test_pretraining import data, trainer
from tests.synfer.export.test_classifier_graphs import needs_onnx

HEADS: dict[str, dict[str, Any]] = {
    "attentive_pooling": {"kind": "attentive_pooling", "width": 8, "num_heads": 2},
    "two_streams": {
        **{"kind": "two_streams", "width": 8, "num_heads": 2, "window": 2},
        **{"stream": "resnet10t", "stream_kwargs": {"stem_width": 8, "channels": [4, 4, 8, 8]}},
    },
}


@pytest.mark.parametrize("kind", HEADS)
def test_from_the_fit_to_the_next_fit(kind: str, tmp_path: Path) -> None:
    model = ExpressionClassifier(**NETWORK, head=HEADS[kind], optimizer="adamw", learning_rate=1e-2)  # type: ignore[arg-type]
    before = model.backbone.head["linear"].weight.detach().clone()
    run = trainer(tmp_path)
    run.fit(model, datamodule=data())
    assert not torch.equal(model.backbone.head["linear"].weight, before)
    run.save_checkpoint(tmp_path / "head.ckpt")
    loaded = ExpressionClassifier.load_trained(tmp_path / "head.ckpt")
    loaded.save_trained(tmp_path / "folder")
    again = ExpressionClassifier.load_trained(tmp_path / "folder")
    image = torch.rand(2, 3, 16, 16)
    assert torch.equal(again.predict_probabilities(image), loaded.predict_probabilities(image))
    assert again._config["head"] == loaded._config["head"]

    for path in (tmp_path / "head.ckpt", tmp_path / "folder"):  # the network alone, under a plain last layer
        other = ExpressionClassifier(backbone="stored", backbone_weights=str(path))
        for name, tensor in loaded.backbone.network.state_dict().items():
            if not name.startswith("fc."):
                assert torch.equal(other.backbone.state_dict()[name], tensor)
    with pytest.raises(ValueError, match=rf"^model\.head\.kind: found linear, expected {kind}, as in the checkpoint"):
        trainer(tmp_path / "not").validate(
            ExpressionClassifier(**NETWORK), datamodule=data(), ckpt_path=tmp_path / "head.ckpt"
        )


@pytest.mark.parametrize("exporter", [TorchScriptExporter, pytest.param(OnnxExporter, marks=needs_onnx)])
@pytest.mark.parametrize("kind", HEADS)
def test_other_programs_run_it(kind: str, exporter: type, tmp_path: Path) -> None:
    """The exporters compare the probabilities themselves, of several batches and sizes."""
    torch.manual_seed(0)
    exporter().export(ExpressionClassifier(**NETWORK, head=HEADS[kind]).eval(), tmp_path)  # type: ignore[arg-type]
