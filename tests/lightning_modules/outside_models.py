"""Tiny networks of other libraries, in the layouts in which users have them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import timm
import torch
from safetensors.torch import save_file
from transformers import CLIPConfig, CLIPModel

from datamodules.captions import VOCABULARY
from lightning_modules.networks.word_tokenizer import build_word_tokenizer


def save_timm(folder: Path, label_names: Sequence[str], seed: int = 0) -> Path:
    """Writes a timm ViT of random weights as ``save_for_hf`` does."""
    torch.manual_seed(seed)
    args = {"img_size": 16, "patch_size": 8, "embed_dim": 16, "depth": 1, "num_heads": 2}
    network = timm.create_model("vit_tiny_patch16_224", num_classes=len(label_names), **args)
    folder.mkdir(parents=True)
    save_file(network.state_dict(), folder / "model.safetensors")
    pretrained = {"input_size": [3, 16, 16], "mean": [0.5] * 3, "std": [0.5] * 3, "label_names": list(label_names)}
    config = {"architecture": "vit_tiny_patch16_224", "model_args": args, "pretrained_cfg": pretrained}
    (folder / "config.json").write_text(json.dumps(config))
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
