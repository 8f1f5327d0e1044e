"""What reads the feature maps of a classifier's backbone: its own last layer, or a small transformer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from synfer.foundation.validate import check_setting
from synfer.networks.attentive_pooling import AttentivePooling
from synfer.networks.backbone import Stem, build_backbone
from synfer.networks.two_streams import TwoStreams

HeadKind = Literal["linear", "attentive_pooling", "two_streams"]


@dataclass(frozen=True)
class ClassifierHeadSettings:
    """Which head a classifier has.

    Attributes:
        kind: "linear", the backbone's own pooling and last layer; "attentive_pooling"
            (:class:`synfer.networks.attentive_pooling.AttentivePooling`, after APViT); "two_streams"
            (:class:`synfer.networks.two_streams.TwoStreams`, after POSTER++).
        stages: how many of the backbone's last maps are read: the largest of them by attentive pooling, each of them by
            two streams.
        width: of a token.
        depth: blocks.
        num_heads: attention heads; they divide ``width``.
        dropout: inside the blocks, in [0, 1).
        keep_patches: of attentive pooling: share of the places kept at first, in (0, 1].
        keep_tokens: of attentive pooling: share of the tokens kept after each block but the last, in (0, 1].
        window: of two streams: side of a window in places.
        stream: of two streams: timm network that is the second stream.
        stream_kwargs: further arguments of that network.
        stream_weights: a local file of its weights in timm's layout, of a network of landmarks or of faces, which then
            stay as they are; None = it learns, from random weights on.

    Raises:
        ValueError: a value out of range.
    """

    kind: HeadKind = "linear"
    stages: int = 2
    width: int = 128
    depth: int = 2
    num_heads: int = 4
    dropout: float = 0.0
    keep_patches: float = 0.8
    keep_tokens: float = 0.9
    window: int = 6
    stream: str = "resnet10t"
    stream_kwargs: dict[str, Any] | None = None
    stream_weights: str | None = None

    def __post_init__(self) -> None:
        kinds = get_args(HeadKind)
        check_setting(self.kind in kinds, "head.kind", f"'{self.kind}'", f"one of {', '.join(kinds)}")
        for name in ("stages", "width", "depth", "num_heads", "window"):
            check_setting(getattr(self, name) >= 1, f"head.{name}", getattr(self, name), "at least 1")
        fine = self.width % self.num_heads == 0
        check_setting(fine, "head.num_heads", self.num_heads, f"a divisor of model.head.width ({self.width})")
        check_setting(0 <= self.dropout < 1, "head.dropout", self.dropout, "a number in [0, 1)")
        for name in ("keep_patches", "keep_tokens"):
            check_setting(0 < getattr(self, name) <= 1, f"head.{name}", getattr(self, name), "a number in (0, 1]")


class BackboneWithHead(nn.Module):
    """A timm network whose maps a head reads in place of its own last layer.

    Args:
        network: a timm network with ``forward_intermediates`` whose stages are square maps.
        name: of it, for errors.
        settings: of the head.
        num_outputs: K.
        image_shape: channels and side of a picture.
        drop_rate: dropout before the last layer, in [0, 1).
        stem: of the second stream.

    Raises:
        ValueError: the network has no maps, or too few, or the second stream cannot be built.
    """

    def __init__(
        self,
        network: nn.Module,
        name: str,
        settings: ClassifierHeadSettings,
        num_outputs: int,
        image_shape: tuple[int, int],
        drop_rate: float = 0.0,
        stem: Stem = "auto",
    ) -> None:
        super().__init__()
        self.network, self.stages = network, settings.stages
        self.pretrained_cfg = getattr(network, "pretrained_cfg", None)  # says what colours its weights expect
        shapes = _map_shapes(network, name, settings.stages, image_shape, "backbone")
        parts: dict[str, nn.Module] = {}
        if settings.kind == "attentive_pooling":
            channels, side = shapes[0]
            parts["pooling"] = AttentivePooling(
                channels,
                side,
                settings.width,
                settings.depth,
                settings.num_heads,
                settings.keep_patches,
                settings.keep_tokens,
                settings.dropout,
            )
        else:
            parts["stream"] = build_backbone(
                settings.stream,
                0,
                image_size=image_shape[1],
                in_channels=image_shape[0],
                stem=stem,
                kwargs=settings.stream_kwargs,
                pretrained_path=settings.stream_weights,
            )
            stream_shapes = _map_shapes(parts["stream"], settings.stream, settings.stages, image_shape, "head.stream")
            parts["fusion"] = TwoStreams(
                shapes,
                stream_shapes,
                settings.width,
                settings.depth,
                settings.num_heads,
                settings.window,
                settings.dropout,
            )
        parts["dropout"] = nn.Dropout(drop_rate)
        parts["linear"] = nn.Linear(settings.width, num_outputs)
        self.head = nn.ModuleDict(parts)
        self.stream_is_frozen = settings.kind == "two_streams" and settings.stream_weights is not None
        _freeze_unused(self, image_shape)
        if self.stream_is_frozen:
            self.head["stream"].requires_grad_(False)
            self.keep_stream()

    def forward(self, image: Tensor) -> Tensor:
        """Returns outputs (B, K) of normalised images (B, C, s, s)."""
        maps = last_maps(self.network, image, self.stages)
        if "pooling" in self.head:
            features = self.head["pooling"](maps[0])
        else:
            features = self.head["fusion"](maps, last_maps(self.head["stream"], image, self.stages))
        outputs: Tensor = self.head["linear"](self.head["dropout"](features))
        return outputs

    def train(self, mode: bool = True) -> BackboneWithHead:
        """Puts everything into training mode, but for a second stream that stays as it is."""
        super().train(mode)
        self.keep_stream()
        return self

    def keep_stream(self) -> None:
        """Puts a second stream that stays as it is into evaluation mode: its running statistics must not move."""
        if self.stream_is_frozen:
            self.head["stream"].eval()

    def get_classifier(self) -> nn.Module:
        """Returns the last layer, as timm's networks do."""
        return self.head["linear"]


