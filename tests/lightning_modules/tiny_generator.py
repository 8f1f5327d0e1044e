"""The smallest real generator, diffusers folder and classifier: random weights, 16-pixel faces, made in no time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from lightning import LightningModule, Trainer
from transformers import CLIPTextConfig, CLIPTextModel

from datamodules.captions import VOCABULARY
from lightning_modules.classifier import ExpressionClassifier
from lightning_modules.generator import ExpressionGenerator
from lightning_modules.networks.word_tokenizer import build_word_tokenizer
from lightning_modules.sampling.denoising import DenoisingState
from lightning_modules.sampling.request import SamplingSettings, SynthesisRequest

SIDE = 16
NAMES = ("neutral", "happy", "sad")
TINY_UNET: dict[str, Any] = {
    "block_out_channels": [16, 16],
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
    "layers_per_block": 1,
    "attention_head_dim": 2,
    "norm_num_groups": 4,
    "cross_attention_dim": 16,
}
TINY_TEXT: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}
TINY_AUTOENCODER: dict[str, Any] = {
    "block_out_channels": [8, 8],
    "down_block_types": ["DownEncoderBlock2D", "DownEncoderBlock2D"],
    "up_block_types": ["UpDecoderBlock2D", "UpDecoderBlock2D"],
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "latent_channels": 4,
    "sample_size": SIDE,
}
SD_SCHEDULE: dict[str, Any] = {  # Stable Diffusion 1.5's own
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "prediction_type": "epsilon",
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "clip_sample": False,
}


def tiny_generator(**changes: Any) -> ExpressionGenerator:
    """Returns a generator in float32 of about 120,000 random weights, the same at each call."""
    torch.manual_seed(0)
    settings: dict[str, Any] = {
        "label_space": list(NAMES),
        "image_size": SIDE,
        "unet": TINY_UNET,
        "text_encoder": TINY_TEXT,
        "codec_config": {"patch": 4, "channels": 3},
        "learning_rate": 1e-3,
        "ema_decay": None,
        "bf16_sampling": False,
        "sampling": SamplingSettings(num_steps=4, guidance_scale=2.0),
        "grid_samples": 0,
    }
    if changes.get("base") is not None:
        settings = {k: v for k, v in settings.items() if k not in ("unet", "text_encoder", "codec_config")}
    return ExpressionGenerator(**{**settings, **changes})


def livelier(generator: ExpressionGenerator, gain: float = 8.0) -> ExpressionGenerator:
    """Scales the text's way into the UNet up: random weights alone hardly hear the text."""
    with torch.no_grad():
        for name, parameter in generator.model.unet.named_parameters():
            if "attn2.to_v.weight" in name or "attn2.to_out.0.weight" in name:
                parameter.mul_(gain)
    return generator


def tiny_classifier(label_space: Sequence[str] = NAMES, seed: int = 0, **changes: Any) -> ExpressionClassifier:
    """Returns a classifier of random weights in evaluation mode, without batch statistics."""
    torch.manual_seed(seed)
    settings: dict[str, Any] = {
        "label_space": list(label_space),
        "backbone": "vit_tiny_patch16_224",
        "backbone_kwargs": {"img_size": SIDE, "patch_size": 4, "embed_dim": 16, "depth": 1, "num_heads": 2},
        "image_size": SIDE,
        "ema_decay": None,
        "flip_tta": False,
    }
    return ExpressionClassifier(**{**settings, **changes}).eval()


def save_checkpoint(module: LightningModule, path: Path) -> Path:
    """Writes a Lightning checkpoint of a module as it is."""
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_model_summary=False)
    trainer.strategy.connect(module)
    trainer.save_checkpoint(path)
    return path


def save_trained_on(module: LightningModule, path: Path, rows: Sequence[int] | np.ndarray) -> Path:
    """Writes a checkpoint as of a training on rows with these content hashes (int64), read by a FER2013Reader."""
    checkpoint = torch.load(save_checkpoint(module, path), weights_only=True)
    source = {"reader": "FER2013Reader", "labels": "original"}
    checkpoint["ExpressionDataModule"] = {"trained_on": torch.tensor(rows, dtype=torch.int64), "source": source}
    torch.save(checkpoint, path)
    return path


def save_base(folder: Path, **scheduler: Any) -> Path:
    """Writes a random Stable-Diffusion-shaped model in diffusers' folder layout."""
    torch.manual_seed(1)
    tokenizer = build_word_tokenizer(VOCABULARY, 16)
    tokenizer.save_pretrained(folder / "tokenizer")
    autoencoder = AutoencoderKL(**TINY_AUTOENCODER)
    autoencoder.save_pretrained(folder / "vae")
    unet = UNet2DConditionModel(sample_size=SIDE // 2, in_channels=4, out_channels=4, **TINY_UNET)
    unet.save_pretrained(folder / "unet")
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=16,
        bos_token_id=2,
        eos_token_id=3,
        pad_token_id=0,
        **TINY_TEXT,
    )
    CLIPTextModel(config).save_pretrained(folder / "text_encoder")
    DDIMScheduler(**{**SD_SCHEDULE, **scheduler}).save_pretrained(folder / "scheduler")
    return folder


def request_for(
    expressions: Sequence[str] = NAMES, first_id: int = 0, seed: int = 0, **settings: Any
) -> SynthesisRequest:
    """Returns a request of the named faces with ids from ``first_id`` on."""
    chosen = SamplingSettings(**{"num_steps": 4, "guidance_scale": 2.0, **settings})
    return SynthesisRequest.from_expressions(
        expressions, range(first_id, first_id + len(expressions)), seed, settings=chosen
    )


def state_for(generator: ExpressionGenerator, request: SynthesisRequest) -> DenoisingState:
    """Returns the state in which denoising of a request begins."""
    generator.eval()
    with torch.no_grad():
        return generator._start(request, request.settings or generator.sampling)
