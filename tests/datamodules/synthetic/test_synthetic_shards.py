"""Synthetic sets on disk: what was written is read, by us and by others, and nothing else passes for it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datamodules.readers.synthetic_set import SyntheticSetReader
from datamodules.synthetic.repair_synthetic_set import main as repair_command
from datamodules.synthetic.repair_synthetic_set import repair
from datamodules.synthetic.synthetic_manifest import MANIFEST, note_shard, read_manifest
from datamodules.synthetic.synthetic_rows import SyntheticRows, label_names
from datamodules.synthetic.synthetic_shards import (
    begin_set,
    check_record,
    finished_indices,
    has_text_labels,
    write_card,
    write_shard,
)
from synfer.faces.expressions import LABEL_SPACES

BASIC7 = LABEL_SPACES["basic7"]


def rows(first: int, n: int = 4, side: int = 8) -> SyntheticRows:
    index = np.arange(first, first + n)
    names = [BASIC7[i % 7] for i in index]
    image = np.stack([np.random.default_rng(int(i)).integers(0, 256, (side, side, 3), dtype=np.uint8) for i in index])
    return SyntheticRows(
        index=index,
        sample_id=[f"syn-1-{i:06d}" for i in index],
        image=image,
        label=names,
        soft_label=np.eye(7)[[BASIC7.index(name) for name in names]],
        label_space=BASIC7,
        caption=[f"a {name} face" for name in names],
        au=np.full((n, 2), 0.5),
        au_names=("AU1", "AU12"),
        seed=1,
        layout_source=[""] * n,
        kept=np.ones(n, dtype=bool),
        votes={"one": np.full((n, 7), 1 / 7)},
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A set of eight faces in two shards, finished."""
    folder = tmp_path / "set"
    check_record(folder, {"seed": 1})
    begin_set(folder, 8)
    write_shard(folder, rows(0))
    write_shard(folder, rows(4))
    begin_set(folder, 8)
    write_card(folder)
    return folder


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


def one_line(folder: Path, pattern: str) -> None:
    """Both ways of reading a set refuse it in one line that names the way out."""
    for read in (lambda: SyntheticSetReader(str(folder)).read("train"), lambda: finished_indices(folder)):
        with pytest.raises(ValueError, match=pattern) as caught:
            read()
        assert "\n" not in str(caught.value) and "datamodules.synthetic.repair_synthetic_set" in str(caught.value)


def read(folder: Path) -> list[str]:
    return SyntheticSetReader(str(folder)).read("train").sample_id.tolist()


def test_others_open_it(folder: Path, cache: None) -> None:
    import datasets

    assert "data_files" not in (folder / "README.md").read_text()
    opened = datasets.load_dataset(str(folder), split="train")
    assert len(opened) == 8 and opened.features["label"].names == list(BASIC7)
    row = opened[3]
    assert row["image"].size == (8, 8) and (np.array(row["image"]) == rows(3, 1).image[0]).all()
    assert (
        opened.features["label"].int2str(row["label"]) == BASIC7[3] == max(row["soft_label"], key=row["soft_label"].get)
    )
    assert row["votes"][0]["voter"] == "one" and row["au"] == {"AU1": 0.5, "AU12": 0.5} and row["kept"] is True
    write_shard(folder, rows(8, 2))  # not even finished: the cache must not serve the old rows
    assert datasets.load_dataset(str(folder), split="train")["sample_id"][:] == [f"syn-1-{i:06d}" for i in range(10)]
    opened.to_parquet(folder.parent / "again" / "data" / "rows.parquet")  # and what they write is read here
    assert read(folder.parent / "again") == [f"syn-1-{i:06d}" for i in range(8)]


def test_one_shard_beside_its_record_is_opened(tmp_path: Path, cache: None) -> None:
    import datasets

    check_record(tmp_path / "set", {"seed": 1})
    begin_set(tmp_path / "set", 4)
    write_shard(tmp_path / "set", rows(0))
    assert datasets.load_dataset(str(tmp_path / "set"))["train"].num_rows == 4  # and before it has a card


def test_a_flipped_bit_is_noticed_wherever_it_is(tmp_path: Path) -> None:
    begin_set(tmp_path, 2)
    shard = write_shard(tmp_path, rows(0, 2))
    whole = shard.read_bytes()
    rng = np.random.default_rng(0)
    places = np.unique(np.linspace(0, len(whole) - 1, 300).astype(int))
    assert len(places) == 300
    for place in places.tolist():
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(rng.integers(8))
        shard.write_bytes(damaged)
        one_line(tmp_path, "00000000-2.parquet' cannot be read")
    shard.write_bytes(whole)
    assert read(tmp_path) == ["syn-1-000000", "syn-1-000001"]


