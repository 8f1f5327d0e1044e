from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0

from synfer.faces.captions import ADJECTIVES, VOCABULARY
from synfer.networks.au_adapter import embed_action_units, set_au_scale
from synfer.networks.diffusion_features import capture, pooled, text_attention, word_prompt
from synfer.networks.word_tokenizer import build_word_tokenizer
from tests.fixtures.tiny_generator import SIDE, save_base, scaled_weights, tiny_generator

WORDS = ["neutral", "happy", "sad"]
MODULES = ["mid_block", "up_blocks.0", "up_blocks.1"]


class Pieces:
    """A tokenizer that cuts words into single letters, as CLIP's cuts rare words into pieces."""

    unk_token_id = eos_token_id = 0
    model_max_length = 77

    def __call__(self, text: str) -> object:
        ids = [1, *(ord(letter) for letter in text.replace(" ", "")), 0]
        return type("Encoded", (), {"input_ids": ids})()


def inputs(generator: Any, n: int = 2) -> Any:
    torch.manual_seed(3)
    prompt, positions = word_prompt(generator.model.tokenizer, WORDS)
    with torch.no_grad():
        text = generator.model.encode_text([prompt]).expand(n, -1, -1)
        latents = generator.model.codec.encode(torch.rand(n, 3, SIDE, SIDE) * 2 - 1)
    au = embed_action_units(torch.full((n, len(generator.au_names)), torch.nan), generator.region_masks)
    return latents, text, au, positions


def test_every_expression_fits_into_the_small_text_encoder_s_prompt() -> None:
    tokenizer = build_word_tokenizer(VOCABULARY, 16)
    prompt, positions = word_prompt(tokenizer, list(ADJECTIVES.values()))
    assert prompt == "a photo of a face neutral happy sad surprised fearful disgusted angry contemptuous"
    ids = tokenizer(prompt).input_ids
    assert [tokenizer.convert_ids_to_tokens(ids[place]) for (place,) in positions] == list(ADJECTIVES.values())


def test_a_word_of_several_tokens_has_all_its_positions() -> None:
    prompt, positions = word_prompt(Pieces(), ["sad", "happy"], start="face")
    ids = Pieces()(prompt).input_ids
    assert ["".join(chr(ids[i]) for i in places) for places in positions] == ["sad", "happy"]


def test_unknown_words_and_long_prompts_are_refused() -> None:
    with pytest.raises(ValueError, match="does not know 'bored'"):
        word_prompt(build_word_tokenizer(VOCABULARY, 16), ["happy", "bored"])
    with pytest.raises(ValueError, match=r"has 15 tokens, expected at most 12"):
        word_prompt(build_word_tokenizer(VOCABULARY, 12), list(ADJECTIVES.values()))


def test_listening_changes_nothing_and_leaves_no_hook() -> None:
    generator = scaled_weights(tiny_generator()).eval()
    latents, text, au, positions = inputs(generator)
    with torch.no_grad():
        plain = generator.network(latents, 1, text, au)
        with capture(generator.model.unet, [*MODULES, "conv_out"], positions, 6) as captured:
            generator.network(latents, 1, text, au)
        with capture(generator.model.unet, MODULES, positions, 6) as untouched:
            pass
        generator.network(latents, 1, text, au)
    assert torch.equal(plain, captured.features["conv_out"])
    assert torch.equal(plain, generator.network(latents, 1, text, au))
    assert not untouched.features and not untouched.attention
    assert [tuple(captured.features[name].shape) for name in MODULES] == [(2, 16, 2, 2), (2, 16, 4, 4), (2, 16, 4, 4)]
    assert all(tuple(maps.shape) == (2, 3, 2, 2) for maps in captured.attention.values())
    assert len(captured.attention) == sum(name.endswith("attn2") for name, _ in generator.model.unet.named_modules())


def test_the_pass_ends_when_all_is_heard_and_not_before() -> None:
    generator = scaled_weights(tiny_generator()).eval()
    latents, text, au, positions = inputs(generator)
    ran: list[str] = []
    for name in ("mid_block", "up_blocks.0", "conv_out"):
        generator.model.unet.get_submodule(name).register_forward_pre_hook(lambda *_, name=name: ran.append(name))
    for modules, words, expected in (
        (["mid_block"], [], ["mid_block"]),
        (["mid_block"], positions, ["mid_block", "up_blocks.0"]),  # attention layers follow
        (["mid_block", "conv_out"], [], ["mid_block", "up_blocks.0", "conv_out"]),
    ):
        ran.clear()
        with torch.no_grad(), capture(generator.model.unet, modules, words, 6) as captured:
            generator.network(latents, 1, text, au)
        assert ran == expected and list(captured.features) == modules


