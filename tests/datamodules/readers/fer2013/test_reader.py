"""All layouts of FER2013 give the same rows; bad rows are named and counted."""

from __future__ import annotations

import csv
import hashlib
import io
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from datamodules.readers.fer2013 import FER2013Reader
from datamodules.readers.fer2013.ferplus_votes import VOTE_COLUMNS
from datamodules.rows.provenance import find_duplicates, split_manifest
from synfer.labels.annotator_agreement import annotator_agreement

CODES = ["angry", "disgust", "fear", "happy", "sad", "surprise", "neutral"]
BASIC7 = ("neutral", "happy", "sad", "surprise", "fear", "disgust", "anger")


def png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def vote(**counts: int) -> list[int]:
    return [counts.get(name, 0) for name in VOTE_COLUMNS]


@pytest.fixture
def rows() -> list[dict[str, Any]]:
    """Eight training rows (one tied, one not a face), two of each other usage; random pixels."""
    rng = np.random.default_rng(3)
    votes = [
        *(vote(anger=8, fear=2), vote(disgust=4, anger=4, sadness=2), vote(fear=9, surprise=1), vote(happiness=10)),
        *(vote(sadness=7, neutral=3), vote(surprise=10), vote(neutral=10), vote(NF=10)),
        *(vote(happiness=10), vote(sadness=5, neutral=5), vote(contempt=6, neutral=4), vote(neutral=9, unknown=1)),
    ]
    usage = ["Training"] * 8 + ["PublicTest"] * 2 + ["PrivateTest"] * 2
    label = [0, 1, 2, 3, 4, 5, 6, 0, 3, 4, 6, 6]
    return [
        {
            "row": index,
            "image": rng.integers(0, 256, (48, 48), dtype=np.uint8),
            "label": label[index],
            "usage": usage[index],
            "ferplus_votes": votes[index],
        }
        for index in range(12)
    ]


def write_parquet(root: Path, rows: list[dict[str, Any]]) -> str:
    root.mkdir(parents=True, exist_ok=True)
    cells = [{**r, "image": r["image"] if isinstance(r["image"], bytes) else png(r["image"])} for r in rows]
    for name, part in (("a", cells[:9]), ("b", cells[9:])):
        pq.write_table(pa.Table.from_pylist(part), root / f"{name}.parquet")
    return str(root)


def write_csv(root: Path, rows: list[dict[str, Any]], icml: bool = False) -> str:
    root.mkdir(parents=True, exist_ok=True)
    with (root / ("icml_face_data.csv" if icml else "fer2013.csv")).open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["emotion", " Usage", " pixels"] if icml else ["emotion", "pixels", "Usage"])
        for row in rows:
            text = row["image"] if isinstance(row["image"], str) else " ".join(map(str, row["image"].ravel()))
            out.writerow([row["label"], row["usage"], text] if icml else [row["label"], text, row["usage"]])
    with (root / "fer2013new.csv").open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["Usage", "Image name", *VOTE_COLUMNS])
        out.writerows([row["usage"], "", *row["ferplus_votes"]] for row in rows)
    return str(root)


def write_icml(root: Path, rows: list[dict[str, Any]]) -> str:
    return write_csv(root, rows, icml=True)


def write_folders(root: Path, rows: list[dict[str, Any]]) -> str:
    folder = {"Training": "train", "PublicTest": "val", "PrivateTest": "test"}
    for row in rows:
        path = root / folder[row["usage"]] / CODES[row["label"]] / f"{row['row']:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(row["image"] if isinstance(row["image"], bytes) else png(row["image"]))
    return str(root)


Writer = Callable[[Path, list[dict[str, Any]]], str]
WITH_ROWS: list[Writer] = [write_parquet, write_csv, write_icml]


