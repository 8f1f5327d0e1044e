"""A first hour with a folder of faces: three options are a mixed run, and each natural mistake has one line."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import train
from tests.fixtures.own_faces import save_faces
from tests.fixtures.tiny_generator import save_checkpoint, tiny_classifier, tiny_generator

PROJECT = Path(train.__file__).parent
BASIC7 = ("neutral", "happy", "sad", "surprise", "fear", "disgust", "anger")
MIXED = ["fit", "--config=configs/mixed/own_folder.yaml"]
SMALL = [  # of a run of this test, not of a user
    "--trainer.max_steps=2",
    "--trainer.accelerator=cpu",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
    "--data.batch_size=8",
    "--data.pool_size=16",
    "--synthesis.batch_size=8",
    "--synthesis.initial_samples=8",
    "--model.init_args.backbone_kwargs={stem_chs: [8, 8, 8], stage_conv_chs: [8, 8, 8, 8], "
    "stage_out_chs: [8, 8, 8, 8], layer_per_block: 1, block_per_stage: [1, 1, 1, 1]}",
]
PYTHON_WORDS = re.compile(r"Traceback|NoneType|has no attribute|KeyError|TypeError|unexpected keyword")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with faces in several forms, and networks that nobody trained."""
    folder = tmp_path_factory.mktemp("own")
    save_faces(folder / "faces", 3)
    save_faces(folder / "numbered", 2, names=tuple("1234567"))
    save_faces(folder / "splits", 2, splits=("train", "val", "test"))
    generator = tiny_generator(label_space=list(BASIC7))
    save_checkpoint(generator, folder / "generator.ckpt")
    generator.save_trained(folder / "generator")
    save_checkpoint(tiny_classifier(BASIC7), folder / "classifier.ckpt")
    return folder


