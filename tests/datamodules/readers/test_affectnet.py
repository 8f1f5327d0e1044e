from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from datamodules.readers import AffectNetReader, AffectNetTablesReader
from synfer.faces.expressions import EXPRESSIONS
from tests.fixtures.published_sets import AFFECTNET_HEADER, affectnet, affectnet_tables, few_pictures, rows_of

pytestmark = few_pictures

NAMES = ("neutral", "happy", "sad", "surprise", "fear", "disgust", "anger", "contempt")


def test_codes_are_text_and_numbers_sort_as_numbers(tmp_path: Path) -> None:
    table = AffectNetReader(str(affectnet(tmp_path))).read("train")
    expected = {f"train_set/images/{7 * code + 2}.jpg": name for code, name in enumerate(NAMES)}
    assert rows_of(table) == expected and list(rows_of(table)) == list(expected)
    assert table.label_space == EXPRESSIONS
    assert table.report.excluded == {"annotated as none": 1, "annotated as uncertain": 1, "annotated as no face": 1}
    seven = AffectNetReader(str(tmp_path), label_space="basic7").read("val")
    assert len(seven) == 7
    assert seven.report.excluded == {"annotated as none": 1, "expression 'contempt' is outside the label space": 1}


def test_numbers_in_the_files_are_read_too(tmp_path: Path) -> None:
    affectnet(tmp_path)
    for path in (tmp_path / "val_set" / "annotations").glob("*_exp.npy"):
        np.save(path, np.array([int(str(np.load(path)))]))
    assert rows_of(AffectNetReader(str(tmp_path)).read("val"))["val_set/images/9.jpg"] == "happy"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.array("11"), r"2_exp.npy: found '11', expected a code from 0 to 10"),
        (np.array("-1"), r"2_exp.npy: found '-1', expected a code"),
        (np.array(["1", "2"]), r"2_exp.npy: found None, expected a code"),
        (None, r"train_set: found no label of '2', expected 2_exp.npy"),
    ],
)
def test_a_label_that_is_wrong_is_named(tmp_path: Path, value: np.ndarray | None, message: str) -> None:
    path = affectnet(tmp_path) / "train_set" / "annotations" / "2_exp.npy"
    path.unlink()
    if value is not None:
        np.save(path, value)
    with pytest.raises(ValueError, match=message):
        AffectNetReader(str(tmp_path)).read("train")


@few_pictures
def test_an_unknown_rating_is_no_number(tmp_path: Path) -> None:
    notes = affectnet(tmp_path) / "train_set" / "annotations"
    np.save(notes / "2_val.npy", np.array("-2"))
    np.save(notes / "9_aro.npy", np.array("-2.0"))
    np.save(notes / "16_aro.npy", np.array(-1.0))
    table = AffectNetReader(str(tmp_path)).read("train")
    assert table.affect is not None
    first = [["-0.25" if v == v else "?", f"{a:g}"] for v, a in table.affect[:3]]
    assert np.isnan(table.affect[0, 0]) and np.isnan(table.affect[1, 1]) and first[2] == ["-0.25", "-1"]
    np.testing.assert_array_equal(table.affect[3:], np.tile(np.float32([-0.25, 0.5]), (5, 1)))
    np.save(notes / "2_val.npy", np.array("-5"))
    with pytest.raises(ValueError, match=r"'2': found the valence '-5', expected a number in \[-1, 1\], or -2 where"):
        AffectNetReader(str(tmp_path)).read("train")


@few_pictures
def test_ratings_of_copies_without_them(tmp_path: Path) -> None:
    notes = affectnet(tmp_path) / "train_set" / "annotations"
    assert AffectNetReader(str(tmp_path), affect=False).read("train").affect is None
    (notes / "9_aro.npy").unlink()
    with pytest.raises(ValueError, match=r"annotations: '9': found no number in 9_aro.npy, expected one"):
        AffectNetReader(str(tmp_path)).read("train")
    for path in [*notes.glob("*_val.npy"), *notes.glob("*_aro.npy")]:
        path.unlink()
    assert AffectNetReader(str(tmp_path)).read("train").affect is None


