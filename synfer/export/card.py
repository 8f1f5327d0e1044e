"""The card (README.md) of an export: what it is, what it was made from, and Python that samples from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from synfer.export.exporter import ExportSettings, TrainedGenerator
from synfer.export.generator_base import has_au_adapter, has_lora, hub_id
from synfer.faces.action_units import FACS_PROTOTYPES, REGIONS
from synfer.faces.captions import caption_for
from synfer.foundation.atomic_file import atomic_write

_CARD = """\
---
{base_model}
library_name: diffusers
pipeline_tag: text-to-image
tags:
{tags}
# license: yours to choose, within the licences of the base and of the faces
---

# {title}

{about}

Faces of {size} × {size} pixels; weights in {number_format}.

Expressions: {expressions}.

## Use it

In this folder, or with its path in place of `"."`:

```python
{code}
```
{more}
## Training

{training}Fingerprint of the trained weights: `{fingerprint}`.
"""

_LORA = """\
from diffusers import DDIMScheduler, StableDiffusionPipeline

folder = "."
pipe = StableDiffusionPipeline.from_pretrained({base!r}, safety_checker=None, requires_safety_checker=False)
pipe.scheduler = DDIMScheduler.from_pretrained(folder, subfolder="scheduler")  # the trained noise schedule
pipe.load_lora_weights(folder, weight_name="pytorch_lora_weights.safetensors")
"""

_BY_TEXT = """\
prompts = {prompts!r}
images = pipe(
    prompts,
    negative_prompt=[{negative!r}] * len(prompts),
    height={size},
    width={size},
    num_inference_steps={steps},
    guidance_scale={guidance},
).images"""

_ADAPTER = """\
import sys

from diffusers import DDIMScheduler

folder = "."
sys.path.insert(0, folder)
from au_adapter import AUAdapter
from expression_pipeline import ExpressionPipeline

pipe = ExpressionPipeline.from_pretrained(
    {base!r},
    au_adapter=AUAdapter.from_pretrained(folder),
    scheduler=DDIMScheduler.from_pretrained(folder, subfolder="scheduler"),  # the trained noise schedule
    safety_checker=None,
    null_caption={null_caption!r},
)
{and_lora}"""

_PIPELINE = """\
{import_torch}from diffusers import DiffusionPipeline

folder = "."
pipe = DiffusionPipeline.from_pretrained(
    folder, custom_pipeline="expression_pipeline", trust_remote_code=True  # runs the two Python files in it
)
{half}"""

_STOCK_PIPELINE = """\
{import_torch}from diffusers import StableDiffusionPipeline

folder = "."
pipe = StableDiffusionPipeline.from_pretrained(folder)
{half}"""

_BY_UNITS = """\
prompts = {prompts!r}
action_units = {units!r}  # of each image
images = pipe(
    prompts,
    action_units,
    negative_prompt={negative!r},
    height={size},
    width={size},
    num_inference_steps={steps},
    guidance_scale={guidance},
).images"""

_STOCK = """
`action_units` may also be a tensor of intensities, (prompts, {count}), NaN where one is not known.

