"""Encoder, decoder and discriminator of a VAE-GAN of small square faces (Larsen et al., arXiv 1512.09300)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from synfer.foundation.validate import check_setting

_NORM_GROUPS = 1  # over all features of a face: on a CPU a sixteenth of the time of eight groups (channels last, bf16)
_WIDTH_UNIT = 8
_LOG_VARIANCE = (-10.0, 4.0)
"""Range of the log-variance: wider, one face of a bad step could blow up the whole decoder."""


@dataclass(frozen=True)
class VAEGANSettings:
    """How large the three networks are, and whether they are told the expression.

    Attributes:
        widths: channels after each halving of the side, shared by the three networks; the image size must be a
            multiple of 2 to the power of their number.
        discriminator_widths: those of the discriminator, as many; None = the same.
        latent_size: numbers in the code of a face, at least 1.
        channels: 1 for grey faces, 3 for colour.
        class_conditional: tell decoder and discriminator the expression; false as in arXiv 2411.17254.
        channels_last: memory layout of the convolutions; faster on a CPU and on newer GPUs.

    Raises:
        ValueError: a value out of range.
    """

    widths: tuple[int, ...] = (32, 64, 128)
    discriminator_widths: tuple[int, ...] | None = None
    latent_size: int = 128
    channels: int = 1
    class_conditional: bool = True
    channels_last: bool = True

    def __post_init__(self) -> None:
        for name in ("widths", "discriminator_widths"):
            found = getattr(self, name)
            if found is not None:
                fine = len(found) >= 2 and all(width > 0 and width % _WIDTH_UNIT == 0 for width in found)
                expected = f"at least two positive multiples of {_WIDTH_UNIT}"
                check_setting(fine, f"network.{name}", list(found), expected)
        if self.discriminator_widths is not None:
            fine = len(self.discriminator_widths) == len(self.widths)
            expected = f"{len(self.widths)} widths, as many as model.network.widths"
            check_setting(fine, "network.discriminator_widths", list(self.discriminator_widths), expected)
        check_setting(self.latent_size > 0, "network.latent_size", self.latent_size, "a number above 0")
        check_setting(self.channels in (1, 3), "network.channels", self.channels, "1 (grey) or 3 (RGB)")


class VAEGAN(nn.Module):
    """The three networks, and how pictures become what they take.

    Args:
        settings: sizes.
        image_size: side of the faces in pixels, a multiple of ``2 ** len(settings.widths)``.
        num_classes: expressions that decoder and discriminator are told of; not used where the settings are not
            class-conditional.

    Attributes:
        num_classes: 0 where decoder and discriminator are not told the expression.

    Raises:
        ValueError: an image size that cannot be halved so often.
    """

    def __init__(self, settings: VAEGANSettings, image_size: int, num_classes: int) -> None:
        super().__init__()
        unit = 2 ** len(settings.widths)
        check_setting(
            image_size > 0 and image_size % unit == 0,
            "image_size",
            image_size,
            f"a multiple of {unit} with {len(settings.widths)} model.network.widths",
        )
        self.latent_size = settings.latent_size
        self.channels = settings.channels
        self.image_size = image_size
        self.num_classes = num_classes if settings.class_conditional else 0
        size, widths = (settings.channels, image_size), settings.widths
        self.encoder = FaceEncoder(*size, widths, settings.latent_size)
        self.decoder = FaceDecoder(*size, widths, settings.latent_size, self.num_classes)
        self.discriminator = FaceDiscriminator(*size, settings.discriminator_widths or widths, self.num_classes)
        if settings.channels_last:
            self.to(memory_format=torch.channels_last)

    def faces(self, image: Tensor) -> Tensor:
        """Returns what the networks take of pictures: (B, 3, H, W) in [0, 1] → (B, C, H, W) in [−1, 1].

        Grey is the mean of the three colours.
        """
        return (image.mean(1, keepdim=True) if self.channels == 1 else image) * 2 - 1

    def images(self, face: Tensor) -> Tensor:
        """Returns pictures of what the decoder gave: (B, C, H, W), about [−1, 1] → (B, 3, H, W) in [0, 1]."""
        return (face.float().clamp(-1, 1) / 2 + 0.5).expand(-1, 3, -1, -1)


class FaceEncoder(nn.Module):
    """Convolutions of stride 2, residual blocks between them, and one linear layer to the code's distribution.

    Args:
        channels: of the faces.
        image_size: their side in pixels.
        widths: channels after each halving.
        latent_size: numbers in a code.
    """

    def __init__(self, channels: int, image_size: int, widths: Sequence[int], latent_size: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [_halving(channels, widths[0]), nn.SiLU()]
        for narrow, wide in pairwise(widths):
            layers += [_halving(narrow, wide), _ResidualBlock(wide)]
        self.body = nn.Sequential(*layers, nn.GroupNorm(_NORM_GROUPS, widths[-1]), nn.SiLU(), nn.Flatten())
        self.output = nn.Linear(_numbers(image_size, widths), 2 * latent_size)

    def forward(self, face: Tensor) -> tuple[Tensor, Tensor]:
        """Returns mean and log-variance of the codes of faces.

        Args:
            face: (B, C, H, W) in [−1, 1].

        Returns:
            Two float32 tensors (B, Z); the log-variance lies in [−10, 4].
        """
        mean, log_variance = self.output(self.body(face)).float().chunk(2, 1)
        return mean, log_variance.clamp(*_LOG_VARIANCE)


class FaceDecoder(nn.Module):
    """A linear layer, residual blocks, and sub-pixel convolutions (Shi et al., arXiv 1609.05158) up to the face.

    An expression scales and shifts the features after each norm (Dumoulin et al., arXiv 1610.07629).

    Args:
        channels: of the faces.
        image_size: their side in pixels.
        widths: channels after each halving, as of the encoder.
        latent_size: numbers in a code.
        num_classes: expressions that it is told of; 0 = none.
    """

    def __init__(
        self, channels: int, image_size: int, widths: Sequence[int], latent_size: int, num_classes: int
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        downwards = list(widths[::-1])
        side = image_size // 2 ** len(widths)
        self.input = nn.Linear(latent_size, _numbers(image_size, widths))
        self.unflatten = nn.Unflatten(1, (widths[-1], side, side))
        self.blocks = nn.ModuleList([_ResidualBlock(width, num_classes) for width in downwards])
        self.doublings = nn.ModuleList(
            [nn.Conv2d(wide, 4 * narrow, 3, padding=1) for wide, narrow in pairwise(downwards)]
        )
        self.norm = _ClassNorm(widths[0], num_classes)
        self.output = nn.Conv2d(widths[0], 4 * channels, 3, padding=1)

    def forward(self, code: Tensor, label: Tensor | None = None) -> Tensor:
        """Returns the faces of codes.

        Args:
            code: (B, Z).
            label: which expression each shows, int64 (B,); passed over by a decoder that is not told.

        Returns:
            (B, C, H, W), about [−1, 1].

        Raises:
            ValueError: no label, and the decoder is told.
        """
        label = _told(label, self.num_classes, "decoder")
        x = self.unflatten(self.input(code))
        for place, block in enumerate(self.blocks):
            x = block(x, label)
            if place < len(self.doublings):
                x = F.pixel_shuffle(self.doublings[place](x), 2)
        return F.pixel_shuffle(self.output(F.silu(self.norm(x, label))), 2)


class FaceDiscriminator(nn.Module):
    """Convolutions without norm and one number at the end, with the expression's projection.

    The logit of a face x with features φ(x) under the label y is w·φ(x) + e_y·mean φ(x) (Miyato and Koyama, arXiv
    1802.05637). Without norms a face's logit depends on no other face, and a gradient penalty is one of single faces.

    Args:
        channels: of the faces.
        image_size: their side in pixels.
        widths: channels after each halving.
        num_classes: expressions that it is told of; 0 = none.
    """

    def __init__(self, channels: int, image_size: int, widths: Sequence[int], num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        inputs = [channels, *widths]
        self.halvings = nn.ModuleList([_halving(a, b) for a, b in pairwise(inputs)])
        self.last = nn.Conv2d(widths[-1], widths[-1], 3, padding=1)
        self.output = nn.Linear(_numbers(image_size, widths), 1)
        self.projection = nn.Embedding(num_classes, widths[-1]) if num_classes else None

    def forward(self, face: Tensor, label: Tensor | None = None) -> tuple[Tensor, list[Tensor]]:
        """Returns how real faces look, and what was seen on the way.

        Args:
            face: (B, C, H, W), about [−1, 1].
            label: which expression each shows, int64 (B,); passed over by a discriminator that is not told.

        Returns:
            Logits, float32 (B,), and the feature maps after each halving but the first.

        Raises:
            ValueError: no label, and the discriminator is told.
        """
        label = _told(label, self.num_classes, "discriminator")
        x, maps = face, []
        for halving in self.halvings:
            x = F.leaky_relu(halving(x), 0.2)
            maps.append(x)
        x = F.leaky_relu(self.last(x), 0.2)
        logit = self.output(x.flatten(1))[:, 0].float()
        if self.projection is not None:
            logit = logit + (self.projection(label) * x.mean((2, 3))).sum(1).float()
        return logit, maps[1:]


class _ClassNorm(nn.Module):
    """Group norm whose result each class scales and shifts in its own way; equal for all classes at the start."""

    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(_NORM_GROUPS, width)
        self.change = nn.Embedding(num_classes, 2 * width) if num_classes else None
        if self.change is not None:
            nn.init.zeros_(self.change.weight)

    def forward(self, x: Tensor, label: Tensor | None) -> Tensor:
        x = self.norm(x)
        if self.change is None:
            return x
        scale, shift = self.change(label).to(x.dtype)[:, :, None, None].chunk(2, 1)
        return torch.addcmul(shift, x, 1 + scale)


class _ResidualBlock(nn.Module):
    """Norm, SiLU, convolution, twice, added to the input; the identity at the start."""

    def __init__(self, width: int, num_classes: int = 0) -> None:
        super().__init__()
        self.norms = nn.ModuleList([_ClassNorm(width, num_classes) for _ in range(2)])
        self.convolutions = nn.ModuleList([nn.Conv2d(width, width, 3, padding=1) for _ in range(2)])
        nn.init.zeros_(self.convolutions[1].weight)  # type: ignore[arg-type]

    def forward(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        change = x
        for norm, convolution in zip(self.norms, self.convolutions, strict=True):
            change = convolution(F.silu(norm(change, label)))
        return x + change


def _halving(narrow: int, wide: int) -> nn.Conv2d:
    """Returns a convolution that halves the side; 4×4, so that each pixel counts in equally many windows."""
    return nn.Conv2d(narrow, wide, 4, stride=2, padding=1)


def _numbers(image_size: int, widths: Sequence[int]) -> int:
    """Returns how many numbers the last feature map of a face has."""
    return widths[-1] * (image_size // 2 ** len(widths)) ** 2


def _told(label: Tensor | None, num_classes: int, network: str) -> Tensor | None:
    """Returns the label where it counts, None where it does not."""
    if num_classes and label is None:
        raise ValueError(f"{network} of a VAE-GAN: found no label, expected one of {num_classes} for each face")
    return label if num_classes else None