def test_pages_have_checksums_of_their_own(folder: Path) -> None:
    (folder / MANIFEST).unlink()  # as when somebody has copied the shards alone
    shard = folder / "data" / "00000000-4.parquet"
    whole = bytearray(shard.read_bytes())
    whole[whole.index(b"IDAT") + 20] ^= 1  # within a picture
    shard.write_bytes(whole)
    one_line(folder, "00000000-4.parquet' cannot be read .*CRC")


def test_what_is_missing_is_named_and_made_again(folder: Path) -> None:
    begin_set(folder, 12)
    with pytest.raises(ValueError, match=r"found 8 of the 12 faces planned \(it is unfinished\).*--as-it-is"):
        SyntheticSetReader(str(folder))
    begin_set(folder, 8)
    (folder / "data" / "00000004-4.parquet").unlink()
    with pytest.raises(ValueError, match=r"found no 'data/00000004-4.parquet', shards of 4 faces .*--as-it-is"):
        SyntheticSetReader(str(folder / "data"))
    assert finished_indices(folder).tolist() == [0, 1, 2, 3]
    assert begin_set(folder, 8) == ["00000004-4.parquet"]  # predict says so
    write_shard(folder, rows(4))
    assert len(read(folder)) == 8


@pytest.mark.parametrize("name", ["data/other.parquet", "data/notes.txt", "rows.parquet"])
def test_a_foreign_file_is_named(folder: Path, name: str) -> None:
    (folder / name).write_bytes((folder / "data" / "00000000-4.parquet").read_bytes())
    one_line(folder, rf"found '.*{re.escape(name)}', which its MANIFEST does not list")
    (folder / "data" / ".hidden").touch()
    repair(folder)
    assert (folder.parent / "set-damaged" / Path(name).name).is_file() and len(read(folder)) == 8


def test_faces_in_two_shards(folder: Path) -> None:
    write_shard(folder, rows(2, 6))
    with pytest.raises(ValueError, match=r"face 2 in two shards, '00000000-4.parquet' and '00000002-6.parquet'"):
        finished_indices(folder)
    with pytest.raises(ValueError, match=r"00000002-6.parquet row 0: .*'syn-1-000002' twice \(also in .*00000000-4"):
        read(folder)
    lines = repair(folder)
    assert sum(line.startswith("doubled") for line in lines) == 2 and "2 of 8 faces are missing" in lines[-1]
    assert finished_indices(folder).tolist() == [2, 3, 4, 5, 6, 7]
    write_shard(folder, rows(0, 2))
    assert len(read(folder)) == 8


def test_repair_puts_aside_and_loses_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shard = folder / "data" / "00000000-4.parquet"
    whole = shard.read_bytes()
    for content in (whole[:-1], whole[:100]):
        shard.write_bytes(content)
        one_line(folder, rf"cannot be read \({len(content)} bytes where {len(whole)} were written\)")
        repair_command([str(folder)])
        assert "damaged: " in capsys.readouterr().out
        shard.write_bytes(whole)
        with pytest.raises(ValueError, match="does not list"):
            finished_indices(folder)
        shard.unlink()
        write_shard(folder, rows(0))
    aside = folder.parent / "set-damaged"
    assert {p.name: p.stat().st_size for p in aside.iterdir()} == {shard.name: len(whole) - 1, f"{shard.name}.1": 100}
    assert repair(folder) == ["the set is whole: 8 faces"]
    begin_set(folder, 20)
    assert "12 of 20 faces are missing" in repair(folder)[-1]
    repair_command([str(folder), "--as-it-is"])
    assert len(read(folder)) == 8
    with pytest.raises(SystemExit):
        repair_command([str(folder.parent / "gone")])
    assert capsys.readouterr().err.startswith("error: '")


def test_a_manifest_that_cannot_be_read(folder: Path) -> None:
    for text in ("{", "[]", '{"planned": 8}', '{"planned": 8, "shards": {"a": 1}}'):
        (folder / MANIFEST).write_text(text)
        one_line(folder, "MANIFEST' cannot be read")
    assert repair(folder)[0].startswith("MANIFEST could not be read")
    assert len(read(folder)) == 8


