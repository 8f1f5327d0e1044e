from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from datamodules.readers import DrawnReader
from lightning_modules.captioner import Captioner
from tests.fixtures.tiny_captioner import save_blip, save_llava


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {"blip": save_blip(folder / "blip"), "llava": save_llava(folder / "llava")}


@pytest.fixture(scope="module")
def faces() -> torch.Tensor:
    rows = DrawnReader({"train": 8, "val": 1, "test": 1}, image_size=32, label_space="basic7").read("train")
    return rows.images.batch(np.arange(8)).float().expand(-1, 3, -1, -1) / 255


def ready(path: Path | str, split: str = "train", stage: str = "predict", **settings: Any) -> Captioner:
    module = Captioner(str(path), **{"max_new_tokens": 6, **settings})
    module._trainer = SimpleNamespace(datamodule=SimpleNamespace(predict_split=split))  # type: ignore[assignment]
    module.setup(stage)
    return module


def test_a_model_with_a_chat_template_answers(models: dict[str, Path], faces: torch.Tensor) -> None:
    module = ready(models["llava"], prompt="describe the face")
    captions = module.describe(faces)
    assert len(captions) == 8 and len(set(captions)) > 4
    assert not any("describe" in caption or "assistant" in caption for caption in captions)
    assert captions == [module.describe(faces[i : i + 1])[0] for i in range(8)]  # whatever the batch


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_another_goes_on_from_its_prompt(dtype: Any, models: dict[str, Path], faces: torch.Tensor) -> None:
    without = ready(models["blip"], dtype=dtype)
    assert without.network.dtype == getattr(torch, dtype)
    assert len(without.describe(faces)) == 8
    said = ready(models["blip"], prompt="a photo of", num_beams=2).describe(faces)
    assert all(caption.startswith("a photo of ") for caption in said)


def test_what_is_done_is_not_written_again(models: dict[str, Path], faces: torch.Tensor) -> None:
    module = ready(models["llava"], prompt="describe the face")
    batch: Any = {"image": faces[:3], "sample_id": ["a", "b", "c"]}
    every = module.predict_step(batch, 0)
    module.done = {"b"}
    assert module.predict_step(batch, 0) == {"sample_id": ["a", "c"], "caption": every["caption"][::2]}
    module.done = {"a", "b", "c"}
    assert module.predict_step(batch, 0) == {"sample_id": [], "caption": []}


def test_refusals(models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # read when that package was imported
    with pytest.raises(ValueError, match=r"captions in predict: found data\.predict_split=synthesis, expected"):
        ready(models["blip"], "synthesis")
    with pytest.raises(ValueError, match=r"captions in validate: found"):
        ready(models["blip"], stage="validate")
    with pytest.raises(ValueError, match=r"model\.prompt: found null with '.*llava', which answers mes"):
        ready(models["llava"])
    with pytest.raises(ValueError, match=r"max_new_tokens"):
        Captioner("x", max_new_tokens=0)
    for path in (tmp_path, tmp_path / "gone", "somebody/blip"):
        with pytest.raises(ValueError, match=r"model\.model '") as caught:
            ready(path)
        assert "\n" not in str(caught.value) and "image-text-to-text" in str(caught.value)
