"""A UNet whose weights, gradients and optimiser's moments lie in shards on all ranks (FSDP2)."""

from __future__ import annotations

from typing import Any

import torch
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard


def shard_unet(unet: Any, mesh: DeviceMesh) -> None:
    """Shards a UNet of diffusers in place, block by block, so that one block at a time is whole; does so once.

    Zhao et al., arXiv 2304.11277. Its weights become contiguous before, for shards are cut along the first dimension.

    Args:
        unet: on every rank with the same weights.
        mesh: of one dimension, all ranks that see different data.
    """
    if isinstance(unet, FSDPModule):
        return
    unet.to(memory_format=torch.contiguous_format)
    for block in (*unet.down_blocks, unet.mid_block, *unet.up_blocks):
        fully_shard(block, mesh=mesh)
    fully_shard(unet, mesh=mesh)