def last_maps(network: Any, image: Tensor, count: int) -> list[Tensor]:
    """Returns the last maps (B, C, s, s) of a timm network, the largest first."""
    maps: list[Tensor] = network.forward_intermediates(image, indices=count, intermediates_only=True)
    return maps


@torch.no_grad()
def _map_shapes(
    network: Any, name: str, count: int, image_shape: tuple[int, int], setting: str
) -> Sequence[tuple[int, int]]:
    """Returns channels and side of a network's last maps.

    Raises:
        ValueError: it has none, fewer, or none that are square.
    """
    channels, side = image_shape
    was_training = network.training
    try:
        if not hasattr(network, "forward_intermediates"):
            raise ValueError("it gives no feature maps")
        maps = last_maps(network.eval(), torch.zeros(1, channels, side, side), count)
        if len(maps) < count or any(m.ndim != 4 or m.shape[2] != m.shape[3] for m in maps):
            raise ValueError(f"its last stages have the shapes {[tuple(m.shape) for m in maps]}")
    except Exception as error:  # timm asserts, and each family has its own words
        raise ValueError(
            f"model.{setting}: found '{name}', of which {count} maps cannot be read ({error}), expected a timm network "
            "whose stages are square maps, or fewer model.head.stages"
        ) from error
    finally:
        network.train(was_training)
    return [(m.shape[1], m.shape[2]) for m in maps]


@torch.inference_mode(False)
@torch.enable_grad()
def _freeze_unused(module: BackboneWithHead, image_shape: tuple[int, int]) -> None:
    """Takes the gradient from weights behind the maps that are read: nothing would teach them, and DDP would wait."""
    was_training = module.training
    channels, side = image_shape
    weights = [p for p in module.parameters() if p.requires_grad]
    total = module.eval()(torch.zeros(2, channels, side, side)).sum()
    gradients = torch.autograd.grad(total, weights, allow_unused=True)
    module.train(was_training)
    for weight, gradient in zip(weights, gradients, strict=True):
        weight.requires_grad_(gradient is not None)


def network_inside(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Returns the weights of the network in a :class:`BackboneWithHead`, by their names there."""
    inside = "network."
    return {name.removeprefix(inside): tensor for name, tensor in weights.items() if name.startswith(inside)}
