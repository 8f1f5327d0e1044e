"""Groups, their controls and what came of them."""

from __future__ import annotations

import csv
import json
import os
import shutil
import statistics
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from experiments.compare.checks import check
from experiments.compare.groups import Comparison, best_of, choose_metric, compare, is_share, recall_prefix
from experiments.compare.run import Run
from experiments.compare.run_folders import read_run_folder, read_run_folders
from experiments.compare.seeds import is_recorded
from experiments.compare.tables import write_csv
from tests.fixtures.synthetic_runs import write_run

METRIC = "val/accuracy"


def compared(folder: Path, **options: object) -> Comparison:
    runs, warnings = read_run_folders([folder])
    assert not warnings
    return compare(runs, METRIC, **options)  # type: ignore[arg-type]


def ratio_study(folder: Path) -> dict[tuple[float, int], float]:
    """Two ratios and the control, three seeds: the seed moves a run by much more than the ratio does."""
    accuracy = {}
    for ratio, gain in ((0.0, 0.0), (0.5, 0.03), (1.0, -0.04)):
        for seed, shift in ((1, 0.0), (2, 0.1), (3, -0.1)):
            accuracy[ratio, seed] = 0.6 + shift + gain + 0.001 * seed * ratio
            write_run(folder / f"{ratio}-{seed}", ratio, seed, accuracy[ratio, seed])
    return accuracy


def test_means_and_paired_differences(tmp_path: Path) -> None:
    accuracy = ratio_study(tmp_path)
    found = compared(tmp_path)
    assert [group.label for group in found.groups] == ["synthetic_ratio 0", "synthetic_ratio 0.5", "synthetic_ratio 1"]
    assert found.control == {1: 0, 2: 0} and found.num_runs == 9
    for number, ratio in enumerate((0.0, 0.5, 1.0)):
        values = [accuracy[ratio, seed] for seed in (1, 2, 3)]
        assert found.groups[number].last_interval.mean == pytest.approx(statistics.mean(values))
        assert found.groups[number].seeds == (1, 2, 3)
    difference = found.difference[1]
    per_seed = [accuracy[0.5, seed] - accuracy[0.0, seed] for seed in (1, 2, 3)]
    assert difference.mean == pytest.approx(statistics.mean(per_seed))
    assert difference.half_width == pytest.approx(4.302653 * statistics.stdev(per_seed) / 3**0.5, rel=1e-5)
    assert difference.excludes_zero and found.difference[2].mean < 0
    assert found.groups[1].last_interval.half_width > 0.1  # type: ignore[operator]


def test_recall_per_group(tmp_path: Path) -> None:
    write_run(tmp_path / "a", 0.0, 1, 0.6)
    write_run(tmp_path / "b", 0.0, 2, 0.7)
    recall = compared(tmp_path).groups[0].recall
    assert list(recall) == ["neutral", "happy", "sad", "surprise", "fear", "disgust", "anger"]
    assert recall["sad"].mean == pytest.approx(0.61) and recall["sad"].n == 2


def test_best_and_last(tmp_path: Path) -> None:
    write_run(tmp_path / "a", history=[0.5, 0.8, 0.7], accuracy=0.7)
    group = compared(tmp_path).groups[0]
    assert group.last == {1: 0.7} and group.best == {1: 0.8}


def test_best_that_the_run_recorded_goes_before_its_history(tmp_path: Path) -> None:
    run = read_run_folder(write_run(tmp_path / "a", summary={"best": {METRIC: 0.9}}))
    assert best_of(run, METRIC) == 0.9


