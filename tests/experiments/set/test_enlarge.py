"""``synfer set enlarge``: the same rows with larger faces, read like any set; stopped, it goes on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from datamodules.readers.synthetic_set import SyntheticSetReader
from datamodules.synthetic.synthetic_manifest import shard_paths
from datamodules.synthetic.synthetic_shards import begin_set, check_record, write_card, write_shard
from experiments.set.set_command import main
from tests.datamodules.synthetic.test_synthetic_shards import rows
from tests.fixtures.outside_models import save_super_resolution


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_super_resolution(tmp_path_factory.mktemp("model") / "larger")


@pytest.fixture
def small(tmp_path: Path) -> Path:
    folder = tmp_path / "small"
    check_record(folder, {"seed": 1})
    begin_set(folder, 7)
    write_shard(folder, rows(0))
    write_shard(folder, rows(4, 3))
    begin_set(folder, 7)
    write_card(folder)
    return folder


def test_the_same_rows_with_larger_faces(
    small: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["enlarge", str(small), "--model", str(model), "--out", str(tmp_path / "large")]
    assert main(words) == 0
    assert "large: 7 faces (--data.synthetic_reader.init_args.root" in capsys.readouterr().out
    before, after = (SyntheticSetReader(str(tmp_path / name)).read("train") for name in ("small", "large"))
    assert after.images.batch(np.arange(7)).shape == (7, 3, 16, 16)
    assert after.sample_id.tolist() == before.sample_id.tolist() and after.caption.tolist() == before.caption.tolist()
    assert np.array_equal(after.soft_label, before.soft_label) and set(after.content_hash).isdisjoint(
        before.content_hash
    )
    record = json.loads((tmp_path / "large" / "synthesis.json").read_text())
    assert record["seed"] == 1 and record["super_resolution"]["scale"] == 2
    assert "Enlarged: 2 times by a super-resolution network" in (tmp_path / "large" / "README.md").read_text()
    assert pq.read_schema(shard_paths(tmp_path / "large")[0]).metadata == pq.read_schema(shard_paths(small)[0]).metadata

    written = [path.read_bytes() for path in shard_paths(tmp_path / "large")]
    shard_paths(tmp_path / "large")[1].unlink()  # as if it had been stopped before
    assert main(words) == 0
    assert [path.read_bytes() for path in shard_paths(tmp_path / "large")] == written

    assert main([*words, "--image_size", "12"]) == 2  # other faces in the same folder
    assert "its faces were made with super_resolution" in capsys.readouterr().err
    assert main([*words[:-1], str(tmp_path / "twelve"), "--image_size", "12"]) == 0
    assert SyntheticSetReader(str(tmp_path / "twelve")).read("train").images.batch(np.array([0])).shape[-1] == 12


def test_what_cannot_be_enlarged(small: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refused(source: Path, *more: str, using: Path = model, out: Path = tmp_path / "out") -> str:
        assert main(["enlarge", str(source), "--model", str(using), "--out", str(out), *more]) == 2
        lines = capsys.readouterr().err.strip().splitlines()
        assert len(lines) == 1 and not (tmp_path / "out").exists()
        return lines[0]

    assert "enlarge: found no folder" in refused(tmp_path / "none")
    assert "--model: found no folder" in refused(small, using=tmp_path / "none")
    assert "--image_size: found 4, expected at least 8 pixels" in refused(small, "--image_size", "4")
    assert "as the set and as --out, expected another folder" in refused(small, out=small)
    shard_paths(small)[1].unlink()
    assert "1 of them" in (line := refused(small)) or "found no" in line
