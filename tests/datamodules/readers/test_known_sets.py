"""The table of known numbers, and what readers say that meet them."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from datamodules.readers import ImageFolderReader, PictureListReader, RAFDBReader, TableOfPicturesReader, known_sets
from datamodules.readers.known_sets import KNOWN_SETS, KnownSet, looks_like, permuted, published, say_what_it_is
from synfer.faces.expressions import EXPRESSIONS
from tests.fixtures.caption_sets import drawn_pairs, write_parquet
from tests.fixtures.published_sets import Painter, raf_db

RAF = next(known for known in KNOWN_SETS if known.data_set == "RAF-DB basic" and known.split == "train")
COPY = KnownSet("Faces", "train", 12, {"happy": 5, "sad": 4, "anger": 3}, "a tenth of it", "folders are mixed up", "-")


def test_the_table_agrees_with_itself() -> None:
    for known in KNOWN_SETS:
        assert not known.classes or sum(known.classes.values()) == known.rows, known
        assert set(known.classes) <= set(EXPRESSIONS) and known.source
        assert known.split in ("train", "val", "test", "all")
    releases = [(known.data_set, known.split) for known in KNOWN_SETS if not known.copy]
    assert len(set(releases)) == len(releases)
    assert published("RAF-DB basic") == {"train": 12_271, "test": 3_068}
    with pytest.raises(KeyError):
        published("no such set")


def test_numbers_under_other_names_are_another_order() -> None:
    assert permuted(RAF.classes) is None
    as_affectnet = {"happy": 1290, "sad": 281, "surprise": 717, "fear": 4772, "disgust": 1982, "anger": 705}
    found = permuted({**as_affectnet, "contempt": 2524})  # folders 1 to 7 read as AffectNet counts
    assert found is RAF
    with pytest.warns(UserWarning, match=r"the release of RAF-DB basic, .*: 1,290 happy is surprise there, "):
        say_what_it_is("here", {**as_affectnet, "contempt": 2524})
    assert permuted({"happy": 500, "sad": 500, "anger": 500}) is None


def test_the_release_in_other_folders_is_as_good_as_the_release() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        say_what_it_is("here", RAF.classes)
        say_what_it_is("here", {"happy": 3, "sad": 4})
    assert [one.data_set for one in looks_like(12_271, {"happy": 12_271})] == []
    with pytest.warns(UserWarning, match=r"found 7,178 pictures, .* the copy as folders of FER2013.*PublicTest and"):
        say_what_it_is("here", next(known.classes for known in KNOWN_SETS if known.rows == 7_178))
    with pytest.warns(UserWarning, match=r"found 27,823 pictures, .*affectnethq, a tenth of AffectNet.*alphabetically"):
        say_what_it_is("here", {"happy": 27_000, "sad": 823})


@pytest.fixture
def copy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_sets, "KNOWN_SETS", (COPY,))


def folders(root: Path, names: tuple[str, ...] = ("happy", "sad", "anger")) -> Path:
    painter = Painter()
    for name, count in zip(names, (5, 4, 3), strict=True):
        for number in range(count):
            painter.save(root / "train" / name / f"{number}.png")
    return root


@pytest.mark.usefixtures("copy")
def test_every_reader_of_any_layout_says_what_it_has_met(tmp_path: Path) -> None:
    root = folders(tmp_path / "folders")
    said = r"found 12 pictures, as many as a tenth of it of Faces, split 'train': results .*; folders are mixed up"
    with pytest.warns(UserWarning, match=said):
        ImageFolderReader(str(root)).read("train")
    with pytest.warns(UserWarning, match=r"under other names: 4 happy is sad there, 5 sad is happy there: its labels"):
        ImageFolderReader(str(folders(tmp_path / "other", ("sad", "happy", "anger")))).read("train")
    lines = ["path,label", *(f"train/{p.parent.name}/{p.name},{p.parent.name}" for p in root.rglob("*.png"))]
    (root / "list.csv").write_text("\n".join(lines))
    with pytest.warns(UserWarning, match=said):
        PictureListReader(str(root), "list.csv").read("train")
    pairs = [{**p, "label": "happy" if n < 5 else "sad" if n < 9 else "anger"} for n, p in enumerate(drawn_pairs(12))]
    write_parquet(tmp_path / "parquet" / "train.parquet", pairs)
    with pytest.warns(UserWarning, match=said):
        TableOfPicturesReader(str(tmp_path / "parquet")).read("train")


def test_a_reader_of_a_release_says_which_copy_has_as_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seven = KnownSet("RAF-DB basic", "test", 7, {}, "somebody's copy", "", "-")
    monkeypatch.setattr(known_sets, "KNOWN_SETS", (seven,))
    said = (
        r"found 7 labelled pictures, the release has 3,068; as many has somebody's copy of RAF-DB basic, split 'test'"
    )
    with pytest.warns(UserWarning, match=said):
        RAFDBReader(str(raf_db(tmp_path))).read("test")
