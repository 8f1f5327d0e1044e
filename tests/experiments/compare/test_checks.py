"""Each reason to doubt a comparison is one line, and a sound comparison has none."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from experiments.compare.checks import check, usable_runs
from experiments.compare.groups import compare
from experiments.compare.run_folders import read_run_folders
from synfer.runs.row_file import row_file, write_rows
from tests.fixtures.synthetic_runs import write_run

METRIC = "val/accuracy"


def warnings_of(folder: Path, swept: list[str] | None = None) -> list[str]:
    runs, warnings = read_run_folders([folder])
    usable, left_out = usable_runs(runs, METRIC)
    found = [*warnings, *left_out, *check(compare(usable, METRIC, swept))]
    assert all("\n" not in line for line in found)
    return found


def study(folder: Path, ratios: tuple[float, ...] = (0.0, 0.5), seeds: tuple[int, ...] = (1, 2)) -> None:
    for ratio in ratios:
        for seed in seeds:
            write_run(folder / f"{ratio}-{seed}", ratio, seed)


def test_a_sound_study_has_no_warning(tmp_path: Path) -> None:
    study(tmp_path)
    assert warnings_of(tmp_path) == []


def test_unfinished_runs_are_named_by_status(tmp_path: Path) -> None:
    study(tmp_path)
    for status in ("running", "failed", "interrupted"):
        write_run(tmp_path / f"x-{status}", 0.75, status=status)
    found = warnings_of(tmp_path)
    assert len(found) == 3
    assert f"1 run not finished (failed), left out: {tmp_path}/x-failed" in found


def test_runs_without_the_metric_are_named(tmp_path: Path) -> None:
    study(tmp_path)
    write_run(tmp_path / "generator", summary={"metrics": {"val/loss": 0.1}})
    assert warnings_of(tmp_path) == [f"1 run without {METRIC}, left out: {tmp_path}/generator"]


def test_other_differences_than_the_swept_ones(tmp_path: Path) -> None:
    study(tmp_path)
    write_run(tmp_path / "other", 0.5, 3, data__batch_size=32)
    write_run(tmp_path / "control", 0.0, 3)
    (line,) = warnings_of(tmp_path, swept=["data.synthetic_ratio"])
    assert line == "runs differ in more than the swept keys: data.batch_size (64 in 5, 32 in 1)"


def test_a_difference_that_goes_along_with_a_named_key_is_one_too(tmp_path: Path) -> None:
    for seed in (1, 2):
        write_run(tmp_path / f"a{seed}", 0.0, seed, data__batch_size=64)
        write_run(tmp_path / f"b{seed}", 0.5, seed, data__batch_size=128)
    (line,) = warnings_of(tmp_path, swept=["data.synthetic_ratio"])
    assert line.startswith("runs differ in more than the swept keys: data.batch_size")
    (line,) = warnings_of(tmp_path)
    assert line == (
        "with data.synthetic_ratio these settings change too, so their effects cannot be told apart: data.batch_size"
    )


def test_missing_seeds(tmp_path: Path) -> None:
    study(tmp_path, seeds=(1, 2, 3))
    write_run(tmp_path / "x1", 0.75, 1)
    write_run(tmp_path / "x2", 0.75, 4)
    found = warnings_of(tmp_path)
    assert "group 'synthetic_ratio 0.75' lacks seed 2, 3, which other groups have" in found
    assert "group 'synthetic_ratio 0' lacks seed 4, which other groups have" in found and len(found) == 3


def test_one_seed_per_group(tmp_path: Path) -> None:
    study(tmp_path, seeds=(1,))
    assert warnings_of(tmp_path) == [
        "one seed per group: no intervals, and no difference here is more than an observation"
    ]


def test_evaluation_rows_differ(tmp_path: Path) -> None:
    study(tmp_path)
    write_run(tmp_path / "x", 0.0, 3, splits={"train": "t3", "val": "other"})
    write_run(tmp_path / "y", 0.5, 3, splits={"train": "t3", "val": "same"})
    (line,) = warnings_of(tmp_path)
    assert line.startswith("split manifests differ: val rows of 5 runs (") and f"1 run ({tmp_path}/x)" in line


def test_in_which_rows_runs_differ(tmp_path: Path) -> None:
    for name, digest, count in (("x", "other", 3), ("y", "same", 5), ("z", "same", 5)):
        write_run(tmp_path / name, 0.0, 1 + "xyz".index(name), splits={"val": digest})
        ids = np.array([f"{n}.png" for n in range(count)])
        hashes = np.array([f"{n:016x}" for n in range(count)])
        write_rows(row_file(tmp_path / name, "val"), ids, hashes, np.zeros(count, int), ("happy", "sad"))
    (line,) = [line for line in warnings_of(tmp_path) if "manifest" in line]
    assert line.endswith("; these runs were scored on different rows: 5 rows against 3, 2 in the first alone")
    row_file(tmp_path / "x", "val").write_text("no rows")
    (line,) = [line for line in warnings_of(tmp_path) if "manifest" in line]
    assert "found a file that is not Parquet, expected rows as a run writes them" in line


def test_training_rows_may_differ_between_seeds_but_not_within_one(tmp_path: Path) -> None:
    study(tmp_path)  # each seed has rows of its own there
    write_run(tmp_path / "x", 0.0, 3, splits={"train": "these", "val": "same"})
    write_run(tmp_path / "y", 0.5, 3, splits={"train": "those", "val": "same"})
    (line,) = warnings_of(tmp_path)
    assert line == (
        f"split manifests differ: training rows of 1 run ({tmp_path}/x) against 1 run ({tmp_path}/y) (same settings)"
    )


def test_training_rows_differ_with_the_fraction_that_chose_them(tmp_path: Path) -> None:
    for fraction in (0.05, 0.2):
        for seed in (1, 2):
            splits = {"train": f"{fraction}-{seed}", "val": "same"}
            write_run(tmp_path / f"{fraction}-{seed}", 0.5, seed, data__training_fraction=fraction, splits=splits)
    assert warnings_of(tmp_path) == []


def test_some_runs_without_a_manifest(tmp_path: Path) -> None:
    study(tmp_path)
    write_run(tmp_path / "x", 0.0, 3, summary={"splits": None})
    write_run(tmp_path / "y", 0.5, 3)
    assert warnings_of(tmp_path) == [f"1 run without a split manifest, not checked: {tmp_path}/x"]


def test_no_run_with_a_manifest(tmp_path: Path) -> None:
    for ratio in (0.0, 0.5):
        for seed in (1, 2):
            write_run(tmp_path / f"{ratio}-{seed}", ratio, seed, summary={"splits": None})
    (line,) = warnings_of(tmp_path)
    assert line.startswith("4 runs without a split manifest, not checked: ")


def test_training_rows_differ_with_labels_and_folds_that_chose_them(tmp_path: Path) -> None:
    for fold in (0, 1):
        for seed in (1, 2):
            chosen = {"data__folds": 2, "data__fold": fold, "data__label_table": f"table-{fold}.parquet"}
            splits = {"train": f"{fold}", "val": "same"}
            write_run(tmp_path / f"{fold}-{seed}", 0.5, seed, splits=splits, **chosen)
    assert not [line for line in warnings_of(tmp_path) if "training rows" in line]


def test_different_label_spaces_are_named(tmp_path: Path) -> None:
    study(tmp_path)
    for seed in (1, 2):
        write_run(tmp_path / f"eight-{seed}", 0.5, seed, label_space="ferplus8")
    (line,) = warnings_of(tmp_path)
    assert line.startswith("different label spaces") and "7 expressions in 4 runs" in line
    assert f"8 expressions in 2 runs ({tmp_path}/eight-1, {tmp_path}/eight-2)" in line


def test_counted_share_of_synthetic_samples(tmp_path: Path) -> None:
    study(tmp_path)
    write_run(tmp_path / "x", 0.0, 3)
    write_run(tmp_path / "y", 0.5, 3, summary={"counts": {"real": 900, "synthetic": 100}})
    (line,) = warnings_of(tmp_path)
    assert line == (f"share of synthetic samples is not as configured: '{tmp_path}/y' (0.10 counted, 0.5 configured)")


def test_many_lines_of_one_kind_are_counted(tmp_path: Path) -> None:
    for number in range(9):
        write_run(tmp_path / f"r{number}", number / 10, seed=number)
    found = [line for line in warnings_of(tmp_path) if "seed" in line]
    assert len(found) == 7 and found[5] == "and 4 more groups that lack seeds"
