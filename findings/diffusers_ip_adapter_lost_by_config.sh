#!/usr/bin/env bash
# diffusers 0.42.1: an IP-Adapter that is loaded into a UNet is forgotten by the next register_to_config, whatever that
# changes. Loading notes encoder_hid_dim_type="ip_image_proj" as an attribute of the config and not as its entry; the
# config that register_to_config makes anew knows entries alone. From then on the image is not looked at, and the last
# text tokens are taken for those of the image: nothing is raised, a FutureWarning speaks of tuples.
#
# Seen: attribute "ip_image_proj", entry None. Before register_to_config(sample_size=16) another image changes the output
# by more than 0.1, after it by 0, and the output of the same input is another one.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  diffusers==0.42.1 torch==2.14.1 transformers==5.24.0 accelerate numpy
cat > "$folder/probe.py" <<'PYTHON'
import torch
from diffusers import UNet2DConditionModel

torch.manual_seed(0)
unet = UNet2DConditionModel(
    sample_size=8,
    block_out_channels=(8,),
    down_block_types=("CrossAttnDownBlock2D",),
    up_block_types=("CrossAttnUpBlock2D",),
    layers_per_block=1,
    norm_num_groups=4,
    cross_attention_dim=8,
    attention_head_dim=2,
).eval()
adapter = {"image_proj": {}, "ip_adapter": {}}
for name, size in {"proj.weight": (32, 6), "proj.bias": (32,), "norm.weight": (8,), "norm.bias": (8,)}.items():
    adapter["image_proj"][name] = torch.randn(size)
for i in range(sum("attn2" in name for name in unet.attn_processors)):
    for part in ("to_k_ip", "to_v_ip"):
        adapter["ip_adapter"][f"{2 * i + 1}.{part}.weight"] = torch.randn(8, 8)
unet._load_ip_adapter_weights([adapter])  # what StableDiffusionPipeline.load_ip_adapter calls
noisy, text, image = torch.randn(1, 4, 8, 8), torch.randn(1, 6, 8), torch.randn(1, 1, 6)


def output(image):
    with torch.no_grad():
        return unet(noisy, 10, text, added_cond_kwargs={"image_embeds": [image]}).sample


print("attribute", unet.config.encoder_hid_dim_type, "entry", unet.config["encoder_hid_dim_type"])
before, change = output(image), float((output(image) - output(-image)).abs().max())
unet.register_to_config(sample_size=16)
after, change_after = output(image), float((output(image) - output(-image)).abs().max())
print("another image changes the output by", change, "and then by", change_after)
print("the same input, before and after:", float((before - after).abs().max()))
lost = unet.config.encoder_hid_dim_type is None and change_after == 0 and not torch.allclose(before, after)
if not (change > 0.1 and lost):
    raise SystemExit("diffusers has changed")
PYTHON
"$folder/venv/bin/python" "$folder/probe.py"
