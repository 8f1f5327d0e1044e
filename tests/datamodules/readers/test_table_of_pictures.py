from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datamodules.readers import TableOfPicturesReader
from tests.fixtures.caption_sets import drawn_pairs, write_folder, write_parquet, write_tar
from tests.fixtures.published_sets import rows_of

PAIRS = drawn_pairs(14)
NAMES = ["anger", "disgust", "fear", "happy", "neutral", "sad", "surprise"]  # alphabetical, as copies on the Hub
FER2013 = {"0": "anger", "1": "disgust", "2": "fear", "3": "happy", "4": "sad", "5": "surprise", "6": "neutral"}
EXPECTED = {pair["path"]: pair["label"] for pair in PAIRS}


def hub_parquet(folder: Path, names: list[str] | None, column: Any = None, struct: bool = True) -> Path:
    """Writes the pairs as the Hub's Parquet files have them, codes in the order of these names."""
    codes = [NAMES.index(pair["label"]) for pair in PAIRS] if column is None else column
    images = [{"bytes": p["image"], "path": p["path"]} if struct else p["image"] for p in PAIRS]
    table = pa.table({"image": images, "label": pa.array(codes)})
    if names is not None:
        features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, folder / "train-00000-of-00001.parquet", row_group_size=4)
    return folder


def saved_to_disk(folder: Path) -> Path:
    import datasets

    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=NAMES)})
    rows = [{"label": p["label"], "image": {"bytes": p["image"], "path": p["path"]}} for p in PAIRS]
    datasets.Dataset.from_list(rows, features=features).save_to_disk(str(folder))
    return folder


def archive(folder: Path, ending: str) -> Path:
    members = []
    for pair in PAIRS:
        stem = Path(pair["path"]).stem
        text = pair["label"] if ending == "cls" else json.dumps({"label": pair["label"]})
        members += [(f"{stem}.png", pair["image"]), (f"{stem}.{ending}", text.encode())]
    return write_tar(folder / "train" / "0.tar", members).parents[1]


def test_ratings_come_from_columns_of_each_format(tmp_path: Path) -> None:
    numbers = {"v": [n / 14 if n else None for n in range(14)], "a": [-2.0, *(-n / 14 for n in range(1, 14))]}
    images = [{"bytes": pair["image"], "path": pair["path"]} for pair in PAIRS]
    labels = [pair["label"] if n != 5 else None for n, pair in enumerate(PAIRS)]
    (tmp_path / "parquet").mkdir()
    pq.write_table(pa.table({"image": images, "label": labels, **numbers}), tmp_path / "parquet" / "train.parquet")
    members = []
    for number, pair in enumerate(PAIRS):
        entry = {"label": labels[number], **{name: cells[number] for name, cells in numbers.items()}}
        stem = Path(pair["path"]).stem
        members += [(f"{stem}.png", pair["image"]), (f"{stem}.json", json.dumps(entry).encode())]
    write_tar(tmp_path / "tar" / "train" / "0.tar", members)
    import datasets

    columns: dict[str, Any] = {"image": images, "label": labels, **numbers}
    saved = datasets.Dataset.from_dict(columns).cast_column("image", datasets.Image())
    saved.save_to_disk(str(tmp_path / "saved"))
    for folder in ("parquet", "tar", "saved"):
        reader = TableOfPicturesReader(
            str(tmp_path / folder), valence_column="v", arousal_column="a", unknown_affect=-2
        )
        table = reader.read("train")
        assert table.affect is not None and np.isnan(table.affect[0]).all() and table.label[5] == -1
        np.testing.assert_allclose(table.affect[1:], [[n / 14, -n / 14] for n in range(1, 14)], rtol=1e-6)
    with pytest.raises(ValueError, match=r"init_args.valence_column: found the columns .*, expected 'w'"):
        TableOfPicturesReader(str(tmp_path / "parquet"), valence_column="w", arousal_column="a").read("train")


def test_codes_mean_what_their_names_say(tmp_path: Path) -> None:
    table = TableOfPicturesReader(str(hub_parquet(tmp_path, NAMES))).read("train")
    assert rows_of(table) == EXPECTED  # read as FER2013 counts, 4 would be sad and not neutral
    assert table.caption is None and not table.is_synthetic
    assert table.images.batch(np.array([3, 5])).shape == (2, 3, 32, 32)


