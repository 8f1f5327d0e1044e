"""A planted copier, a generator whose faces are their layout sources, is caught wherever faces are made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

import train
from synfer.faces.expressions import LABEL_SPACES
from synfer.synthesis.request import SamplingSettings
from tests.fixtures.tiny_generator import (
    TINY_TEXT,
    TINY_UNET,
    save_checkpoint,
    tiny_classifier,
    tiny_generator,
)

PROJECT = Path(train.__file__).parent
SIDE = 32
BASIC7 = LABEL_SPACES["basic7"]
VIT = {"img_size": SIDE, "patch_size": 8, "embed_dim": 16, "depth": 1, "num_heads": 2}
LAYOUT = ("--layout.enabled=true", "--layout.num_inverted=1")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    settings: dict[str, Any] = {
        "label_space": "basic7",
        "image_size": SIDE,
        "network": {"unet": TINY_UNET, "text_encoder": TINY_TEXT, "codec_config": {"patch": 4, "channels": 3}},
        "ema_decay": None,
        "execution": {"bf16_sampling": False},
        "sampling": {"num_steps": 2, "guidance_scale": 2.0},
    }
    made = {**settings, "sampling": SamplingSettings(**settings["sampling"])}
    save_checkpoint(tiny_generator(**made), folder / "generator.ckpt")
    for name, seed in (("judge", 1), ("guide", 2)):
        save_checkpoint(tiny_classifier(BASIC7, seed, image_size=SIDE, backbone_kwargs=VIT), folder / f"{name}.ckpt")
    found = {"class_path": "lightning_modules.generator.ExpressionGenerator", "init_args": settings}
    test = {"samples": 14, "nearest_training": 0}
    (folder / "model.yaml").write_text(yaml.safe_dump({"model": found, "test": test}))
    return folder


@pytest.fixture
def copier(monkeypatch: pytest.MonkeyPatch) -> None:
    """Inversion leaves the source as it is, and so does denoising: what is decoded is the source itself."""
    monkeypatch.setattr("callbacks.synthesis.layout_initialisation.ddim_invert", lambda state, clean, *rest: clean)
    monkeypatch.setattr("synfer.synthesis.diffusion.synthesiser.denoise", lambda state, hooks: state.latents)


def command(subcommand: str, folder: Path, run_dir: Path, *more: str) -> list[str]:
    return [
        subcommand,
        f"--config={PROJECT / 'configs/data/drawn.yaml'}",
        "--data.reader.init_args.count={train: 14, val: 7, test: 7}",
        f"--data.reader.init_args.image_size={SIDE}",
        "--trainer.accelerator=cpu",
        "--trainer.logger=false",
        "--trainer.enable_progress_bar=false",
        f"--run_dir={run_dir}",
        *more,
    ]


def of_generator(folder: Path) -> list[str]:
    return [f"--config={folder / 'model.yaml'}", f"--ckpt_path={folder / 'generator.ckpt'}"]


def set_command(folder: Path, run_dir: Path, *more: str) -> list[str]:
    plain = f"--config={PROJECT / 'configs/synthesise/plain.yaml'}"
    return command("predict", folder, run_dir, *of_generator(folder), plain, "--data.synthesis_count=10", *more)


def fit_command(folder: Path, run_dir: Path, *more: str) -> list[str]:
    options = [
        f"--config={PROJECT / 'configs/classifier/tiny.yaml'}",
        f"--data.image_size={SIDE}",
        f"--model.image_size={SIDE}",
        "--data.batch_size=8",
        "--data.synthetic_ratio=0.5",
        "--trainer.max_epochs=1",
        "--trainer.check_val_every_n_epoch=1",
        "--synthesis.enabled=true",
        f"--synthesis.generator={folder / 'generator.ckpt'}",
        "--synthesis.batch_size=6",
    ]
    return command("fit", folder, run_dir, *options, *more)


def summary(run_dir: Path) -> dict[str, Any]:
    return json.loads((run_dir / "summary.json").read_text())


def test_a_generator_s_test_tells_copies(folder: Path, tmp_path: Path, copier: None) -> None:
    options = [f"--test.judge={folder / 'judge.ckpt'}", "--layout.max_similarity=0.97"]
    options += [
        "--guidance.enabled=true",
        f"--guidance.guide={folder / 'guide.ckpt'}",
        "--trainer.inference_mode=false",
    ]
    train.main(command("test", folder, tmp_path, *of_generator(folder), *LAYOUT, *options))
    metrics = summary(tmp_path)["metrics"]
    assert metrics["test/near_copies"] == 1 and metrics["test/near_copies_real"] < 0.5
    assert metrics["test/source_similarity"] > 0.999 and metrics["test/expression_gain"] == pytest.approx(0, abs=0.01)
    assert metrics["test/source_copies"] == 1 and metrics["test/near_copies_of_others"] == 0
    assert metrics["test/kept"] == 0 and metrics["test/near_copies_kept"] is None
    assert summary(tmp_path)["counts"]["copies"] == 14  # those without guidance, for the picture, are not counted


def test_a_generator_s_test_without_copies(folder: Path, tmp_path: Path) -> None:
    judge = f"--test.judge={folder / 'judge.ckpt'}"
    train.main(command("test", folder, tmp_path, *of_generator(folder), judge))
    metrics = summary(tmp_path)["metrics"]
    assert metrics["test/near_copies"] == 0
    assert not {"test/source_similarity", "test/expression_gain", "test/kept"} & set(metrics)


def test_the_card_of_a_set_tells_copies(folder: Path, tmp_path: Path, copier: None) -> None:
    train.main(set_command(folder, tmp_path, *LAYOUT))
    card = (tmp_path / "synthetic_set" / "README.md").read_text()
    assert (
        "Near copies: 10 of 10 kept faces (100.0%)" in card and "of one of 14 training faces (real validation" in card
    )
    counts = summary(tmp_path)["counts"]
    assert (counts["checked"], counts["near_copies"]) == (10, 10)
    train.main(set_command(folder, tmp_path, *LAYOUT, "--data.synthesis_count=12"))  # all faces, also those of before
    assert "Near copies: 12 of 12 kept faces" in (tmp_path / "synthetic_set" / "README.md").read_text()


def test_copies_can_be_kept_out_of_a_set(folder: Path, tmp_path: Path, copier: None) -> None:
    train.main(set_command(folder, tmp_path, *LAYOUT, "--layout.max_similarity=0.97"))
    shards = sorted((tmp_path / "synthetic_set" / "data").glob("*.parquet"))
    assert not any(kept for shard in shards for kept in pq.read_table(shard)["kept"].to_pylist())
    assert "Near copies: no face was kept" in (tmp_path / "synthetic_set" / "README.md").read_text()
    counts = summary(tmp_path)["counts"]
    assert (counts["discarded"], counts["copies"], counts["checked"]) == (10, 10, 0)


def test_a_set_is_made_where_the_training_faces_are_not(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*args: Any) -> None:
        raise FileNotFoundError("no such folder 'faces'")

    monkeypatch.setattr("datamodules.readers.DrawnReader.read", missing)
    with pytest.warns(UserWarning, match="near copies were not counted"):
        train.main(set_command(folder, tmp_path))
    card = (tmp_path / "synthetic_set" / "README.md").read_text()
    assert "Near copies: not counted, the training faces could not be read (no such folder 'faces')" in card


def test_the_summary_of_a_mixed_run_tells_copies(folder: Path, tmp_path: Path, copier: None) -> None:
    train.main(fit_command(folder, tmp_path, *LAYOUT))
    found = summary(tmp_path)
    assert found["counts"]["checked"] == found["counts"]["near_copies"] == found["counts"]["generated"] > 0
    assert found["metrics"]["synthesis/near_copies"] == 1 and found["metrics"]["synthesis/near_copies_real"] < 0.5


def test_a_mixed_run_of_copies_alone_ends(folder: Path, tmp_path: Path, copier: None, capsys: Any) -> None:
    with pytest.raises(SystemExit):
        train.main(fit_command(folder, tmp_path, *LAYOUT, "--layout.max_similarity=0.97", "--synthesis.batch_size=2"))
    error = capsys.readouterr().err
    assert "layout.max_similarity discarded all of 40 synthetic faces" in error and "raise layout.num_inverted" in error
    assert summary(tmp_path)["counts"]["copies"] == 40


def test_of_a_large_set_some_faces_are_checked(
    folder: Path, tmp_path: Path, copier: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("callbacks.synthesis.near_copy_count.MOST_CHECKED", 5)
    monkeypatch.setattr("callbacks.synthesis.near_copy_count._OF_A_GROUP", 1)
    train.main(set_command(folder, tmp_path, *LAYOUT, "--data.eval_batch_size=4"))
    assert summary(tmp_path)["counts"]["checked"] == 2 + 3  # of the 4 of the first batch and the 6 after it
