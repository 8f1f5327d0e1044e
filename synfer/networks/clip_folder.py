"""CLIP models in a folder of transformers' layout: pictures and sentences as rows of one space."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from synfer.foundation.checkpoint_file import check_finite
from synfer.foundation.file_reading import plain_reason
from synfer.foundation.json_file import read_json
from synfer.networks.on_faces import OnFaces
from synfer.networks.quiet_loading import quiet_loading

_MEAN, _STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class ClipFolder:
    """What a folder holds.

    Attributes:
        model: ``transformers.CLIPModel`` in float32, in evaluation mode.
        tokenizer: of its texts.
        mean: per channel, of images in [0, 1].
        std: likewise.
    """

    model: Any
    tokenizer: Any
    mean: Sequence[float]
    std: Sequence[float]

    @property
    def image_size(self) -> int:
        """Side in pixels that the model works on."""
        return int(self.model.config.vision_config.image_size)

    def tokens(self, captions: Sequence[str]) -> Any:
        """Returns what the text model takes of captions: ids and mask, padded to the longest, cut to what it can."""
        length = self.model.config.text_config.max_position_embeddings
        return self.tokenizer(list(captions), padding=True, truncation=True, max_length=length, return_tensors="pt")


def read_clip(folder: Path, who: str) -> ClipFolder:
    """Reads a CLIP model and its tokenizer, of safetensors alone.

    Args:
        folder: in transformers' layout.
        who: asks for it, for errors: "CLIP voter".

    Raises:
        ValueError: no CLIP model there, or weights missing or not finite.
    """
    from transformers import AutoTokenizer, CLIPModel

    preprocessor = folder / "preprocessor_config.json"
    found = read_json(preprocessor, who, "sizes and colours") if preprocessor.is_file() else {}
    try:
        with quiet_loading():
            loaded: Any = CLIPModel.from_pretrained(folder, use_safetensors=True, output_loading_info=True)
        clip: Any = loaded[0].float().eval()  # transformers keeps the number format in which it is stored
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except Exception as error:  # transformers, tokenizers and safetensors each raise their own types here
        raise ValueError(f"{who} '{folder}': {plain_reason(error)}, expected a CLIP model") from error
    missing = sorted(loaded[1].get("missing_keys") or ())
    if missing:
        raise ValueError(f"{who} '{folder}': found no weights '{missing[0]}', expected all of its config")
    check_finite(clip.state_dict(), who, folder)
    return ClipFolder(clip, tokenizer, found.get("image_mean") or _MEAN, found.get("image_std") or _STD)


def is_clip(folder: Path) -> bool:
    """Whether a folder is one of a CLIP model, as far as its config says."""
    config = folder / "config.json"
    return config.is_file() and read_json(config, "config").get("model_type") == "clip"


class ClipFaces(OnFaces):
    """Both halves of a CLIP model (Radford et al., ICML 2021), frozen.

    Args:
        folder: in transformers' layout, with its tokenizer.
        who: asks for it, for errors.

    Attributes:
        scale: what cosines are multiplied by.
        width: D, of both kinds of rows.

    Raises:
        ValueError: no CLIP model there.
    """

    def __init__(self, folder: Path, who: str = "CLIP model") -> None:
        found = read_clip(folder, who)
        super().__init__(found.mean, found.std, "bicubic")
        self._folder = found
        self.image_size = found.image_size
        self.model = found.model
        self.scale = float(found.model.logit_scale.detach().exp())
        self.width = int(found.model.config.projection_dim)
        self.requires_grad_(False)

    def forward(self, image: Tensor) -> Tensor:
        """Returns unit rows float32 (B, D) of images (B, 3, H, W) in [0, 1]."""
        seen = self.model.vision_model(pixel_values=self.prepare(image)).pooler_output
        return F.normalize(self.model.visual_projection(seen).float(), dim=1)

    @torch.no_grad()
    def text(self, captions: Sequence[str]) -> Tensor:
        """Returns unit rows float32 (n, D) of captions, on the model's device."""
        tokens = self._folder.tokens(captions).to(self.mean.device)
        read = self.model.text_model(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask).pooler_output
        return F.normalize(self.model.text_projection(read).float(), dim=1)