diffusers' own pipeline takes the adapter by `pipe.load_ip_adapter(folder, subfolder="{subfolder}",
weight_name="diffusion_pytorch_model.safetensors", image_encoder_folder=None)`, with one row of action units per call:
of several it hands all to each image. Its `ip_adapter_image_embeds` is `[rows]`, of the shape (2, {regions}, {width}):
the unconditional input (zeros), then the wanted one.

## Action units

In this order: {names}.

The input of an image is one row for each of {region_names}: the intensities in [0, 1] of all {count} action units, 0
outside of that region (`region_masks` in `config.json`), then {count} flags, 1 where the intensity is known. An action
unit that is not known has the value 0 and the flag 0. Strength of the branch: {scale}.
"""


def write_card(folder: Path, module: TrainedGenerator, what: str, settings: ExportSettings) -> None:
    """Writes the card of an export.

    Args:
        folder: of the export.
        module: the generator.
        what: "lora", "au_adapter" or "pipeline".
        settings: what it was exported with.
    """
    facts = _facts(module, settings)
    by_units = what != "lora" and has_au_adapter(module.synthesiser.model.unet)
    made = {"lora": _LORA, "au_adapter": _ADAPTER, "pipeline": _PIPELINE if by_units else _STOCK_PIPELINE}[what]
    code = made + (_BY_UNITS if by_units else _BY_TEXT)
    text = _CARD.format(
        **facts,
        title=_TITLES[what],
        about=_about(module, what),
        base_model=_base_model(module, what),
        tags="\n".join(f"- {tag}" for tag in _tags(module, what)),
        code=code.format(**facts),
        more=_STOCK.format(**facts, subfolder="au_adapter" if what == "pipeline" else "") if by_units else "",
    )
    with atomic_write(folder / "README.md") as partial:
        partial.write_text(text, encoding="utf-8")


def _facts(module: TrainedGenerator, settings: ExportSettings) -> dict[str, Any]:
    synthesiser = module.synthesiser
    wanted = [name for name in synthesiser.label_space if FACS_PROTOTYPES[name].core][:2]
    number_format = settings.dtype
    command = settings.training_command
    with_lora = has_lora(synthesiser.model.unet)
    return {
        "base": module.hparams["base"],
        "prompts": [caption_for(name) for name in wanted],
        "units": [dict.fromkeys(FACS_PROTOTYPES[name].core, 0.8) for name in wanted],
        "negative": synthesiser.sampling.negative_prompt or synthesiser.null_caption,
        "null_caption": synthesiser.null_caption,
        "size": synthesiser.image_size,
        "steps": synthesiser.sampling.num_steps,
        "guidance": synthesiser.sampling.guidance_scale,
        "expressions": ", ".join(synthesiser.label_space),
        "number_format": number_format,
        # diffusers reads a UNet in float32, transformers a text encoder as it is stored.
        "half": "" if number_format == "float32" else f"pipe.to(torch.{number_format})\n",
        "import_torch": "" if number_format == "float32" else "import torch\n",
        "scale": synthesiser.sampling.au_scale,
        "and_lora": '# pipe.load_lora_weights("…")  # the LoRA that was trained with it\n' if with_lora else "",
        "count": len(synthesiser.au_names),
        "width": 2 * len(synthesiser.au_names),
        "names": ", ".join(synthesiser.au_names),
        "regions": len(REGIONS),
        "region_names": ", ".join(REGIONS),
        "training": f"```bash\n{command}\n```\n\n" if command else "",
        "fingerprint": module.weights_fingerprint(),
    }


_TITLES = {
    "lora": "LoRA for faces with expressions",
    "au_adapter": "Adapter of action units for faces with expressions",
    "pipeline": "Faces with expressions",
}


def _about(module: TrainedGenerator, what: str) -> str:
    base, unet = module.hparams["base"], module.synthesiser.model.unet
    made = "a small latent diffusion model of synfer" if base is None else f"`{base}`"
    beside = " {} was trained with it and is another export: without it the faces are other ones."
    if what == "lora":
        also = beside.format("The AU adapter") if has_au_adapter(unet) else ""
        return f"LoRA on layers of the UNet of {made}.{also}"
    if what == "au_adapter":
        also = beside.format("LoRA") if has_lora(unet) else ""
        return f"Decoupled cross-attention over action units, in IP-Adapter's layout, for {made}.{also}"
    added = ", LoRA added to the weights" if has_lora(unet) else ""
    return f"All of a diffusion model made from {made}{added}; no safety checker."


def _base_model(module: TrainedGenerator, what: str) -> str:
    base = hub_id(module.hparams["base"])
    if base is None:
        return "# base_model: the Hub id of what it was fine-tuned from"
    return f"base_model: {base}" + ("\nbase_model_relation: adapter" if what != "pipeline" else "")


def _tags(module: TrainedGenerator, what: str) -> list[str]:
    own = {"lora": ["lora"], "au_adapter": ["ip-adapter"], "pipeline": []}[what]
    if what != "lora" and has_au_adapter(module.synthesiser.model.unet):
        own.append("action-units")
    return ["stable-diffusion", "text-to-image", "facial-expression", *own, "synfer"]
