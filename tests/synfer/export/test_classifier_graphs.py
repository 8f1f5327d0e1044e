"""Both graphs of a classifier give torch's probabilities, whatever the size and number of the faces."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from experiments.export.export_command import main
from lightning_modules.classifier import ExpressionClassifier
from synfer.export.classifier_graph import PixelsToProbabilities, check_against
from synfer.export.exporter import ExportSettings, NothingToExportError, make_exporter
from synfer.export.onnx_graph import OnnxExporter
from synfer.export.torchscript_graph import TorchScriptExporter
from synfer.labels.affect_losses import AffectSettings
from tests.fixtures.face_pictures import noise, save_run
from tests.fixtures.tiny_generator import NAMES, SIDE, save_checkpoint, tiny_classifier, tiny_generator

CONVOLUTIONS: dict[str, Any] = {
    "backbone": "resnet10t",
    "backbone_kwargs": {"channels": [4, 4, 8, 8], "stem_width": 4},
    "image_size": 24,
}
SIZES = ((1, 24, 24), (4, 61, 30), (2, 12, 90), (3, 16, 16), (1, 224, 224))

needs_onnx = pytest.mark.skipif(
    not all(__import__("importlib.util").util.find_spec(name) for name in ("onnx", "onnxscript", "onnxruntime")),
    reason="needs the extra 'onnx': pip install -e '.[onnx]'",
)


def faces_of(size: tuple[int, int, int]) -> Tensor:
    count, height, width = size
    return torch.from_numpy(np.stack([noise(height, width, seed) for seed in range(count)])).permute(0, 3, 1, 2)


def assert_as_torch(classifier: ExpressionClassifier, run: Any) -> None:
    classifier = classifier.eval().requires_grad_(False)
    for size in SIZES:
        faces = faces_of(size)
        expected = classifier.predict_probabilities(faces.float() / 255)
        torch.testing.assert_close(torch.as_tensor(run(faces)), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "changes",
    [
        {**CONVOLUTIONS, "flip_tta": True},
        {"in_channels": 1},
        {**CONVOLUTIONS, "affect": AffectSettings(enabled=True)},  # the graph has the expressions alone
        {**CONVOLUTIONS, "mean": [0.1, 0.5, 0.9], "std": [0.3] * 3},
    ],
)
def test_torchscript_gives_torchs_probabilities(changes: dict[str, Any], tmp_path: Path) -> None:
    classifier = tiny_classifier(**changes)
    TorchScriptExporter().export(classifier, tmp_path)
    graph = TorchScriptExporter().load(tmp_path)
    with torch.no_grad():
        assert_as_torch(classifier, graph)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["README.md", "classifier.pt", "labels.json"]
    told = json.loads((tmp_path / "labels.json").read_text())
    assert told["labels"] == list(NAMES) and told["fingerprint"] == classifier.weights_fingerprint()


@needs_onnx
@pytest.mark.slow
@pytest.mark.parametrize("changes", [{**CONVOLUTIONS, "flip_tta": True}, {"in_channels": 1}])
def test_onnx_gives_torchs_probabilities(changes: dict[str, Any], tmp_path: Path) -> None:
    classifier = tiny_classifier(**changes)
    OnnxExporter(ExportSettings(training_command="python train.py fit")).export(classifier, tmp_path)
    session = OnnxExporter().load(tmp_path)
    assert_as_torch(classifier, lambda faces: session.run(None, {"image": faces.numpy()})[0])
    told = session.get_modelmeta().custom_metadata_map
    assert json.loads(told["labels"]) == list(NAMES) and told["fingerprint"] == classifier.weights_fingerprint()
    assert [(value.name, value.type, value.shape) for value in session.get_inputs()] == [
        ("image", "tensor(uint8)", ["faces", 3, "height", "width"])
    ]
    assert [value.name for value in session.get_outputs()] == ["probabilities"]
    run_card(tmp_path)


def run_card(folder: Path) -> None:
    """Runs the Python of a card in its folder, in a process that knows nothing of this project."""
    Image.fromarray(noise(50, 40)).save(folder / "face.jpg")
    code = re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    assert code is not None
    command = [sys.executable, "-W", "ignore", "-c", code[1]]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[0] in NAMES and 1 / 3 <= float(done.stdout.split()[1]) <= 1


def test_the_card_of_torchscript_runs(tmp_path: Path) -> None:
    TorchScriptExporter().export(tiny_classifier(), tmp_path)
    run_card(tmp_path)


def test_the_command_exports_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = save_run(tmp_path / "run", {}, ema_decay=0.9)
    assert main([str(run), "--what", "torchscript", "--out", str(tmp_path / "out")]) == 0
    assert f"python train.py fit --config {run / 'config.yaml'}" in (tmp_path / "out" / "README.md").read_text()
    graph = make_exporter("torchscript", ExportSettings()).load(tmp_path / "out")
    with torch.no_grad():
        assert check_against(ExpressionClassifier.load_trained(run), graph, "torchscript") < 1e-6


def test_another_graph_is_not_let_through() -> None:
    classifier, other = tiny_classifier(), tiny_classifier(seed=1)
    with pytest.raises(
        ValueError, match=r"onnx: found probabilities that differ from torch's by up to .*, expected 0\.0"
    ):
        check_against(classifier, PixelsToProbabilities(other), "onnx")
    with pytest.raises(ValueError, match=r"onnx: the graph takes no faces of the shape \(3, 3, 37, 19\)"):
        check_against(
            classifier,
            lambda faces: classifier.predict_probabilities(faces[:, :, :SIDE, :SIDE] / 255).view(1, 3),
            "onnx",
        )


def test_what_cannot_be_exported_is_one_line_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    classifier = save_checkpoint(tiny_classifier(), tmp_path / "classifier.ckpt")
    generator = save_checkpoint(tiny_generator(), tmp_path / "generator.ckpt")
    latent = tiny_classifier(
        latents_of=str(generator),
        backbone_kwargs={"img_size": 4, "patch_size": 2, "embed_dim": 16, "depth": 1, "num_heads": 2},
    )
    with pytest.raises(NothingToExportError, match="torchscript: found a classifier of latents"):
        TorchScriptExporter().export(latent, tmp_path / "latent")
    for name in ("onnx", "onnxruntime"):
        monkeypatch.setitem(sys.modules, name, None)
    before = sorted(tmp_path.rglob("*"))
    out = ["--out", str(tmp_path / "out")]
    for words, said in (
        ([str(generator), "--what", "onnx", *out], "--what onnx: found a model of the kind 'diffusion'"),
        ([str(classifier), "--what", "lora", *out], "--what lora: found a model of the kind 'classifier'"),
        (
            [str(classifier), "--what", "torchscript", *out, "--dtype", "float16"],
            "found --dtype float16, expected float32",
        ),
        ([str(classifier), "--what", "onnx", *out], "--what onnx: found no package 'onnx' ("),
        ([str(tmp_path / "nowhere.ckpt"), "--what", "onnx", *out], "nowhere.ckpt"),
    ):
        assert main(words) == 2, words
        line = capsys.readouterr().err
        assert said in line and line.startswith("error: ") and line.count("\n") == 1, line
        assert sorted(tmp_path.rglob("*")) == before
    assert main([str(classifier), "--what", "all", *out]) == 0  # without the package, what goes without
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["torchscript"]
    assert "left out: --what onnx: found no package 'onnx'" in capsys.readouterr().err


@pytest.mark.parametrize("exporter", [OnnxExporter, TorchScriptExporter])
def test_a_damaged_export_is_one_line(exporter: Any, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="found no classifier"):
        exporter().load(tmp_path)
    (tmp_path / ("classifier.onnx" if exporter is OnnxExporter else "classifier.pt")).write_bytes(b"torn")
    with pytest.raises(ValueError, match="expected"):
        exporter().load(tmp_path)
