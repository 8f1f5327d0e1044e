"""Masked autoencoding: a ViT sees a few patches of a face, and a small decoder draws the others (MAE)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from synfer.representation.losses import hidden_patch_loss


class MaskedFaces(nn.Module):
    """What MAE (He et al. 2022, arXiv 2111.06377) puts behind a ViT, and how it shows that only a part of a face.

    Args:
        network: a ViT of timm that pools by its class token or by the mean.
        name: of it, for the error.
        image_size: side of the images in pixels.
        channels: of the images.
        hidden_share: share of the patches that the ViT does not see, in (0, 1).
        width: of the decoder.
        depth: blocks of the decoder.
        num_heads: its attention heads; divides ``width``.
        normalise: whether each patch is drawn with mean 0 and variance 1.

    Raises:
        ValueError: a network that is no plain ViT.
    """

    def __init__(
        self,
        network: nn.Module,
        name: str,
        image_size: int,
        channels: int,
        hidden_share: float,
        width: int,
        depth: int,
        num_heads: int,
        normalise: bool = True,
    ) -> None:
        from timm.models.vision_transformer import Block, VisionTransformer  # seconds to import

        super().__init__()
        if not isinstance(network, VisionTransformer) or network.global_pool not in ("token", "avg"):
            raise ValueError(
                f"model.backbone: found '{name}' with the method mae, expected a plain ViT of timm, such as "
                "vit_tiny_patch16_224, that pools by its class token or the mean"
            )
        vit: Any = network
        self.patch = int(vit.patch_embed.patch_size[0])
        self.side = image_size // self.patch
        self.prefix = int(vit.num_prefix_tokens)
        self.num_hidden = round(hidden_share * self.side**2)
        self.num_seen = self.side**2 - self.num_hidden
        self.normalise = normalise
        self.embed = nn.Linear(vit.embed_dim, width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        nn.init.normal_(self.mask_token, std=0.02)
        self.register_buffer("place", sine_positions(self.side, width), persistent=False)
        self.place: Tensor
        self.blocks = nn.Sequential(*(Block(width, num_heads, qkv_bias=True) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.draw = nn.Linear(width, self.patch**2 * channels)

    @property
    def num_patches(self) -> int:
        """Patches of a face, seen and hidden."""
        return self.side**2

    def loss(self, network: nn.Module, image: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the loss over hidden patches, and what the ViT makes of the others.

        Args:
            network: the ViT.
            image: (B, C, H, W) as the network takes it.
            numbers: in [0, 1), (B, L): the patches with the smallest are seen.

        Returns:
            A scalar; and the mean over seen patches, (B, D), without gradient.
        """
        vit: Any = network
        order = numbers.argsort(dim=1, stable=True)
        seen, back = order[:, : self.num_seen], order.argsort(1)
        tokens = vit._pos_embed(vit.patch_embed(image))
        prefix, patches = tokens[:, : self.prefix], tokens[:, self.prefix :]
        tokens = torch.cat([prefix, _picked(patches, seen)], 1)
        tokens = vit.blocks(vit.norm_pre(tokens))
        # One of the two is there, by the way in which the network pools.
        tokens = vit.fc_norm(vit.norm(tokens))
        pooled = tokens[:, self.prefix :].detach().float().mean(1)

        known = self.embed(tokens)
        guesses = self.mask_token.to(known.dtype).expand(len(known), self.num_hidden, -1)
        patches = _picked(torch.cat([known[:, self.prefix :], guesses], 1), back) + self.place.to(known.dtype)
        whole = self.blocks(torch.cat([known[:, : self.prefix], patches], 1))
        drawn = self.draw(self.norm(whole[:, self.prefix :]))
        hidden = back >= self.num_seen
        return hidden_patch_loss(drawn, patches_of(image, self.patch), hidden, self.normalise), pooled


def patches_of(image: Tensor, side: int) -> Tensor:
    """Returns the pixels of each patch, (B, L, side² · C), row by row; images (B, C, H, W)."""
    batch, channels, height, width = image.shape
    cut = image.reshape(batch, channels, height // side, side, width // side, side)
    return cut.permute(0, 2, 4, 3, 5, 1).reshape(batch, -1, side * side * channels)


def sine_positions(side: int, width: int) -> Tensor:
    """Returns fixed sine and cosine positions of a square of patches, float32 (1, side², width)."""
    quarter = (width + 3) // 4
    rate = torch.exp(-math.log(10000) * torch.arange(quarter) / max(1, quarter))
    angle = torch.arange(side)[:, None] * rate
    waves = torch.cat([angle.sin(), angle.cos()], 1)
    rows = waves[:, None].expand(side, side, -1)
    columns = waves[None].expand(side, side, -1)
    return torch.cat([rows, columns], -1).reshape(1, side * side, -1)[..., :width].contiguous()


def _picked(tokens: Tensor, index: Tensor) -> Tensor:
    return tokens.gather(1, index[:, :, None].expand(-1, -1, tokens.shape[-1]))
