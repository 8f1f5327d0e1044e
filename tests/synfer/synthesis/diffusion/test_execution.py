from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from synfer.synthesis.diffusion.execution import ExecutionSettings, attention_kernel
from tests.fixtures.tiny_generator import SIDE, request_for, tiny_generator


def test_attention_over_few_tokens_is_plain_matrix_products() -> None:
    for half, few in ((False, 144), (True, 256)):
        made = []
        for tokens in (few, few + 1):
            query = torch.randn(1, 2, 8, 4, requires_grad=True)
            with torch.autocast("cpu", torch.bfloat16, half), attention_kernel(torch.device("cpu"), tokens):
                made.append(type(F.scaled_dot_product_attention(query, query, query).grad_fn).__name__)
        assert "Flash" not in made[0] and "Flash" in made[1]


def test_finished_latents_are_decoded_so_many_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    together = tiny_generator(execution={"bf16_sampling": False})
    apart = tiny_generator(execution={"bf16_sampling": False, "decode_batch": 2})
    seen, decode = [], apart.model.codec.decode

    def note(latents: torch.Tensor) -> torch.Tensor:
        seen.append(len(latents))
        return decode(latents)

    monkeypatch.setattr(apart.model.codec, "decode", note)
    request = request_for(("happy", "sad", "happy"))
    made = [generator.synthesise(request).images for generator in (together, apart)]
    assert seen == [2, 1] and torch.equal(*made)
    with pytest.raises(ValueError, match=r"model.execution.decode_batch: found 0, expected at least 1, or null"):
        ExecutionSettings(decode_batch=0)


def test_checkpointing_has_the_same_gradients_and_keeps_less() -> None:
    found = []
    for enabled in (False, True):
        generator = tiny_generator(execution={"gradient_checkpointing": enabled, "bf16_sampling": False})
        kept = 0

        def note(tensor: torch.Tensor) -> torch.Tensor:
            nonlocal kept
            kept += tensor.numel()
            return tensor

        side = SIDE // 4
        latents = torch.randn(2, 48, side, side, generator=torch.Generator().manual_seed(0))
        text, au = generator.model.encode_text(["a", "happy"]), torch.ones(2, len(generator.region_masks), 82)
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            loss = generator.network(latents, torch.tensor([3, 500]), text, au).square().mean()
        loss.backward()
        found.append((kept, [p.grad for p in generator.model.unet.parameters()]))
    assert all(torch.equal(a, b) for a, b in zip(found[0][1], found[1][1], strict=True))
    assert found[1][0] < 0.7 * found[0][0]