@pytest.mark.parametrize("write", [*WITH_ROWS, write_folders])
def test_every_layout_gives_the_same_faces(tmp_path: Path, rows: list[dict[str, Any]], write: Writer) -> None:
    reader = FER2013Reader(write(tmp_path / "fer", rows))
    assert reader.label_space == BASIC7
    for split, usage in (("train", "Training"), ("val", "PublicTest"), ("test", "PrivateTest")):
        expected = [r for r in rows if r["usage"] == usage]
        table = reader.read(split)  # type: ignore[arg-type]
        by_hash = {h: BASIC7[i] for h, i in zip(table.content_hash, table.label, strict=True)}
        names = {"angry": "anger"}
        assert by_hash == {
            hashlib.sha256(r["image"].tobytes()).hexdigest()[:16]: names.get(CODES[r["label"]], CODES[r["label"]])
            for r in expected
        }
        assert table.split == split and not table.is_synthetic and table.report.read == len(expected)
        assert table.images.batch(np.array([0])).shape == (1, 1, 48, 48)


@pytest.mark.parametrize("write", WITH_ROWS)
def test_sample_ids_and_pixels_follow_the_row(tmp_path: Path, rows: list[dict[str, Any]], write: Writer) -> None:
    table = FER2013Reader(write(tmp_path / "fer", rows)).read("val")
    assert table.sample_id.tolist() == ["fer2013-8", "fer2013-9"]
    np.testing.assert_array_equal(table.images.batch(np.array([1]))[0, 0].numpy(), rows[9]["image"])


@pytest.mark.parametrize("write", WITH_ROWS)
def test_ferplus_modes(tmp_path: Path, rows: list[dict[str, Any]], write: Writer) -> None:
    root = write(tmp_path / "fer", rows)
    soft = FER2013Reader(root, labels="ferplus_soft").read("train")
    assert soft.sample_id.tolist() == [f"fer2013-{n}" for n in range(7)]  # row 7 is not a face, row 1 is tied
    space = soft.label_space
    assert len(space) == 8
    assert soft.soft_label[0, space.index("anger")] == pytest.approx(0.8)
    assert soft.soft_label[2].max() == pytest.approx(1)  # the single vote is dropped
    assert space[soft.label[1]] == "disgust"
    assert soft.report.excluded == {"FER+ top vote is unknown or not a face": 1}
    votes = np.array([rows[n]["ferplus_votes"] for n in range(7)])
    assert soft.report.agreement == annotator_agreement(votes) and soft.report.agreement["faces"] == 7
    assert split_manifest(soft)["agreement"] == soft.report.agreement
    assert FER2013Reader(root).read("train").report.agreement == {}

    majority = FER2013Reader(root, labels="ferplus_majority").read("train")
    assert majority.sample_id.tolist() == [f"fer2013-{n}" for n in (0, 2, 3, 4, 5, 6)]
    assert set(np.unique(majority.soft_label)) == {0.0, 1.0}
    assert majority.report.excluded["tied FER+ top vote"] == 1

    val = FER2013Reader(root, labels="ferplus_soft").read("val")
    assert val.sample_id.tolist() == ["fer2013-8"] and val.soft_label.max() == 1
    test = FER2013Reader(root, labels="ferplus_soft").read("test")
    assert space[test.label[0]] == "contempt" and test.soft_label[0].max() == 1


