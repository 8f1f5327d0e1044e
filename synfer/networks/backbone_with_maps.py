"""A timm network that also takes in maps which another network has made of the same image."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

MapShape = tuple[int, int]
"""Channels and side of one square map."""


class BackboneWithMaps(nn.Module):
    """Adds maps of several sizes to the outputs of a timm network's stages, and returns its last stage as tokens.

    Each map goes to the stage whose side is nearest to its own, the last one of these. All maps of a stage are joined,
    normalised (BatchNorm) and brought to the stage's channels by a 1×1 convolution, and the sum goes on through the
    network: where the maps add nothing, it is the network as timm builds it. With no maps at all it is that network.
    Images whose maps were not made get nothing added.

    Args:
        network: a timm network with ``feature_info`` and ``forward_features`` that returns (B, C, h, w).
        image_shape: channels and side of what the network looks at.
        map_shapes: channels and side of each map.
        width: channels of a token.
        dropout: of whole channels of the maps, in [0, 1).

    Raises:
        ValueError: a network whose stages are no maps.
    """

    def __init__(
        self,
        network: nn.Module,
        image_shape: MapShape,
        map_shapes: Sequence[MapShape],
        width: int,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.network: Any = network
        outputs, last = _outputs_of_stages(network, image_shape)
        self.stages = {name: (output.shape[1], output.shape[-1]) for name, output in outputs.items()}
        channels = last.shape[1]
        _freeze_unused(network, last)
        names = list(self.stages)
        self.groups: dict[str, list[int]] = {}
        for index, (_, side) in enumerate(map_shapes):
            stage = min(reversed(names), key=lambda name: abs(self.stages[name][1] - side))
            self.groups.setdefault(stage, []).append(index)
        self.inputs = nn.ModuleDict(
            {
                _key(stage): map_projection(sum(map_shapes[i][0] for i in group), self.stages[stage][0], dropout)
                for stage, group in self.groups.items()
            }
        )
        self.output = nn.Linear(channels, width)

    def forward(self, maps: Sequence[Tensor], image: Tensor, has_maps: Tensor | None = None) -> Tensor:
        """Returns tokens (B, places of the last stage, width) of maps and of images.

        Args:
            maps: (M, C, s, s) each, in the order of the images that have them.
            image: (B, C, s, s).
            has_maps: which images have maps, bool (B,) with M times true; None = all.
        """
        added = {
            stage: spread_over(self._projected(stage, [maps[i] for i in group]), has_maps)
            for stage, group in self.groups.items()
        }
        with _hooked(self.network, {stage: _adds(extra) for stage, extra in added.items()}):
            last = self.network.forward_features(image)
        return self.output(last.flatten(2).transpose(1, 2))

    def _projected(self, stage: str, maps: Sequence[Tensor]) -> Tensor:
        side = self.stages[stage][1]
        joined = torch.cat([m if m.shape[-1] == side else _resized(m, side) for m in maps], 1)
        return self.inputs[_key(stage)](joined)


def map_projection(channels: int, width: int, dropout: float = 0.0) -> nn.Sequential:
    """Returns BatchNorm, dropout of whole channels and a 1×1 convolution: maps (B, C, s, s) → ``width``.

    BatchNorm has no scale of its own: the convolution has one, and without it nothing before the convolution needs a
    gradient, as the maps are not trained.
    """
    return nn.Sequential(nn.BatchNorm2d(channels, affine=False), nn.Dropout2d(dropout), nn.Conv2d(channels, width, 1))


def spread_over(rows: Tensor, chosen: Tensor | None) -> Tensor:
    """Returns (B, …) with the rows (M, …) where ``chosen``, bool (B,), is true and zeros elsewhere; None = all."""
    if chosen is None:
        return rows
    spread = rows.new_zeros(len(chosen), *rows.shape[1:])
    spread[chosen] = rows
    return spread


def _key(stage: str) -> str:
    return stage.replace(".", "_")  # a ModuleDict takes no dots


def _resized(maps: Tensor, side: int) -> Tensor:
    return F.interpolate(maps, (side, side), mode="bilinear", antialias=True)


def _adds(extra: Tensor) -> Callable[..., Tensor]:
    return lambda module, inputs, output: output + extra


@contextmanager
def _hooked(network: nn.Module, hooks: dict[str, Callable[..., Any]]) -> Iterator[None]:
    """Listens to modules by name inside the ``with`` block."""
    handles = [network.get_submodule(name).register_forward_hook(hook) for name, hook in hooks.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _freeze_unused(network: nn.Module, last: Tensor) -> None:
    """Takes the gradient from weights that come after the last stage, which nothing would ever teach.

    DistributedDataParallel would wait for their gradients in vain.
    """
    weights = [p for p in network.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(last.sum(), weights, allow_unused=True)
    for weight, gradient in zip(weights, gradients, strict=True):
        weight.requires_grad_(gradient is not None)


@torch.inference_mode(False)
@torch.enable_grad()
def _outputs_of_stages(network: Any, image_shape: MapShape) -> tuple[dict[str, Tensor], Tensor]:
    """Returns the output (1, C, h, w) of each stage for a black image by the name of its module, and the last one."""
    info = getattr(network, "feature_info", None)
    found: dict[str, Any] = {}

    def keep(name: str) -> Callable[..., None]:
        return lambda module, inputs, output: found.__setitem__(name, output)

    modules = dict(network.named_modules())
    names = [stage["module"] for stage in getattr(info, "info", info) or []]
    was_training = network.training
    with _hooked(network, {name: keep(name) for name in names if name in modules}):
        channels, side = image_shape
        last = network.eval().forward_features(torch.zeros(1, channels, side, side))
    network.train(was_training)
    wrong = [_shape(output) for output in (*found.values(), last) if not _is_square_map(output)]
    if wrong or not found:
        raise ValueError(
            f"model.backbone: found stages of the shapes {wrong}, expected a convolutional timm network, whose stages "
            "are maps (1, C, h, w)"
        )
    return found, last


def _is_square_map(output: Any) -> bool:
    return isinstance(output, Tensor) and output.ndim == 4 and output.shape[2] == output.shape[3]


def _shape(output: Any) -> Any:
    return tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