@few_pictures
def test_points_of_faces_are_read_where_there_are_some(tmp_path: Path) -> None:
    notes = affectnet(tmp_path) / "train_set" / "annotations"
    points = np.stack([np.arange(68) + 0.25, 100.0 + np.arange(68)], axis=1)
    np.save(notes / "2_lnd.npy", points.reshape(-1))
    np.save(notes / "9_lnd.npy", points.astype(str))
    np.save(notes / "16_lnd.npy", points[:5])
    np.save(notes / "23_lnd.npy", np.array([{}], dtype=object), allow_pickle=True)
    reader = AffectNetReader(str(tmp_path))
    assert reader.read("train").landmarks is None  # nobody has asked: it is one more file of each picture
    reader.want_landmarks()
    found = reader.read("train").landmarks
    assert found is not None and found.shape == (8, 5, 2)
    eyes = [[38.75, 138.5], [44.75, 144.5]]
    np.testing.assert_allclose(found[0], [*eyes, [30.25, 130], [48.25, 148], [54.25, 154]])
    np.testing.assert_array_equal(found[1], found[0])
    assert np.isnan(found[2:]).all()
    assert reader.read("val").landmarks is None


@few_pictures
def test_python_objects_are_not_loaded(tmp_path: Path) -> None:
    path = affectnet(tmp_path) / "train_set" / "annotations" / "2_exp.npy"
    np.save(path, np.array({"a": 1}, dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"2_exp.npy: found None, expected a code"):
        AffectNetReader(str(tmp_path)).read("train")


def test_a_label_without_an_image_is_named(tmp_path: Path) -> None:
    (affectnet(tmp_path) / "train_set" / "images" / "9.jpg").unlink()
    with pytest.raises(ValueError, match=r"train_set: found no image of '9', expected 9.jpg \(1 bad of 11 samples"):
        AffectNetReader(str(tmp_path)).read("train")


def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"found no folder train_set/images in .*expected AffectNet's release"):
        AffectNetReader(str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"found no table Manually_Annotated_file_lists/training.csv"):
        AffectNetTablesReader(str(tmp_path))


# ---------------------------------------------------------------- the first release


@pytest.mark.parametrize("header", [True, False])
def test_tables_are_read_with_and_without_a_header(tmp_path: Path, header: bool) -> None:
    table = AffectNetTablesReader(str(affectnet_tables(tmp_path, header))).read("val")
    assert rows_of(table) == {f"{code % 3 + 1}/v{code:03d}.jpg": name for code, name in enumerate(NAMES)}
    assert table.images.batch(np.array([0])).shape[-2:] == (24, 20)
    assert sum(table.report.excluded.values()) == 3
    assert table.affect is not None and (table.affect == [-0.5, 0.25]).all()
    path = tmp_path / "Manually_Annotated_file_lists" / "validation.csv"
    path.write_text(path.read_text().replace(",-0.5,0.25", ",-2,-2", 1))
    rated = AffectNetTablesReader(str(tmp_path)).read("val").affect
    assert rated is not None and np.isnan(rated[0]).all() and np.isfinite(rated[1:]).all()


def test_columns_in_another_order_are_read_by_name(tmp_path: Path) -> None:
    path = affectnet_tables(tmp_path) / "Manually_Annotated_file_lists" / "training.csv"
    before = rows_of(AffectNetTablesReader(str(tmp_path)).read("train"))
    rows = [line.split(",") for line in path.read_text().splitlines()]
    path.write_text("\n".join(",".join(reversed(row)) for row in rows))
    assert rows_of(AffectNetTablesReader(str(tmp_path)).read("train")) == before


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "8,4,20,24,10;11;12;13,0,",
            "8,4,20,24,10;11;12;13,NULL,",
            r"line 2: found the expression 'NULL', expected",
        ),
        ("8,4,20,24,10;11;12;13,0,", "8,4,NULL,24,10;11;12;13,0,", r"line 2: found no box of whole numbers, expected"),
        ("8,4,20,24,10;11;12;13,0,", "8,4,20,24,0,", r"line 2: expected the nine columns"),
        ("13,0,-0.5,", "13,0,-5,", r"line 2: found the valence '-5', expected a number in \[-1, 1\], or -2 where"),
    ],
)
def test_a_row_that_is_wrong_is_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = affectnet_tables(tmp_path) / "Manually_Annotated_file_lists" / "training.csv"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(ValueError, match=message):
        AffectNetTablesReader(str(tmp_path)).read("train")
    assert len(AffectNetTablesReader(str(tmp_path), on_bad_sample="skip").read("train")) == 7


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    path = affectnet_tables(tmp_path) / "Manually_Annotated_file_lists" / "training.csv"
    path.write_text(path.read_text().replace(AFFECTNET_HEADER, AFFECTNET_HEADER.replace("expression", "label")))
    with pytest.raises(ValueError, match=r"training.csv: found no column 'expression'"):
        AffectNetTablesReader(str(tmp_path)).read("train")
