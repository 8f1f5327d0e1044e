#!/usr/bin/env bash
# diffusers 0.42.1: a scheduler that was saved and loaded is no longer the same to schedulers of other classes. One made
# by from_config remembers which values its class has filled in, and another class made from its config takes its own
# defaults there. save_pretrained writes the filled-in values and not that memory, so after from_pretrained the other
# class takes them over: DPM-Solver on the schedule of Stable Diffusion 1.5 steps through other timesteps.
#
# Seen: 5 steps of DPM-Solver from a PNDM config by way of DDIM are 999 799 599 400 200 ("linspace"), by way of DDIM saved
# and loaded 831 665 499 333 167 ("leading"); DDIM's own are the same both times.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check diffusers==0.42.1 torch==2.14.1 numpy
cat > "$folder/probe.py" <<'PYTHON'
import sys

from diffusers import DDIMScheduler, DPMSolverMultistepScheduler

STORED = {"_class_name": "PNDMScheduler", "beta_schedule": "scaled_linear", "steps_offset": 1, "skip_prk_steps": True}
made = DDIMScheduler.from_config(STORED)
made.save_pretrained(sys.argv[1])
for name, scheduler in (("made", made), ("loaded", DDIMScheduler.from_pretrained(sys.argv[1]))):
    for steps in (scheduler, DPMSolverMultistepScheduler.from_config(scheduler.config)):
        steps.set_timesteps(5)
        print(name, type(steps).__name__, *steps.timesteps.tolist())
PYTHON
found=$("$folder/venv/bin/python" -W ignore "$folder/probe.py" "$folder/schedule" 2>/dev/null)
echo "$found"
[ "$found" = "made DDIMScheduler 801 601 401 201 1
made DPMSolverMultistepScheduler 999 799 599 400 200
loaded DDIMScheduler 801 601 401 201 1
loaded DPMSolverMultistepScheduler 831 665 499 333 167" ] || { echo "diffusers has changed"; exit 1; }
