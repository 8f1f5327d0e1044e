"""Settings by the keys of the command line, from whatever shape they come in."""

from __future__ import annotations

import pytest

from synfer.runs.flat_settings import flat_settings, label_space_of, plain_settings


def test_init_args_are_left_out() -> None:
    nested = {"model": {"class_path": "A", "init_args": {"label_space": "basic7", "channels": [1, 2]}}, "run_dir": None}
    assert plain_settings(nested) == {
        "model.class_path": "A",
        "model.label_space": "basic7",
        "model.channels": "[1, 2]",
        "run_dir": None,
    }


def test_shapes_of_wandb_are_the_same_settings() -> None:
    nested = {"data": {"synthetic_ratio": 0.5}, "model": {"init_args": {"drop_rate": 0.2}}}
    slashes = {"data/synthetic_ratio": 0.5, "model/init_args/drop_rate": 0.2, "_wandb": {"cli": 1}}
    dotted = {"data.synthetic_ratio": 0.5, "model.init_args.drop_rate": 0.2}
    assert plain_settings(nested) == plain_settings(slashes) == plain_settings(dotted)


@pytest.mark.parametrize(
    "spelling",
    [
        "basic7",
        ["neutral", "happy", "sad", "surprise", "fear", "disgust", "anger"],
        ["neutral", "happiness", "sadness", "surprised", "fearful", "disgusted", "angry"],
    ],
)
def test_label_space_has_one_spelling(spelling: str | list[str]) -> None:
    flat = plain_settings({"model": {"init_args": {"label_space": spelling}}})
    assert flat["model.label_space"] == "basic7"
    assert len(label_space_of(flat)) == 7


def test_own_label_space() -> None:
    flat = plain_settings({"model": {"init_args": {"label_space": ["happy", "sad"]}}})
    assert flat["model.label_space"] == "happy, sad" and label_space_of(flat) == ("happy", "sad")


def test_unknown_label_space_is_kept_as_it_is() -> None:
    flat = plain_settings({"model.label_space": "mine"})
    assert flat["model.label_space"] == "mine" and label_space_of(flat) == ()


def test_flat_settings() -> None:
    config = {
        "data": {"synthetic_ratio": 0.5, "augmentation": {"flip": 0.5}, "synthetic_reader": None},
        "model": {"class_path": "a.B", "init_args": {"label_space": ["happy", "sad"], "unet": {}}},
        "trainer": {"callbacks": [{"class_path": "a.C"}]},
    }
    assert flat_settings(config) == {
        "data.synthetic_ratio": 0.5,
        "data.augmentation.flip": 0.5,
        "data.synthetic_reader": None,
        "model.class_path": "a.B",
        "model.label_space": ["happy", "sad"],
        "model.unet": "{}",
        "trainer.callbacks": '[{"class_path": "a.C"}]',
    }


def test_what_wandb_gets_reads_as_what_the_folder_holds() -> None:
    """A run is one run, whether it is read from its folder or from W&B, which shows nested settings in its own way."""
    nested = {
        "data": {"reader": {"class_path": "r.X", "init_args": {"count": {"train": 8}, "names": ["a", "b"]}}},
        "model": {"class_path": "a.B", "init_args": {"label_space": ["happy", "sad"], "unet": {}, "stem": None}},
        "trainer": {"callbacks": [{"class_path": "a.C"}], "devices": 2},
    }
    assert plain_settings(flat_settings(nested)) == plain_settings(nested)
    assert plain_settings({**flat_settings(nested), "_wandb": {"t": 1}}) == plain_settings(nested)
