"""The head of FERAnno: feature maps and attention maps look at each other, then a linear layer decides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Branches = Literal["both", "features", "attention"]
MapShape = tuple[int, int]
"""Channels and side of one square map."""


class AnnotatorHead(nn.Module):
    """Two branches → bidirectional cross-attention → logits (FERAnno of SynFER, arXiv 2410.09865).

    Each branch brings its maps to one side and one width: per size BatchNorm and a 1×1 convolution, summed (feature
    maps then go through residual 3×3 convolutions); s² tokens with learned places come out. The feature tokens attend
    to the attention-map tokens and the other way round; both are averaged over the face, joined and classified. With
    one branch alone, its tokens attend to themselves.

    Args:
        feature_shapes: channels and side of each feature map.
        attention_shapes: words and side of each attention map.
        num_classes: K.
        branches: which branches there are.
        width: channels of a token.
        depth: residual convolutions of the feature branch (of the attention branch where it is alone).
        num_heads: attention heads.
        dropout: in attention, between layers and before the linear layer, in [0, 1).
    """

    def __init__(
        self,
        feature_shapes: Sequence[MapShape],
        attention_shapes: Sequence[MapShape],
        num_classes: int,
        branches: Branches = "both",
        width: int = 128,
        depth: int = 1,
        num_heads: int = 4,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        used = {"features": feature_shapes, "attention": attention_shapes}
        names = ("features", "attention") if branches == "both" else (branches,)
        side = max(s for name in names for _, s in used[name])
        depths = dict.fromkeys(names, depth) | ({"attention": 0} if branches == "both" else {})
        self.branches = nn.ModuleDict({name: _Branch(used[name], side, width, depths[name], dropout) for name in names})
        self.cross = nn.ModuleDict({name: _CrossBlock(width, num_heads, dropout) for name in names})
        self.norm = nn.LayerNorm(width * len(names))
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(width * len(names), num_classes)

    def forward(self, features: Sequence[Tensor], attention: Sequence[Tensor]) -> Tensor:
        """Returns logits (B, K) of feature maps (B, C, s, s) and attention maps (B, W, s, s), in the given order."""
        maps = {"features": features, "attention": attention}
        tokens = {name: branch(maps[name]) for name, branch in self.branches.items()}
        seen = []
        for name, block in self.cross.items():
            others = [t for other, t in tokens.items() if other != name] or [tokens[name]]
            seen.append(block(tokens[name], others[0]).mean(1))
        return self.linear(self.dropout(self.norm(torch.cat(seen, 1))))


class _Branch(nn.Module):
    """Maps (B, C, s, s) of several sizes → tokens (B, side², width)."""

    def __init__(self, shapes: Sequence[MapShape], side: int, width: int, depth: int, dropout: float) -> None:
        super().__init__()
        self.side = side
        # Maps of one size are one map of many channels, projected at that size: the small ones have the most channels.
        sizes = sorted({s for _, s in shapes})
        self.groups = [[i for i, (_, s) in enumerate(shapes) if s == size] for size in sizes]
        channels = [sum(shapes[i][0] for i in group) for group in self.groups]
        self.inputs = nn.ModuleList(
            [nn.Sequential(nn.BatchNorm2d(c), nn.Dropout2d(dropout), nn.Conv2d(c, width, 1)) for c in channels]
        )
        self.blocks = nn.ModuleList(
            [
                nn.Sequential(nn.BatchNorm2d(width), nn.GELU(), nn.Conv2d(width, width, 3, padding=1))
                for _ in range(depth)
            ]
        )
        self.place = nn.Parameter(torch.zeros(1, side * side, width))
        nn.init.trunc_normal_(self.place, std=0.02)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        total: Tensor | None = None
        for group, layer in zip(self.groups, self.inputs, strict=True):
            x = layer(torch.cat([maps[i] for i in group], 1))
            if x.shape[-1] != self.side:
                x = F.interpolate(x, (self.side, self.side), mode="bilinear")
            total = x if total is None else total + x
        assert total is not None
        for block in self.blocks:
            total = total + block(total)
        return total.flatten(2).transpose(1, 2) + self.place


class _CrossBlock(nn.Module):
    """Tokens that look at other tokens, then at themselves through an MLP; pre-norm, residual."""

    def __init__(self, width: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.norm, self.norm_other, self.norm_mlp = nn.LayerNorm(width), nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, num_heads, dropout, batch_first=True)
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Dropout(dropout), nn.Linear(2 * width, width)
        )

    def forward(self, tokens: Tensor, others: Tensor) -> Tensor:
        others = self.norm_other(others)
        tokens = tokens + self.attention(self.norm(tokens), others, others, need_weights=False)[0]
        return tokens + self.mlp(self.norm_mlp(tokens))
