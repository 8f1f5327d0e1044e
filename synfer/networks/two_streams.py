"""Two networks look at one face: the maps of one ask, window by window, those of the other."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from synfer.networks.token_block import TokenBlock

MapShape = tuple[int, int]
"""Channels and side of one square map."""


class TwoStreams(nn.Module):
    """Cross-attention between the maps of two networks at several scales, joined by a small transformer.

    After POSTER++ (Mao et al. 2023, arXiv 2301.12149), whose second network finds landmarks; here it is any timm
    network. At each scale the places of the second network's map are the queries, the places of the image's map in the
    same window are keys and values, and what they find is added to the image's map: the one direction that POSTER++
    keeps of POSTER's two. The scales are pooled to the side of the smallest, told apart by a learned mark, and look at
    each other in blocks with a class token, which decides.

    Args:
        image_shapes: channels and side of each map of the image network, one per scale.
        stream_shapes: of the second network, for the same scales; its maps are brought to the image's sides.
        width: of a token.
        depth: blocks over all scales.
        num_heads: attention heads; they divide ``width``.
        window: side of a window in places; a map that is no larger is one window, others are padded to whole ones.
        dropout: inside the blocks, in [0, 1).
    """

    def __init__(
        self,
        image_shapes: Sequence[MapShape],
        stream_shapes: Sequence[MapShape],
        width: int,
        depth: int,
        num_heads: int,
        window: int,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.width, self.window = width, window
        self.side = min(side for _, side in image_shapes)
        self.image_inputs = nn.ModuleList([nn.Conv2d(channels, width, 1) for channels, _ in image_shapes])
        self.stream_inputs = nn.ModuleList([nn.Conv2d(channels, width, 1) for channels, _ in stream_shapes])
        self.crosses = nn.ModuleList([TokenBlock(width, num_heads, dropout) for _ in image_shapes])
        self.marks = nn.Parameter(torch.zeros(len(image_shapes), 1, self.side**2, width))
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        self.blocks = nn.ModuleList([TokenBlock(width, num_heads, dropout) for _ in range(depth)])
        self.norm = nn.LayerNorm(width)
        for start in (self.marks, self.class_token):
            nn.init.trunc_normal_(start, std=0.02)

    def forward(self, image_maps: Sequence[Tensor], stream_maps: Sequence[Tensor]) -> Tensor:
        """Returns features (B, width) of the maps (B, C, s, s) of both networks, one of each per scale."""
        tokens = [self.class_token.expand(image_maps[0].shape[0], -1, -1)]
        for scale, (image, stream) in enumerate(zip(image_maps, stream_maps, strict=True)):
            image, stream = self.image_inputs[scale](image), self.stream_inputs[scale](stream)
            stream = brought_to(stream, int(image.shape[-1]))
            side = min(self.window, int(image.shape[-1]))
            asked, count = in_windows(image, side)
            found, _ = self.crosses[scale](in_windows(stream, side)[0], asked, padding_of(image, side))
            joined = image + out_of_windows(found, side, count, int(image.shape[-1]))
            pooled = brought_to(joined, self.side).flatten(2).transpose(1, 2)
            tokens.append(pooled + self.marks[scale])
        whole = torch.cat(tokens, 1)
        for block in self.blocks:
            whole, _ = block(whole)
        return self.norm(whole[:, 0])


def brought_to(maps: Tensor, side: int) -> Tensor:
    """Returns maps (B, C, side, side): pooled where they are larger, interpolated where they are smaller."""
    found = int(maps.shape[-1])
    if found > side:
        return F.adaptive_avg_pool2d(maps, side)
    return maps if found == side else F.interpolate(maps, (side, side), mode="bilinear")


def in_windows(maps: Tensor, side: int) -> tuple[Tensor, int]:
    """Cuts maps into windows that do not overlap, the last ones padded with zeros.

    Args:
        maps: (B, C, s, s).
        side: of a window.

    Returns:
        Tokens (B · count², side², C), and the count of windows in a row.
    """
    channels, whole = int(maps.shape[1]), int(maps.shape[2])  # numbers in a graph, which has any batch
    count = -(-whole // side)
    more = count * side - whole
    padded = F.pad(maps, (0, more, 0, more)) if more else maps
    cut = padded.view(-1, channels, count, side, count, side).permute(0, 2, 4, 3, 5, 1)
    return cut.reshape(-1, side**2, channels), count


def padding_of(maps: Tensor, side: int) -> Tensor | None:
    """Returns which tokens of :func:`in_windows` are padding, bool (B · count², side²); None = none."""
    whole = int(maps.shape[-1])
    if whole % side == 0:
        return None
    tokens, _ = in_windows(maps.new_ones(1, 1, whole, whole), side)
    return (tokens[:, :, 0] == 0).repeat(maps.shape[0], 1)


def out_of_windows(tokens: Tensor, side: int, count: int, whole: int) -> Tensor:
    """Returns the maps (B, C, whole, whole) that :func:`in_windows` has cut."""
    channels = int(tokens.shape[2])
    cut = tokens.view(-1, count, count, side, side, channels).permute(0, 5, 1, 3, 2, 4)
    return cut.reshape(-1, channels, count * side, count * side)[:, :, :whole, :whole]
