from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from synfer.foundation.module_file import kind_of, with_average, write_folder

OLD_CHECKPOINTS: dict[str, dict[str, Any]] = {
    "classifier": {"expression_classifier": {}, "hyper_parameters": {}},
    "annotator": {"label_annotator": {}},
    "diffusion": {"hyper_parameters": {"min_snr_gamma": None}},
    "au_estimator": {"hyper_parameters": {"au_names": None}},
}


@pytest.mark.parametrize("kind", OLD_CHECKPOINTS)
def test_a_checkpoint_without_a_kind_is_told_by_what_it_holds(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "checkpoints" / "last.ckpt"
    path.parent.mkdir()
    torch.save(OLD_CHECKPOINTS[kind], path)
    assert kind_of(path) == kind_of(tmp_path) == kind
    torch.save({**OLD_CHECKPOINTS[kind], "kind": "vae_gan"}, path)
    assert kind_of(path) == "vae_gan"


def test_a_folder_says_its_kind_or_shows_it(tmp_path: Path) -> None:
    write_folder(tmp_path / "new", "vae_gan", {"min_snr_gamma": 5.0}, {"weight": torch.ones(2)})
    assert kind_of(tmp_path / "new") == "vae_gan"
    (tmp_path / "new" / "config.json").write_text(json.dumps({"au_names": ["AU6"]}))
    assert kind_of(tmp_path / "new") == "au_estimator"


def test_what_is_not_ours_has_no_kind(tmp_path: Path) -> None:
    assert kind_of(tmp_path) is None
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "resnet18"}))
    assert kind_of(tmp_path) is None
    for content in ({"weight": torch.ones(2)}, [1], {"hyper_parameters": None}):
        torch.save(content, tmp_path / "a.pth")
        assert kind_of(tmp_path / "a.pth") is None
    with pytest.raises(FileNotFoundError, match=r"^synthesiser checkpoint: no file at .*nowhere"):
        kind_of(tmp_path / "nowhere", "synthesiser")


def test_the_average_takes_the_place_of_its_weights() -> None:
    weights = {"head.weight": torch.zeros(1), "temperature": torch.ones(1)}
    average = {"num_updates": 2, "average": {"weight": torch.full((1,), 3.0)}}
    assert with_average(weights, average, "head")["head.weight"] == 3 and weights["head.weight"] == 0
    for none in (None, {"num_updates": 0, "average": {}}):
        assert with_average(weights, none, "head") == weights