def test_a_killed_writer_leaves_nothing_doubtful(folder: Path) -> None:
    begin_set(folder, 12)
    shard = write_shard(folder, rows(8))
    entry = read_manifest(folder).shards[shard.name]  # type: ignore[union-attr]
    shard.unlink()  # killed between journal and shard
    note_shard(folder, "00000012-4.parquet", entry)
    journal = next(folder.glob(".MANIFEST-*"))
    journal.write_bytes(journal.read_bytes()[:-20])  # torn
    assert finished_indices(folder).tolist() == list(range(8))
    assert begin_set(folder, 12) == [shard.name] and not list(folder.glob(".MANIFEST-*"))
    write_shard(folder, rows(8))
    assert len(read(folder)) == 12


def test_sets_of_earlier_versions(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (folder / MANIFEST).unlink()
    for shard in folder.glob("data/*"):  # labels as text, no schema key, no checksums
        table = pq.read_table(shard)
        label = pa.array([label_names(table.schema)[code] for code in table["label"].to_pylist()])
        pq.write_table(table.set_column(1, "label", label).replace_schema_metadata(None), shard)
    with caplog.at_level("INFO"):
        assert len(read(folder)) == 8
    assert "a set without MANIFEST" in caplog.text
    assert has_text_labels(folder) and finished_indices(folder).tolist() == list(range(8))
    begin_set(folder, 12)  # goes on
    write_shard(folder, rows(8), has_text_labels(folder))
    assert len(read(folder)) == 12
    table = SyntheticSetReader(str(folder)).read("train")
    assert [table.label_space[k] for k in table.label] == [BASIC7[i % 7] for i in range(12)]
    assert write_card(folder, {"near copies": "none"}) == {n: 12 // 7 + (i < 5) for i, n in enumerate(BASIC7)}
    assert "\n\n- near copies: none\n\nColumns" in (folder / "README.md").read_text()


def test_a_set_of_which_nothing_is_left(tmp_path: Path) -> None:
    root = tmp_path / "data"  # a set may have this name
    begin_set(root, 2)
    with pytest.raises(ValueError, match="found 0 of the 2 faces planned"):
        SyntheticSetReader(str(root))
    shard = write_shard(root, rows(0, 2))
    assert len(read(root)) == len(read(root / "data")) == 2
    shard.unlink()
    assert "0 faces" in repair(root, as_it_is=True)[-1]
    with pytest.raises(FileNotFoundError, match="expected shards"):
        SyntheticSetReader(str(root))


def test_shards_without_their_record(folder: Path) -> None:
    (folder / "synthesis.json").unlink()
    with pytest.raises(ValueError, match=r"found shards and no synthesis\.json"):
        check_record(folder, {"seed": 1})


def test_a_damaged_record(folder: Path) -> None:
    for text, found in (("{", "JSON"), ("[1]", "found a list")):
        (folder / "synthesis.json").write_text(text)
        with pytest.raises(ValueError, match=f"synthesis.json'.*{found}"):
            check_record(folder, {"seed": 1})
    (folder / "synthesis.json").write_text(json.dumps({"seed": 1}))
    check_record(folder, {"seed": 1})


def test_a_set_that_was_begun_before_a_setting_came_goes_on_where_the_setting_changes_nothing(folder: Path) -> None:
    old = {"sampling": {"num_steps": 3}, "seed": 1}
    (folder / "synthesis.json").write_text(json.dumps(old))
    check_record(folder, {"sampling": {"num_steps": 3, "expression_strength": 1.0}, "seed": 1})
    both = {"num_steps": 3, "expression_strength": 1.0, "mention_expression": True}
    check_record(folder, {"sampling": both, "seed": 1})
    check_record(folder, old)
    with pytest.raises(ValueError, match=r"its faces were made with sampling \{'num_steps': 3\}, found .*: 0\.5"):
        check_record(folder, {"sampling": {"num_steps": 3, "expression_strength": 0.5}, "seed": 1})
    assert json.loads((folder / "synthesis.json").read_text()) == old


def test_a_set_that_was_begun_before_its_record_named_the_teachers_goes_on(folder: Path) -> None:
    (folder / "synthesis.json").write_text(json.dumps({"generator": "a"}))
    check_record(folder, {"generator": "a", "taught_by": ["b"]})
    (folder / "synthesis.json").write_text(json.dumps({"generator": "a", "taught_by": ["b"]}))
    with pytest.raises(ValueError, match=r"its faces were made with taught_by \['b'\], found None"):
        check_record(folder, {"generator": "a"})
