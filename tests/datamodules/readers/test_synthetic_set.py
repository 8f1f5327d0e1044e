"""Synthetic sets (contract C6) become rows with action units by name."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from datamodules.readers.synthetic_set import NOT_KEPT, SyntheticSetReader
from synfer.faces.action_units import ACTION_UNITS
from synfer.faces.expressions import LABEL_SPACES

BASIC7 = LABEL_SPACES["basic7"]


def png(seed: int, size: int = 16) -> bytes:
    buffer = io.BytesIO()
    image = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def sample(seed: int, name: str = "happy", **changes: Any) -> dict[str, Any]:
    soft = {other: 0.7 if other == name else 0.05 for other in BASIC7}
    row = {
        "image": png(seed),
        "label": name,
        "soft_label": soft,
        "caption": f"a {name} face",
        "au": {"AU12": 0.8, "AU1": 0.0, "AUL12": None},
        "seed": seed,
        "sample_id": f"syn-{seed}",
        "layout_source": None,
        "kept": True,
        "votes": [{"voter": "a", "name": name}],
    }
    return row | changes


@pytest.fixture
def write(tmp_path: Path) -> Callable[[list[dict[str, Any]]], str]:
    def write(rows: list[dict[str, Any]]) -> str:
        half = (len(rows) + 1) // 2
        schema = pa.Table.from_pylist(rows).schema
        for number, part in enumerate((rows[:half], rows[half:])):
            pq.write_table(pa.Table.from_pylist(part, schema=schema), tmp_path / f"shard-{number}.parquet")
        return str(tmp_path)

    return write


def test_reads_kept_rows(write: Callable[..., str]) -> None:
    rows = [sample(0), sample(1, "sad"), sample(2, kept=False), sample(3, "anger", caption=None)]
    table = SyntheticSetReader(write(rows)).read("train")
    assert table.label_space == BASIC7 and table.is_synthetic
    assert table.sample_id.tolist() == ["syn-0", "syn-1", "syn-3"]
    assert table.report.read == 4 and sum(table.report.excluded.values()) == 1
    assert table.caption is not None and table.caption.tolist() == ["a happy face", "a sad face", ""]
    np.testing.assert_allclose(table.soft_label[1, BASIC7.index("sad")], 0.7)
    assert table.au is not None
    assert table.au[0, ACTION_UNITS.index("AU12")] == np.float32(0.8) and table.au[0, ACTION_UNITS.index("AU1")] == 0
    assert np.isnan(table.au[0]).sum() == len(ACTION_UNITS) - 2
    with Image.open(io.BytesIO(rows[1]["image"])) as image:
        np.testing.assert_array_equal(table.images.batch(np.array([1]))[0].permute(1, 2, 0).numpy(), np.array(image))


@pytest.mark.parametrize("zero_and_one", [(0, 1), (0.0, 1.0), (False, True)])
def test_kept_as_other_tools_store_it(write: Callable[..., str], zero_and_one: tuple[Any, Any]) -> None:
    no, yes = zero_and_one
    table = SyntheticSetReader(write([sample(0, kept=yes), sample(1, kept=no), sample(2, kept=yes)])).read("train")
    assert table.sample_id.tolist() == ["syn-0", "syn-2"] and table.report.excluded == {NOT_KEPT: 1}
    root = write([sample(0, kept=yes), sample(1, kept=type(yes)(2)) if yes is not True else sample(1, kept=None)])
    with pytest.raises(ValueError, match=r"shard-1\.parquet row 0: found (2|2\.0|no value) in column 'kept'"):
        SyntheticSetReader(root).read("train")


def test_maps_and_image_structs(tmp_path: Path) -> None:
    rows = [sample(0), sample(1, "sad")]
    table = pa.Table.from_pylist(rows)
    for name in ("soft_label", "au"):
        column = pa.array([list(row[name].items()) for row in rows], pa.map_(pa.string(), pa.float32()))
        table = table.set_column(table.schema.get_field_index(name), name, column)
    struct = pa.array([{"bytes": row["image"], "path": None} for row in rows])
    pq.write_table(table.set_column(0, "image", struct), tmp_path / "x.parquet")
    read = SyntheticSetReader(str(tmp_path)).read("train")
    assert read.label_space == BASIC7 and len(read) == 2


def test_another_label_space(write: Callable[..., str]) -> None:
    root = write([sample(0), sample(1, "sad"), sample(2, "anger")])
    table = SyntheticSetReader(root, label_space=["sad", "happy"]).read("train")
    assert table.report.excluded == {"expression 'anger' is outside the label space": 1}
    np.testing.assert_allclose(table.soft_label[0], [0.05 / 0.75, 0.7 / 0.75], rtol=1e-5)
    assert SyntheticSetReader(root, label_space="ferplus8").read("train").soft_label.shape == (3, 8)


@pytest.mark.parametrize(
    ("change", "pattern"),
    [
        ({"image": b"nothing"}, "no known image format"),
        ({"image": png(1, 12)}, "found 12x12 pixels, expected 16x16"),
        ({"label": "bored"}, "unknown expression 'bored'"),
        ({"label": None}, "found label None"),
        ({"soft_label": dict.fromkeys(BASIC7, 0.5)}, "expected probabilities that sum to 1"),
        ({"soft_label": None}, "found no soft_label"),
        ({"au": {"AU12": 1.5}}, "found AU12 = 1.5, expected 0 to 1"),
        ({"sample_id": None}, "found no sample_id"),
        ({"kept": None}, "column 'kept'"),
    ],
)
def test_bad_rows(write: Callable[..., str], change: dict[str, Any], pattern: str) -> None:
    root = write([sample(0), sample(1, **change), sample(2)])
    with pytest.raises(ValueError, match=rf"shard-0\.parquet row 1.*{pattern}.*\(1 bad of 3") as caught:
        SyntheticSetReader(root).read("train")
    assert "\n" not in str(caught.value)
    table = SyntheticSetReader(root, on_bad_sample="skip").read("train")
    assert len(table) == 2 and len(table.report.skipped) == 1


def test_missing_things(tmp_path: Path, write: Callable[..., str]) -> None:
    with pytest.raises(FileNotFoundError, match=r"data\.synthetic_reader .*found no folder"):
        SyntheticSetReader(str(tmp_path / "gone"))
    with pytest.raises(FileNotFoundError, match=r"data\.synthetic_reader .*expected shards"):
        SyntheticSetReader(str(tmp_path))
    root = write([sample(0), sample(0)])
    with pytest.raises(ValueError, match="'syn-0' twice"):
        SyntheticSetReader(root).read("train")
    with pytest.raises(ValueError, match="split 'val' is wanted"):
        SyntheticSetReader(root).read("val")
    write([sample(0, kept=False), sample(1, kept=False)])
    with pytest.raises(ValueError, match="found no usable row"):
        SyntheticSetReader(root).read("train")
    row = sample(0)
    del row["kept"]
    write([row, row])
    with pytest.raises(ValueError, match="found no column 'kept'"):
        SyntheticSetReader(root)