def test_usages_and_limit(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    root = write_parquet(tmp_path / "fer", rows)
    reader = FER2013Reader(root, usages={"test": "PublicTest"}, limit=3)
    assert len(reader.read("train")) == 3
    assert reader.read("test").sample_id.tolist() == reader.read("val").sample_id.tolist()
    folders = write_folders(tmp_path / "folders", rows)
    assert len(FER2013Reader(folders, usages={"val": "test"}).read("val")) == 2


@pytest.mark.parametrize("write", [*WITH_ROWS, write_folders])
def test_a_limit_takes_every_expression(tmp_path: Path, write: Writer) -> None:
    rng = np.random.default_rng(0)
    label = sorted(rng.permutation([0] * 20 + [3] * 40 + [6] * 40).tolist())  # a file sorted by class
    rows = [
        {"row": i, "image": rng.integers(0, 256, (48, 48), dtype=np.uint8), "label": code, "usage": "Training"}
        | {"ferplus_votes": vote(neutral=10)}
        for i, code in enumerate(label)
    ]
    reader = FER2013Reader(write(tmp_path / "fer", rows), limit=10)
    table = reader.read("train")
    assert {name: n for name, n in table.class_counts().items() if n} == {"anger": 2, "happy": 4, "neutral": 4}
    assert (
        reader.read("train").sample_id.tolist()
        == table.sample_id.tolist()
        == sorted(
            table.sample_id.tolist(),
            key=lambda name: int(re.findall(r"\d+", name)[-1]) if write != write_folders else name,
        )
    )


@pytest.mark.parametrize("write", WITH_ROWS)
def test_votes_of_other_rows_are_refused(tmp_path: Path, write: Writer) -> None:
    rng = np.random.default_rng(0)
    names = ["anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral"]  # of FER+, by code
    label = rng.integers(0, 7, 80).tolist()
    rows = [
        {"row": i, "image": rng.integers(0, 256, (48, 48), dtype=np.uint8), "label": code, "usage": "Training"}
        # FER+ confirms two labels of three
        | {"ferplus_votes": vote(**{names[code if i % 3 else (code + 1) % 7]: 10})}
        for i, code in enumerate(label)
    ]
    assert len(FER2013Reader(write(tmp_path / "whole", rows), labels="ferplus_soft").read("train")) == 80
    for row, other in zip(rows, sorted(rows, key=lambda row: row["label"]), strict=True):
        row["label"] = other["label"]  # as in a table of faces that was sorted
    root = write(tmp_path / "sorted", rows)
    one_line(lambda: FER2013Reader(root, labels="ferplus_majority").read("train"), r"original label of \d+% of 80 rows")
    assert len(FER2013Reader(root).read("train")) == 80


def test_files_that_are_no_rows_are_counted(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    root = Path(write_folders(tmp_path, rows))
    copies = root / "train" / "happy" / ".ipynb_checkpoints"
    copies.mkdir()
    (copies / "x-checkpoint.png").write_bytes(png(rows[0]["image"]))
    table = FER2013Reader(str(root)).read("train")
    reason = "hidden (train/happy/.ipynb_checkpoints/x-checkpoint.png)"
    assert len(table) == 8 and table.report.read == 9 and table.report.excluded == {reason: 1}
    (root / "validation").mkdir()
    one_line(lambda: FER2013Reader(str(root)), "found the folders val and validation for one split")


def test_datasets_image_struct(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    cells = [{**r, "image": {"bytes": png(r["image"]), "path": None}} for r in rows]
    pq.write_table(pa.Table.from_pylist(cells), tmp_path / "x.parquet")
    assert len(FER2013Reader(str(tmp_path)).read("train")) == 8


# Bad input ----------------------------------------------------------------------------------------------------------


def one_line(call: Callable[[], object], pattern: str, kind: type[Exception] = ValueError) -> None:
    with pytest.raises(kind, match=pattern) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_missing_root_and_unknown_layout(tmp_path: Path) -> None:
    one_line(
        lambda: FER2013Reader(str(tmp_path / "no")),
        r"data\.reader\.init_args\.root: found no folder",
        FileNotFoundError,
    )
    one_line(
        lambda: FER2013Reader(str(tmp_path)), r"data\.reader\.init_args\.root: found no FER2013", FileNotFoundError
    )


def test_wrong_settings(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    root = write_parquet(tmp_path, rows)
    one_line(lambda: FER2013Reader(root, labels="soft"), "labels: found 'soft'")  # type: ignore[arg-type]
    one_line(lambda: FER2013Reader(root, usages={"valid": "PublicTest"}), "usages: found split 'valid'")
    one_line(lambda: FER2013Reader(root, limit=0), "limit: found 0")
    one_line(lambda: FER2013Reader(root, on_bad_sample="no"), "on_bad_sample: found 'no'")  # type: ignore[arg-type]


def test_missing_column(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    pq.write_table(pa.Table.from_pylist([{"row": 1, "image": b"", "usage": "Training"}]), tmp_path / "x.parquet")
    one_line(lambda: FER2013Reader(str(tmp_path)), r"x\.parquet: found no column 'label'")
    table = tmp_path / "csv" / "fer2013.csv"
    table.parent.mkdir()
    table.write_text("emotion,pixel,Usage\n")
    one_line(lambda: FER2013Reader(str(table.parent)), r"fer2013\.csv: found no column 'pixels'")


def test_not_parquet(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(b"nothing")
    one_line(lambda: FER2013Reader(str(tmp_path)), "not Parquet")


def test_ferplus_needs_votes(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    folders = write_folders(tmp_path / "folders", rows)
    one_line(lambda: FER2013Reader(folders, labels="ferplus_soft"), "no row numbers", FileNotFoundError)
    root = Path(write_csv(tmp_path / "csv", rows))
    (root / "fer2013new.csv").unlink()
    one_line(lambda: FER2013Reader(str(root), labels="ferplus_soft"), r"no 'fer2013new\.csv'", FileNotFoundError)


def test_ferplus_table_of_another_order(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    root = Path(write_csv(tmp_path, rows))
    lines = (root / "fer2013new.csv").read_text().splitlines()
    (root / "fer2013new.csv").write_text("\n".join([lines[0], *lines[:0:-1]]))
    one_line(lambda: FER2013Reader(str(root), labels="ferplus_soft").read("train"), "row 0: found usage 'PrivateTest'")
    (root / "fer2013new.csv").write_text("\n".join(lines[:-1]))
    one_line(lambda: FER2013Reader(str(root), labels="ferplus_soft").read("train"), "found 11 rows, expected the 12")


def test_empty_split(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    few = [r for r in rows if r["usage"] != "PrivateTest"]
    pattern = r"found no row with usage 'PrivateTest' \(found PublicTest 2, Training 8\)"
    one_line(lambda: FER2013Reader(write_parquet(tmp_path / "p", few)).read("test"), pattern)
    one_line(lambda: FER2013Reader(write_csv(tmp_path / "c", few)).read("test"), pattern)
    one_line(
        lambda: FER2013Reader(write_folders(tmp_path / "f", few)).read("test"), "no folder for usage 'PrivateTest'"
    )


def test_row_twice(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    rows[1]["row"] = 0
    one_line(lambda: FER2013Reader(write_parquet(tmp_path, rows)).read("train"), "found row 0 more than once")


@pytest.mark.parametrize("write", WITH_ROWS)
def test_unknown_label_code(tmp_path: Path, rows: list[dict[str, Any]], write: Writer) -> None:
    rows[2]["label"] = 9
    root = write(tmp_path / "fer", rows)
    pattern = r"row 2: found label code '?9'?, expected 0 to 6 \(1 bad of 8 samples"
    one_line(lambda: FER2013Reader(root).read("train"), pattern)
    table = FER2013Reader(root, on_bad_sample="skip").read("train")
    assert len(table) == 7 and "fer2013-2" not in table.sample_id
    assert len(table.report.skipped) == 1 and "label code" in table.report.skipped[0]


def test_bad_images_in_parquet(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    rows[0]["image"] = png(rows[0]["image"])[:700]
    rows[2]["image"] = b"not an image"
    rows[4]["image"] = np.zeros((48, 48), np.uint8)
    rows[5]["image"] = rows[5]["image"][:40]
    root = write_parquet(tmp_path, rows)
    one_line(lambda: FER2013Reader(root).read("train"), r"a\.parquet row 0: .*cannot be decoded.*\(4 bad of 8 samples")
    table = FER2013Reader(root, on_bad_sample="skip").read("train")
    assert table.sample_id.tolist() == [f"fer2013-{n}" for n in (1, 3, 6, 7)]
    assert [re.search(r"row (\d)", line)[1] for line in table.report.skipped] == ["0", "2", "4", "5"]  # type: ignore[index]
    assert "black image" in table.report.skipped[2] and "40x48" in table.report.skipped[3]
    np.testing.assert_array_equal(table.images.batch(np.array([1]))[0, 0].numpy(), rows[3]["image"])
    assert len(FER2013Reader(root).read("val")) == 2  # the other splits are whole


@pytest.mark.parametrize(
    ("pixels", "pattern"),
    [
        ("1 2 3", "found 3 pixels, expected 48x48"),
        (" ".join(["256"] * 2304), "found pixels of 256 to 256"),
        ("1 2 x", "found pixels that are not numbers"),
        ("", "found (0 pixels|pixels that are not numbers)"),
        (" ".join(["0"] * 2304), "found a black image"),
    ],
)
def test_bad_pixels_in_csv(tmp_path: Path, rows: list[dict[str, Any]], pixels: str, pattern: str) -> None:
    rows[3]["image"] = pixels
    root = write_csv(tmp_path, rows)
    one_line(lambda: FER2013Reader(root).read("train"), rf"fer2013\.csv row 3: {pattern}")
    assert len(FER2013Reader(root, on_bad_sample="skip").read("train")) == 7


def test_short_line_in_csv_keeps_row_numbers(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    root = Path(write_csv(tmp_path, rows))
    lines = (root / "fer2013.csv").read_text().splitlines()
    lines[2] = "1"
    (root / "fer2013.csv").write_text("\n".join(lines))
    one_line(lambda: FER2013Reader(str(root)).read("train"), "row 1: found 1 cells, expected 3")
    table = FER2013Reader(str(root), labels="ferplus_soft", on_bad_sample="skip").read("train")
    assert table.sample_id.tolist() == [f"fer2013-{n}" for n in (0, 2, 3, 4, 5, 6)]


def test_bad_folder_files(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    root = Path(write_folders(tmp_path, rows))
    (root / "train" / "happy" / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    (root / "train" / "bored").mkdir()
    (root / "train" / "bored" / "x.png").write_bytes(png(rows[0]["image"]))
    one_line(lambda: FER2013Reader(str(root)).read("train"), r"x\.png: found label code 'bored'.*\(2 bad of 10")
    assert len(FER2013Reader(str(root), on_bad_sample="skip").read("train")) == 8


def test_official_black_rows_are_read_and_named(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    rows[3] |= {"row": 6458, "image": np.zeros((48, 48), np.uint8)}
    root = write_parquet(tmp_path, rows)
    table = FER2013Reader(root).read("train")
    assert len(table) == 8 and table.report.black_rows == (6458,)  # type: ignore[attr-defined]
    assert len(FER2013Reader(root, on_bad_sample="skip").read("train").report.skipped) == 1


def test_bad_votes(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    rows[4]["ferplus_votes"] = [3]
    root = write_parquet(tmp_path, rows)
    one_line(lambda: FER2013Reader(root, labels="ferplus_soft").read("train"), r"row 4: found FER\+ votes \[3\]")
    assert len(FER2013Reader(root, labels="ferplus_soft", on_bad_sample="skip").read("train")) == 6


def test_nothing_left(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    for row in rows:
        row["image"] = b"x"
    root = write_parquet(tmp_path, rows)
    one_line(lambda: FER2013Reader(root, on_bad_sample="skip").read("train"), "found no usable row .* 8 bad")


# The real release, where it is at hand -------------------------------------------------------------------------------

REAL = Path(__file__).resolve().parents[5] / "shared" / "data" / "fer2013"


@pytest.mark.skipif(not REAL.is_dir(), reason="FER2013 is not at hand")
def test_real_release() -> None:
    start = time.process_time()
    reader = FER2013Reader(str(REAL))
    train, val = reader.read("train"), reader.read("val")
    assert time.process_time() - start < 15  # about 5 s; the bound leaves room for a busy machine
    assert (len(train), len(val)) == (28709, 3589)
    assert train.class_counts()["disgust"] == 436
    hashes = pq.read_table(REAL / "train.parquet", columns=["sha256_16"])["sha256_16"].to_pylist()
    assert train.content_hash.tolist() == hashes
    report = find_duplicates(train, [val])
    assert report.evaluation_duplicates == {"val": 280} and len(report.rows_to_drop) == 351
    majority = FER2013Reader(str(REAL), labels="ferplus_majority").read("val")
    original = dict(zip(val.sample_id.tolist(), val.label.tolist(), strict=True))
    agree = [
        val.label_space[original[i]] == majority.label_space[label]
        for i, label in zip(majority.sample_id.tolist(), majority.label.tolist(), strict=True)
    ]
    assert np.mean(agree) == pytest.approx(0.649, abs=0.01)
