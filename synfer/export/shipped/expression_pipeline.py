"""A Stable Diffusion pipeline that gives each image of a batch its own action units.

Needs torch and diffusers alone. diffusers' own pipeline takes one AU row per call: it hands the rows of a batch to
every image of it.
"""

from __future__ import annotations

import inspect
import json
import shutil
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor


class ExpressionPipeline(StableDiffusionPipeline):  # type: ignore[misc]
    """diffusers' ``StableDiffusionPipeline`` with an AU adapter among its parts.

    Args:
        vae: images ↔ latents.
        text_encoder: of the prompts.
        tokenizer: of the prompts.
        unet: gets the adapter.
        scheduler: noise schedule and sampler, taken as it is.
        au_adapter: an ``AUAdapter``.
        safety_checker: of images; None = none.
        feature_extractor: of the safety checker.
        image_encoder: not used; parts of other pipelines may bring one.
        requires_safety_checker: whether the lack of one is warned of.
        null_caption: negative prompt where none is given: the caption of the unconditional training samples.
    """

    def __init__(
        self,
        vae: Any,
        text_encoder: Any,
        tokenizer: Any,
        unet: Any,
        scheduler: Any,
        au_adapter: Any,
        safety_checker: Any = None,
        feature_extractor: Any = None,
        image_encoder: Any = None,
        requires_safety_checker: bool = False,
        null_caption: str = "",
    ) -> None:
        schedule = scheduler.config
        with warnings.catch_warnings():  # of a schedule that is not Stable Diffusion's; the parent would change it
            warnings.filterwarnings("ignore", "The configuration file of this scheduler", FutureWarning)
            super().__init__(
                vae=vae,
                text_encoder=text_encoder,
                tokenizer=tokenizer,
                unet=unet,
                scheduler=scheduler,
                safety_checker=safety_checker,
                feature_extractor=feature_extractor,
                image_encoder=image_encoder,
                requires_safety_checker=requires_safety_checker,
            )
        self.scheduler._internal_dict = schedule
        au_adapter.attach(unet)
        self.register_modules(au_adapter=au_adapter)
        self.register_to_config(null_caption=null_caption)

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | Sequence[str] | None = None,
        action_units: Tensor | Sequence[Mapping[str, float]] | None = None,
        guidance_scale: float = 7.5,
        negative_prompt: str | Sequence[str] | None = None,
        **settings: Any,
    ) -> Any:
        """Makes images.

        Args:
            prompt: one or several.
            action_units: a row for each prompt, or one for all: see ``AUAdapter.embed``; None = not known.
            guidance_scale: of classifier-free guidance, for text and action units together; 1 = off.
            negative_prompt: one for all, or one for each; None = the null caption.
            settings: all else that ``StableDiffusionPipeline`` takes, such as ``num_inference_steps``.

        Raises:
            ValueError: another number of rows than of prompts.
        """
        embeds = settings.get("prompt_embeds")
        count = len(embeds) if embeds is not None else 1 if prompt is None or isinstance(prompt, str) else len(prompt)
        if settings.get("ip_adapter_image_embeds") is None:
            rows = self.au_adapter.embed([{}] if action_units is None else action_units)
            if len(rows) not in (1, count):
                raise ValueError(f"action_units: found {len(rows)} rows for {count} prompts, expected 1 or {count}")
            rows = rows.expand(count, -1, -1)
            if guidance_scale > 1 and self.unet.config.time_cond_proj_dim is None:
                rows = torch.cat([self.au_adapter.embed([{}]).to(rows).expand(count, -1, -1), rows])
            settings["ip_adapter_image_embeds"] = [rows]
        if negative_prompt is None and settings.get("negative_prompt_embeds") is None:
            negative_prompt = self.config.null_caption
        prompt = prompt if prompt is None or isinstance(prompt, str) else list(prompt)
        if negative_prompt is not None and not isinstance(prompt, str):  # the parent wants as many as prompts
            negative_prompt = [negative_prompt] * count if isinstance(negative_prompt, str) else list(negative_prompt)
        return super().__call__(prompt, guidance_scale=guidance_scale, negative_prompt=negative_prompt, **settings)

    def prepare_ip_adapter_image_embeds(
        self,
        ip_adapter_image: Any,
        ip_adapter_image_embeds: list[Tensor] | None,
        device: Any,
        num_images_per_prompt: int,
        do_classifier_free_guidance: bool,
    ) -> list[Tensor]:
        """Returns a row for each image, those of the unconditional half first, instead of all rows for each.

        Args:
            ip_adapter_image: not taken: the input is no picture.
            ip_adapter_image_embeds: one tensor of rows, (n, regions, 2A), twice as many under guidance.
            device: of the UNet.
            num_images_per_prompt: images in the call (so the parent class passes it).
            do_classifier_free_guidance: whether the first half of the rows is the unconditional one.
        """
        if ip_adapter_image_embeds is None:
            raise ValueError("ip_adapter_image: found a picture, expected action_units")
        halves = ip_adapter_image_embeds[0].chunk(2 if do_classifier_free_guidance else 1)
        each = [half.repeat_interleave(num_images_per_prompt // len(half), dim=0) for half in halves]
        return [torch.cat(each).to(device, self.unet.dtype)]

    def save_pretrained(self, save_directory: str | Path, **settings: Any) -> None:
        """Writes the pipeline as diffusers does, and the Python files that it needs to be opened again.

        Args:
            save_directory: made if missing.
            settings: as diffusers takes them.
        """
        self.au_adapter.take_over(self.unet)  # which may have learnt since
        super().save_pretrained(save_directory, **settings)
        folder = Path(save_directory)
        shutil.copyfile(inspect.getfile(type(self)), folder / "expression_pipeline.py")
        shutil.copyfile(inspect.getfile(type(self.au_adapter)), folder / "au_adapter" / "au_adapter.py")
        index = folder / self.config_name
        named = {"_class_name": "StableDiffusionPipeline", "au_adapter": ["au_adapter", "AUAdapter"]}
        index.write_text(json.dumps({**json.loads(index.read_text()), **named}, indent=2) + "\n")
