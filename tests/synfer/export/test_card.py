from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from diffusers.utils import dynamic_modules_utils

from synfer.export.exporter import EXPORTERS, ExportSettings, make_exporter
from synfer.faces.action_units import ACTION_UNITS
from tests.fixtures.exported import generator_of, save_pipeline
from tests.fixtures.tiny_generator import NAMES, SIDE


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_pipeline(tmp_path_factory.mktemp("base"))


@pytest.fixture(autouse=True)
def _own_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Puts what diffusers copies into a folder of the test's, and forgets the modules that a card imports."""
    import sys

    monkeypatch.setattr(dynamic_modules_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.split(".")[0] in ("au_adapter", "expression_pipeline", "diffusers_modules"):
            del sys.modules[name]


OF_GENERATORS = [name for name in EXPORTERS if make_exporter(name, ExportSettings()).kind == "diffusion"]
"""Those of classifiers: test_classifier_graphs.py."""


def written(base: Path, folder: Path, what: str, trained: str = "lora", **settings: Any) -> str:
    make_exporter(what, ExportSettings(**settings)).export(generator_of(base, trained), folder)
    return (folder / "README.md").read_text()


@pytest.mark.parametrize("what", OF_GENERATORS)
def test_the_python_of_a_card_makes_faces(
    what: str, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = written(base, tmp_path / "export", what)
    monkeypatch.chdir(tmp_path / "export")
    (code,) = re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    assert [image.size for image in names["images"]] == [(SIDE, SIDE)] * 2
    assert ("action_units" in names) == (what != "lora")


@pytest.mark.parametrize("what", OF_GENERATORS)
def test_a_card_says_what_it_is_and_where_it_comes_from(what: str, base: Path, tmp_path: Path) -> None:
    generator = generator_of(base)
    make_exporter(what, ExportSettings(training_command="python train.py fit --config c.yaml")).export(
        generator, tmp_path
    )
    card = (tmp_path / "README.md").read_text()
    _, front, text = card.split("---\n", 2)
    said = yaml.safe_load(front)
    assert said["library_name"] == "diffusers" and said["pipeline_tag"] == "text-to-image"
    assert "license" not in said and "# license: yours to choose" in front
    assert "base_model" not in said  # a folder of this machine is no Hub id
    assert ("lora" in said["tags"]) == (what == "lora") and ("action-units" in said["tags"]) == (what != "lora")
    assert generator.weights_fingerprint() in text and "python train.py fit --config c.yaml" in text
    assert ", ".join(NAMES) in text and f"{SIDE} × {SIDE}" in text
    assert (", ".join(ACTION_UNITS) in text) == (what != "lora")
    assert "{" not in re.sub(r"```.*?```", "", text, flags=re.DOTALL)  # no place left open


def test_a_base_on_the_hub_is_named(base: Path, tmp_path: Path) -> None:
    generator = generator_of(base)
    generator.hparams["base"] = "stable-diffusion-v1-5/stable-diffusion-v1-5"
    for what, relation in (("lora", "adapter"), ("au_adapter", "adapter"), ("pipeline", None)):
        make_exporter(what, ExportSettings()).export(generator, tmp_path / what)
        said = yaml.safe_load((tmp_path / what / "README.md").read_text().split("---\n")[1])
        assert said["base_model"] == "stable-diffusion-v1-5/stable-diffusion-v1-5"
        assert said.get("base_model_relation") == relation


def test_an_unknown_export_is_refused() -> None:
    with pytest.raises(ValueError, match=r"--what: found 'loar', expected one of lora, .*, onnx, torchscript, all"):
        make_exporter("loar", ExportSettings())
