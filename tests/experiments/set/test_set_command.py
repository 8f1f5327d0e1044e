"""Finished sets joined, cut, in other forms and on the Hub: no face is lost, doubled or changed."""

from __future__ import annotations

import csv
import io
import json
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datamodules.readers import ImageFolderReader, SyntheticSetReader
from datamodules.synthetic import merged_set, set_exports
from datamodules.synthetic.shard_stream import ShardStream
from datamodules.synthetic.synthetic_shards import begin_set, check_record, finished_indices, read_record, write_shard
from experiments.command_line.console import main
from synfer.faces.expressions import LABEL_SPACES
from tests.fixtures.hub_for_uploads import hub_for_uploads
from tests.fixtures.small_sets import BASIC7, small_rows, small_set


def faces(folder: Path) -> dict[str, tuple[str, str, float]]:
    """Returns sample id → content hash, caption and largest soft label."""
    table = SyntheticSetReader(str(folder)).read("train")
    assert table.caption is not None
    soft = table.soft_label.argmax(1).tolist()
    said = zip(table.content_hash.tolist(), table.caption.tolist(), soft, strict=True)
    return dict(zip(table.sample_id.tolist(), said, strict=True))


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """Returns the only line that a command says before it ends with 2."""
    assert main(["set", *map(str, words)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_sets_of_two_seeds_as_one(tmp_path: Path) -> None:
    one, two = small_set(tmp_path / "one", 10), small_set(tmp_path / "two", 7, seed=2)
    assert main(["set", "merge", str(one), str(two), "--out", str(tmp_path / "both")]) == 0
    found = faces(tmp_path / "both")
    assert sorted(found.values()) == sorted([*faces(one).values(), *faces(two).values()])
    assert finished_indices(tmp_path / "both").tolist() == list(range(17))
    record = read_record(tmp_path / "both")["merged"]
    assert [(part["first"], part["faces"], part["made_with"]["seed"]) for part in record] == [(0, 10, 1), (10, 7, 2)]
    assert {name.split("-syn-")[0] for name in found} == {part["name"] for part in record}
    assert "17 synthetic faces" in (tmp_path / "both" / "README.md").read_text()
    again = tmp_path / "again"  # and a merged set is a set
    three = small_set(tmp_path / "three", 4, seed=3)
    assert main(["set", "merge", str(tmp_path / "both"), str(three), "--out", str(again)]) == 0
    assert len(faces(again)) == 21


def test_parts_of_a_set_are_that_set_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = small_set(tmp_path / "whole", 20)
    assert main(["set", "split", str(whole), "--counts", "7", "6", "--out", str(tmp_path / "parts")]) == 0
    assert "part-2: 7 faces" in capsys.readouterr().out
    parts = [tmp_path / "parts" / f"part-{k}" for k in range(3)]
    assert [finished_indices(part).tolist() for part in parts] == [
        list(range(7)),
        list(range(7, 13)),
        list(range(13, 20)),
    ]
    assert read_record(parts[1])["part"] == {"of": 20, "faces": 6, "first": 7, "last": 12}
    with pytest.raises(ValueError, match=r"its faces were made with part \{"):  # predict does not fill a part up
        check_record(parts[0], {"seed": 1, "generator": "0" * 16})
    assert main(["set", "merge", *map(str, parts[1:]), "--out", str(tmp_path / "two")]) == 0
    assert read_record(tmp_path / "two")["part"] == {"of": 20, "faces": 13}
    assert main(["set", "merge", str(tmp_path / "two"), str(parts[0]), "--out", str(tmp_path / "again")]) == 0
    assert faces(tmp_path / "again") == faces(whole) and read_record(tmp_path / "again") == read_record(whole)
    check_record(tmp_path / "again", {"seed": 1, "generator": "0" * 16})
    line = refused(capsys, "merge", whole, parts[0], "--out", tmp_path / "twice")
    assert "found face 0 and 6 more of seed 1 in both" in line and not (tmp_path / "twice").exists()


def test_a_set_of_each_expression(tmp_path: Path) -> None:
    whole = small_set(tmp_path / "whole", 12)
    assert main(["set", "split", str(whole), "--by_expression", "--out", str(tmp_path / "parts")]) == 0
    found = {path.name: faces(path) for path in (tmp_path / "parts").iterdir()}
    assert {name: len(rows) for name, rows in found.items()} == {n: 1 + (k < 5) for k, n in enumerate(BASIC7)}
    assert {k: v for rows in found.values() for k, v in rows.items()} == faces(whole)


def test_sets_that_do_not_go_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = small_set(tmp_path / "one")
    others = {
        "found the expressions neutral, happy": small_set(tmp_path / "eight", seed=2, space=LABEL_SPACES["ferplus8"]),
        "found pictures of 16x16 pixels": small_set(tmp_path / "large", seed=2, side=16),
        "found no MANIFEST, expected the folder of a set": tmp_path,
    }
    for said, other in others.items():
        line = refused(capsys, "merge", one, other, "--out", tmp_path / "out")
        assert said in line and str(other) in line
    unfinished = small_set(tmp_path / "unfinished", seed=3)
    begin_set(unfinished, 12)
    for words in (
        ("merge", one, unfinished),
        ("split", unfinished, "--by_expression"),
        ("export", unfinished, "--to=folder"),
    ):
        assert "found 10 of the 12 faces planned" in refused(capsys, *words, "--out", tmp_path / "out")
    assert "found 1, expected at least two" in refused(capsys, "merge", one, "--out", tmp_path / "out")
    assert "found 11 faces wanted of the 10" in refused(capsys, "split", one, "--counts", 11, "--out", tmp_path / "out")
    assert "found something there already" in refused(capsys, "merge", one, one, "--out", one)
    shard = min(one.glob("data/*"))
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    assert "its SHA-256 is another" in refused(capsys, "split", one, "--by_expression", "--out", tmp_path / "out")
    mixed = tmp_path / "mixed"
    check_record(mixed, {"seed": 4})
    begin_set(mixed, 4)
    write_shard(mixed, small_rows([0, 1], 4))
    write_shard(mixed, small_rows([2, 3], 4, side=16))
    assert "row 0: found 16x16 pixels, expected 8x8" in refused(
        capsys, "split", mixed, "--counts", 2, "--out", tmp_path / "out"
    )
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".*"))


