from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

import label
from experiments.label import labelling
from experiments.label.label_command import main
from lightning_modules.classifier import ExpressionClassifier
from lightning_modules.labeller import Labeller
from tests.fixtures.face_pictures import noise, save_noise, save_run
from tests.fixtures.tiny_generator import NAMES, save_checkpoint, tiny_classifier, tiny_generator


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_run(tmp_path_factory.mktemp("classifier") / "run")


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five pictures of several sizes and formats, deep and flat, grey and in colour."""
    folder = tmp_path_factory.mktemp("pictures") / "faces"
    save_noise(folder / "b.png", 16, 16, 1)
    save_noise(folder / "a.jpg", 30, 20, 2)
    save_noise(folder / "deeper" / "c.webp", 40, 41, 3)
    save_noise(folder / "deeper" / "d.png", 16, 16, 4, grey=True)
    save_noise(folder / "z" / "e.bmp", 8, 9, 5)
    return folder


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_folder_is_a_table(run: Path, faces: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "labels.csv"
    assert label.main([str(faces), "--checkpoint", str(run), "--out", str(out), "--batch_size", "2"]) == 0
    rows = rows_of(out)
    assert [row["path"] for row in rows] == [
        str(faces / name) for name in ("a.jpg", "b.png", "deeper/c.webp", "deeper/d.png", "z/e.bmp")
    ]
    assert list(rows[0]) == ["path", "frame", "face", "x0", "y0", "x1", "y1", *NAMES, "label", "confidence"]
    for row, found in zip(rows, Labeller.load_trained(run).label([row["path"] for row in rows]), strict=True):
        assert {name: float(row[name]) for name in NAMES} == pytest.approx(found.probabilities, abs=1e-6)
        assert row["label"] == found.label and float(row["confidence"]) == pytest.approx(found.confidence)
        assert (row["frame"], row["face"], row["x0"], row["y1"]) == ("", "0", "", "")
    assert f"{out}: 5 faces in 5 pictures (" in capsys.readouterr().out
    assert [path.name for path in out.parent.iterdir()] == ["labels.csv"]


def test_parquet_has_the_same_rows_and_says_who_labelled(run: Path, faces: Path, tmp_path: Path) -> None:
    for name in ("labels.csv", "labels.parquet"):
        assert main([str(faces), "--checkpoint", str(run), "--out", str(tmp_path / name)]) == 0
    table = pq.read_table(tmp_path / "labels.parquet")
    rows = rows_of(tmp_path / "labels.csv")
    assert table.column_names == list(rows[0])
    assert table["label"].to_pylist() == [row["label"] for row in rows]
    np.testing.assert_allclose(table["happy"].to_numpy(), [float(row["happy"]) for row in rows], rtol=1e-6)
    assert table["frame"].null_count == len(rows)
    metadata = table.schema.metadata
    assert json.loads(metadata[b"label_space"]) == list(NAMES)
    fingerprint = ExpressionClassifier.load_trained(run).weights_fingerprint()
    assert metadata[b"classifier"].decode() == fingerprint


def test_every_form_of_a_classifier_gives_the_same(run: Path, faces: Path, tmp_path: Path) -> None:
    ExpressionClassifier.load_trained(run).save_trained(tmp_path / "trained")
    tables = []
    for number, path in enumerate((run, run / "checkpoints" / "last.ckpt", tmp_path / "trained")):
        out = tmp_path / f"{number}.csv"
        assert main([str(faces), "--checkpoint", str(path), "--out", str(out), "--workers", str(number + 1)]) == 0
        tables.append(out.read_text())
    assert tables[0] == tables[1] == tables[2]


def test_a_damaged_picture_is_named_and_the_rest_goes_on(
    run: Path, faces: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torn = tmp_path / "torn.jpg"
    torn.write_bytes((faces / "a.jpg").read_bytes()[:200])
    empty = tmp_path / "empty.png"
    empty.write_bytes(b"")
    out = tmp_path / "labels.csv"
    given = [str(torn), str(faces), str(empty), str(faces / "a.jpg")]
    assert main([*given, "--checkpoint", str(run), "--out", str(out)]) == 1
    assert [Path(row["path"]).name for row in rows_of(out)] == ["a.jpg", "b.png", "c.webp", "d.png", "e.bmp"]
    said = capsys.readouterr().err
    assert f"cannot be used: {torn}: found 200 bytes that cannot be decoded" in said
    assert f"cannot be used: {empty}: found no image data" in said
    assert "2 of 7 pictures cannot be used" in said
    assert "left out: 1 files that were given twice" in said


def test_other_files_of_a_folder_are_counted(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_noise(tmp_path / "faces" / "a.png", 16, 16)
    (tmp_path / "faces" / "notes.txt").write_text("mine")
    (tmp_path / "faces" / ".hidden.png").write_bytes(b"")
    out = str(tmp_path / "labels.csv")
    assert main([str(tmp_path / "faces"), "--checkpoint", str(run), "--out", out]) == 0
    said = capsys.readouterr().err
    assert "left out: 1 in" in said and "notes.txt" in said and "hidden (.hidden.png)" in said


def test_ctrl_c_keeps_what_was_labelled(
    run: Path, faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = labelling.read_ahead

    def broken_off(*given: object) -> Iterator[object]:
        for count, item in enumerate(whole(*given)):  # type: ignore[arg-type]
            if count == 4:
                raise KeyboardInterrupt
            yield item

    monkeypatch.setattr(labelling, "read_ahead", broken_off)
    out = tmp_path / "labels.csv"
    words = [str(faces), "--checkpoint", str(run), "--out", str(out), "--batch_size", "3"]
    assert main(words) == 130
    assert len(rows_of(out)) == 3
    assert "interrupted: the table holds what was labelled until then" in capsys.readouterr().err


def test_a_mistake_is_one_line_and_leaves_nothing(
    run: Path, faces: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    generator = save_checkpoint(tiny_generator(), tmp_path / "generator.ckpt")
    tiny_generator().save_trained(tmp_path / "generator")
    (tmp_path / "empty").mkdir()
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "notes.txt").write_text("mine")
    (tmp_path / "torn.jpg").write_bytes((faces / "a.jpg").read_bytes()[:200])
    (tmp_path / "torn.ckpt").write_bytes(b"torn")
    (tmp_path / "there.csv").write_text("mine")
    Image.fromarray(noise(9, 9).astype(np.float32)[..., 0]).save(tmp_path / "float.tiff")
    before = sorted(tmp_path.rglob("*"))
    good = ["--checkpoint", str(run), "--out", str(tmp_path / "out.csv")]
    out = ["--out", str(tmp_path / "out.csv")]
    run_of = [str(faces), "--checkpoint", str(run), "--out"]

    def checkpoint(name: str) -> list[str]:
        return [str(faces), "--checkpoint", str(tmp_path / name), *out]

    for words, said in (
        ([str(tmp_path / "nowhere.jpg"), *good], "nowhere.jpg': found nothing there, expected an image, a folder"),
        ([str(tmp_path / "empty"), *good], "empty': found no image in this folder (it is empty)"),
        ([str(tmp_path / "texts"), *good], "found no image in this folder (1 in "),
        ([str(tmp_path / "notes.txt"), *good], "found neither image nor video, by its suffix '.txt'"),
        ([str(tmp_path / "torn.jpg"), *good], "torn.jpg: found 200 bytes that cannot be decoded"),
        ([str(tmp_path / "float.tiff"), *good], "pixels of floating-point numbers, expected 8 or 16 bits"),
        (["camera:front", *good], "'camera:front': found no camera's number, expected camera:0"),
        (checkpoint("generator.ckpt"), "found a model of the kind 'diffusion', expected one of the kind 'classifier'"),
        (checkpoint("generator"), "found a model of the kind 'diffusion', expected one of the kind 'classifier'"),
        (checkpoint("run"), "found no last.ckpt in"),
        (checkpoint("empty"), "found a folder without checkpoints/last.ckpt and without model.safetensors"),
        (checkpoint("torn.ckpt"), "torn.ckpt cannot be read as a checkpoint"),
        (checkpoint("nowhere.ckpt"), "no file at"),
        (
            [*run_of, str(tmp_path / "out.txt")],
            "found the suffix '.txt', expected",
        ),
        (
            [*run_of, str(tmp_path / "empty")],
            "found the suffix '', expected .csv",
        ),
        ([*run_of, str(tmp_path / "there.csv")], "a file there already"),
        ([*run_of, "/proc/labels.csv"], "cannot be written ("),
        ([str(faces), *good, "--device", "cuda:97"], "--device: found 'cuda:97', which this machine has not"),
        ([str(faces), *good, "--faces", "--detector", "hare"], "--detector: found 'hare', expected one of haar"),
    ):
        assert main(words) == 2, words
        line = capsys.readouterr().err
        assert said in line and line.startswith("error: ") and line.count("\n") == 1, line
        assert sorted(tmp_path.rglob("*")) == before, words
    assert generator.is_file()


def test_an_existing_table_is_replaced_on_demand(run: Path, faces: Path, tmp_path: Path) -> None:
    out = tmp_path / "labels.csv"
    out.write_text("old")
    assert main([str(faces), "--checkpoint", str(run), "--out", str(out), "--overwrite"]) == 0
    assert len(rows_of(out)) == 5


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "the following arguments are required: PATH, --checkpoint, --out"),
        (["a.png", "--checkpoint", "x", "--out", "y.csv", "--every", "0"], "--every: found '0', expected a whole"),
        (["a.png", "--checkpoint", "x", "--out", "y.csv", "--margin", "-1"], "--margin: found '-1', expected a"),
        (["a.png", "--checkpoint", "x", "--out", "y.csv", "--margin=9"], "--margin: found '9', expected a number in"),
        (["a.png", "--checkpoint", "x", "--out", "y.csv", "--faces", "--crops"], "not allowed with argument --faces"),
    ],
)
def test_the_parser_says_what_is_missing(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(words)
    assert stopped.value.code == 2
    assert said in capsys.readouterr().err


def test_a_classifier_of_latents_is_refused_or_labels(tmp_path: Path) -> None:
    """It reads latents that it makes of the pixels itself."""
    generator = save_checkpoint(tiny_generator(), tmp_path / "generator.ckpt")
    classifier = tiny_classifier(
        latents_of=str(generator),
        backbone_kwargs={"img_size": 4, "patch_size": 2, "embed_dim": 16, "depth": 1, "num_heads": 2},
    )
    save_checkpoint(classifier, tmp_path / "latent.ckpt")
    picture = save_noise(tmp_path / "a.png", 16, 16)
    classifier.save_trained(tmp_path / "trained")
    first, second = (Labeller.load_trained(tmp_path / name).label(picture) for name in ("latent.ckpt", "trained"))
    assert first == second
