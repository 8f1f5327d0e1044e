"""Which keys were swept, which go along, and which mean nothing in a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from experiments.compare.run_folders import read_run_folder
from experiments.compare.swept_keys import (
    OFF,
    effective_config,
    find_swept_keys,
    parse_setting,
    resolve_key,
    show_values,
)
from synfer.runs.flat_settings import Value
from tests.fixtures.synthetic_runs import write_run


def configs(tmp_path: Path, *settings: dict[str, Any]) -> list[dict[str, Value]]:
    return [
        effective_config(read_run_folder(write_run(tmp_path / str(number), **given)))
        for number, given in enumerate(settings)
    ]


def test_seeds_and_bookkeeping_are_not_swept(tmp_path: Path) -> None:
    found = configs(
        tmp_path,
        {"seed": 1, "data__num_workers": 0, "trainer__log_every_n_steps": 1, "checkpoint__monitor": "val/loss"},
        {"seed": 2, "data__num_workers": 4, "trainer__log_every_n_steps": 9, "checkpoint__monitor": "val/accuracy"},
    )
    assert find_swept_keys(found).keys == ()


def test_real_only_training_has_its_synthesis_off(tmp_path: Path) -> None:
    real, mixed = configs(tmp_path, {"ratio": 0}, {"ratio": 0.5})
    assert real["synthesis.generator"] == real["guidance.step_size"] == real["data.synthetic_multiple"] == OFF
    assert mixed["guidance.step_size"] == 0.1
    assert find_swept_keys([real, mixed]).keys == ("data.synthetic_ratio",)


def test_a_generator_test_keeps_its_guidance_at_ratio_0(tmp_path: Path) -> None:
    (generator,) = configs(tmp_path, {"model__class_path": "lightning_modules.generator.ExpressionGenerator"})
    assert generator["data.synthetic_ratio"] == 0 and generator["guidance.step_size"] == 0.1
    run = read_run_folder(write_run(tmp_path / "test", summary={"task": "test"}))
    assert effective_config(run)["guidance.step_size"] == 0.1


def test_settings_of_a_test_are_compared_under_old_and_new_names(tmp_path: Path) -> None:
    generator = {"model__class_path": "lightning_modules.generator.ExpressionGenerator", "task": "test"}
    old = {"model__judge": "a.ckpt", "model__test_samples": 14, "model__test_batch_size": 7}
    new = {"test__judge": "a.ckpt", "test__samples": 14, "test__batch_size": 9}
    given = [{**generator, **old}, {**generator, **new}, {**generator, **new, "test__samples": 28}]
    found = [
        effective_config(read_run_folder(write_run(tmp_path / str(n), summary={"task": task}, **settings)))
        for n, (task, settings) in enumerate([(each.pop("task"), each) for each in given])
    ]
    assert found[0]["test.judge"] == "a.ckpt" and "model.judge" not in found[0]
    assert find_swept_keys(found[:2]).keys == ()
    assert find_swept_keys(found).keys == ("test.samples",)
    assert resolve_key("model.test_samples", found[0]) == "test.samples"
    fit = effective_config(read_run_folder(write_run(tmp_path / "fit", **given[1])))
    assert fit["test.samples"] == OFF


def test_settings_of_a_generator_are_compared_with_and_without_their_groups(tmp_path: Path) -> None:
    old = {"model__unet": {"norm_eps": 1}, "model__drop_text": 0.1, "model__channels_last": True}
    new = {"model__network": {"unet": {"norm_eps": 1}}, "model__drop": {"text": 0.1}}
    new |= {"model__execution": {"channels_last": True}}
    generator = {"model__class_path": "lightning_modules.generator.ExpressionGenerator"}
    given = [{**generator, **old}, {**generator, **new}, {**generator, **old, "model__channels_last": False}]
    found = configs(tmp_path, *given)
    assert find_swept_keys(found[:2]).keys == ()
    for names in (None, ["model.channels_last"], ["model.execution.channels_last"]):
        assert find_swept_keys(found, declared=names).keys == ("model.execution.channels_last",)
    assert resolve_key("drop_text", found[0]) == resolve_key("model.drop_text", found[0]) == "model.drop.text"
    assert resolve_key("model.unet.norm_eps", found[0]) == resolve_key("norm_eps", found[1])
    own = [{"model.class_path": "mine.Net", "model.unet": size} for size in (1, 2)]
    assert find_swept_keys(own, declared=["model.unet"]).keys == ("model.unet",)


def test_a_group_that_is_not_enabled_is_off(tmp_path: Path) -> None:
    off, weak, strong = configs(
        tmp_path,
        {"ratio": 0.5, "guidance__enabled": False, "guidance__step_size": 0.1},
        {"ratio": 0.5, "guidance__step_size": 0.1},
        {"ratio": 0.5, "guidance__step_size": 0.2},
    )
    assert off["guidance.step_size"] == OFF and off["guidance.enabled"] is False
    found = find_swept_keys([off, weak, strong])
    assert found.keys == ("guidance.step_size",)
    assert found.tied == {"guidance.enabled": "guidance.step_size"}


def test_a_key_that_changes_along_makes_no_groups(tmp_path: Path) -> None:
    grid = [(ratio, seed) for ratio in (0, 0.5) for seed in (1, 2)]
    found = configs(tmp_path, *({"ratio": r, "seed": s, "data__batch_size": 64 if r else 128} for r, s in grid))
    swept = find_swept_keys(found)
    assert swept.keys == ("data.synthetic_ratio",)
    assert swept.tied == {"data.batch_size": "data.synthetic_ratio"}


def test_two_keys_of_a_grid_are_both_swept(tmp_path: Path) -> None:
    found = configs(
        tmp_path,
        *({"ratio": ratio, "data__training_fraction": share} for ratio in (0, 0.5) for share in (0.05, 0.2)),
    )
    assert find_swept_keys(found).keys == ("data.synthetic_ratio", "data.training_fraction")


def test_a_key_that_some_configs_lack_counts_only_when_the_rest_differ() -> None:
    assert find_swept_keys([{"model.a": 1}, {"model.a": 1, "model.new": 2}]).keys == ()
    assert find_swept_keys([{"model.a": 1}, {"model.new": 2}, {"model.new": 3}]).keys == ("model.new",)


def test_named_keys_leave_the_rest_as_other_differences(tmp_path: Path) -> None:
    found = configs(
        tmp_path,
        {"ratio": 0, "model__drop_rate": 0.1},
        {"ratio": 0.5, "model__drop_rate": 0.1},
        {"ratio": 0.5, "model__drop_rate": 0.3},
    )
    swept = find_swept_keys(found, named=["synthetic_ratio"])
    assert swept.named and swept.keys == ("data.synthetic_ratio",) and swept.others == ("model.drop_rate",)


def test_parameters_of_the_sweep_leave_the_rest_as_other_differences(tmp_path: Path) -> None:
    found = configs(tmp_path, {"ratio": 0}, {"ratio": 0.5}, {"ratio": 0.5, "data__batch_size": 32})
    swept = find_swept_keys(found, declared=["data.synthetic_ratio", "seed_everything", "config"])
    assert swept.keys == ("data.synthetic_ratio",) and swept.others == ("data.batch_size",)


def test_runs_of_one_sweep_file_with_other_rows_or_balance_are_never_in_one_group(tmp_path: Path) -> None:
    few, many = (
        {"data__training_fraction": fraction, "data__class_balance": balance}
        for fraction, balance in ((0.05, 0), (0.2, 1))
    )
    found = configs(tmp_path, *({"ratio": ratio, **rows} for rows in (few, many) for ratio in (0, 0.5)))
    swept = find_swept_keys(found, declared=["data.synthetic_ratio", "seed_everything"])
    assert swept.keys == ("data.synthetic_ratio", "data.training_fraction")
    assert swept.tied == {"data.class_balance": "data.training_fraction"} and not swept.others


def test_a_label_space_that_changes_with_the_ratio_is_a_key_all_the_same(tmp_path: Path) -> None:
    found = configs(tmp_path, {"ratio": 0, "label_space": "ferplus8"}, {"ratio": 0.5, "label_space": "basic7"})
    for declared in (None, ["data.synthetic_ratio"]):
        assert find_swept_keys(found, declared=declared).keys == ("data.synthetic_ratio", "model.label_space")


def test_different_label_spaces_are_never_in_one_group(tmp_path: Path) -> None:
    found = configs(tmp_path, {"label_space": "basic7"}, {"label_space": "ferplus8"})
    assert find_swept_keys(found, named=["data.synthetic_ratio"]).keys == ("data.synthetic_ratio", "model.label_space")


def test_resolve_key() -> None:
    keys = ["data.synthetic_ratio", "guidance.enabled", "layout.enabled"]
    assert resolve_key("synthetic_ratio", keys) == resolve_key("data.synthetic_ratio", keys) == keys[0]
    with pytest.raises(ValueError, match=r"found guidance\.enabled, layout\.enabled, expected one of them in full"):
        resolve_key("enabled", keys)
    with pytest.raises(ValueError, match=r"'ratio': found in no run's settings.*near: data\.synthetic_ratio"):
        resolve_key("ratio", keys)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("data.synthetic_ratio=0", ("data.synthetic_ratio", 0)),
        ("guidance.step_size=off", ("guidance.step_size", OFF)),
        ("guidance.enabled=false", ("guidance.enabled", False)),
        ("data.synthetic_multiple=null", ("data.synthetic_multiple", None)),
        ("a=b=c", ("a", "b=c")),
    ],
)
def test_parse_setting(text: str, expected: tuple[str, Value]) -> None:
    assert parse_setting(text) == expected


@pytest.mark.parametrize("text", ["data.synthetic_ratio", "=0", "data.synthetic_ratio:0"])
def test_parse_setting_refuses(text: str) -> None:
    with pytest.raises(ValueError, match="expected KEY=VALUE"):
        parse_setting(text)


def test_of_paths_only_what_tells_them_apart_is_shown() -> None:
    paths = ["runs/gen-own/checkpoints/last.ckpt", "runs/gen-transfer/checkpoints/last.ckpt"]
    assert list(show_values([*paths, OFF]).values()) == ["gen-own", "gen-transfer", OFF]
    assert show_values([paths[0]]) == {paths[0]: paths[0]}
    assert show_values([None, True, 0.5, 2.0]) == {None: "none", True: "true", 0.5: "0.5", 2.0: "2"}
