from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from datamodules.captions.caption_row import CaptionColumns
from datamodules.captions.hub_captions import HubCaptions
from datamodules.readers import ImageCaptionsReader
from datamodules.rows.sample_table import SampleTable
from tests.fixtures.caption_sets import EXPRESSIONS, drawn_pairs, tar_members, write_folder, write_parquet, write_tar

PAIRS = drawn_pairs(14)


def saved_to_disk(folder: Path) -> Path:
    import datasets

    features = datasets.Features(
        {
            "image": datasets.Image(),
            "caption": datasets.Value("string"),
            "label": datasets.ClassLabel(names=list(EXPRESSIONS)),
        }
    )
    rows = [{k: p[k] for k in ("caption", "label")} | {"image": {"bytes": p["image"], "path": None}} for p in PAIRS]
    datasets.Dataset.from_list(rows, features=features).save_to_disk(str(folder))
    return folder


LAYOUTS = {
    "parquet": lambda folder: write_parquet(folder / "data" / "part-0.parquet", PAIRS) and folder,
    "bytes": lambda folder: write_parquet(folder / "p.parquet", PAIRS, struct=False),
    "webdataset": lambda folder: write_tar(folder / "0.tar", tar_members(PAIRS, as_json=True)) and folder,
    "csv": lambda folder: write_folder(folder, PAIRS),
    "jsonl": lambda folder: write_folder(folder, PAIRS, "metadata.jsonl"),
    "datasets": lambda folder: saved_to_disk(folder / "saved"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_rows(layout: str, tmp_path: Path) -> None:
    path = LAYOUTS[layout](tmp_path)
    table = ImageCaptionsReader(str(path), label_column="label").read("train")
    assert table.caption is not None and table.caption.tolist() == [p["caption"] for p in PAIRS]
    assert [table.label_space[c] for c in table.label] == [p["label"] for p in PAIRS]
    assert table.images.batch(np.array([3, 5])).shape == (2, 3, 32, 32)
    other = ImageCaptionsReader(str(write_parquet(tmp_path / "other" / "x.parquet", PAIRS))).read("train")
    np.testing.assert_array_equal(other.content_hash, table.content_hash)
    assert (other.images.batch(np.arange(14)) == table.images.batch(np.arange(14))).all()
    assert (other.label == -1).all() and np.allclose(other.soft_label, 1 / 7)
    assert len(set(table.sample_id)) == 14 and other.sample_id[3] == "0003.png"
    assert table.report.read == 14 and not table.report.skipped and not table.report.excluded


def test_texts_beside_pictures_in_archives(tmp_path: Path) -> None:
    write_tar(tmp_path / "train-0.tar", tar_members(PAIRS[:5]))
    write_tar(tmp_path / "val" / "0.tar", [*tar_members(PAIRS[5:7]), ("9.txt", b"alone"), ("9.npy", b"0")])
    reader = ImageCaptionsReader(str(tmp_path))
    train, val = reader.read("train"), reader.read("val")
    assert train.caption is not None and train.caption[4] == "a drawn face, number 4" and train.sample_id[4] == "0004"
    assert len(val) == 2 and val.report.excluded == {
        "neither picture nor caption, by the ending 'npy'": 1,
        "texts without a picture in val/0.tar": 1,
    }
    with pytest.raises(ValueError, match=r"found no split 'test' \(found train, val\), expected one, or data"):
        reader.read("test")


def test_keys_that_end_at_a_dot_too_early_are_named(tmp_path: Path) -> None:
    image = PAIRS[0]["image"]
    members = [("happy_cfg7.5_seed1.png", image), ("happy_cfg7.5_seed1.txt", b"x"), ("b.png", image), ("b.txt", b"x")]
    members += [("b.jpg", image)]
    write_tar(tmp_path / "0.tar", members)
    with pytest.raises(ValueError, match=r"0\.tar: 'happy_cfg7\.5_seed1\.png': found the key 'happy_cfg7' and the end"):
        ImageCaptionsReader(str(tmp_path)).read("train")
    table = ImageCaptionsReader(str(tmp_path), on_bad_sample="skip").read("train")
    assert len(table) == 1 and "'b.jpg': found a second picture of key 'b'" in table.report.skipped[1]


def test_bad_pictures_and_empty_captions_are_counted_and_named(tmp_path: Path) -> None:
    black = io.BytesIO()
    Image.new("L", (32, 32)).save(black, "PNG")
    changes: list[dict[str, Any]] = [
        {"caption": None},
        {"caption": "  "},
        {"image": b"no image"},
        {"image": None},
        {"image": black.getvalue()},
        {"label": "bored"},
        {"label": "contempt"},
        {"label": None},
    ]
    pairs = [{**pair, **change} for pair, change in zip(PAIRS, changes, strict=False)] + PAIRS[8:]
    path = write_parquet(tmp_path / "x.parquet", pairs)
    with pytest.raises(ValueError, match=r"x\.parquet#0: found no caption, .*\(6 bad of 14 samples") as caught:
        ImageCaptionsReader(str(path), label_column="label").read("train")
    assert "\n" not in str(caught.value)
    table = ImageCaptionsReader(str(path), label_column="label", on_bad_sample="skip").read("train")
    assert len(table) == 7 and len(table.report.skipped) == 6 and (table.label == -1).sum() == 1
    assert table.report.excluded == {"expression 'contempt' is outside the label space": 1}
    said = "; ".join(table.report.skipped)
    assert "#2: found 8 bytes that cannot be decoded" in said and "#4: found a black image" in said
    assert "#5: unknown expression 'bored'" in said


def test_pictures_of_any_size(tmp_path: Path) -> None:
    write_folder(tmp_path, PAIRS[:2])
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 20, 3), dtype=np.uint8)).save(tmp_path / "0001.png")
    with pytest.raises(ValueError, match=r"captions\.csv#1: found 30x20 pixels, expected 32x32 .*image_size"):
        ImageCaptionsReader(str(tmp_path)).read("train")
    table = ImageCaptionsReader(str(tmp_path), image_size=8).read("train")
    assert table.images.batch(np.arange(2)).shape == (2, 3, 8, 8)