@pytest.mark.parametrize("layout", ["bytes", "strings", "saved", "cls", "json"])
def test_every_layout_gives_the_same_rows(tmp_path: Path, layout: str) -> None:
    known = TableOfPicturesReader(str(hub_parquet(tmp_path / "known", NAMES))).read("train")
    words = [pair["label"].upper() for pair in PAIRS]
    layouts = {
        "bytes": lambda folder: hub_parquet(folder, NAMES, struct=False),
        "strings": lambda folder: hub_parquet(folder, None, words),
        "saved": saved_to_disk,
        "cls": lambda folder: archive(folder, "cls"),
        "json": lambda folder: archive(folder, "json"),
    }
    table = TableOfPicturesReader(str(layouts[layout](tmp_path / "set"))).read("train")
    np.testing.assert_array_equal(table.label, known.label)
    np.testing.assert_array_equal(table.content_hash, known.content_hash)
    assert len(set(table.sample_id)) == 14 and not table.report.excluded


def test_a_data_set_of_the_hub_has_its_own_names_and_splits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    known = datasets.load_from_disk(str(saved_to_disk(tmp_path)))
    asked = []

    def load_dataset(path: str, revision: str | None) -> Any:
        asked.append((path, revision))
        return datasets.DatasetDict({"train": known.select(range(10)), "valid": known.select(range(10, 14))})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    reader = TableOfPicturesReader("somebody/fer", revision="v2")
    assert asked == [("somebody/fer", "v2")]
    assert list(rows_of(reader.read("val")).values()) == list(EXPECTED.values())[10:]
    with pytest.raises(ValueError, match=r"somebody/fer: found no split 'test' \(found train, val\)"):
        reader.read("test")


@pytest.mark.parametrize("column", [None, [str(n % 7) for n in range(14)], [float(n % 7) for n in range(14)]])
def test_codes_without_names_are_refused(tmp_path: Path, column: Any) -> None:
    reader = TableOfPicturesReader(str(hub_parquet(tmp_path, None, column)), on_bad_sample="skip")
    message = r"found the labels 0, 1, 2, 3, 4, 5, 6 and no names of them, expected names, or .*\.classes=\{'0': happy"
    with pytest.raises(ValueError, match=message):
        reader.read("train")


@pytest.mark.parametrize("ending", ["parquet", "cls"])
def test_classes_say_what_codes_mean(tmp_path: Path, ending: str) -> None:
    codes = {name: code for code, name in FER2013.items()}
    if ending == "parquet":
        hub_parquet(tmp_path, None, [int(codes[pair["label"]]) for pair in PAIRS])
    else:
        pairs = [(Path(p["path"]).stem, p["image"], codes[p["label"]]) for p in PAIRS]
        write_tar(tmp_path / "0.tar", [m for k, i, c in pairs for m in ((f"{k}.png", i), (f"{k}.cls", c.encode()))])
    table = TableOfPicturesReader(str(tmp_path), classes=FER2013).read("train")
    assert list(rows_of(table).values()) == list(EXPECTED.values())
    less = TableOfPicturesReader(str(tmp_path), classes={**FER2013, "6": "contempt"}, on_bad_sample="skip")
    assert less.label_space == ("happy", "sad", "surprise", "fear", "disgust", "anger", "contempt")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (7, r"train-00000-of-00001.parquet#3: unknown expression '7'.*\(1 bad of 14"),
        (-1, r"#3: unknown expression '-1'"),
        (None, r"#3: found no label, expected the name"),
    ],
)
def test_a_code_beyond_the_names_is_named(tmp_path: Path, value: int | None, message: str) -> None:
    codes: list[int | None] = [NAMES.index(pair["label"]) for pair in PAIRS]
    codes[3] = value
    hub_parquet(tmp_path, NAMES, codes)
    with pytest.raises(ValueError, match=message):
        TableOfPicturesReader(str(tmp_path)).read("train")
    table = TableOfPicturesReader(str(tmp_path), on_bad_sample="skip").read("train")
    assert rows_of(table) == {path: name for path, name in EXPECTED.items() if path != "0003.png"}


