"""What 8 and 64 GPUs would do, on paper: FLOPs and bytes counted, images/s estimated; no GPU, no weights.

    python tests/benchmarks/scaling_model.py

Counted on tensors without numbers (torch's ``FakeTensorMode``): FLOPs of the published Stable Diffusion 1.5 for one
face (UNet with classifier-free guidance, decoder), of a ResNet-50 for one face of 224 pixels, forward and backward, and
the bytes of its gradients. Estimated from these, with the assumptions named by the options:

- **synthesis**: ranks make batches of their own and never wait for each other, but for the last, uneven round.
- **mixed training**: a step takes the classifier's FLOPs, the faces that fall due in it, and the all-reduce of the
  gradients, one after the other. All ranks wait for the slowest in every step. Where no face is discarded the ranks'
  pools fall due in the same step. Where a vote discards some, they make a batch each once one is due in the mean of all
  (``callbacks/synthesis/faces_due.py``): that is drawn, rank by rank, from the keep rate. Beside it stands what it was
  when each rank made faces by itself, and a step took as long as if all made them whenever one of them did.

Prints a table and one JSON line.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import timm
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

# Started as a file, Python looks for modules beside that file only.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.benchmarks.stable_diffusion_cost import _ATTENTION
from tests.fixtures.published_shapes import SD15_TEXT, SD15_UNET, SD_VAE

GPUS = (1, 8, 64)
SIMULATED_STEPS = 4000


def flops_of(what: str) -> tuple[int, int]:
    """Returns the FLOPs for one image, and the number of weights.

    Args:
        what: "unet" (one pass at 512 pixels), "decoder" or "classifier" (forward and backward).
    """
    with FakeTensorMode(), FlopCounterMode(display=False, custom_mapping=_ATTENTION) as counter:
        if what == "classifier":
            network = timm.create_model("resnet50", num_classes=7)
            network(torch.zeros(1, 3, 224, 224)).sum().backward()
        else:
            with torch.no_grad():
                latents = torch.zeros(1, 4, 64, 64)
                if what == "unet":
                    network = UNet2DConditionModel(**SD15_UNET)
                    text = torch.zeros(1, SD15_TEXT["max_position_embeddings"], SD15_UNET["cross_attention_dim"])
                    network(latents, torch.zeros(1, dtype=torch.int64), encoder_hidden_states=text)
                else:
                    network = AutoencoderKL(**SD_VAE)
                    network.decode(latents)
        return int(counter.get_total_flops()), sum(p.numel() for p in network.parameters())


def steps_with_faces(
    gpus: int, due: float, batch: int, keep: float, draw: np.random.Generator, together: bool = True
) -> float:
    """Returns in what share of the steps at least one rank makes a batch of faces, times how many of them in a row.

    Args:
        gpus: ranks.
        due: faces that fall due on a rank in a step.
        batch: faces that a rank makes at a time.
        keep: share of them that the vote keeps, each by itself.
        draw: random numbers.
        together: all ranks make faces once they are due in the mean; False = each when its own are.
    """
    kept, waited = np.full(gpus, float(batch)), 0
    for step in range(1, SIMULATED_STEPS + 1):
        rounds = np.zeros(gpus)
        while (late := np.full(gpus, step * due >= kept.mean()) if together else step * due >= kept).any():
            kept[late] += draw.binomial(batch, keep, int(late.sum()))
            rounds[late] += 1
        waited += int(rounds.max())
    return waited / SIMULATED_STEPS


def main() -> None:
    """Counts, estimates and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peak", type=float, default=989e12, help="dense bfloat16 FLOP/s of a GPU (H100)")
    parser.add_argument("--utilisation", type=float, default=0.35, help="share of the peak that is reached")
    parser.add_argument("--near", type=float, default=450e9, help="bytes/s to GPUs of the same node")
    parser.add_argument("--far", type=float, default=50e9, help="bytes/s to GPUs of other nodes, each GPU")
    parser.add_argument("--latency", type=float, default=20e-6, help="seconds of one message of a collective")
    parser.add_argument("--denoising_steps", type=int, default=25)
    parser.add_argument("--faces", type=int, default=100_000, help="of the set")
    parser.add_argument("--generation_batch", type=int, default=16, help="faces made at a time on a rank")
    parser.add_argument("--batch", type=int, default=64, help="of training, on a rank")
    parser.add_argument("--ratio", type=float, default=0.5)
    parser.add_argument("--max_reuse", type=float, default=24.0)
    options = parser.parse_args()
    speed = options.peak * options.utilisation
    unet, _ = flops_of("unet")
    decoder, _ = flops_of("decoder")
    classifier, weights = flops_of("classifier")
    face = options.denoising_steps * 2 * unet + decoder
    face_s, learn_s = face / speed, options.batch * classifier / speed
    due = options.ratio * options.batch / options.max_reuse
    counted = {"unet_flops": unet, "decoder_flops": decoder, "face_flops": face, "classifier_flops": classifier}
    found = {}
    columns = ["set, images/s", "÷ ideal", "mixed, images/s", "÷ ideal"]
    columns += ["with a vote that keeps 90 %, ÷ ideal", "… each rank by itself"]
    print(f"| GPUs | {' | '.join(columns)} |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    alone = options.batch / (learn_s + due * face_s)
    for gpus in GPUS:
        rounds = -(-options.faces // (gpus * options.generation_batch))
        made = options.faces / (rounds * options.generation_batch * face_s)
        link = options.near if gpus <= 8 else options.far
        reduce_s = (2 * (gpus - 1) / gpus * 4 * weights / link + 2 * (gpus - 1) * options.latency) if gpus > 1 else 0.0
        rates = []
        for keep, together in ((1.0, True), (0.9, True), (0.9, False)):
            draw = np.random.default_rng(1)
            batches = steps_with_faces(gpus, due, options.generation_batch, keep, draw, together)
            rates.append(gpus * options.batch / (learn_s + batches * options.generation_batch * face_s + reduce_s))
        voted_alone = found[GPUS[0]]["voted"] if found else rates[1]
        found[gpus] = {
            **{"set": made, "mixed": rates[0], "voted": rates[1], "voted_by_itself": rates[2]},
            "all_reduce_s": reduce_s,
        }
        shares = (made * face_s / gpus, rates[0] / gpus / alone, *(rate / gpus / voted_alone for rate in rates[1:]))
        print(
            f"| {gpus} | {made:.1f} | {shares[0]:.3f} | {rates[0]:.0f} | "
            + " | ".join(f"{s:.3f}" for s in shares[1:])
            + " |"
        )
    times = {"face_s": face_s, "learn_s": learn_s, "faces_due_per_step": due, "gradient_bytes": 4 * weights}
    print(json.dumps({**counted, **times, "gpus": found}))


if __name__ == "__main__":
    main()
