"""A transformer over the places of a feature map that leaves the least interesting ones out."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from synfer.networks.token_block import TokenBlock


class AttentivePooling(nn.Module):
    """The places of a feature map as tokens, of which fewer are left at each step, and a class token that decides.

    After APViT (Xue et al. 2022, arXiv 2212.05463), on the maps of any convolutional network. Neither choice has
    weights of its own. Attentive patch pooling keeps the places where the map is strongest, by the mean of its absolute
    values over the channels; attentive token pooling keeps, after each block but the last, the tokens that the class
    token has looked at most, averaged over the attention heads. What is kept keeps its learned place.

    Args:
        channels: C of the map.
        side: s of the map.
        width: of a token.
        depth: blocks.
        num_heads: attention heads; they divide ``width``.
        keep_patches: share of the places kept at first, in (0, 1]; at least one.
        keep_tokens: share of the tokens kept after each block but the last, in (0, 1]; at least one.
        dropout: inside the blocks, in [0, 1).
    """

    def __init__(
        self,
        channels: int,
        side: int,
        width: int,
        depth: int,
        num_heads: int,
        keep_patches: float,
        keep_tokens: float,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.width, self.keep_patches, self.keep_tokens = width, keep_patches, keep_tokens
        self.input = nn.Linear(channels, width)
        self.place = nn.Parameter(torch.zeros(1, side**2, width))
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        self.blocks = nn.ModuleList([TokenBlock(width, num_heads, dropout) for _ in range(depth)])
        self.norm = nn.LayerNorm(width)
        for start in (self.place, self.class_token):
            nn.init.trunc_normal_(start, std=0.02)

    def forward(self, maps: Tensor) -> Tensor:
        """Returns features (B, width) of maps (B, C, s, s)."""
        seen = maps.flatten(2).transpose(1, 2)
        tokens = self.input(seen) + self.place
        tokens = strongest(tokens, seen.detach().float().abs().mean(2), self.keep_patches)
        tokens = torch.cat([self.class_token.expand(tokens.shape[0], -1, -1), tokens], 1)
        for index, block in enumerate(self.blocks):
            tokens, looks = block(tokens)
            if index + 1 < len(self.blocks):
                kept = strongest(tokens[:, 1:], looks[:, 0, 1:].detach(), self.keep_tokens)
                tokens = torch.cat([tokens[:, :1], kept], 1)
        return self.norm(tokens[:, 0])


def strongest(tokens: Tensor, strength: Tensor, share: float) -> Tensor:
    """Returns those tokens of (B, n, D) whose strength (B, n) is largest, in their order: (B, ⌈share · n⌉, D)."""
    places = int(tokens.shape[1])  # a number, and no part of a graph that is drawn of the network
    count = max(1, math.ceil(share * places))
    if count == places:
        return tokens
    order = strength.topk(count, dim=1).indices.sort(dim=1).values
    return tokens.gather(1, order[:, :, None].expand(-1, -1, int(tokens.shape[2])))