def test_pictures_have_the_size_of_the_run_where_none_is_given(tmp_path: Path) -> None:
    for given, expected in ((None, 20), (24, 24)):
        reader = TableOfPicturesReader(str(hub_parquet(tmp_path, NAMES)), image_size=given)
        reader.fit_size(20)
        assert reader.read("train").images.batch(np.array([0])).shape == (1, 3, expected, expected)
    assert reader.has_split("train") and not reader.has_split("val")


def test_names_that_are_no_expressions_need_classes(tmp_path: Path) -> None:
    names = ["AN", *NAMES[1:]]
    hub_parquet(tmp_path, names)
    with pytest.raises(ValueError, match=r"unknown expression 'AN'"):
        TableOfPicturesReader(str(tmp_path)).read("train")
    classes = {"AN": "anger", **{name: name for name in NAMES[1:]}}
    assert rows_of(TableOfPicturesReader(str(tmp_path), classes=classes).read("train")) == EXPECTED
    with pytest.raises(ValueError, match=r"found the label 'surprise', expected one of AN, "):
        TableOfPicturesReader(str(tmp_path), classes={k: v for k, v in classes.items() if v != "surprise"}).read(
            "train"
        )


def test_a_column_of_groups_keeps_people_together(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "set.parquet", PAIRS)
    told = pq.read_table(path)
    people = [f"person {n // 4}" for n in range(14)]
    pq.write_table(told.append_column("who", [people]), path)
    table = TableOfPicturesReader(str(tmp_path), group_column="who", id_column="caption").read("train")
    assert table.group is not None and table.group.tolist() == people
    assert table.sample_id[0] == "a drawn face, number 0"
    pq.write_table(told.append_column("who", [[*people[:13], None]]), path)
    with pytest.raises(ValueError, match=r"set.parquet#13: found nothing in the column of groups \(1 of 14 rows\)"):
        TableOfPicturesReader(str(tmp_path), group_column="who").read("train")
    with pytest.raises(ValueError, match=r"group_column: found the columns image, caption, label, who .*'person'"):
        TableOfPicturesReader(str(tmp_path), group_column="person").read("train")


class _Trap:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_pickled_pictures_are_never_loaded(tmp_path: Path) -> None:
    mark, payload = tmp_path / "mark", pickle.dumps(_Trap(tmp_path / "mark"))
    pickle.loads(payload)
    assert mark.exists()  # it would work
    mark.unlink()
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "train.pt").write_bytes(payload)
    for path in (tmp_path / "set", tmp_path / "set" / "train.pt"):
        with pytest.raises(ValueError, match=r"found the pickled file '.*train.pt', which could run any program"):
            TableOfPicturesReader(str(path))
    pq.write_table(pa.table({"image": [payload] * 2, "label": ["happy", "sad"]}), tmp_path / "set" / "a.parquet")
    with pytest.raises(ValueError, match=r"a.parquet#0: found \d+ bytes that cannot be decoded"):
        TableOfPicturesReader(str(tmp_path / "set")).read("train")
    assert not mark.exists()


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"path '.*none': no such file, folder or Hub id"):
        TableOfPicturesReader(str(tmp_path / "none"))
    reader = TableOfPicturesReader(str(hub_parquet(tmp_path / "set", NAMES)))
    with pytest.raises(ValueError, match=r"found no split 'val' \(found train\), expected it"):
        reader.read("val")
    with pytest.raises(ValueError, match=r"label_column: found the columns image, label in .*, expected 'emotion'"):
        TableOfPicturesReader(str(tmp_path / "set"), label_column="emotion").read("train")
    with pytest.raises(ValueError, match=r"classes: unknown expression 'calm'"):
        TableOfPicturesReader(str(tmp_path / "set"), classes={"0": "calm"})
    with pytest.raises(ValueError, match=r"format: found 'folder', expected one of auto"):
        TableOfPicturesReader(str(tmp_path / "set"), format="folder")
    with pytest.raises(ValueError, match=r"found a table of files in .*PictureListReader reads"):
        TableOfPicturesReader(str(write_folder(tmp_path / "files", PAIRS)))