def test_pictures_without_a_row_and_rows_without_a_picture(tmp_path: Path) -> None:
    write_folder(tmp_path, PAIRS[:3])
    (tmp_path / "captions.csv").write_text(
        "file_name,caption\n0000.png,a face\ngone.png,a face\n,a face\n0000.png,two\n"
    )
    with pytest.raises(
        ValueError, match=r"row 2: found no name of a file.*#1: cannot be read \(No such file"
    ) as caught:
        ImageCaptionsReader(str(tmp_path)).read("train")
    assert "(2 bad of 4 samples" in str(caught.value)
    table = ImageCaptionsReader(str(tmp_path), on_bad_sample="skip").read("train")
    assert table.sample_id.tolist() == ["0000.png@captions.csv#0", "0000.png@captions.csv#3"]
    assert table.report.excluded == {"pictures that captions.csv does not name (the first is 0001.png)": 2}


def test_columns_by_other_names(tmp_path: Path) -> None:
    columns = {"img": [p["image"] for p in PAIRS], "blip": [p["caption"] for p in PAIRS], "no": list(range(14))}
    pq.write_table(pa.table(columns), tmp_path / "x.parquet")
    table = ImageCaptionsReader(str(tmp_path), caption_column="blip", id_column="no").read("train")
    assert table.sample_id[:2].tolist() == ["0", "1"]
    with pytest.raises(ValueError, match=r"caption_column: found the columns img, blip, no in 'x\.parquet', expec"):
        ImageCaptionsReader(str(tmp_path)).read("train")
    with pytest.raises(ValueError, match=r"label_column: found the columns .*, expected 'label'"):
        ImageCaptionsReader(str(tmp_path), caption_column="blip", label_column="label").read("train")
    codes = pa.table({**columns, "label": [0] * 14})
    pq.write_table(codes, tmp_path / "x.parquet")
    with pytest.raises(ValueError, match=r"found the label 0, expected the name of an expression"):
        ImageCaptionsReader(str(tmp_path), caption_column="blip", label_column="label").read("train")