def test_archives_for_webdataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(set_exports, "ARCHIVE_FACES", 4)
    folder = small_set(tmp_path / "set", 11, discarded=[3])
    for out in ("tars", "again"):
        assert main(["set", "export", str(folder), "--to", "webdataset", "--out", str(tmp_path / out)]) == 0
    archives = sorted((tmp_path / "tars").glob("*.tar"))
    assert [path.name for path in archives] == [f"synthetic-00000{k}.tar" for k in range(3)]
    assert all(path.read_bytes() == (tmp_path / "again" / path.name).read_bytes() for path in archives)
    classes = (tmp_path / "tars" / "classes.txt").read_text().split()
    assert classes == list(BASIC7)
    found: dict[str, dict[str, bytes]] = {}
    for path in archives:
        with tarfile.open(path) as archive:
            for member in archive:
                key, _, ending = member.name.partition(".")
                file = archive.extractfile(member)
                assert file is not None
                found.setdefault(key, {})[ending] = file.read()
    table = SyntheticSetReader(str(folder)).read("train")
    assert sorted(found) == sorted(table.sample_id.tolist()) and len(found) == 10
    sample = found["syn-1-000004"]
    entry = json.loads(sample["json"])
    assert (entry["intended"], entry["label"], classes[int(sample["cls"])]) == (BASIC7[4], BASIC7[5], BASIC7[5])
    assert entry["caption"] == "face 4" and entry["au"] == {"AU1": 0.5, "AU12": 0.5} and "image" not in entry
    assert (np.asarray(Image.open(io.BytesIO(sample["png"]))) == small_rows([4]).image[0]).all()


@pytest.mark.parametrize("label", ["final", "intended"])
def test_a_folder_by_names(tmp_path: Path, label: str) -> None:
    folder = small_set(tmp_path / "set", 14, discarded=[0])
    out = tmp_path / "out" / "train"
    assert main(["set", "export", str(folder), "--to=folder", f"--label={label}", f"--out={out}"]) == 0
    wanted = Counter(BASIC7[(i + (label == "final") * (i % 5 == 4)) % 7] for i in range(1, 14))
    assert Counter(path.parent.name for path in out.rglob("*.png")) == wanted
    with (out / "metadata.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 13 and all((out / row["file_name"]).parent.name == row["label"] for row in rows)
    assert [row["intended"] for row in rows if row["sample_id"] == "syn-1-000004"] == [BASIC7[4]]
    table = ImageFolderReader(str(tmp_path / "out"), label_space=list(BASIC7)).read("train")
    assert Counter(table.label_space[k] for k in table.label) == wanted


def test_a_set_goes_to_the_hub(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = small_set(tmp_path / "set")
    (folder / ".lock").touch()
    with hub_for_uploads() as hub:
        assert main(["set", "push", str(folder), "user/faces"]) == 0
        assert capsys.readouterr().out.strip().endswith("/user/faces")
        assert hub.repos == {"user/faces": True} and hub.commits == ["10 synthetic faces"]
        for name, content in hub.files.items():
            assert (folder / name).read_bytes() == content
        assert {name for name in hub.files if name.startswith("data/")} == {
            f"data/{p.name}" for p in folder.glob("data/*")
        }
        assert {"README.md", "MANIFEST", "synthesis.json"} <= set(hub.files) and ".lock" not in hub.files
        hub.refuses = 413
        (folder / "README.md").write_text("changed")
        assert "Hub 'user/faces': the set cannot be uploaded (" in refused(capsys, "push", folder, "user/faces")
        assert "found the name 'a b', expected user/name" in refused(capsys, "push", folder, "a b")
        begin_set(folder, 12)
        assert "found 10 of the 12 faces planned" in refused(capsys, "push", folder, "user/other")
        assert set(hub.repos) == {"user/faces"}


def test_what_cannot_be_written_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(self: ShardStream) -> None:
        raise OSError(28, "No space left on device", str(self.folder))

    monkeypatch.setattr(merged_set.ShardStream, "flush", full)
    one, two = small_set(tmp_path / "one"), small_set(tmp_path / "two", seed=2)
    line = refused(capsys, "merge", one, two, "--out", tmp_path / "out")
    assert "found no space left on the disk" in line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]