def test_best_of_a_loss_is_its_least(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a")
    (folder / "metrics.csv").write_text("step,val/loss\n1,0.9\n2,0.4\n3,0.6\n")
    assert best_of(read_run_folder(folder), "val/loss") == 0.4
    assert best_of(read_run_folder(folder), METRIC) is None


def test_a_best_of_the_wrong_end_does_not_count(tmp_path: Path) -> None:
    """Older runs recorded the worst value of the uncalibrated error of calibration as its best."""
    name = "val/ece_uncalibrated"
    summary = {"best": {name: 0.3}, "metrics": {name: 0.12}}
    folder = write_run(tmp_path / "a", summary=summary)
    (folder / "metrics.csv").write_text(f"step,{name}\n1,0.3\n2,0.1\n3,0.12\n")
    assert best_of(read_run_folder(folder), name) == 0.1


def test_a_metric_that_nobody_knows_has_no_best(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a", summary={"best": {"val/temperature": 2.0}})
    (folder / "metrics.csv").write_text("step,val/temperature,val/glow\n1,2,3\n")
    run = read_run_folder(folder)
    assert best_of(run, "val/temperature") is None and best_of(run, "val/glow") is None


def test_unreadable_history_is_named_and_the_last_value_stays(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a", accuracy=0.7)
    (folder / "metrics.csv").write_text("step,val/accuracy\n1,good\n")
    found = compared(tmp_path)
    assert found.groups[0].best == {} and found.groups[0].best_interval is None
    assert found.groups[0].last == {1: 0.7} and "metrics.csv' line 2: found 'good'" in found.warnings[0]


def _with_dates(folder: Path, **dates: float) -> None:
    for name, date in dates.items():
        os.utime(folder / name / "summary.json", (date, date))


def test_of_two_runs_with_one_seed_the_one_that_began_later_counts(tmp_path: Path) -> None:
    for name, day, accuracy in (("z", 1, 0.1), ("a", 2, 0.9)):
        write_run(tmp_path / name, accuracy=accuracy, summary={"started": f"2026-01-0{day}T00:00:00+00:00"})
    write_run(tmp_path / "unknown", accuracy=0.5)
    shutil.copytree(tmp_path / "z", tmp_path / "copy-of-z")
    for dates in ({"z": 1_000, "a": 2_000}, {"z": 2_000, "a": 1_000}):  # as after a test in z
        _with_dates(tmp_path, **dates)
        found = compared(tmp_path)
        assert found.groups[0].last == {1: 0.9} and len(found.warnings) == 3
        assert found.warnings[0].endswith(
            "copy-of-z' counts, '" + str(tmp_path / "z") + "' is a copy of it and left out"
        )
        assert all("seed 1 twice" in line for line in found.warnings)
        assert all(f"{tmp_path / 'a'}' counts" in line and "began earlier" in line for line in found.warnings[1:])


@pytest.mark.parametrize(
    ("old", "new"),
    [("fit-20260102T030405Z-ffff", "fit-20260103T030405Z-0000"), ("z-20260102T030405Z-x", "a-20260103T030405Z-x")],
)
def test_where_no_beginning_was_recorded_the_time_in_the_folder_s_name_counts(
    tmp_path: Path, old: str, new: str
) -> None:
    write_run(tmp_path / old, accuracy=0.1)
    write_run(tmp_path / new, accuracy=0.9)
    _with_dates(tmp_path, **{old: 2_000, new: 1_000})
    assert compared(tmp_path).groups[0].last == {1: 0.9}


def test_where_no_beginning_is_known_the_name_counts_and_copies_do_not(tmp_path: Path) -> None:
    write_run(tmp_path / "a", accuracy=0.1)
    write_run(tmp_path / "b", accuracy=0.9)
    shutil.copytree(tmp_path / "a", tmp_path / "c")
    tested = json.loads((tmp_path / "c" / "summary.json").read_text())
    tested["metrics"]["test/accuracy"] = 0.7
    (tmp_path / "c" / "summary.json").write_text(json.dumps(tested))
    _with_dates(tmp_path, a=3_000, b=1_000, c=2_000)
    found = compared(tmp_path)
    assert found.groups[0].last == {1: 0.9}
    assert "c' is a copy of it" in found.warnings[0] and "a' comes first by name" in found.warnings[1]


def test_copies_and_tests_change_no_value_in_300_cases() -> None:
    for case in range(300):
        random = np.random.default_rng([case, 0xC0])
        runs = [
            Run(
                name=f"runs/{number}",
                config={"data.synthetic_ratio": 0.5, "data.seed": data},
                seed=seed,
                status="finished",
                task="fit",
                last={METRIC: float(random.random())},
                history=lambda metric: [],
                started=float(random.integers(1000)),
            )
            for number, (seed, data) in enumerate(random.choice([1, 2, None], (random.integers(1, 7), 2)).tolist())
        ]
        copies = [
            replace(run, name=f"{random.choice(['0', 'x'])}/{number}", last={**run.last, "test/accuracy": 0.5})
            for number, run in enumerate(runs)
            if run.seed is not None and random.random() < 0.5
        ]
        alone = compare(runs, METRIC).groups[0]
        mixed = [*runs, *copies]
        random.shuffle(mixed)  # type: ignore[arg-type]
        beside = compare(mixed, METRIC).groups[0]
        recorded = {seed: value for seed, value in alone.last.items() if is_recorded(seed)}
        assert {seed: value for seed, value in beside.last.items() if is_recorded(seed)} == recorded
        assert len(beside.last) == len(alone.last)
        for seed, value in recorded.items():
            assert (
                value == max((r for r in runs if r.repetition == seed), key=lambda run: run.started or 0).last[METRIC]
            )


def test_repetitions_told_apart_by_the_seed_of_the_data(tmp_path: Path) -> None:
    for ratio, accuracy in ((0.0, 0.5), (0.5, 0.6)):
        for seed in (1, 2, 3):
            write_run(tmp_path / f"{ratio}-{seed}", ratio, 1, accuracy + seed / 100, data__seed=seed)
    write_run(tmp_path / "other", 0.0, 2, 0.4, data__seed=None)
    found = compared(tmp_path)
    assert found.groups[1].last == pytest.approx({1: 0.61, (1, 2): 0.62, (1, 3): 0.63}) and not found.warnings
    assert found.groups[0].seeds == (1, (1, 2), (1, 3), 2)
    assert found.difference[1].n == 3 and found.difference[1].mean == pytest.approx(0.1)
    assert any("lacks seed 2, which" in line for line in check(found))
    write_csv(found, tmp_path / "table.csv")
    assert [row["seeds"] for row in csv.DictReader((tmp_path / "table.csv").open())] == ["1 1/2 1/3 2", "1 1/2 1/3"]
    again = write_run(tmp_path / "0.5-2-again", 0.5, 1, 0.9, data__seed=2)
    warnings = compared(tmp_path).warnings
    assert len(warnings) == 1 and warnings[0].startswith("seed 1/2 twice") and str(again) in warnings[0]


def test_a_seed_counts_once_where_its_runs_differ_in_a_key_that_makes_no_groups(tmp_path: Path) -> None:
    for seed in (1, 2):
        write_run(tmp_path / f"c{seed}", 0.0, seed, 0.5)
        for batch_size, accuracy in ((64, 0.6), (128, 0.7)):
            name = f"{seed}-{batch_size}"
            write_run(tmp_path / name, 0.5, seed, accuracy + seed / 100, data__batch_size=batch_size)
    found = compared(tmp_path, swept=["data.synthetic_ratio"])
    mixed = found.groups[1]
    assert mixed.last == pytest.approx({1: 0.66, 2: 0.67}) and len(mixed.runs) == 4 and not found.warnings
    assert found.difference[1].n == 2 and found.difference[1].mean == pytest.approx(0.165)
    assert mixed.recall["neutral"].n == 2 and found.num_runs == 6


def test_one_control_for_all_generators_but_one_per_training_fraction(tmp_path: Path) -> None:
    for fraction in (0.05, 0.2):
        write_run(tmp_path / f"control-{fraction}", 0.0, data__training_fraction=fraction)
        for generator in ("own", "transfer"):
            write_run(
                tmp_path / f"{generator}-{fraction}", 0.5,
                data__training_fraction=fraction, synthesis__generator=f"runs/{generator}/last.ckpt",
            )  # fmt: skip
    found = compared(tmp_path)
    assert len(found.groups) == 6 and len(found.control) == 4
    place = found.swept.keys.index("data.training_fraction")
    for number, control in found.control.items():
        assert found.groups[number].values[place] == found.groups[control].values[place]


def test_a_chosen_control_also_by_a_key_that_goes_along(tmp_path: Path) -> None:
    for step_size in (0.1, 0.2):
        write_run(tmp_path / f"s{step_size}", 0.5, guidance__step_size=step_size)
    write_run(tmp_path / "off", 0.5, guidance__enabled=False)
    assert compared(tmp_path).control == {}
    for control in ({"step_size": 0.1}, {"guidance.enabled": False}, {"guidance.step_size": "off"}):
        found = compared(tmp_path, control=control)
        assert len(found.control) == 2, control
    assert found.groups[0].label == "guidance.step_size off" and found.control == {1: 0, 2: 0}


@pytest.mark.parametrize("swept", [["data.synthetic_ratio"], None])
def test_no_control_of_another_label_space(swept: list[str] | None, tmp_path: Path) -> None:
    write_run(tmp_path / "a", 0.0, label_space="basic7")
    write_run(tmp_path / "b", 0.5, label_space="ferplus8")
    found = compared(tmp_path, swept=swept)
    assert len(found.groups) == 2 and not found.control
    assert [len(names) for names, _ in found.recall_sections] == [7, 8]


@pytest.mark.parametrize(
    ("control", "said"),
    [
        ({"synthetic_ratio": 0.3}, r"data\.synthetic_ratio=0\.3: found no group with it, expected one of 0\.0, 0\.5"),
        ({"data.batch_size": 64}, r"'data\.batch_size': found no swept key of this name"),
    ],
)
def test_a_control_that_is_not_there(tmp_path: Path, control: dict[str, float], said: str) -> None:
    write_run(tmp_path / "a", 0.0)
    write_run(tmp_path / "b", 0.5)
    with pytest.raises(ValueError, match=said):
        compared(tmp_path, control=control)


def test_a_control_that_agrees_with_no_group_is_named(tmp_path: Path) -> None:
    write_run(tmp_path / "a", 0.25, data__batch_size=32)
    write_run(tmp_path / "b", 0.5, data__batch_size=64)
    write_run(tmp_path / "c", 0.5, data__batch_size=128)
    found = compared(tmp_path, control={"synthetic_ratio": 0.25})
    assert not found.control and "no group has a control" in found.warnings[0]


def test_runs_without_a_seed_count_but_are_not_paired(tmp_path: Path) -> None:
    for number in range(3):
        write_run(tmp_path / f"a{number}", 0.0, summary={"seed": None})
        write_run(tmp_path / f"b{number}", 0.5, seed=number)
    found = compared(tmp_path)
    assert found.groups[0].last_interval.n == 3 and not found.difference


def test_choose_metric(tmp_path: Path) -> None:
    runs = [read_run_folder(write_run(tmp_path / "a"))]
    assert choose_metric(runs, None) == METRIC and choose_metric(runs, "val/ece") == "val/ece"
    with pytest.raises(ValueError, match=r"metric 'val/acc': found in none of 1 runs.*val/accuracy"):
        choose_metric(runs, "val/acc")
    judged = read_run_folder(write_run(tmp_path / "b", summary={"metrics": {"test/fer_accuracy": 0.5}}))
    assert choose_metric([judged], None) == "test/fer_accuracy"


def test_kinds_of_metrics() -> None:
    assert is_share("val/macro_f1") and not is_share("val/loss") and not is_share("test/frechet/f1_recall_net")
    assert is_share("synthesis/near_copies")
    assert recall_prefix("val/accuracy") == recall_prefix("val/mean_class_accuracy") == "val/recall/"
    assert recall_prefix("test/fer_accuracy") == "test/fer_recall/"
