"""How exactly DDIM inversion and sampling return a training face, on a trained generator.

    python tests/benchmarks/inversion.py --generator runs/generator-fer2013/checkpoints/last.ckpt

50 steps at CFG 1, in float32. Prints one JSON line: for each pair of inverted steps and fixed-point iterations the
worst PSNR in dB over the faces. Shifted timesteps or a wrong order would show at once.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch

# Started as a file, Python looks for modules beside that file only.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from datamodules.readers import FER2013Reader
from datamodules.rows.grey_or_colour import as_rgb
from lightning_modules.generator import ExpressionGenerator
from synfer.synthesis.diffusion.denoising import denoise
from synfer.synthesis.diffusion.inversion import ddim_invert
from synfer.synthesis.request import SamplingSettings, SynthesisRequest

STEPS = 50
CASES = ((35, 0), (35, 1), (35, 3), (49, 1), (49, 3))
"""(inverted steps, fixed-point iterations per step)."""


@torch.no_grad()
def worst_psnr(
    generator: ExpressionGenerator, pictures: torch.Tensor, names: list[str], case: tuple[int, int]
) -> float:
    """Returns the smallest PSNR in dB between faces in [−1, 1], (n, 3, H, W), and what comes back of them."""
    inverted, iterations = case
    settings = SamplingSettings(num_steps=STEPS, guidance_scale=1.0)
    request = SynthesisRequest.from_expressions(names, range(len(names)), 0, settings)
    state = generator.synthesiser.start(request)
    state.latents = ddim_invert(state, state.encode(pictures), inverted, iterations)
    state.first_step = STEPS - inverted
    error = (state.decode(denoise(state)) - pictures).square().mean((1, 2, 3)) / 4
    return float(-10 * error.max().log10())


def main() -> None:
    """Measures all cases and prints one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--generator", required=True, help="trained generator of grey faces: checkpoint or folder")
    parser.add_argument("--data", default="../shared/data/fer2013", help="FER2013 with FER+ votes")
    parser.add_argument("--faces", type=int, default=8)
    args = parser.parse_args()
    generator = ExpressionGenerator.load_trained(args.generator)
    generator.synthesiser.bf16 = False
    table = FER2013Reader(args.data, "ferplus_majority", {"train": "Training"}, limit=20 * args.faces).read("train")
    pictures = as_rgb(table.images.batch(np.arange(args.faces))).float() / 127.5 - 1
    names = [table.label_space[code] for code in table.label[: args.faces].tolist()]
    cases = {
        f"{inverted} inverted, {iterations} fixed-point iterations": round(
            worst_psnr(generator, pictures, names, (inverted, iterations)), 1
        )
        for inverted, iterations in CASES
    }
    print(json.dumps({"benchmark": "inversion", "worst_psnr_db": cases, "steps": STEPS, "faces": args.faces}))


if __name__ == "__main__":
    main()
