from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datamodules.readers import PictureListReader
from tests.fixtures.published_sets import Painter, rows_of

LABELS = ("happy", "Sadness", "angry")


def listed(root: Path, header: str = "path,label", **more: Any) -> Path:
    """Writes three pictures and ``faces.csv``; ``more``: column → three cells."""
    painter, lines = Painter(), [",".join([header, *more])]
    for number, label in enumerate(LABELS):
        painter.save(root / "pictures" / f"{number}.png", (40, 30))
        lines.append(",".join([f"pictures/{number}.png", label, *(str(cells[number]) for cells in more.values())]))
    (root / "faces.csv").write_text("\n".join(lines) + "\n")
    return root


def test_names_of_all_spellings_are_read(tmp_path: Path) -> None:
    table = PictureListReader(str(listed(tmp_path)), "faces.csv").read("train")
    assert rows_of(table) == {"pictures/0.png": "happy", "pictures/1.png": "sad", "pictures/2.png": "anger"}
    assert table.group is None and len(table.label_space) == 8


def test_splits_groups_and_boxes_come_from_columns(tmp_path: Path) -> None:
    columns = {"part": ("train", "valid", "train"), "who": ("a", "b", "a"), "x": (1, 2, 3), "y": (1, 1, 1)}
    listed(tmp_path, **columns, r=(21, 22, 23), b=(21, 21, 21))
    boxes = ["x", "y", "r", "b"]
    reader = PictureListReader(str(tmp_path), "faces.csv", "path", "label", "part", "who", boxes)
    train, val = reader.read("train"), reader.read("val")
    assert list(rows_of(train)) == ["pictures/0.png#1,1,21,21", "pictures/2.png#3,1,23,21"]
    assert train.group.tolist() == ["a", "a"] and val.group.tolist() == ["b"]  # type: ignore[union-attr]


def test_ratings_come_from_columns_and_then_a_label_may_be_missing(tmp_path: Path) -> None:
    listed(tmp_path, v=(0.5, -5, ""), a=(-0.25, 0.75, "-5"))
    names = {"valence_column": "v", "arousal_column": "a"}
    path = tmp_path / "faces.csv"
    path.write_text(path.read_text().replace("Sadness", ""))
    table = PictureListReader(str(tmp_path), "faces.csv", **names, unknown_affect=-5).read("train")  # type: ignore[arg-type]
    assert table.affect is not None and table.label.tolist() == [1, -1, 6]
    assert table.affect[0].tolist() == [0.5, -0.25]
    assert np.isnan(table.affect).tolist()[1:] == [[True, False], [True, True]]
    with pytest.raises(ValueError, match=r"faces.csv, line 3: found the valence '-5', expected a number in"):
        PictureListReader(str(tmp_path), "faces.csv", **names).read("train")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"valence_column: found 'v' and no arousal_column, expected both"):
        PictureListReader(str(tmp_path), "faces.csv", valence_column="v")
    path.write_text(path.read_text().replace("angry", ""))  # nothing is known of it
    with pytest.raises(ValueError, match=r"faces.csv, line 4: unknown expression ''"):
        PictureListReader(str(tmp_path), "faces.csv", **names, unknown_affect=-5).read("train")  # type: ignore[arg-type]


def test_one_table_a_split(tmp_path: Path) -> None:
    listed(tmp_path)
    for split in ("train", "val"):
        (tmp_path / f"faces_{split}.csv").write_text((tmp_path / "faces.csv").read_text())
    reader = PictureListReader(str(tmp_path), "faces_{split}.csv")
    assert len(reader.read("val")) == 3
    with pytest.raises(ValueError, match=r"table: found 'faces_\{split\}.csv' for split train, val alone"):
        reader.read("test")


def test_a_parquet_table(tmp_path: Path) -> None:
    listed(tmp_path)
    columns = {"label": list(LABELS), "path": [f"pictures/{n}.png" for n in range(3)]}
    pq.write_table(pa.table(columns), tmp_path / "faces.parquet")
    expected = rows_of(PictureListReader(str(tmp_path), "faces.csv").read("train"))
    assert rows_of(PictureListReader(str(tmp_path), str(tmp_path / "faces.parquet")).read("train")) == expected


def test_codes_need_names(tmp_path: Path) -> None:
    path = listed(tmp_path) / "faces.csv"
    path.write_text("path,label\npictures/0.png,3\npictures/1.png,4\n")
    with pytest.raises(ValueError, match=r"line 2: found the label '3', expected a name, or .*classes .*order of"):
        PictureListReader(str(tmp_path), "faces.csv").read("train")
    reader = PictureListReader(str(tmp_path), "faces.csv", classes={"3": "happiness", "4": "sad"})
    assert reader.label_space == ("happy", "sad") and list(rows_of(reader.read("train")).values()) == ["happy", "sad"]
    with pytest.raises(ValueError, match=r"line 3: found the label '4', expected one of 3, 5"):
        PictureListReader(str(tmp_path), "faces.csv", classes={"3": "happy", "5": "sad"}).read("train")
    with pytest.raises(ValueError, match=r"classes: unknown expression 'gleeful'"):
        PictureListReader(str(tmp_path), "faces.csv", classes={"3": "gleeful"})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,lable\npictures/0.png,happy\n", r"faces.csv: found no column 'label' \(path, lable\), .*lable"),
        ("path,label\npictures/0.png\n", r"line 2: found another number of cells than in the header"),
        ("path,label\npictures/0.png,hapy\n", r"line 2: unknown expression 'hapy'"),
        ("path,label\npictures/0.png,happy\npictures/0.png,sad\n", r"line 3: found 'pictures/0.png' a second time"),
        ("path,label\ngone.png,happy\n", r"gone.png: cannot be read"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, message: str) -> None:
    (listed(tmp_path) / "faces.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        PictureListReader(str(tmp_path), "faces.csv").read("train")


def test_settings_that_are_wrong_are_named(tmp_path: Path) -> None:
    listed(tmp_path, part=("train", "dev", "test"))
    with pytest.raises(FileNotFoundError, match=r"table: found no file 'face.csv', in"):
        PictureListReader(str(tmp_path), "face.csv")
    with pytest.raises(ValueError, match=r"box_columns: found 2 names, expected left, top, right, bottom"):
        PictureListReader(str(tmp_path), "faces.csv", box_columns=["x", "y"])
    with pytest.raises(ValueError, match=r"line 3: found the split 'dev', expected one of train, training"):
        PictureListReader(str(tmp_path), "faces.csv", split_column="part").read("train")
