"""Networks of other people that make faces larger, in a folder of transformers' layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from synfer.foundation.checkpoint_file import check_finite
from synfer.foundation.file_reading import FileError, plain_reason
from synfer.foundation.fingerprint import fingerprint
from synfer.foundation.json_file import read_json
from synfer.networks.quiet_loading import quiet_loading

_AT_ONCE = 8
"""Faces in a pass, always: one that comes alone has empty pictures beside it, so that it is the same in any batch."""


class SuperResolution:
    """Makes faces larger with a super-resolution network, such as Swin2SR (Conde et al. 2022, arXiv 2209.11345).

    In float32, whatever the number format of the file, and a face is the same to the bit in any batch.

    Args:
        folder: in transformers' layout: config.json and model.safetensors of an image-to-image model.
        device: where it works.
        setting: that named it, for errors.

    Attributes:
        scale: how many times as large a side becomes.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: no image-to-image model there, weights missing or not finite, or one that does not enlarge.
    """

    def __init__(self, folder: Path, device: torch.device | str = "cpu", setting: str = "--model") -> None:
        if not folder.is_dir():
            raise FileNotFoundError(
                f"{setting}: found no folder '{folder}', expected a super-resolution model in transformers' layout "
                "(config.json and model.safetensors, of Swin2SR for example)"
            )
        self._network = _read(folder, setting).to(device).requires_grad_(False)
        self._device = torch.device(device)
        self._window = int(getattr(self._network.config, "window_size", 1))
        side = self._enlarge(torch.zeros(1, 3, 16, 16)).shape[-1]
        self.scale = side // 16
        if self.scale < 2:
            raise FileError(
                f"{setting} '{folder}': found a model that makes 16 pixels {side}, expected one that enlarges"
            )

    def fingerprint(self) -> str:
        """Returns 16 hex digits over its weights."""
        return fingerprint(self._network.state_dict().items())

    def enlarge(self, images: Tensor, image_size: int | None = None) -> Tensor:
        """Returns faces uint8 (B, 3, S, S) on the CPU.

        Args:
            images: uint8 (B, 3, s, s).
            image_size: S; None = ``scale`` · s. Another size than that is resized to, antialiased.
        """
        made = []
        for part in images.split(_AT_ONCE):
            large = self._enlarge(part.float() / 255)
            if image_size is not None and large.shape[-1] != image_size:
                large = F.interpolate(large, (image_size, image_size), mode="bicubic", antialias=True)
            made.append((large.clamp(0, 1) * 255).round().to(torch.uint8))  # a quarter of the memory of a whole shard
        return torch.cat(made)

    @torch.inference_mode()
    def _enlarge(self, faces: Tensor) -> Tensor:
        rows, side = len(faces), faces.shape[-1]
        more = -side % self._window  # transformers' Swin2SR cannot take other sides than multiples of its windows
        whole = torch.cat([faces, faces.new_zeros(_AT_ONCE - rows, *faces.shape[1:])])
        whole = F.pad(whole, (0, more, 0, more), mode="replicate")
        made: Tensor = self._network(pixel_values=whole.to(self._device)).reconstruction
        large = side * made.shape[-1] // (side + more)
        return made[:rows, :, :large, :large].float().cpu()


def _read(folder: Path, setting: str) -> Any:
    from transformers import AutoModelForImageToImage

    expected = "a super-resolution model in transformers' layout, such as Swin2SR"
    if not (folder / "config.json").is_file():
        raise FileError(f"{setting} '{folder}': found no config.json, expected {expected}")
    read_json(folder / "config.json", setting, expected)
    try:
        with quiet_loading():
            loaded: Any = AutoModelForImageToImage.from_pretrained(
                folder, use_safetensors=True, local_files_only=True, output_loading_info=True
            )
    except Exception as error:  # transformers and safetensors each raise their own types here
        raise FileError(f"{setting} '{folder}': {plain_reason(error)}, expected {expected}") from error
    missing = sorted(loaded[1].get("missing_keys") or ())
    if missing:
        raise FileError(f"{setting} '{folder}': found no weights '{missing[0]}', expected all of its config")
    check_finite(loaded[0].state_dict(), setting, folder)
    return loaded[0].float().eval()
