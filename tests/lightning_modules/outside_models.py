"""Tiny networks of other libraries, in the layouts in which users have them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import timm
import torch
from timm.models import save_for_hf
from transformers import CLIPConfig, CLIPModel

from datamodules.captions import VOCABULARY
from lightning_modules.networks.word_tokenizer import build_word_tokenizer


def save_timm(
    folder: Path,
    label_names: Sequence[str] | Mapping[int, str],
    seed: int = 0,
    channels: int = 3,
    num_classes: int | None = None,
) -> Path:
    """Writes a timm ViT of random weights with timm's own ``save_for_hf``."""
    torch.manual_seed(seed)
    args = {"img_size": 16, "patch_size": 8, "embed_dim": 16, "depth": 1, "num_heads": 2, "in_chans": channels}
    network = timm.create_model("vit_tiny_patch16_224", num_classes=num_classes or len(label_names), **args)
    names = dict(label_names) if isinstance(label_names, Mapping) else list(label_names)
    save_for_hf(network, str(folder), model_config={"label_names": names}, model_args=args, safe_serialization=True)
    return folder


def save_clip(folder: Path) -> Path:
    """Writes a CLIP model of random weights with the small generator's word tokenizer."""
    torch.manual_seed(0)
    tokenizer = build_word_tokenizer(VOCABULARY, 16)
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {**small, "vocab_size": len(tokenizer), "max_position_embeddings": 16}
    text |= {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
    vision = {**small, "image_size": 16, "patch_size": 8}
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
