"""Configs of older versions name classes by where they were then."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import yaml

import lightning_modules
import train
from experiments.command_line.moved_names import CLASSES, with_present_names


@pytest.mark.parametrize("now", sorted(set(CLASSES.values())))
def test_every_new_name_is_a_class(now: str) -> None:
    module, _, name = now.rpartition(".")
    assert isinstance(getattr(importlib.import_module(module), name), type)


def test_whole_names_alone_are_changed() -> None:
    text = "a: datamodules.readers.OtherSplitReader\nb: x.datamodules.readers.OtherSplitReader, OtherSplitReaders"
    assert with_present_names(text) == text.replace("a: datamodules.readers.Other", "a: datamodules.readers.X").replace(
        "XSplitReader", "RemappedReader"
    )


def test_old_names_in_files_and_words(tiny_run: list[str], tmp_path: Path) -> None:
    """At any depth: the value of a key, in a list of callbacks, in a reader of a reader."""
    reader = {"class_path": "datamodules.readers.DrawnReader", "init_args": {"count": {"train": 8}}}
    old = {
        "data": {"reader": {"class_path": "datamodules.readers.OtherSplitReader", "init_args": {"reader": reader}}},
        "trainer": {"callbacks": [{"class_path": "callbacks.throughput.Throughput"}]},
    }
    (tmp_path / "old.yaml").write_text(yaml.safe_dump(old))
    without_count = [word for word in tiny_run if "reader.init_args.count" not in word]  # which that reader has not
    settings = train.parse(["fit", *without_count, f"--config={tmp_path / 'old.yaml'}"])
    assert settings.data.reader.class_path == "datamodules.readers.RemappedReader"
    assert settings.trainer.callbacks[0].class_path == "callbacks.recording.throughput.Throughput"
    word = "--model=lightning_modules.action_unit_estimation.ActionUnitEstimation"
    assert train.parse(["fit", *tiny_run[1:2], word]).model.class_path.endswith("ActionUnitEstimator")


def test_old_settings_in_files_and_words(tiny_run: list[str], tmp_path: Path) -> None:
    (tmp_path / "old.yaml").write_text("model:\n  init_args:\n    warmup_share: 0.125\n")
    settings = train.parse(["fit", *tiny_run, f"--config={tmp_path / 'old.yaml'}"])
    assert settings.model.init_args.warmup_fraction == 0.125
    settings = train.parse(["fit", *tiny_run, "--model.init_args.warmup_share=0.5"])
    assert settings.model.init_args.warmup_fraction == 0.5
    assert with_present_names("a: warmup_share and my_warmup_share: 1") == "a: warmup_share and my_warmup_share: 1"


@pytest.mark.parametrize("name", lightning_modules.__all__)
def test_modules_go_by_short_names(name: str) -> None:
    assert getattr(lightning_modules, name).__name__ == name
    with pytest.raises(AttributeError, match="Nothing"):
        _ = lightning_modules.Nothing
