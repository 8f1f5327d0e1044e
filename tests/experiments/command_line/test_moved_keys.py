"""Settings that have moved: silently read where a file or a record holds them, an error where the user typed them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

import train
from experiments.command_line import moved_names
from experiments.command_line.moved_names import MovedKeyError, with_present_config, with_present_options
from synfer.foundation.renamed_settings import GROUPED, MOVED, TEST_SETTINGS, with_present_keys

PROJECT = Path(train.__file__).parent
GENERATOR = f"--config={PROJECT / 'configs/generator/tiny.yaml'}"
CLASSIFIER = f"--config={PROJECT / 'configs/classifier/tiny.yaml'}"
DATA = f"--config={PROJECT / 'configs/data/drawn.yaml'}"
OF_THE_TEST = sorted(f"model.{name}" for name in TEST_SETTINGS)


def carried(config: dict[str, Any], model: str = "") -> tuple[dict[str, Any], dict[str, str]]:
    text, told = with_present_config(yaml.safe_dump(config), lambda: model)
    return yaml.safe_load(text), told


@pytest.fixture
def renames(monkeypatch: pytest.MonkeyPatch) -> None:
    for old, new in (("model.share", "model.fraction"), ("data.augmentation.copies", "data.augmentation.views")):
        monkeypatch.setitem(moved_names.MOVED, old, new)


def error_of(args: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        train.parse(args)
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.mark.parametrize("key", OF_THE_TEST)
def test_a_moved_setting_on_the_command_line_is_an_error(key: str, capsys: pytest.CaptureFixture[str]) -> None:
    name = key.partition(".")[2]
    for given in ([f"--{key}=1"], [f"--{key}", "1"], [f"--model.init_args.{name}=1"], [f"--model={{{name}: 1}}"]):
        line = error_of(["test", GENERATOR, DATA, *given], capsys)
        assert line == f"error: {key} has moved: use {MOVED[key]}"


def test_all_that_has_moved_is_named_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    line = error_of(["test", GENERATOR, DATA, "--model.judge=a", "--model.test_samples=3"], capsys)
    assert line == "error: model.judge has moved: use test.judge; model.test_samples has moved: use test.samples"


def test_another_model_s_own_settings_stay(capsys: pytest.CaptureFixture[str]) -> None:
    assert "'judge' is not accepted" in error_of(["fit", CLASSIFIER, DATA, "--model.judge=a"], capsys)
    own = {"model": {"class_path": "mine.Net", "init_args": {"features": 3}}}
    assert carried(own) == (own, {})
    assert carried({"model": {"features": 3}}, "mine.Net")[0] == {"model": {"features": 3}}
    assert with_present_keys({"model.class_path": "mine.Net", "model.features": 3})["model.features"] == 3


def test_an_older_run_s_config_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = yaml.safe_load((PROJECT / "configs/generator/tiny.yaml").read_text())
    del config["test"]
    config["model"]["init_args"] |= {**TEST_SETTINGS, "test_samples": 14}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    capsys.readouterr()
    parsed = train.parse(["test", f"--config={tmp_path / 'config.yaml'}", DATA])
    assert parsed.test.samples == 14 and parsed.test.judge is None and parsed.test.nearest_training == 4000
    assert "judge" not in parsed.model.init_args
    said = [line for line in capsys.readouterr().err.splitlines() if "moved" in line]
    assert said == [f"config '{tmp_path / 'config.yaml'}': model.test_samples moved, read as test.samples"]
    config["model"]["init_args"]["test_samples"] = 1000  # its default: nothing to tell
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    assert train.parse(["test", f"--config={tmp_path / 'config.yaml'}", DATA]).test.samples == 1000
    assert "moved" not in capsys.readouterr().err


def test_a_later_word_goes_before_an_older_file(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("model: {judge: a.ckpt}\n")
    given = ["test", GENERATOR, DATA, f"--config={tmp_path / 'mine.yaml'}"]
    assert train.parse(given).test.judge == "a.ckpt"
    assert train.parse([*given, "--test.judge=b.ckpt"]).test.judge == "b.ckpt"


def test_a_config_with_both_names_keeps_the_present_one() -> None:
    found, told = carried({"model": {"judge": "old"}, "test": {"judge": "new"}})
    assert found == {"model": {}, "test": {"judge": "new"}} and told == {"model.judge": "test.judge"}
    assert with_present_keys({"model.judge": "old", "test.judge": "new"}) == {"test.judge": "new"}


def test_a_config_of_a_subcommand() -> None:
    found, _ = carried({"fit": {"model": {"init_args": {"judge": "a"}}}, "seed_everything": 1})
    assert found == {"fit": {"model": {"init_args": {}}, "test": {"judge": "a"}}, "seed_everything": 1}


def test_what_has_not_moved_is_left_as_it_was_written() -> None:
    text = "# judge: a comment\ndata: {batch_size: 8}  # features\n"
    assert with_present_config(text, str) == (text, {})
    assert with_present_config("judge: [", str)[0] == "judge: ["


def test_a_mere_rename_is_read_everywhere(renames: None) -> None:
    config = {"model": {"class_path": "mine.Net", "init_args": {"share": 0.5}}, "data": {"augmentation": {"copies": 2}}}
    found, told = carried(config)
    assert found["model"]["init_args"] == {"fraction": 0.5} and found["data"] == {"augmentation": {"views": 2}}
    assert told == {}
    words = ["fit", "--model.share=1", "--model.init_args.share", "2", "--data.augmentation={copies: 3, flip: 0.5}"]
    words += ["--data.augmentation", "{copies: 3}", "--data.augmentation.copies+=3", "--model.sharer=1"]
    assert with_present_options(words, str) == [
        *("fit", "--model.fraction=1", "--model.init_args.fraction", "2"),
        '--data.augmentation={"flip": 0.5, "views": 3}',
        *("--data.augmentation", '{"views": 3}', "--data.augmentation.views+=3", "--model.sharer=1"),
    ]
    assert with_present_keys({"model.share": 1, "data.seed": 2}) == {"model.fraction": 1, "data.seed": 2}


@pytest.mark.parametrize(
    ("old", "now", "value"),
    [
        ("data.augmentation.versions", "data.augmentation.cached_views", 4),
        ("data.augmentation.fresh", "data.augmentation.uncached_fraction", 0.5),
        ("layout.refinements", "layout.fixed_point_iterations", 2),
        ("model.warmup_share", "model.warmup_fraction", 0.125),
    ],
)
def test_renamed_settings(old: str, now: str, value: float, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    *groups, name = old.split(".")
    content: Any = {name: value}
    for group in reversed(groups):
        content = {group: content}
    (tmp_path / "old.yaml").write_text(yaml.safe_dump(content))
    for given in ([f"--{old}={value}"], [f"--{old}", str(value)], [f"--config={tmp_path / 'old.yaml'}"]):
        parsed = train.parse(["fit", CLASSIFIER, DATA, *given])
        assert parsed[now.replace("model.", "model.init_args.")] == value
    assert "moved" not in capsys.readouterr().err


def test_only_a_generator_has_lost_settings() -> None:
    words = ["fit", "--model.features=3"]
    assert with_present_options(words, lambda: "ExpressionClassifier") == words
    with pytest.raises(MovedKeyError):
        with_present_options(words, lambda: "ExpressionGenerator")


# ---------------------------------------------------------------- settings of a generator that stand in groups

IN_GROUPS: dict[str, Any] = {
    "unet": {"norm_eps": 0.5},
    "text_encoder": {"hidden_size": 32},
    "scheduler": {"beta_end": 0.5},
    "codec": "autoencoder_kl",
    "codec_config": {"patch": 4},
    "drop_text": 0.25,
    "drop_au": 0.5,
    "drop_both": 0.125,
    "channels_last": False,
    "bf16_sampling": False,
    "compile_backend": "eager",
}


def test_all_that_stands_in_groups_is_tried() -> None:
    assert IN_GROUPS.keys() == GROUPED.keys()


@pytest.mark.parametrize("name", IN_GROUPS)
def test_a_generator_s_setting_is_read_into_its_group(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    value, (group, inside) = IN_GROUPS[name], GROUPED[name]
    before = train.parse(["fit", GENERATOR, DATA]).model.init_args
    spelt = yaml.safe_dump(value, default_flow_style=True).removesuffix("...\n").strip()
    (tmp_path / "plain.yaml").write_text(yaml.safe_dump({"model": {name: value}}))
    (tmp_path / "nested.yaml").write_text(yaml.safe_dump({"model": {"init_args": {name: value}}}))
    for given in (
        [f"--model.{name}={spelt}"],
        [f"--model.init_args.{name}", spelt],
        [f"--model={{{name}: {spelt}}}"],
        [f"--config={tmp_path / 'plain.yaml'}"],
        [f"--config={tmp_path / 'nested.yaml'}"],
        [f"--model.{group}.{inside}={spelt}"],
    ):
        words = ["fit", GENERATOR, DATA, *given]
        monkeypatch.setattr("sys.argv", ["train.py", *words])
        parsed = train.parse(words).model.init_args
        assert parsed[group][inside] == value and name not in parsed
        parsed[group][inside] = before[group][inside]
        assert parsed == before
    assert "moved" not in capsys.readouterr().err


def test_a_part_of_a_setting_that_stands_in_a_group() -> None:
    for key in ("model.unet.norm_eps", "model.init_args.unet.norm_eps", "model.network.unet.norm_eps"):
        network = train.parse(["fit", GENERATOR, DATA, f"--{key}=0.5"]).model.init_args.network
        assert network.unet["norm_eps"] == 0.5 and network.unet["cross_attention_dim"] == 32
    assert with_present_options(["--model.unetx=1", "--model.drop_texts.a=1"], str) == [
        "--model.unetx=1",
        "--model.drop_texts.a=1",
    ]


def test_a_file_may_hold_some_by_either_name() -> None:
    arguments = {"network": {"codec": "new", "unet": {"a": 1}}, "codec": "old", "scheduler": {"b": 2}, "drop_au": 0.5}
    found, told = carried({"model": {"class_path": "ExpressionGenerator", "init_args": arguments}})
    assert found["model"]["init_args"] == {
        "network": {"codec": "new", "unet": {"a": 1}, "scheduler": {"b": 2}},
        "drop": {"au": 0.5},
    }
    assert told == {}


def test_a_classifier_s_memory_format_is_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.yaml").write_text("model: {channels_last: false}\n")
    for given in (
        "--model.channels_last=false",
        "--model={channels_last: false}",
        f"--config={tmp_path / 'mine.yaml'}",
    ):
        assert train.parse(["fit", CLASSIFIER, DATA, given]).model.init_args.channels_last is False
        words = ["fit", GENERATOR, CLASSIFIER, DATA, given]
        monkeypatch.setattr("sys.argv", ["train.py", *words])
        assert train.parse(words).model.init_args.channels_last is False
        monkeypatch.undo()
    own = {"model": {"class_path": "mine.Net", "init_args": {"unet": 3}}}
    assert carried(own) == (own, {})


def test_runs_before_and_after_the_groups_have_the_same_keys() -> None:
    old = {f"model.{name}": 1 for name in IN_GROUPS} | {"model.unet.norm_eps": 2}
    new = {f"model.{group}.{name}": 1 for group, name in GROUPED.values()} | {"model.network.unet.norm_eps": 2}
    generator = {"model.class_path": "lightning_modules.ExpressionGenerator"}
    assert with_present_keys({**generator, **old}) == with_present_keys({**generator, **new}) == {**generator, **new}
    classifier = {"model.class_path": "lightning_modules.ExpressionClassifier", "model.channels_last": True}
    assert with_present_keys(classifier) == classifier
    assert with_present_keys({"model.channels_last": True}) == {"model.channels_last": True}
