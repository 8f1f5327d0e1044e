from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import train
from experiments.blend.blend_command import main
from experiments.compare.compare_command import main as compare
from lightning_modules.classifier import ExpressionClassifier
from synfer.foundation.checkpoint_file import find_checkpoint


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, tiny_run: list[str]) -> list[Path]:
    folder = tmp_path_factory.mktemp("runs")
    for number, rate in enumerate((0.005, 0.002)):
        train.main(["fit", *tiny_run, f"--model.learning_rate={rate}", f"--run_dir={folder / str(number)}"])
    return [folder / "0", folder / "1"]


def weights(path: Path) -> dict[str, torch.Tensor]:
    return ExpressionClassifier.load_trained(path).state_dict()


def test_the_mean_of_two_runs_is_scored_compared_and_trained_on(
    runs: list[Path], tiny_run: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "blend"
    assert main([*map(str, runs), "--shares", "3", "1", "--out", str(out)]) == 0
    first, second, mean = weights(runs[0]), weights(runs[1]), weights(out)
    for name, tensor in mean.items():
        if tensor.is_floating_point():
            assert torch.allclose(tensor, 0.75 * first[name] + 0.25 * second[name], atol=1e-6), name
    assert any(not torch.equal(first[name], second[name]) for name in first)

    train.main(["validate", *tiny_run, f"--ckpt_path={out}", f"--run_dir={tmp_path / 'scored'}"])
    assert "val/accuracy" in json.loads((tmp_path / "scored" / "summary.json").read_text())["metrics"]
    capsys.readouterr()
    assert compare([str(runs[0]), str(tmp_path / "scored"), "--out", str(tmp_path / "compared")]) == 0

    given = [f"--model.backbone_weights={out}", "--model.backbone=stored", f"--run_dir={tmp_path / 'on'}"]
    train.main(["fit", *tiny_run, *given])
    found = json.loads((tmp_path / "on" / "summary.json").read_text())["weights_from"]
    assert found["path"] == str(out) and found["kind"] == "classifier"
    stored = torch.load(find_checkpoint(tmp_path / "on", "run"), weights_only=True)
    assert stored["expression_classifier"]["backbone_source"] == found


def test_what_cannot_be_blended(runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refused(*words: str) -> str:
        assert main([*words, "--out", str(tmp_path / "out")]) == 2
        assert not (tmp_path / "out").exists()
        return capsys.readouterr().err

    a, b = map(str, runs)
    assert "blend.runs: found 1, expected at least two runs" in refused(a)
    assert "blend.shares: found [1.0], expected 2 numbers > 0" in refused(a, b, "--shares", "1")
    other = ExpressionClassifier(label_space=["happy", "sad"], backbone="resnet10t", image_size=16)
    other.save_trained(tmp_path / "other")
    assert "blend: found the label space happy, sad in" in refused(a, str(tmp_path / "other"))
    other = ExpressionClassifier(backbone="resnet10t", image_size=16)
    other.save_trained(tmp_path / "third")
    assert "blend: found model.backbone=resnet10t in" in refused(a, str(tmp_path / "third"))
    assert "no" in refused(a, str(tmp_path / "nowhere"))