def test_an_error_of_the_network_is_not_swallowed() -> None:
    generator = tiny_generator().eval()
    latents, text, au, positions = inputs(generator)
    with pytest.raises(RuntimeError), capture(generator.model.unet, MODULES, positions, 6):
        generator.network(latents[:, :1], 1, text, au)


@pytest.mark.parametrize("processor", [AttnProcessor, AttnProcessor2_0])
def test_captured_probabilities_give_the_plain_processor_s_output(processor: type) -> None:
    generator = scaled_weights(tiny_generator()).eval()
    unet = generator.model.unet
    name = next(n for n, _ in unet.named_modules() if n.endswith("attn2"))
    layer = unet.get_submodule(name)
    torch.manual_seed(0)
    hidden, text = torch.randn(2, 4, layer.to_q.in_features), torch.randn(2, 7, 16)
    layer.set_processor(processor())
    assert layer.heads == 2
    with torch.no_grad():
        plain = layer(hidden, text)
        q, k, v = layer.to_q(hidden), layer.to_k(text), layer.to_v(text)
        per_head = [
            text_attention(a, b, 1, layer.scale) @ c
            for a, b, c in zip(q.chunk(2, -1), k.chunk(2, -1), v.chunk(2, -1), strict=True)
        ]
        own = layer.to_out[0](torch.cat(per_head, -1))
    torch.testing.assert_close(own, plain)
    mean = text_attention(q, k, 2, layer.scale)
    apart = [text_attention(a, b, 1, layer.scale) for a, b in zip(q.chunk(2, -1), k.chunk(2, -1), strict=True)]
    torch.testing.assert_close(mean, sum(apart) / 2)
    torch.testing.assert_close(mean.sum(-1), torch.ones(2, 4))


def test_the_text_s_attention_does_not_depend_on_the_au_branch() -> None:
    generator = scaled_weights(tiny_generator()).eval()
    latents, text, au, positions = inputs(generator)
    first = "down_blocks.1.attentions.0.transformer_blocks.0.attn2"
    maps = []
    for scale in (0.0, 1.0):
        set_au_scale(generator.model.unet, scale)
        with torch.no_grad(), capture(generator.model.unet, [], positions, 6) as captured:
            generator.network(latents, 1, text, au)
        maps.append(captured.attention[first])
    assert torch.equal(*maps)  # the first layer comes before any AU branch
    assert maps[0].std() > 0


def test_a_stable_diffusion_shaped_model_is_read_the_same_way(tmp_path: Path) -> None:
    generator = tiny_generator(base=str(save_base(tmp_path / "sd")), trained="lora").eval()
    latents, text, au, positions = inputs(generator)
    with torch.no_grad(), capture(generator.model.unet, MODULES, positions, 3) as captured:
        generator.network(latents, 1, text, au)
    assert [captured.features[name].shape[-1] for name in MODULES] == [3, 3, 3]
    assert captured.attention and all(maps.shape[1] == 3 for maps in captured.attention.values())


def test_modules_that_are_not_there_or_give_no_map_are_named() -> None:
    generator = tiny_generator().eval()
    latents, text, au, positions = inputs(generator)
    unet = generator.model.unet
    message = r"feature_modules: found 'up_blocks.7', expected names such as .*mid_block"
    with pytest.raises(ValueError, match=message), capture(unet, ["up_blocks.7"], positions, 6):
        pass
    message = r"'time_embedding' gives \(2, 64\), expected a map"
    with pytest.raises(ValueError, match=message), capture(unet, ["time_embedding"], positions, 6), torch.no_grad():
        generator.network(latents, 1, text, au)


def test_pooled_maps_are_finite_in_float16() -> None:
    maps = torch.tensor([[[[1e9, float("nan")], [-1e9, 1.0]]]])
    assert pooled(maps, 2).half().isfinite().all()
    assert tuple(pooled(torch.rand(1, 2, 9, 9), 3).shape) == (1, 2, 3, 3)
