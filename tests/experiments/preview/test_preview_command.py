from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import preview
from datamodules.rows.sample_table import SampleTable
from experiments.preview.preview_command import main
from experiments.preview.row_cards import card_of
from tests.docs.pages import PROJECT
from tests.fixtures.published_sets import ck_plus, few_pictures, raf_db
from tests.fixtures.tiny_data import tiny_table

CONFIGS = PROJECT / "configs"


def look(*words: str) -> dict[str, Any]:
    """Runs the command and returns the summary, which lies in the folder behind --out."""
    assert main(list(words)) == 0
    summary = Path(words[words.index("--out") + 1]) / "summary.json"
    numbers: dict[str, Any] = json.loads(summary.read_text())
    return numbers


def test_drawn_faces_without_a_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "look"
    numbers = look(
        f"--config={CONFIGS}/data/drawn.yaml",
        "--data.reader.init_args.count={train: 30, val: 9, test: 8}",
        "--data.reader.init_args.image_size=32",
        "--data.reader.init_args.affect=true",
        *("--rows", "5", "--seed", "3", "--out", str(out)),
    )
    assert sorted(path.name for path in out.iterdir()) == ["summary.json", "test.png", "train.png", "val.png"]
    with Image.open(out / "train.png") as picture:
        assert picture.width == 1000 and picture.height < 400  # two rows of cards
    train = numbers["splits"]["train"]
    assert train["rows"] == 30 and sum(train["classes"].values()) == 30 and train["action_units"] == 30
    assert train["ratings"] == 30 and train["agreement"] == {}
    assert train["pictures"] == {"looked_at": 30, "sizes": {"32x32": 30}, "files": {}, "grey": 0}
    assert numbers["not_read"] == {} and [pair["same_pixels"] for pair in numbers["across"]] == [0, 0, 0]
    said = capsys.readouterr().out
    assert "train: 30 rows: neutral 5, " in said and "no pixels in two splits" in said and str(out / "val.png") in said


def test_people_and_pixels_in_two_splits_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = ck_plus(tmp_path / "CK+")
    words = [f"--config={CONFIGS}/data/ck_plus.yaml", f"--data.reader.init_args.root={root}"]
    numbers = look(*words, "--out", str(tmp_path / "look"))
    train, test = numbers["splits"]["train"], numbers["splits"]["test"]
    assert (train["people"], test["people"], train["pictures"]["grey"]) == (9, 1, train["rows"])
    assert train["left_out"]["frames of sequences without a label"] == 50
    assert len(train["said"]) == 1 and "the release has 1,308" in train["said"][0]
    pairs = {tuple(pair["splits"]): pair for pair in numbers["across"]}
    assert pairs["train", "test"]["people"] == 0
    assert pairs["val", "test"]["people"] == 1  # one fold is both, as papers do
    assert pairs["val", "test"]["same_pixels"] == pairs["val", "test"]["rows_of_people"] == test["rows"]
    said = capsys.readouterr()
    assert "val, test: 1 people (or clips) in both, 4 rows of test" in said.out and "left out" not in said.err


def test_a_box_is_shown_and_another_number_than_published_is_told(tmp_path: Path) -> None:
    root = raf_db(tmp_path / "RAF-DB")
    reader = "--data.reader.init_args.reader.init_args"
    words = [f"--config={CONFIGS}/data/raf_db.yaml", f"{reader}.root={root}", f"{reader}.images=original"]
    numbers = look(*words, "--out", str(tmp_path / "look"))
    train = numbers["splits"]["train"]
    assert len(train["said"]) == 1 and "found 14 labelled pictures, the release has 12,271" in train["said"][0]
    assert train["pictures"]["sizes"] == {"100x100": 14} and train["pictures"]["files"] == {"40x30": 14}
    with Image.open(tmp_path / "look" / "train.png") as picture:
        red = (np.asarray(picture) == [230, 30, 30]).all(axis=-1)
    assert red.sum() > 14 * 100  # a frame in each of the whole pictures


