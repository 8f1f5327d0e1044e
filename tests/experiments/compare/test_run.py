"""Settings by the keys of the command line, from whatever shape they come in."""

from __future__ import annotations

import pytest

from experiments.compare.run import flatten, label_space_of


def test_flatten_leaves_init_args_out() -> None:
    nested = {"model": {"class_path": "A", "init_args": {"label_space": "basic7", "channels": [1, 2]}}, "run_dir": None}
    assert flatten(nested) == {
        "model.class_path": "A",
        "model.label_space": "basic7",
        "model.channels": "[1, 2]",
        "run_dir": None,
    }


def test_shapes_of_wandb_are_the_same_settings() -> None:
    nested = {"data": {"synthetic_ratio": 0.5}, "model": {"init_args": {"drop_rate": 0.2}}}
    slashes = {"data/synthetic_ratio": 0.5, "model/init_args/drop_rate": 0.2, "_wandb": {"cli": 1}}
    dotted = {"data.synthetic_ratio": 0.5, "model.init_args.drop_rate": 0.2}
    assert flatten(nested) == flatten(slashes) == flatten(dotted)


@pytest.mark.parametrize(
    "spelling",
    [
        "basic7",
        ["neutral", "happy", "sad", "surprise", "fear", "disgust", "anger"],
        ["neutral", "happiness", "sadness", "surprised", "fearful", "disgusted", "angry"],
    ],
)
def test_label_space_has_one_spelling(spelling: str | list[str]) -> None:
    flat = flatten({"model": {"init_args": {"label_space": spelling}}})
    assert flat["model.label_space"] == "basic7"
    assert len(label_space_of(flat)) == 7


def test_own_label_space() -> None:
    flat = flatten({"model": {"init_args": {"label_space": ["happy", "sad"]}}})
    assert flat["model.label_space"] == "happy, sad" and label_space_of(flat) == ("happy", "sad")


def test_unknown_label_space_is_kept_as_it_is() -> None:
    flat = flatten({"model.label_space": "mine"})
    assert flat["model.label_space"] == "mine" and label_space_of(flat) == ()