def test_rows_are_held_out_by_content_where_a_set_has_no_splits(tmp_path: Path) -> None:
    pairs = drawn_pairs(60) * 2  # every picture twice
    write_parquet(tmp_path / "x.parquet", pairs)
    reader = ImageCaptionsReader(str(tmp_path), held_out={"val": 0.2, "test": 0.2})
    tables: dict[str, SampleTable] = {split: reader.read(split) for split in ("train", "val", "test")}  # type: ignore[arg-type]
    assert sum(map(len, tables.values())) == 120 and all(len(t) >= 10 for t in tables.values())
    hashes = [set(table.content_hash) for table in tables.values()]
    assert not hashes[0] & hashes[1] and not hashes[0] & hashes[2] and not hashes[1] & hashes[2]
    assert tables["val"].split == "val" and tables["val"].report.excluded == {
        "of other splits": 120 - len(tables["val"])
    }
    backwards = write_parquet(tmp_path / "y" / "x.parquet", pairs[::-1])
    again = ImageCaptionsReader(str(backwards), held_out={"val": 0.2, "test": 0.2}).read("val")
    assert set(again.content_hash) == hashes[1]


def test_what_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for path, message in (
        ("gone", "no such file, folder or Hub id"),
        (str(tmp_path / "empty"), r"found nothing that could be captions, expected \*\.parquet"),
    ):
        with pytest.raises(FileNotFoundError, match=message):
            ImageCaptionsReader(path)
    write_parquet(tmp_path / "x.parquet", PAIRS)
    write_tar(tmp_path / "x.tar", tar_members(PAIRS))
    with pytest.raises(FileNotFoundError, match=r"found parquet and webdataset, expected .*init_args\.format"):
        ImageCaptionsReader(str(tmp_path))
    assert len(ImageCaptionsReader(str(tmp_path), format="webdataset").read("train")) == 14
    (tmp_path / "x.tar").write_bytes((tmp_path / "x.tar").read_bytes()[:700])
    with pytest.raises(ValueError, match=r"x\.tar'.*expected an uncompressed tar archive") as caught:
        ImageCaptionsReader(str(tmp_path), format="webdataset").read("train")
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=r"init_args\.format: found 'zip', expected one of auto, parquet"):
        ImageCaptionsReader(str(tmp_path), format="zip")
    with pytest.raises(ValueError, match=r"init_args\.held_out=.*expected shares of val and test"):
        ImageCaptionsReader(str(tmp_path), format="webdataset", held_out={"val": 1.0})


def test_a_hub_id_goes_through_datasets_which_stays_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    for constants in ("huggingface_hub.constants", "datasets.config"):  # read when these packages were imported
        monkeypatch.setattr(f"{constants}.HF_HUB_OFFLINE", True)
    with pytest.raises(FileNotFoundError, match=r"data\.reader\.init_args\.path 'somebody/fetext': ") as caught:
        ImageCaptionsReader("somebody/fetext")
    assert "\n" not in str(caught.value)
    for path in ("somebody/fetext", "nowhere://x"):
        with pytest.raises(FileNotFoundError, match=r"path '(hf://datasets/somebody/fetext|nowhere://x)': ") as caught:
            ImageCaptionsReader(path, streaming=True, image_size=16)
        assert "\n" not in str(caught.value)


def test_what_datasets_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    write_parquet(tmp_path / "set" / "data" / "train-0.parquet", PAIRS)
    write_parquet(tmp_path / "set" / "data" / "validation-0.parquet", PAIRS[:3])
    loaded = datasets.load_dataset(str(tmp_path / "set"), cache_dir=str(tmp_path / "cache"))
    asked: list[Any] = []

    def load(path: str, revision: str | None) -> Any:
        asked.append((path, revision))
        return loaded

    monkeypatch.setattr(datasets, "load_dataset", load)
    source = HubCaptions("somebody/fetext", CaptionColumns(), "v2")
    assert asked == [("somebody/fetext", "v2")] and source.splits == ("train", "val")
    rows = source.rows("val").rows
    assert [row.caption for row in rows] == [p["caption"] for p in PAIRS[:3]]
    assert rows[2].image.read() == PAIRS[2]["image"] and replace(rows[0]).place == "validation#0"
