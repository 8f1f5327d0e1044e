"""Groups, their controls and what came of them."""

from __future__ import annotations

import statistics
from pathlib import Path

import pytest

from comparison.comparison import Comparison, best_of, choose_metric, compare, is_share, lower_is_better, recall_prefix
from comparison.run_folders import read_run_folder, read_run_folders
from tests.comparison.synthetic_runs import write_run

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


def test_unreadable_history_is_named_and_the_last_value_stays(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a", accuracy=0.7)
    (folder / "metrics.csv").write_text("step,val/accuracy\n1,good\n")
    found = compared(tmp_path)
    assert found.groups[0].best == {} and found.groups[0].best_interval is None
    assert found.groups[0].last == {1: 0.7} and "metrics.csv' cannot be read" in found.warnings[0]


def test_the_later_of_two_runs_with_one_seed_counts(tmp_path: Path) -> None:
    import os

    old, new = write_run(tmp_path / "z-old", accuracy=0.1), write_run(tmp_path / "a-new", accuracy=0.9)
    os.utime(old / "summary.json", (1_000, 1_000))
    os.utime(new / "summary.json", (2_000, 2_000))
    found = compared(tmp_path)
    assert found.groups[0].last == {1: 0.9}
    assert "seed 1 twice" in found.warnings[0] and "a-new' counts" in found.warnings[0]


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
    assert lower_is_better("val/loss") and lower_is_better("test/ece") and not lower_is_better("val/accuracy")
    assert lower_is_better("test/frechet/judge") and lower_is_better("test/kid/judge")
    assert lower_is_better("test/near_copies") and is_share("synthesis/near_copies")
    assert is_share("val/macro_f1") and not is_share("val/loss")
    assert recall_prefix("val/accuracy") == recall_prefix("val/mean_class_accuracy") == "val/recall/"
    assert recall_prefix("test/fer_accuracy") == "test/fer_recall/"
