"""configs/data/ of published data sets: each runs on its data set's layout."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

import train
from synfer.faces.expressions import EXPRESSIONS
from tests.configs.test_configs import CONFIGS, ONE_BATCH, TINY, content
from tests.fixtures import published_sets
from tests.fixtures.caption_sets import drawn_pairs, write_parquet
from tests.fixtures.published_sets import Painter, few_pictures


def listed(root: Path) -> Path:
    painter, lines = Painter(), ["path,label,split"]
    for split in ("train", "val", "test"):
        for name in EXPRESSIONS[:7]:
            painter.save(root / f"{split}-{name}.png")
            lines.append(f"{split}-{name}.png,{name},{split}")
    (root / "faces.csv").write_text("\n".join(lines))
    return root


def many_faces(root: Path) -> Path:
    """ExpW with enough photographs to hold some out."""
    published_sets.expw(root)
    lines = (root / "label" / "label.lst").read_text().splitlines()
    for number in range(4):
        for line in lines[:7]:
            copy = line.replace("pic", f"more{number}_")
            Painter().save(root / "image" / "origin" / copy.split()[0], (48, 32))
            lines.append(copy)
    (root / "label" / "label.lst").write_text("\n".join(lines))
    return root


def in_parquet(root: Path) -> Path:
    for split in ("train", "val", "test"):
        write_parquet(root / f"{split}.parquet", drawn_pairs(14))
    return root


def compound(root: Path) -> Path:
    return published_sets.raf_db(root, part="compound")


def long_videos(root: Path) -> Path:
    return published_sets.aff_wild2(root, times=7)


def many_lines(root: Path) -> Path:
    return published_sets.aff_wild2_mtl(root, times=4)


def many_made_faces(root: Path) -> Path:
    """EmoNet-Face Binary with enough faces to hold some out."""
    published_sets.emonet_binary(root)
    table = root / "data" / "binary.csv"
    lines = table.read_text().splitlines()
    for number in range(1, 9):
        for line in [line for line in lines if line.startswith(("00000", "00001", "00003"))]:
            lines.append(f"{number}{line[1:]}")
        for name in ("0000", "0001", "0003"):
            Painter(32 + number).save(root / "images" / f"{number}{name}.jpg", (32, 32))
    table.write_text("\n".join(lines))
    return root


def with_faces_points(root: Path) -> Path:
    """RAF-DB with points that can be those of faces."""
    points = ["14.0\t10.5", "24.0\t10.0", "19.0\t15.0", "15.0\t20.0", "23.0\t20.0"]
    for file in (published_sets.raf_db(root) / "basic" / "Annotation" / "manual").glob("*.txt"):
        file.write_text("\n".join([*points, *file.read_text().splitlines()[5:]]) + "\n")
    return root


CLASSIFIER = [*TINY, "--model.init_args.label_space=basic7"]
MODELS = {  # of rows that are more than expressions, or less
    "aff_wild2_affect": [*CLASSIFIER, "--model.init_args.affect={enabled: true, alone: true}"],
    "aff_wild2_mtl": [*CLASSIFIER, "--model.init_args.affect={enabled: true}"],
    "aff_wild2_units": [f"--config={CONFIGS / 'au_estimator/drawn.yaml'}"],
}

DATA_SETS: dict[str, Callable[[Path], Path]] = {
    "raf_db": published_sets.raf_db,
    "raf_db_aligned": with_faces_points,
    "raf_db_compound": compound,
    "affectnet": published_sets.affectnet,
    "affectnet_tables": published_sets.affectnet_tables,
    "expw": many_faces,
    "emonet_face_binary": many_made_faces,
    "sfew": published_sets.sfew,
    "ck_plus": published_sets.ck_plus,
    "ck48": published_sets.ck48,
    "kdef": published_sets.kdef,
    "jaffe": published_sets.jaffe,
    "oulu_casia": published_sets.oulu_casia,
    "ferv39k": published_sets.ferv39k,
    "aff_wild2": long_videos,
    "aff_wild2_affect": partial(published_sets.aff_wild2_affect, frames=80),
    "aff_wild2_units": partial(published_sets.aff_wild2_units, frames=80),
    "aff_wild2_mtl": many_lines,
    "lsd": published_sets.lsd,
    "table_of_pictures": in_parquet,
    "picture_list": listed,
}


@few_pictures
@pytest.mark.parametrize("name", DATA_SETS)
def test_data_set(name: str, tmp_path: Path) -> None:
    root = DATA_SETS[name](tmp_path / "set")
    reader = content(f"data/{name}.yaml")["data"]["reader"]
    within = "reader.init_args." if "reader" in reader["init_args"] else ""
    args = [*MODELS.get(name, CLASSIFIER), f"--config={CONFIGS / 'data' / name}.yaml", *ONE_BATCH]
    place = "path" if "path" in reader["init_args"] else "root"
    args.append(f"--data.reader.init_args.{within}{place}={root}")
    cli = train.main(["fit", *args, f"--run_dir={tmp_path / 'run'}"])
    assert cli.trainer.state.finished and cli.trainer.global_step == 1
    assert len(cli.datamodule.train_table) and len(cli.datamodule.val_table)  # type: ignore[arg-type]
    alignment = cli.datamodule.val_table.alignment  # type: ignore[union-attr]
    assert (alignment is not None) == name.endswith("_aligned")
    assert alignment is None or alignment["by"] == {"landmarks": 7}
    if name not in ("expw", "emonet_face_binary"):  # they have no faces to test on
        assert len(cli.datamodule.reader.read("test"))


@few_pictures
def test_made_faces_are_counted_as_such_alone_and_beside_real_ones(tmp_path: Path) -> None:
    made, real = published_sets.lsd(tmp_path / "made"), published_sets.raf_db(tmp_path / "real")
    args = [*TINY, "--model.init_args.label_space=basic7", *ONE_BATCH, "--data.batch_size=8"]
    alone = [f"--config={CONFIGS / 'data/lsd.yaml'}", f"--data.reader.init_args.reader.init_args.root={made}"]
    beside = [
        f"--config={CONFIGS / 'data/raf_db.yaml'}",
        f"--data.reader.init_args.reader.init_args.root={real}",
        "--data.synthetic_reader=datamodules.readers.LSDReader",
        f"--data.synthetic_reader.init_args.root={made}",
        "--data.synthetic_reader.init_args.image_size=100",
        "--data.synthetic_ratio=0.5",
    ]
    for name, more, counts in (("alone", alone, (0, 8)), ("beside", beside, (4, 4))):
        cli = train.main(["fit", *args, *more, f"--run_dir={tmp_path / name}"])
        assert cli.datamodule.counts == dict(zip(("real", "synthetic"), counts, strict=True))
        assert not cli.datamodule.val_table.is_synthetic


@few_pictures
def test_a_set_to_test_on(tmp_path: Path) -> None:
    root = published_sets.emonet_hq_parquet(tmp_path / "set")
    args = [*TINY, "--model.init_args.label_space=basic7", f"--config={CONFIGS / 'data/emonet_face_hq.yaml'}"]
    once = ["--trainer.accelerator=cpu", "--trainer.devices=1", "--data.num_workers=0", "--trainer.max_steps=1"]
    drawn = [f"--config={CONFIGS / 'data/drawn.yaml'}", "--data.reader.init_args.count={train: 16, val: 8, test: 8}"]
    train.main(["fit", *TINY, *drawn, *once, f"--run_dir={tmp_path / 'run'}"])
    place = f"--data.reader.init_args.root={root}"
    cli = train.main(["test", *args, place, *once, f"--run_dir={tmp_path / 'test'}", f"--ckpt_path={tmp_path / 'run'}"])
    assert "test/attribute_accuracy/agreement/all" in cli.trainer.callback_metrics
