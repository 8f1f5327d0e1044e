from __future__ import annotations

from pathlib import Path

from experiments.compare.attribute_rows import attribute_table, scores_by_attribute
from experiments.compare.groups import Comparison, compare
from experiments.compare.run_folders import read_run_folders
from tests.fixtures.synthetic_runs import write_run


def compared(folder: Path) -> Comparison:
    return compare(read_run_folders([folder])[0], "val/accuracy")


def test_means_and_gaps_of_the_runs_that_were_tested(tmp_path: Path) -> None:
    for seed, female, gap in ((1, 0.8, 0.1), (2, 0.9, 0.3)):
        metrics = {
            "val/accuracy": 0.7,
            "test/accuracy": 0.7,
            "test/attribute_accuracy/gender/female": female,
            "test/attribute_accuracy/gender/male": 0.6,
            "test/attribute_rows/gender/female": 1500.0,
            "test/attribute_rows/gender/male": 40.0,
            "test/attribute_gap/gender": gap,
        }
        write_run(tmp_path / f"a{seed}", 0.0, seed, summary={"metrics": metrics})
    write_run(tmp_path / "untested", 0.5, 1)
    labels, rows = scores_by_attribute(compared(tmp_path).groups)
    assert len(labels) == 1
    assert rows == [
        ("gender", "female (1,500 rows)", ["85"]),
        ("gender", "male (40 rows)", ["60"]),
        ("gender", "gap, in points", ["20"]),
    ]
    assert attribute_table(compared(tmp_path)).splitlines()[-1].split() == ["gender", "gap,", "in", "points", "20"]


def test_nothing_is_shown_of_runs_without_attributes(tmp_path: Path) -> None:
    write_run(tmp_path / "a")
    assert attribute_table(compared(tmp_path)) == "" and scores_by_attribute(compared(tmp_path).groups) == ([], [])
