from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from diffusers.training_utils import _collate_lora_metadata
from diffusers.utils import convert_state_dict_to_diffusers
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import Tensor

from lightning_modules.generator import ExpressionGenerator
from synfer.export.lora_file import read_lora
from tests.fixtures.exported import our_latents, request, save_pipeline, stock_pipeline, their_latents
from tests.fixtures.tiny_generator import save_checkpoint, tiny_generator

TARGETS = ["to_q", "to_k", "to_v", "to_out.0"]
WEIGHTS = "pytorch_lora_weights.safetensors"
Tensors = dict[str, Tensor]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_pipeline(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def theirs(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA as diffusers' training script writes it: rank 4, alpha 12."""
    unet = UNet2DConditionModel.from_pretrained(base, subfolder="unet")
    unet.add_adapter(LoraConfig(r=4, lora_alpha=12, target_modules=TARGETS))
    noise = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, parameter in unet.named_parameters():
            if "lora_" in name:
                parameter.copy_(0.15 * torch.randn(parameter.shape, generator=noise))
    folder = tmp_path_factory.mktemp("theirs")
    StableDiffusionPipeline.save_lora_weights(
        folder,
        unet_lora_layers=convert_state_dict_to_diffusers(get_peft_model_state_dict(unet)),
        **_collate_lora_metadata({"unet": unet}),
    )
    return folder


def generator(base: Path, weights: Path | str | None, **changes: object) -> ExpressionGenerator:
    path = None if weights is None else str(weights)
    return tiny_generator(**{"base": str(base), "trained": "lora", "lora_weights": path, **changes})


def test_a_lora_made_by_diffusers_gives_the_same_latents_here(base: Path, theirs: Path) -> None:
    asked = request(au_scale=0.0)
    pipe = stock_pipeline(base)
    without = their_latents(pipe, asked)
    pipe.load_lora_weights(theirs)
    expected = their_latents(pipe, asked)
    ours = our_latents(generator(base, theirs / WEIGHTS), asked)
    torch.testing.assert_close(ours, expected, atol=1e-4, rtol=0)
    assert (ours - without).abs().max() > 0.05


def old_names(tensors: Tensors) -> Tensors:
    """The names of diffusers before 0.25: unet.….attn1.processor.to_q_lora.down.weight."""
    found = {}
    for name, tensor in tensors.items():
        layer, _, rest = name.partition(".lora.")
        attention, _, target = layer.removesuffix(".0").rpartition(".")
        found[f"{attention}.processor.{target}_lora.{rest}"] = tensor
    return found


def peft_names(tensors: Tensors) -> Tensors:
    return {n.replace(".lora.down", ".lora_A").replace(".lora.up", ".lora_B"): t for n, t in tensors.items()}


def kohya_names(tensors: Tensors) -> Tensors:
    """lora_unet_down_blocks_0_….lora_down.weight, with an alpha of each layer."""
    found = {}
    for name, tensor in tensors.items():
        layer, _, rest = name.removeprefix("unet.").partition(".lora.")
        stem = "lora_unet_" + layer.replace(".", "_")
        found[f"{stem}.lora_{rest}"] = tensor
        found[f"{stem}.alpha"] = torch.tensor(6.0)
    return found


@pytest.mark.parametrize(
    ("renamed", "scaling"), [(old_names, 1.0), (peft_names, 1.0), (kohya_names, 1.5), (lambda tensors: tensors, 1.0)]
)
def test_other_layouts_and_files_without_metadata(
    renamed: Callable[[Tensors], Tensors], scaling: float, theirs: Path, tmp_path: Path
) -> None:
    tensors = load_file(theirs / WEIGHTS)
    save_file(renamed(tensors), tmp_path / "lora.safetensors")
    read, whole = read_lora(tmp_path / "lora.safetensors"), read_lora(theirs)
    assert read.down.keys() == whole.down.keys()
    assert set(read.scaling.values()) == {scaling} and set(whole.scaling.values()) == {3.0}
    for name, tensor in whole.up.items():
        assert torch.equal(read.up[name], tensor) and torch.equal(read.down[name], whole.down[name])


def test_alphas_of_single_layers_hold(theirs: Path, tmp_path: Path) -> None:
    tensors = kohya_names(load_file(theirs / WEIGHTS))
    key = next(name for name in sorted(tensors) if name.endswith("attn1_to_q.alpha"))
    save_file({**tensors, key: torch.tensor(20.0)}, tmp_path / "lora.safetensors")
    scaling = read_lora(tmp_path / "lora.safetensors").scaling
    assert sorted(scaling.values())[-2:] == [1.5, 5.0]
    assert max(scaling, key=lambda name: scaling[name]).replace(".", "_") == key[len("lora_unet_") : -len(".alpha")]


@pytest.mark.parametrize(
    ("metadata", "scaling"),
    [
        ({"r": 4, "lora_alpha": 8}, 2.0),
        ({"r": 4, "lora_alpha": 8, "use_rslora": True}, 8 / math.sqrt(4)),
        (
            {"r": 4, "lora_alpha": 4, "alpha_pattern": {"mid_block.attentions.0.transformer_blocks.0.attn1.to_q": 2}},
            0.5,
        ),
    ],
)
def test_metadata_decides_the_strength(
    metadata: dict[str, object], scaling: float, theirs: Path, tmp_path: Path
) -> None:
    said = json.dumps({f"unet.{key}": value for key, value in metadata.items()})
    save_file(load_file(theirs / WEIGHTS), tmp_path / WEIGHTS, {"lora_adapter_metadata": said})
    found = read_lora(tmp_path).scaling
    assert found["mid_block.attentions.0.transformer_blocks.0.attn1.to_q"] == scaling


def misspelt(tensors: Tensors) -> Tensors:
    return {n.replace("mid_block.attentions.0", "mid_block.attention.0"): t for n, t in tensors.items()}


def narrower(tensors: Tensors) -> Tensors:
    return {n: t[:2] if ".down." in n else t[:, :2] for n, t in tensors.items()}


def wider_network(tensors: Tensors) -> Tensors:
    return {n: torch.cat([t, t], 1) if ".down." in n else t for n, t in tensors.items()}


def without_mid_block(tensors: Tensors) -> Tensors:
    return {n: t for n, t in tensors.items() if "mid_block" not in n}


def half_a_pair(tensors: Tensors) -> Tensors:
    return {n: t for n, t in tensors.items() if not ("mid_block" in n and "attn1.to_q.lora.up" in n)}


def with_dora(tensors: Tensors) -> Tensors:
    return {**tensors, "unet.mid_block.attentions.0.proj_in.lora_magnitude_vector": torch.ones(4)}


def with_text_encoder(tensors: Tensors) -> Tensors:
    return {**tensors, "text_encoder.encoder.layers.0.mlp.fc1.lora_linear_layer.up.weight": torch.ones(4, 4)}


def of_a_transformer(tensors: Tensors) -> Tensors:
    return {n.replace("unet.", "transformer."): t for n, t in tensors.items()}


def without_prefix(tensors: Tensors) -> Tensors:
    return {n.removeprefix("unet."): t for n, t in tensors.items()}


def torn_kohya(tensors: Tensors) -> Tensors:
    found = kohya_names(tensors)
    found.pop(next(name for name in found if name.endswith("lora_up.weight")))
    return found


def not_finite(tensors: Tensors) -> Tensors:
    return {n: torch.full_like(t, torch.nan) for n, t in tensors.items()}


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (misspelt, r"found the layer 'mid_block.attention.0.+8 such.+no LoRA in the model, did you mean mid_block.att"),
        (narrower, r"found rank 2 in the layer '.+', the model has 4 .model.lora_rank., expected the same"),
        (wider_network, r"found the shape .+ in the layer '.+', the network has .+ a LoRA of another model"),
        (without_mid_block, r"found no weights for the layer 'mid_block.+' .8 missing., expected LoRA on the same"),
        (half_a_pair, r"found no 'mid_block.+attn1.to_q.lora_B.weight' beside its other half"),
        (with_dora, r"found 'mid_block.attentions.0.proj_in.lora_magnitude_vector' .1 such., expected LoRA's two"),
        (with_text_encoder, r"found 'text_encoder.+1 such. of the text encoder, which stays frozen, expected names"),
        (of_a_transformer, r"found 'transformer\..+ expected names that begin with 'unet\.'"),
        (without_prefix, r"found 'down_blocks\..+ expected names that begin with 'unet\.'"),
        (torn_kohya, r"model.lora_weights '.+', expected LoRA weights of a UNet in a layout that diffusers reads"),
        (not_finite, r"model.lora_weights .+NaN"),
    ],
)
def test_a_lora_that_does_not_fit_is_refused_in_one_line(
    broken: Callable[[Tensors], Tensors], said: str, base: Path, theirs: Path, tmp_path: Path
) -> None:
    save_file({n: t.contiguous() for n, t in broken(load_file(theirs / WEIGHTS)).items()}, tmp_path / WEIGHTS)
    with pytest.raises(ValueError, match=said) as refused:
        generator(base, tmp_path)
    assert str(tmp_path) in str(refused.value) and "\n" not in str(refused.value)


