#!/usr/bin/env bash
# diffusers 0.42.1: a LoRA on other layers than attention projections, saved in the way of its own training scripts, loses
# the attention part when it is loaded. convert_state_dict_to_diffusers renames attention projections (….lora.down) and
# leaves all others in peft's names (….lora_A); load_lora_weights looks at the first name alone, and where that is one of
# peft's, all of diffusers' own find no layer. peft says "not necessarily an issue". In files of kohya, alphas of single
# layers are passed over as well: they are looked up under names of before the conversion.
#
# Seen: with proj_in beside to_q, 1 of 3 layers has weights; in peft's names throughout 3 of 3. Of kohya's alphas 8 (to_q)
# and 4 (to_k) at rank 4, both scalings are 1.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  diffusers==0.42.1 torch==2.14.1 peft==0.21.2 transformers==5.24.0 accelerate numpy
cat > "$folder/probe.py" <<'PYTHON'
import sys

import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from diffusers.utils import convert_state_dict_to_diffusers
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file

folder = sys.argv[1]
RECIPE = {
    "block_out_channels": (8,),
    "down_block_types": ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "cross_attention_dim": 8,
    "attention_head_dim": 2,
}


def unet(**lora):
    torch.manual_seed(0)
    made = UNet2DConditionModel(**RECIPE)
    if lora:
        made.add_adapter(LoraConfig(r=4, lora_alpha=4, **lora))
        for name, parameter in made.named_parameters():
            if "lora_B" in name:
                torch.nn.init.ones_(parameter)
    return made


def loaded(file):
    fresh = unet()
    tensors, alphas, metadata = StableDiffusionPipeline.lora_state_dict(file, return_lora_metadata=True)
    StableDiffusionPipeline.load_lora_into_unet(tensors, alphas, fresh, metadata=metadata)
    return {name: module for name, module in fresh.named_modules() if hasattr(module, "lora_A")}


trained = unet(target_modules=["attn1.to_q", "attn2.to_q", "proj_in"])
own = get_peft_model_state_dict(trained)
for name, layers in (("as its scripts do", convert_state_dict_to_diffusers(own)), ("in peft's names", own)):
    StableDiffusionPipeline.save_lora_weights(f"{folder}/{name}", unet_lora_layers=dict(layers))
    found = loaded(f"{folder}/{name}/pytorch_lora_weights.safetensors").values()
    print(name, sum(bool(module.lora_B["default_0"].weight.any()) for module in found), "of", len(own) // 2)

kohya = {}
for name, tensor in get_peft_model_state_dict(unet(target_modules=["attn1.to_q", "attn1.to_k"])).items():
    layer, _, half = name.partition(".lora_")
    stem = "lora_unet_" + layer.replace(".", "_")
    kohya[f"{stem}.lora_{'down' if half[0] == 'A' else 'up'}.weight"] = tensor.contiguous()
    kohya[f"{stem}.alpha"] = torch.tensor(8.0 if layer.endswith("to_q") else 4.0)
save_file(kohya, f"{folder}/kohya.safetensors")
layers = sorted(loaded(f"{folder}/kohya.safetensors").items())
print("kohya", *(f"{name.rpartition('.')[2]} {module.scaling['default_0']:g}" for name, module in layers))
PYTHON
found=$("$folder/venv/bin/python" -W ignore "$folder/probe.py" "$folder" 2>/dev/null)
echo "$found"
[ "$found" = "as its scripts do 1 of 3
in peft's names 3 of 3
kohya to_k 1 to_q 1" ] || { echo "diffusers has changed"; exit 1; }
