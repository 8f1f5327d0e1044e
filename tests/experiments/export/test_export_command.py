from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import export
from experiments.export.export_command import main
from synfer.export.lora import LoRAExporter
from tests.fixtures.exported import generator_of, save_pipeline
from tests.fixtures.tiny_generator import save_checkpoint, tiny_classifier, tiny_generator


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with a generator's last checkpoint."""
    folder = tmp_path_factory.mktemp("run")
    generator = generator_of(save_pipeline(folder / "base"), alpha=None)
    (folder / "checkpoints").mkdir()
    save_checkpoint(generator, folder / "checkpoints" / "last.ckpt")
    (folder / "config.yaml").write_text("model: {}\n")
    return folder


def test_one_part(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    checkpoint = run / "checkpoints" / "last.ckpt"
    assert main([str(checkpoint), "--what", "lora", "--out", str(out)]) == 0
    stored = torch.load(checkpoint, weights_only=True)["state_dict"]
    for name, tensor in LoRAExporter().load(out).up.items():
        assert torch.equal(tensor, stored[f"model.unet.{name}.lora_B.default.weight"])
    assert f"python train.py fit --config {run / 'config.yaml'}" in (out / "README.md").read_text()
    assert str(out / "README.md") in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_all_of_a_run_folder_in_half_precision(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()  # an empty folder may be there
    assert export.main([str(run), "--what", "all", "--out", str(out), "--dtype", "float16"]) == 0
    assert sorted(path.name for path in out.iterdir()) == ["au_adapter", "lora", "pipeline"]
    weights = load_file(out / "pipeline" / "unet" / "diffusion_pytorch_model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.float16}
    assert f"--config {run / 'config.yaml'}" in (out / "lora" / "README.md").read_text()


def test_all_leaves_out_what_a_model_has_not(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    generator = generator_of(run / "base", trained="all")
    checkpoint = save_checkpoint(generator, tmp_path / "whole.ckpt")
    assert main([str(checkpoint), "--what", "all", "--out", str(tmp_path / "out")]) == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["pipeline"]
    said = capsys.readouterr().err
    assert "left out: lora: found model.trained 'all'" in said and "left out: au_adapter: found model.trained" in said


def test_what_cannot_be_exported_is_one_line_and_leaves_nothing(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = save_checkpoint(tiny_generator(), tmp_path / "small.ckpt")
    classifier = save_checkpoint(tiny_classifier(), tmp_path / "classifier.ckpt")
    large = generator_of(run / "base")
    with torch.no_grad():
        next(p for name, p in large.model.unet.named_parameters() if "lora_B" in name).fill_(1e6)
    large_file = str(save_checkpoint(large, tmp_path / "large.ckpt"))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "note.txt").write_text("mine")
    (tmp_path / "torn.ckpt").write_bytes(b"torn")
    before = sorted(tmp_path.rglob("*"))
    out = str(tmp_path / "out")
    for words, said in (
        ([str(small), "--what", "lora", "--out", out], "lora: found a small generator (model.base null)"),
        ([str(small), "--what", "all", "--out", out], "lora: found a small generator (model.base null)"),
        ([str(small), "--what", "pipeline", "--out", out], "pipeline: found model.network.codec 'space_to_depth'"),
        (
            [large_file, "--what", "all", "--out", out, "--dtype", "float16"],
            "lora: 1 weights are not finite in float16",
        ),
        ([str(classifier), "--what", "lora", "--out", out], "--what lora: found a model of the kind 'classifier'"),
        ([str(tmp_path / "torn.ckpt"), "--what", "lora", "--out", out], "torn.ckpt"),
        ([str(tmp_path / "nowhere.ckpt"), "--what", "lora", "--out", out], "nowhere.ckpt"),
        ([str(run), "--what", "loar", "--out", out], "--what: found 'loar', expected one of lora, au_adapter"),
        ([str(run), "--what", "lora", "--out", str(tmp_path / "full")], "found something there already"),
        ([str(run), "--what", "lora", "--out", str(tmp_path / "torn.ckpt")], "found something there already"),
    ):
        assert main(words) == 2, words
        line = capsys.readouterr().err
        assert said in line and line.startswith("error: ") and line.count("\n") == 1, line
        assert sorted(tmp_path.rglob("*")) == before
