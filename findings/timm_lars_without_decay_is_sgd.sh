#!/usr/bin/env bash
# timm 1.0.31: the optimiser "lars" scales nothing where weight decay is 0. Its trust ratio, |weights| ÷ |gradient|, is
# taken in groups that decay, so that switching the decay off, as recipes of self-supervised pre-training do for linear
# probes, leaves plain SGD under the name of LARS: with the learning rate of LARS a step is hundreds of times as large.
# A decay of a millionth brings the ratio back, and so does always_adapt=True, which is off by default.
#
# Seen: one step of rate 1 from weights of norm 1.0, gradient of norm 400: moved by 400 with decay 0, by 0.001 with decay
# 1e-6, and by 0.001 with decay 0 and always_adapt.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check timm==1.0.31 torch==2.14.1
cat > "$folder/probe.py" <<'PYTHON'
import torch
from timm.optim import create_optimizer_v2


def moved(decay, **more):
    torch.manual_seed(0)
    layer = torch.nn.Linear(4, 4, bias=False)
    optimiser = create_optimizer_v2(layer, opt="lars", lr=1.0, momentum=0.0, weight_decay=decay, **more)
    before = layer.weight.detach().clone()
    layer.weight.grad = torch.full_like(before, 100.0)
    optimiser.step()
    return float((layer.weight.detach() - before).norm())


print(f"decay 0: {moved(0.0):.3f}")
print(f"decay 1e-6: {moved(1e-6):.3f}")
print(f"decay 0, always_adapt: {moved(0.0, always_adapt=True):.3f}")
PYTHON
found=$("$folder/venv/bin/python" -W ignore "$folder/probe.py" 2>/dev/null)
echo "$found"
[ "$found" = "decay 0: 400.000
decay 1e-6: 0.001
decay 0, always_adapt: 0.001" ] || { echo "timm has changed"; exit 1; }
