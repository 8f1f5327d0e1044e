"""Attentive pooling keeps the strongest places and tokens, in their order, the same in any batch."""

from __future__ import annotations

import torch

from synfer.networks.attentive_pooling import AttentivePooling, strongest


def test_the_strongest_tokens_in_their_order() -> None:
    tokens = torch.arange(10.0).view(1, 5, 2)
    strength = torch.tensor([[0.1, 0.95, 0.3, 0.9, 0.2]])
    assert torch.equal(strongest(tokens, strength, 0.5), tokens[:, [1, 2, 3]])  # ⌈2.5⌉
    assert torch.equal(strongest(tokens, strength, 0.2), tokens[:, [1]])
    assert torch.equal(strongest(tokens, strength, 0.01), tokens[:, [1]])
    assert strongest(tokens, strength, 1.0) is tokens


def test_weak_places_say_nothing() -> None:
    torch.manual_seed(0)
    head = AttentivePooling(4, 4, 8, depth=2, num_heads=2, keep_patches=0.5, keep_tokens=0.5).eval()
    maps = torch.randn(3, 4, 4, 4)
    maps[:, :, 2:] *= 1e-3  # the lower half is weak
    other = maps.clone()
    other[:, :, 2:] *= -1
    found = head(maps)
    assert found.shape == (3, 8)
    torch.testing.assert_close(head(other), found)
    assert not torch.allclose(head(maps.flip(2)), found, atol=1e-3)  # places are known
    torch.testing.assert_close(head(maps[1:2]), found[1:2])


def test_every_weight_learns_although_places_are_dropped() -> None:
    torch.manual_seed(0)
    head = AttentivePooling(4, 3, 8, depth=2, num_heads=2, keep_patches=0.5, keep_tokens=0.5)
    head(torch.randn(16, 4, 3, 3)).square().sum().backward()
    without = {name for name, p in head.named_parameters() if p.grad is None}
    assert without == {f"blocks.{i}.norm_others.{part}" for i in (0, 1) for part in ("weight", "bias")}
