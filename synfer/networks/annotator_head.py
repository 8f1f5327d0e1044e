"""The head of FERAnno: feature maps and attention maps look at each other, then a linear layer decides."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from synfer.networks.backbone_with_maps import BackboneWithMaps, MapShape, map_projection, spread_over

Branches = Literal["both", "features", "attention"]


class AnnotatorHead(nn.Module):
    """Two branches → bidirectional cross-attention → logits (FERAnno of SynFER, arXiv 2410.09865).

    The feature branch is a network over the latents, to whose stages the feature maps of their size are added
    (:class:`BackboneWithMaps`), or, without such a network, a pyramid over the feature maps alone. The pyramid begins
    at the largest maps and goes down to the smallest; at each size the maps of that size come in through BatchNorm and
    a 1×1 convolution and are added, residual 3×3 convolutions follow, and a strided one leads to the next size. The
    last stage, or the maps of the smallest size, become the branch's tokens. The attention branch brings its maps to
    their smallest side and joins them; each place is a token. The feature tokens attend to the attention-map tokens and
    the other way round; both are averaged over the face, joined and classified. With one branch alone, its tokens
    attend to themselves (and attention maps are brought to their largest side and get the convolutions of that size).

    Args:
        feature_shapes: channels and side of each feature map.
        attention_shapes: words and side of each attention map.
        num_classes: K.
        branches: which branches there are.
        width: channels of a token.
        widths: channels of the pyramid at each size, from the largest maps to the smallest; the last number serves all
            further sizes.
        depths: residual convolutions at each size, in the same way.
        num_heads: attention heads.
        dropout: in attention and of whole attention maps, in [0, 1); of whole feature maps too where there is a
            ``backbone``.
        drop_rate: before the linear layer, in [0, 1).
        backbone: timm network over the latents, and the channels and side of these; None = the pyramid.
    """

    def __init__(
        self,
        feature_shapes: Sequence[MapShape],
        attention_shapes: Sequence[MapShape],
        num_classes: int,
        branches: Branches,
        width: int,
        widths: Sequence[int],
        depths: Sequence[int],
        num_heads: int = 4,
        dropout: float = 0.1,
        drop_rate: float = 0.1,
        backbone: tuple[nn.Module, MapShape] | None = None,
    ) -> None:
        super().__init__()
        parts: dict[str, nn.Module] = {}
        if branches != "attention":
            parts["features"] = (
                _Pyramid(feature_shapes, width, widths, depths)
                if backbone is None
                else BackboneWithMaps(*backbone, feature_shapes, width, dropout)
            )
        if branches != "features":
            alone = branches == "attention"
            side = (max if alone else min)(side for _, side in attention_shapes)
            parts["attention"] = _Plane(attention_shapes, width, depths[0] if alone else 0, dropout, side)
        self.has_backbone = backbone is not None
        self.branches = nn.ModuleDict(parts)
        self.cross = nn.ModuleDict({name: _CrossBlock(width, num_heads, dropout) for name in parts})
        self.norm = nn.LayerNorm(width * len(parts))
        self.dropout = nn.Dropout(drop_rate)
        self.linear = nn.Linear(width * len(parts), num_classes)

    def forward(
        self,
        features: Sequence[Tensor],
        attention: Sequence[Tensor],
        latents: Tensor | None = None,
        has_maps: Tensor | None = None,
    ) -> Tensor:
        """Returns logits (B, K) of feature maps (M, C, s, s) and attention maps (M, W, s, s), in the given order.

        Args:
            features: feature maps.
            attention: attention maps.
            latents: (B, C, s, s), what the ``backbone`` looks at; without one they are not used.
            has_maps: with a ``backbone``: which of the B faces the M maps are of, bool (B,); the others are seen by
                their latents alone. None = M is B.
        """
        maps: dict[str, tuple[Any, ...]] = {
            "features": (features, latents, has_maps) if self.has_backbone else (features,),
            "attention": (attention, has_maps),
        }
        tokens = {name: branch(*maps[name]) for name, branch in self.branches.items()}
        seen = []
        for name, block in self.cross.items():
            others = [t for other, t in tokens.items() if other != name] or [tokens[name]]
            seen.append(block(tokens[name], others[0]).mean(1))
        return self.linear(self.dropout(self.norm(torch.cat(seen, 1))))


class _Pyramid(nn.Module):
    """Maps (B, C, s, s) of several sizes → tokens (B, smallest side², width)."""

    def __init__(self, shapes: Sequence[MapShape], width: int, widths: Sequence[int], depths: Sequence[int]) -> None:
        super().__init__()
        self.sides, self.groups = _by_side(shapes)
        levels = range(len(self.sides))
        wide = [widths[min(level, len(widths) - 1)] for level in levels]
        deep = [depths[min(level, len(depths) - 1)] for level in levels]
        self.inputs = nn.ModuleList(
            [map_projection(sum(shapes[i][0] for i in group), w) for group, w in zip(self.groups, wide, strict=True)]
        )
        self.blocks = nn.ModuleList(
            [nn.ModuleList([_convolution(w, w) for _ in range(d)]) for w, d in zip(wide, deep, strict=True)]
        )
        strides = [a // b for a, b in pairwise(self.sides)]
        self.downs = nn.ModuleList([_convolution(a, b, s) for (a, b), s in zip(pairwise(wide), strides, strict=True)])
        self.output = nn.Linear(wide[-1], width)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        x: Tensor | None = None
        for level, group in enumerate(self.groups):
            here = self.inputs[level](torch.cat([maps[i] for i in group], 1))
            if x is not None:
                x = self.downs[level - 1](x)
                if x.shape[-1] != self.sides[level]:  # a side that is no multiple of the next one
                    x = F.adaptive_avg_pool2d(x, self.sides[level])
                here = here + x
            x = here
            for block in cast(nn.ModuleList, self.blocks[level]):
                x = x + block(x)
        assert x is not None
        return self.output(x.flatten(2).transpose(1, 2))


class _Plane(nn.Module):
    """Maps (B, C, s, s) of several sizes, brought to one → tokens with learned places (B, side², width)."""

    def __init__(self, shapes: Sequence[MapShape], width: int, depth: int, dropout: float, side: int) -> None:
        super().__init__()
        self.side = side
        self.input = map_projection(sum(channels for channels, _ in shapes), width, dropout)
        self.blocks = nn.ModuleList([_convolution(width, width) for _ in range(depth)])
        self.place = nn.Parameter(torch.zeros(1, side**2, width))
        nn.init.trunc_normal_(self.place, std=0.02)

    def forward(self, maps: Sequence[Tensor], has_maps: Tensor | None = None) -> Tensor:
        x = self.input(torch.cat([_brought_to(m, self.side) for m in maps], 1))
        for block in self.blocks:
            x = x + block(x)
        return spread_over(x, has_maps).flatten(2).transpose(1, 2) + self.place


def _brought_to(maps: Tensor, side: int) -> Tensor:
    if maps.shape[-1] > side:
        return F.adaptive_avg_pool2d(maps, side)
    return maps if maps.shape[-1] == side else F.interpolate(maps, (side, side), mode="bilinear")


def _by_side(shapes: Sequence[MapShape]) -> tuple[list[int], list[list[int]]]:
    """Returns the sides that occur, largest first, and for each the positions of its maps."""
    sides = sorted({side for _, side in shapes}, reverse=True)
    return sides, [[i for i, (_, side) in enumerate(shapes) if side == wanted] for wanted in sides]


def _convolution(channels: int, width: int, stride: int = 1) -> nn.Sequential:
    kernel = max(3, stride + 1 - stride % 2)  # odd, and no place is stepped over
    convolution = nn.Conv2d(channels, width, kernel, stride, padding=(kernel - stride + 1) // 2)
    return nn.Sequential(nn.BatchNorm2d(channels), nn.GELU(), convolution)


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
        # With weights asked for, PyTorch multiplies plain matrices: of so few tokens the gradient is faster that way.
        tokens = tokens + self.attention(self.norm(tokens), others, others, need_weights=True)[0]
        return tokens + self.mlp(self.norm_mlp(tokens))
