"""Choices of rows: even over classes, nested, and blind to the order of the rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import train
from datamodules.rows.row_choice import choose_share, even_order
from datamodules.synthetic.synthetic_rows import SyntheticRows
from datamodules.synthetic.synthetic_shards import write_shard
from synfer.faces.action_units import ACTION_UNITS
from synfer.faces.expressions import LABEL_SPACES

BASIC7 = LABEL_SPACES["basic7"]


def _rows(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Returns labels of 1 to 200 rows, sorted and of uneven classes, and their ids."""
    shares = random.dirichlet(np.full(random.integers(1, 9), random.uniform(0.2, 5)))
    label = np.sort(random.choice(len(shares), size=random.integers(1, 201), p=shares))
    return label, np.array([f"id-{number}" for number in random.permutation(1000)[: len(label)]])


def test_500_choices() -> None:
    for case in range(500):
        random = np.random.default_rng([case, 0xC0])
        label, ids = _rows(random)
        seed, total = int(random.integers(1 << 40)), np.bincount(label)
        classes = np.count_nonzero(total)

        order = even_order(label, ids, seed)
        assert sorted(order) == list(range(len(label)))
        for count in random.integers(1, len(label) + 1, 5):
            found = np.bincount(label[order[:count]], minlength=len(total))
            # Sainte-Laguë: off by half a row for its rounding, and by its part of all the others' roundings.
            allowed = 0.5 + 0.5 * classes * total / len(label)
            assert (np.abs(found - count * total / len(label)) <= allowed + 1e-9).all(), case

        small, large = np.sort(random.uniform(1e-3, 1, 2))
        few, more = (choose_share(label, ids, share, seed) for share in (small, large))
        assert set(few) <= set(more) and (np.diff(few) > 0).all()
        expected = np.maximum(1, [round(small * n) for n in total]) * (total > 0)
        assert np.bincount(label[few], minlength=len(total)).tolist() == expected.tolist()

        moved = random.permutation(len(label))
        assert ids[moved][even_order(label[moved], ids[moved], seed)].tolist() == ids[order].tolist()
        assert set(ids[moved][choose_share(label[moved], ids[moved], small, seed)]) == set(ids[few])


def test_classes_of_one_size_take_turns() -> None:
    label = np.repeat(np.arange(5), 20)
    ids = np.array([f"id-{row}" for row in range(100)])
    for turn in label[even_order(label, ids, seed=3)].reshape(20, 5):
        assert sorted(turn) == [0, 1, 2, 3, 4]
    assert even_order(label, ids, seed=3).tolist() != even_order(label, ids, seed=4).tolist()


def test_a_multiple_of_a_sorted_set_of_shards_through_the_command(tmp_path: Path, tiny_run: list[str]) -> None:
    label, folder = np.repeat(np.arange(7), 20), tmp_path / "set"
    write_shard(
        folder,
        SyntheticRows(
            index=np.arange(140),
            sample_id=[f"syn-1-{number:06d}" for number in range(140)],
            image=np.random.default_rng(0).integers(0, 256, (140, 48, 48, 3), dtype=np.uint8),
            label=[BASIC7[code] for code in label],
            soft_label=np.eye(7, dtype=np.float32)[label],
            label_space=BASIC7,
            caption=["a face"] * 140,
            au=np.zeros((140, len(ACTION_UNITS)), np.float32),
            au_names=ACTION_UNITS,
            seed=1,
            layout_source=[""] * 140,
            kept=np.ones(140, dtype=bool),
            votes={},
        ),
    )
    wanted = ["--data.synthetic_ratio=0.5", "--data.synthetic_multiple=0.5", f"--run_dir={tmp_path / 'run'}"]
    reader = "--data.synthetic_reader=datamodules.readers.SyntheticSetReader"
    cli = train.main(
        [
            "fit",
            *tiny_run,
            *wanted,
            reader,
            f"--data.synthetic_reader.init_args.root={folder}",
            "--trainer.logger=false",
        ]
    )
    assert cli.datamodule.synthetic_table.class_counts() == dict.fromkeys(BASIC7, 8)  # 56 for 112 real rows