def test_what_is_no_lora_is_refused(base: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    torch.save({}, tmp_path / "lora.bin")
    (tmp_path / "torn.safetensors").write_bytes(b"torn")
    for name, said in (
        ("empty", "found no file \\*.safetensors in it"),
        ("lora.bin", "found a file '\\*.bin'"),
        ("torn.safetensors", "model.lora_weights"),
    ):
        with pytest.raises(ValueError, match=said):
            generator(base, tmp_path / name)
    with pytest.raises(FileNotFoundError, match=r"model.lora_weights '.*nowhere.safetensors': found no file"):
        generator(base, tmp_path / "nowhere.safetensors")


def test_a_model_without_lora_takes_none(base: Path, theirs: Path) -> None:
    with pytest.raises(ValueError, match=r"model.lora_weights: found '.+' for a model without LoRA, expected model\."):
        generator(base, theirs, trained="adapter")


def test_a_checkpoint_does_without_the_file_that_its_training_began_with(
    base: Path, theirs: Path, tmp_path: Path
) -> None:
    (tmp_path / "gone").mkdir()
    start = tmp_path / "gone" / WEIGHTS
    start.write_bytes((theirs / WEIGHTS).read_bytes())
    begun = generator(base, start)
    path = save_checkpoint(begun, tmp_path / "last.ckpt")
    start.unlink()
    loaded = ExpressionGenerator.load_trained(path)
    assert loaded.weights_fingerprint() == begun.weights_fingerprint()
