"""How the faces of a training were aligned goes where its classifier goes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer

from datamodules.expression_data_module import ExpressionDataModule
from datamodules.readers import DrawnReader
from datamodules.rows.alignment import Alignment
from datamodules.rows.alignment_record import alignment_record
from experiments.export.export_command import main as export
from experiments.serve.face_readers import FaceReaders
from lightning_modules import ExpressionClassifier, Labeller
from lightning_modules.aligned_faces import tell_of_other_alignment
from lightning_modules.blending import blend_classifiers
from lightning_modules.voter import load_voter
from tests.fixtures.face_pictures import save_run
from tests.fixtures.tiny_generator import save_checkpoint, tiny_classifier

SPACE = ("neutral", "happy", "sad", "surprise", "fear", "disgust", "anger")
SETTINGS = Alignment("detector", margin=0.3, not_found="whole")
RECORD = alignment_record(SETTINGS, 20)


class NoFace:
    """Stands where a detector stands, and finds nothing."""

    version = "1"

    def __call__(self, picture: Any) -> list[Any]:
        return []


def data(alignment: Alignment) -> ExpressionDataModule:
    reader = DrawnReader({"train": 14, "val": 7, "test": 14}, image_size=32, label_space="basic7")
    return ExpressionDataModule(reader, batch_size=7, image_size=20, alignment=alignment, seed=0)


def trainer(folder: Path) -> Trainer:
    quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return Trainer(accelerator="cpu", devices=1, max_steps=1, default_root_dir=folder, **quiet)


def trained(folder: Path, alignment: Alignment) -> Path:
    """Returns the checkpoint of a short training, far from the folder of its run."""
    runner, module = trainer(folder), tiny_classifier(SPACE)
    runner.fit(module.train(), datamodule=data(alignment))
    place = folder / "elsewhere" / "some.ckpt"
    runner.save_checkpoint(place)
    return place


@pytest.fixture
def detector(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYNFER_INDEX_DIR", str(tmp_path / "index"))
    monkeypatch.setattr("datamodules.rows.alignment.load_detector", lambda name: NoFace())


@pytest.mark.usefixtures("detector")
def test_a_checkpoint_and_a_folder_know_how_faces_were_aligned(tmp_path: Path) -> None:
    checkpoint = trained(tmp_path, SETTINGS)
    loaded = ExpressionClassifier.load_trained(checkpoint)
    assert loaded.face_alignment == RECORD
    loaded.save_trained(tmp_path / "folder")
    again = save_checkpoint(ExpressionClassifier.load_trained(tmp_path / "folder"), tmp_path / "again.ckpt")
    for place in (checkpoint, tmp_path / "folder", again):
        prepare = Labeller.load_trained(place).prepare
        assert (prepare.alignment, prepare.data_size, prepare.reader_size) == (SETTINGS, 20, None)
        assert load_voter(place).network.face_alignment == RECORD  # type: ignore[attr-defined]
    assert torch.load(checkpoint, weights_only=True)["expression_classifier"]["alignment"] == RECORD


def test_a_classifier_of_faces_as_they_are_says_so(tmp_path: Path) -> None:
    checkpoint = trained(tmp_path, Alignment())
    loaded = ExpressionClassifier.load_trained(checkpoint)
    assert loaded.face_alignment == {}
    loaded.save_trained(tmp_path / "folder")
    assert ExpressionClassifier.load_trained(tmp_path / "folder").face_alignment == {}
    assert Labeller.load_trained(tmp_path / "folder").prepare.alignment is None


def test_of_an_older_checkpoint_the_run_says_it(tmp_path: Path) -> None:
    settings = {"kind": "detector", "template": "arcface", "margin": 0.3, "not_found": "whole"}
    run = save_run(tmp_path / "run", data={"image_size": 20, "alignment": settings})
    assert ExpressionClassifier.load_trained(run).face_alignment == RECORD
    alone = shutil.copy(run / "checkpoints" / "last.ckpt", tmp_path / "alone.ckpt")
    assert ExpressionClassifier.load_trained(alone).face_alignment is None
    assert ExpressionClassifier.load_trained(save_run(tmp_path / "plain")).face_alignment is None


def test_faces_that_lie_otherwise_are_told_in_one_line(tmp_path: Path) -> None:
    network, runner = tiny_classifier(SPACE), trainer(tmp_path)
    runner.datamodule = data(Alignment())  # type: ignore[attr-defined]
    tell_of_other_alignment(runner, network, "judge")  # it does not say how its faces lay
    network.face_alignment = {}
    tell_of_other_alignment(runner, network, "judge")
    network.face_alignment = RECORD
    with pytest.warns(UserWarning, match=r"^judge: found .* aligned by detector \(arcface, margin 0.3\), and .* not "):
        tell_of_other_alignment(runner, network, "judge")
    runner.datamodule = data(Alignment("landmarks", margin=0.3))  # type: ignore[attr-defined]
    tell_of_other_alignment(runner, network, "judge")  # found by other means, in the same place
    runner.datamodule = data(Alignment("detector", margin=0.1))  # type: ignore[attr-defined]
    with pytest.warns(UserWarning, match=r"faces of this run that are aligned by detector \(arcface, margin 0.1\)"):
        tell_of_other_alignment(runner, network, "judge")


def test_a_test_on_faces_that_lie_otherwise_tells_it(tmp_path: Path) -> None:
    network = tiny_classifier(SPACE)
    network.face_alignment = RECORD
    checkpoint = save_checkpoint(network, tmp_path / "aligned.ckpt")
    with pytest.warns(UserWarning, match="ckpt_path: found a classifier whose training faces were aligned"):
        trainer(tmp_path).test(tiny_classifier(SPACE), datamodule=data(Alignment()), ckpt_path=str(checkpoint))


def test_faces_of_a_page_and_blends_are_looked_at_too(tmp_path: Path) -> None:
    places = []
    for name, record in (("plain", {}), ("aligned", RECORD)):
        network = tiny_classifier(SPACE)
        network.face_alignment = record
        network.save_trained(tmp_path / name)
        places.append(str(tmp_path / name))
    FaceReaders(places[0])
    with pytest.warns(UserWarning, match="--judge '.*aligned': found a classifier whose training faces were aligned"):
        FaceReaders(places[1])
    assert blend_classifiers([places[1], places[1]]).face_alignment == RECORD
    with pytest.raises(ValueError, match=r"blend: found training faces aligned by detector .* expected them not"):
        blend_classifiers(places)


def test_an_export_says_where_faces_must_lie(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network = tiny_classifier(SPACE)
    for name, record in (("plain", None), ("aligned", RECORD)):
        network.face_alignment = record
        network.save_trained(tmp_path / name)
        words = [str(tmp_path / name), "--what", "torchscript", "--out", str(tmp_path / f"{name}-graph")]
        assert export(words) == 0
    assert capsys.readouterr().err.count("found a classifier of aligned faces") == 1
    cards = [(tmp_path / f"{name}-graph" / "README.md").read_text() for name in ("plain", "aligned")]
    assert "aligned" not in cards[0] and "the eye on the left (0.401, 0.476), the eye on the right" in cards[1]
    told = [json.loads((tmp_path / f"{name}-graph" / "labels.json").read_text()) for name in ("plain", "aligned")]
    assert [one["alignment"] for one in told] == [None, RECORD]
