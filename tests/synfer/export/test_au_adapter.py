from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from lightning_modules.generator import ExpressionGenerator
from synfer.export.au_adapter import AUAdapterExporter
from synfer.export.lora import LoRAExporter
from synfer.export.shipped.au_adapter import AUAdapter
from synfer.faces.action_units import ACTION_UNITS, REGIONS
from tests.fixtures.exported import generator_of, our_latents, request, save_pipeline, stock_pipeline, their_latents
from tests.fixtures.tiny_generator import tiny_generator

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_pipeline(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def generator(base: Path) -> ExpressionGenerator:
    return generator_of(base, alpha=6.0)


@pytest.fixture(scope="module")
def folder(generator: ExpressionGenerator, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("export") / "adapter"
    AUAdapterExporter().export(generator, out)
    return out


def load_stock(pipe: Any, folder: Path) -> None:
    pipe.load_ip_adapter(folder, subfolder="", weight_name=WEIGHTS, image_encoder_folder=None)


def rows_of(generator: ExpressionGenerator, place: int) -> torch.Tensor:
    """The stock pipeline's input for one image: (2, R, 2A), unconditional first."""
    units = torch.from_numpy(request().action_units[place : place + 1])
    both = torch.cat([torch.full_like(units, torch.nan), units])
    return generator.synthesiser.au_input(both)


@pytest.mark.parametrize("rank", [None, 2])
def test_diffusers_own_loader_makes_the_same_latents_with_it(base: Path, tmp_path: Path, rank: int | None) -> None:
    generator = generator_of(base, trained="adapter", au_rank=rank)
    AUAdapterExporter().export(generator, tmp_path)
    asked, pipe = request(), stock_pipeline(base)
    without = their_latents(pipe, asked)
    load_stock(pipe, tmp_path)
    ours = our_latents(generator, asked)
    for place in range(3):
        theirs = their_latents(pipe, asked, [place], ip_adapter_image_embeds=[rows_of(generator, place)])
        torch.testing.assert_close(theirs, ours[place : place + 1], atol=1e-4, rtol=0)
    assert (without - ours).abs().amax((1, 2, 3)).min() > 0.05
    assert (ours - our_latents(generator, request(au_scale=0.0))).abs().max() > 0.05


@pytest.mark.parametrize("lora_first", [True, False])
def test_together_with_the_lora_in_either_order(
    lora_first: bool, base: Path, folder: Path, generator: ExpressionGenerator, tmp_path: Path
) -> None:
    LoRAExporter().export(generator, tmp_path)
    pipe = stock_pipeline(base)
    if lora_first:
        pipe.load_lora_weights(tmp_path)
    load_stock(pipe, folder)
    if not lora_first:
        pipe.load_lora_weights(tmp_path)
    asked = request()
    theirs = their_latents(pipe, asked, [1], ip_adapter_image_embeds=[rows_of(generator, 1)])
    torch.testing.assert_close(theirs, our_latents(generator, asked)[1:2], atol=1e-4, rtol=0)


def test_several_images_of_one_row(base: Path, folder: Path, generator: ExpressionGenerator) -> None:
    pipe = stock_pipeline(base)
    load_stock(pipe, folder)
    rows = [rows_of(generator, 1)]
    asked = request()
    together = their_latents(pipe, asked, ip_adapter_image_embeds=rows)
    alone = torch.cat([their_latents(pipe, asked, [i], ip_adapter_image_embeds=rows) for i in range(3)])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=0)


def test_names_and_numbers_of_the_layers(folder: Path, generator: ExpressionGenerator) -> None:
    names = load_file(folder / WEIGHTS).keys()
    layers = sum(name.endswith("attn2.processor") for name in generator.model.unet.attn_processors)
    projection = {f"image_proj.proj.{n}.{kind}" for n in (0, 2, 3) for kind in ("weight", "bias")}
    keys = {f"ip_adapter.{2 * i + 1}.{k}.weight" for i in range(layers) for k in ("to_k_ip", "to_v_ip")}
    assert set(names) == projection | keys


def test_the_config_says_what_the_input_means(folder: Path) -> None:
    said = json.loads((folder / "config.json").read_text())
    assert said["au_names"] == list(ACTION_UNITS) and said["scale"] == 1.0 and "NaN" in said["null_convention"]
    assert said["regions"] == list(REGIONS)
    for mask, units in zip(said["region_masks"], REGIONS.values(), strict=True):
        held = [name for name, holds in zip(ACTION_UNITS, mask, strict=True) if holds]
        assert held == [name for name in ACTION_UNITS if name in units]


def test_named_and_numbered_action_units_are_the_generators_input(folder: Path, generator: ExpressionGenerator) -> None:
    adapter = AUAdapter.from_pretrained(folder)
    units = torch.from_numpy(request().action_units).clone()
    units[1, 3] = torch.nan
    assert torch.equal(adapter.embed(units), generator.synthesiser.au_input(units))
    named = adapter.embed([{"AU12": 0.8, "AU6": 0.0}, {}])
    expected = torch.full((2, len(ACTION_UNITS)), torch.nan)
    expected[0, ACTION_UNITS.index("AU12")], expected[0, ACTION_UNITS.index("AU6")] = 0.8, 0.0
    assert torch.equal(named, generator.synthesiser.au_input(expected))
    assert named[1].abs().sum() == 0


@pytest.mark.parametrize(
    ("units", "said"),
    [
        ([{"AU12": 0.5}, {"AU99": 1.0}], "found the name 'AU99', expected some of AU1, AU2"),
        ([{"AU12": 1.5}], r"found an intensity outside \[0, 1\]"),
        (torch.zeros(2, 17), r"found the shape \(2, 17\), expected \(n, 41\)"),
    ],
)
def test_action_units_that_the_adapter_does_not_take(units: Any, said: str, folder: Path) -> None:
    with pytest.raises(ValueError, match=said):
        AUAdapter.from_pretrained(folder).embed(units)


def test_it_is_loaded_again_whole_or_not_at_all(folder: Path, tmp_path: Path) -> None:
    loaded = AUAdapterExporter().load(folder)
    stored = load_file(folder / WEIGHTS)
    assert all(torch.equal(tensor, stored[name]) for name, tensor in loaded.state_dict().items())
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    first = "ip_adapter.1.to_k_ip.weight"
    for changed, said in (
        ({n: t for n, t in stored.items() if n != first}, f"AU adapter .+found no '{first}'"),
        ({**stored, "learnt_scale": torch.ones(1)}, "AU adapter .+found 'learnt_scale', which the network has not"),
        ({**stored, first: torch.ones(2, 2)}, f"AU adapter .+'{first}' has the shape"),
    ):
        save_file(changed, tmp_path / WEIGHTS)
        with pytest.raises(ValueError, match=said):
            AUAdapterExporter().load(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"AU adapter .+nowhere"):
        AUAdapterExporter().load(tmp_path / "nowhere")


def test_its_scale_is_that_of_the_generator(base: Path, tmp_path: Path) -> None:
    from synfer.synthesis.request import SamplingSettings

    AUAdapterExporter().export(generator_of(base, sampling=SamplingSettings(au_scale=0.4)), tmp_path)
    assert AUAdapterExporter().load(tmp_path).config.scale == 0.4


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"trained": "all"}, "au_adapter: found model.trained 'all', so the UNet is no longer that of"),
        ({"base": None}, "au_adapter: found a small generator"),
    ],
)
def test_what_fits_no_base_is_refused(changes: dict[str, Any], said: str, base: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=said):
        AUAdapterExporter().export(tiny_generator(**{"base": str(base), **changes}), tmp_path / "out")
    assert not (tmp_path / "out").exists()