def test_splits_that_cannot_be_read_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    noise = np.random.default_rng(0)
    for name in ("happy", "sad"):
        (tmp_path / "faces" / "train" / name).mkdir(parents=True)
        for number in range(3):
            picture = Image.fromarray(noise.integers(0, 256, (12, 12), dtype=np.uint8))
            picture.save(tmp_path / "faces" / "train" / name / f"{number}.png")
    _broken_picture(tmp_path / "faces" / "val" / "sad" / "0.png")
    out = tmp_path / "look"
    out.mkdir()
    (out / "summary.json").write_text("{}")
    (out / "val.png").touch()  # of an earlier look at something else
    words = ["--data", str(tmp_path / "faces"), "--data.reader.init_args.label_space=[happy, sad]"]
    numbers = look(*words, "--out", str(out))
    assert set(numbers["not_read"]) == {"val", "test"} and "1 bad of 1" in numbers["not_read"]["val"]
    assert not (out / "val.png").exists()
    assert numbers["splits"]["train"]["classes"] == {"happy": 3, "sad": 3} and numbers["across"] == []
    assert "val: cannot be read: " in capsys.readouterr().out


def _broken_picture(path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.write_text("no picture")


def _synthetic_set(folder: Path) -> Path:
    from tests.datamodules.readers.test_synthetic_set import sample

    folder.mkdir()
    rows = [sample(1), sample(2, "sad"), sample(3, kept=False)]
    pq.write_table(pa.Table.from_pylist(rows), folder / "shard.parquet")
    return folder


def test_a_synthetic_set_alone_and_beside_real_faces(tmp_path: Path) -> None:
    root = _synthetic_set(tmp_path / "made")
    alone = look(
        "--data.reader=datamodules.readers.SyntheticSetReader",
        *(f"--data.reader.init_args.root={root}", "--out", str(tmp_path / "alone")),
    )
    assert alone["splits"]["train"]["is_synthetic"] and alone["splits"]["train"]["soft_labels"] == 2
    assert list(alone["splits"]["train"]["left_out"].values()) == [1] and set(alone["not_read"]) == {"val", "test"}
    beside = look(
        f"--config={CONFIGS}/data/drawn.yaml",
        "--data.reader.init_args.count={train: 9, val: 9, test: 9}",
        "--data.synthetic_reader=datamodules.readers.SyntheticSetReader",
        *(f"--data.synthetic_reader.init_args.root={root}", "--out", str(tmp_path / "beside")),
    )
    assert beside["splits"]["synthetic"]["rows"] == 2 and len(beside["across"]) == 6
    orange = {}
    for name in ("train", "synthetic"):
        with Image.open(tmp_path / "beside" / f"{name}.png") as picture:
            orange[name] = int((np.asarray(picture) == [205, 95, 0]).all(axis=-1).sum())
    assert orange["train"] == 0 and orange["synthetic"] > 1000


def test_a_model_among_the_configs_is_not_made(tmp_path: Path) -> None:
    numbers = look(
        f"--config={CONFIGS}/data/drawn.yaml",
        f"--config={CONFIGS}/classifier/fer2013.yaml",
        "--model.init_args.backbone=not_there",
        *("--data.reader.init_args.count={train: 9, val: 9, test: 9}", "--out", str(tmp_path / "look")),
    )
    assert numbers["splits"]["train"]["rows"] == 9


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "preview: found no data on the command line, expected --data FOLDER, or e.g. --config configs/data/"),
        (["--data", "nowhere"], "data: found no folder 'nowhere'"),
        (["--config", "nowhere.yaml"], "nowhere.yaml"),
        (["--config=drawn", "--data.batchsize=3"], "did you mean data.batch_size?"),
        (["--config=drawn", "--data.reader.init_args.sid=3"], "'sid'"),
        (["--config=drawn", "--rows=0"], "--rows: found 0, expected 1 to 1000"),
        (["--config=drawn", "--rows=many"], "--rows: found 'many', expected a whole number"),
        (["--config=drawn", "--seed=-1"], "--seed: found -1, expected at least 0"),
        (["--config=drawn", "--out=taken"], "--out 'taken': found a file, expected a folder"),
        (["--config=drawn", "more"], "more"),
        (["--config=torn.yaml"], "torn.yaml"),
        (["--data", "empty"], "found no split in 'empty'"),
        (["--data", "broken"], "broken/train/happy/0.png"),
        (["--data", "broken"], "(and nothing of val, test can be read)"),
    ],
)
def test_errors_are_one_line(
    words: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").touch()
    (tmp_path / "torn.yaml").write_text("data: {reader: [")
    (tmp_path / "empty").mkdir()
    for name in ("happy", "sad"):
        _broken_picture(tmp_path / "broken" / "train" / name / "0.png")
    words = [word.replace("=drawn", f"={CONFIGS}/data/drawn.yaml") for word in words]
    try:
        code: Any = main(words)
    except SystemExit as stopped:
        code = stopped.code
    captured = capsys.readouterr()
    assert code == 2 and not captured.out
    (line,) = captured.err.splitlines()
    assert line.startswith("error: ") and said in line
    assert not (tmp_path / "preview").exists()


def test_cards_say_what_the_table_knows() -> None:
    table = tiny_table(3, label_space=("happy", "sad"))
    soft = table.soft_label.copy()
    soft[0] = [0.7, 0.3]
    au = np.full((3, 4), np.nan, dtype=np.float32)
    au[0], au[1] = [0.2, 0.0, 0.9, 0.5], 0.0
    known = SampleTable(
        images=table.images,
        label=np.array([0, 1, -1]),
        soft_label=soft,
        sample_id=table.sample_id,
        content_hash=table.content_hash,
        label_space=table.label_space,
        split="train",
        au=au,
        au_names=("AU1", "AU2", "AU12", "AU25"),
        group=np.array(["anna", "anna", "ben"]),
        is_synthetic=True,
    )
    first, second, third = (card_of(known, row) for row in range(3))
    assert (first.title, second.title, third.title) == ("happy", "sad", "unlabelled")
    assert [(name, round(share, 2)) for name, share in first.shares] == [("happy", 0.7), ("sad", 0.3)]
    assert first.lines == ["of anna", "AU12 0.90", "AU25 0.50", "AU1 0.20", "train-0"]
    assert second.shares == [] and second.lines == ["of anna", "no AU acts", "train-1"]
    assert third.shares == [] and third.lines == ["of ben", "train-2"]
    assert first.face.shape == (8, 8, 3) and first.is_synthetic and first.whole is None


def test_the_program_is_the_command() -> None:
    assert preview.main is main


@few_pictures
def test_aligned_faces_are_shown_with_what_aligned_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = raf_db(tmp_path / "RAF-DB")
    words = [f"--config={CONFIGS}/data/raf_db.yaml", f"--data.reader.init_args.reader.init_args.root={root}"]
    words += ["--data.reader.init_args.reader.init_args.images=original", "--data.image_size=48"]
    numbers = look(*words, "--data.alignment.kind=box", "--rows", "5", "--out", str(tmp_path / "look"))
    train = numbers["splits"]["train"]
    assert train["alignment"]["by"] == {"box": 14} and train["pictures"]["sizes"] == {"48x48": 14}
    assert train["pictures"]["files"] == {"40x30": 14} and "14 by box" in capsys.readouterr().out
    with Image.open(tmp_path / "look" / "train.png") as picture:
        colours = {colour for _, colour in picture.convert("RGB").getcolors(2**20) or []}
    assert (230, 30, 30) in colours and (40, 160, 60) in colours  # the box of the data set, and what is seen