def run(words: list[str], place: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """Runs a command in the user's folder; returns its exit code."""
    monkeypatch.chdir(place)
    try:
        train.main(words)
    except SystemExit as stopped:
        return int(stopped.code or 0)
    return 0


def test_three_options_are_a_mixed_run(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = ["--data.reader.init_args.root=faces", "--synthesis.generator=generator"]
    assert run([*MIXED, *own, *SMALL, f"--run_dir={tmp_path}"], place, monkeypatch) == 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["counts"]["synthetic"] == summary["counts"]["real"] == 8
    train_rows, val_rows = summary["splits"]["train"], summary["splits"]["val"]
    assert val_rows["held_out"]["seed"] == 0 and val_rows["held_out"]["fraction"] == 0.1
    assert train_rows["rows"] + val_rows["rows"] == val_rows["held_out"]["training_rows"]
    # It goes on, and is scored, with the rows that were held out; not with others.
    again = [f"--config={tmp_path / 'config.yaml'}", f"--run_dir={tmp_path}", f"--ckpt_path={tmp_path}"]
    assert run(["fit", *again, "--trainer.max_steps=3"], place, monkeypatch) == 0
    assert run(["validate", *again], place, monkeypatch) == 0
    assert run(["validate", *again, "--data.val_seed=3"], place, monkeypatch) == 1


FACES, GENERATOR = "--data.reader.init_args.root=faces", "--synthesis.generator=generator"
OWN = [*MIXED, FACES, GENERATOR]
FOLDER = ["--config=configs/data/image_folder.yaml", FACES]
TINY = "--config=configs/classifier/tiny.yaml"
JUDGED = [
    "test",
    "--config=configs/generator/drawn.yaml",
    "--data.reader=datamodules.readers.ImageFolderReader",
    "--data.reader.init_args.root=splits",
    "--data.image_size=model",
    f"--ckpt_path={PROJECT / 'demo' / 'weights' / 'drawn_generator'}",
    "--test.judge=classifier.ckpt",
    "--trainer.inference_mode=false",
    "--trainer.precision=32-true",
    "--guidance.enabled=true",
    "--guidance.guide=classifier.ckpt",
]

MISTAKES = {
    "no config": (["fit"], 2, "--config configs/data/drawn.yaml --config configs/classifier/tiny.yaml"),
    "config forgotten": (["fit", FACES], 2, "--config configs/data/image_folder.yaml"),
    "model forgotten": (["fit", *FOLDER], 2, "--config configs/classifier/tiny.yaml"),
    "numbered folders": ([*OWN, "--data.reader.init_args.root=numbered"], 2, "class_map rafdb (1 surprise, 2 fear"),
    "misspelt coding": ([*OWN, "--data.reader.init_args.class_map=rafbd"], 2, "did you mean rafdb?"),
    "no val": ([*OWN, "--data.val_fraction=null"], 1, "--data.val_fraction 0.1"),
    "no test": (["test", TINY, *FOLDER, "--ckpt_path=classifier.ckpt"], 2, "ckpt_path"),
    "no such folder": ([*OWN, "--data.reader.init_args.root=face"], 2, "found no folder 'face'"),
    "no generator": ([*MIXED, FACES], 2, "a config of configs/generator/"),
    "a classifier as generator": ([*OWN, "--synthesis.generator=classifier.ckpt"], 1, "a run of configs/generator/"),
    "a folder of faces as generator": ([*OWN, "--synthesis.generator=faces"], 1, "or a run folder"),
    "a folder of faces as checkpoint": ([*OWN, "--ckpt_path=faces"], 2, "expected a checkpoint or a run folder"),
    "a generator as guide": (
        [*OWN, "--guidance.enabled=true", "--guidance.guide=generator.ckpt"],
        1,
        "a checkpoint of ExpressionClassifier",
    ),
    "a folder of faces as voter": (
        [*OWN, "--pseudo_labels.enabled=true", "--pseudo_labels.voters=[faces]"],
        1,
        "a checkpoint of ExpressionClassifier",
    ),
    "sizes differ": (
        ["fit", *FOLDER, "--config=configs/generator/tiny.yaml", "--data.image_size=32"],
        1,
        "image_size=model",
    ),
    "pictures of several sizes": (
        ["fit", *FOLDER, TINY, "--data.image_size=null", "--data.num_workers=0"],
        1,
        "set data.image_size: a side in pixels, or model",
    ),
    "labels differ": (
        [*OWN, "--data.reader.init_args.label_space=[happy,sad]"],
        1,
        "--model.label_space '[happy,sad]'",
    ),
    "guide = judge": (JUDGED, 1, "expected the checkpoint of another classifier"),
    "misspelt key": ([*OWN, "--data.val_fractoin=0.2"], 2, "did you mean data.val_fraction?"),
}
"""Name → command, exit code, and what its one line has to say."""


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_has_one_line_that_says_what_to_type(
    name: str, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command, code, said = MISTAKES[name]
    small = ["--trainer.accelerator=cpu", "--trainer.max_steps=1"] if "configs" in str(command) else []
    found = run([*command, *small, f"--run_dir={tmp_path / 'run'}"], place, monkeypatch)
    stderr = capsys.readouterr().err
    lines = [line for line in stderr.splitlines() if line.startswith("error")]
    assert found == code and len(lines) == 1, stderr[-2000:]
    assert said in lines[0] and not PYTHON_WORDS.search(stderr), lines[0]


def test_voters_that_guess_are_named(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    votes = ["--pseudo_labels.enabled=true", "--pseudo_labels.voters=[classifier.ckpt]"]
    with pytest.warns(UserWarning, match=r"pseudo_labels.voters 'classifier.ckpt': found \d+% .*no better than chance"):
        assert run([*OWN, *votes, *SMALL, f"--run_dir={tmp_path}"], place, monkeypatch) == 0


def test_faces_that_must_be_enlarged_are_named(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.warns(UserWarning, match=r"found faces of 16 pixels, enlarged to the 48 .* --model\.image_size 16"):
        assert run([*OWN, *SMALL, f"--run_dir={tmp_path}"], place, monkeypatch) == 0


def test_a_generator_that_saw_the_validation_rows_is_refused(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    from datamodules.readers import ImageFolderReader
    from datamodules.rows.folds import hash_numbers

    whole = ImageFolderReader(str(place / "faces"), image_size=16).read("train")
    checkpoint = torch.load(place / "generator.ckpt", weights_only=True)
    checkpoint["ExpressionDataModule"] = {"trained_on": torch.from_numpy(hash_numbers(whole.content_hash))}
    torch.save(checkpoint, tmp_path / "leaky.ckpt")
    leaky = [*MIXED, FACES, f"--synthesis.generator={tmp_path / 'leaky.ckpt'}", *SMALL, f"--run_dir={tmp_path / 'run'}"]
    assert run(leaky, place, monkeypatch) == 1
    assert "has learned from 7 of the 7 rows held out for validation" in capsys.readouterr().err
