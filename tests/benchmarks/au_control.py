r"""Whether action units steer a generator of drawn faces: F1 of what was asked for, and strength from 0 to 1.

    python tests/benchmarks/au_control.py --generator runs/generator-au/checkpoints/last.ckpt \
        --estimator runs/au-estimator/au_estimator --seeds 1 2 3

The estimator has seen drawn faces alone, never a generated one. Two kinds of request:

* ``with_caption``: the expression's caption and action units drawn from its prototype, as everyone asks by default;
* ``units_alone``: the same action units without a caption, so that only the AU branch can know them.

``f1`` is the mean over the requested action units (:func:`synfer.metrics.action_unit_scores.action_unit_scores`),
``f1_off`` that of the same model, noise and requests with ``au_scale`` 0. ``strength``: faces of a neutral caption with
one action unit set to 0, 0.25, 0.5, 0.75 and 1 under the same noise; Spearman's rank correlation of the strength with
the mean estimated intensity, by action unit. Prints one JSON line; figures are means over the seeds of sampling.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor

# Started as a file, Python looks for modules beside that file only.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from lightning_modules.generator import ExpressionGenerator
from synfer.faces.expressions import LABEL_SPACES
from synfer.metrics.action_unit_scores import action_unit_scores
from synfer.networks.au_estimator import ActionUnitNetwork
from synfer.synthesis.plan import EvenPlan
from synfer.synthesis.request import SamplingSettings, SynthesisRequest

STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
BATCH = 100


def estimated(generator: ExpressionGenerator, estimator: ActionUnitNetwork, request: SynthesisRequest) -> Tensor:
    """Returns the intensities that the estimator sees in the faces of a request, (n, A)."""
    seen = []
    for start in range(0, len(request), BATCH):
        faces = generator.synthesise(request.part(start, start + BATCH))
        seen.append(estimator(faces.images.float() / 255))
    return torch.cat(seen)


def f1_of(seen: Tensor, truth: np.ndarray, request: SynthesisRequest, names: Sequence[str]) -> dict[str, float]:
    """Returns F1 by action unit and their mean."""
    columns = [request.au_names.index(name) for name in names]
    return action_unit_scores(seen, torch.from_numpy(truth[:, columns]), names)


def strengths(
    generator: ExpressionGenerator,
    estimator: ActionUnitNetwork,
    settings: SamplingSettings,
    units: Sequence[str],
    faces: int,
    seed: int,
) -> dict[str, dict[str, Any]]:
    """Returns mean estimated intensity at each strength and its rank correlation, by action unit."""
    found = {}
    for name in units:
        column = estimator.au_names.index(name)
        means = []
        for strength in STRENGTHS:
            request = SynthesisRequest.from_expressions(
                ["neutral"] * faces, range(faces), seed, replace(settings, au_edits={name: strength})
            )
            means.append(float(estimated(generator, estimator, request)[:, column].mean()))
        found[name] = {
            "intensity": [round(m, 3) for m in means],
            "rho": round(float(spearmanr(STRENGTHS, means)[0]), 3),
        }
    return found


def main(argv: list[str] | None = None) -> int:
    """Prints one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--generator", required=True, help="checkpoint or folder of save_trained")
    parser.add_argument("--estimator", required=True, help="folder that a fit of ActionUnitEstimator leaves")
    parser.add_argument("--faces", type=int, default=350, help="faces of each kind of request")
    parser.add_argument("--strength-faces", type=int, default=20, help="faces at each strength")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="of the sampling")
    parser.add_argument("--guidance-scale", type=float, default=None, help="in place of the generator's own")
    arguments = parser.parse_args(argv)
    generator = ExpressionGenerator.load_trained(arguments.generator)
    estimator = ActionUnitNetwork.load(arguments.estimator)
    settings = generator.sampling
    if arguments.guidance_scale is not None:
        settings = replace(settings, guidance_scale=arguments.guidance_scale)
    results: dict[str, Any] = {"with_caption": [], "units_alone": []}
    expressions = list(LABEL_SPACES["basic7"])
    for seed in arguments.seeds:
        asked = EvenPlan(arguments.faces, expressions, seed, settings).request(range(arguments.faces))
        for kind, request in (
            ("with_caption", asked),
            ("units_alone", replace(asked, captions=(settings.negative_prompt,) * len(asked))),
        ):
            on = f1_of(estimated(generator, estimator, request), asked.action_units, asked, estimator.au_names)
            off = f1_of(
                estimated(generator, estimator, replace(request, settings=replace(settings, au_scale=0.0))),
                asked.action_units,
                asked,
                estimator.au_names,
            )
            results[kind].append({"seed": seed, "f1": on, "f1_off": off})
            print(kind, seed, round(on["mean"], 3), round(off["mean"], 3), file=sys.stderr)
    units = sorted({name for runs in results.values() for run in runs for name in run["f1"] if name != "mean"})
    curves = {
        seed: strengths(generator, estimator, settings, units, arguments.strength_faces, seed)
        for seed in (arguments.seeds if arguments.strength_faces else [])
    }
    means = {
        kind: {key: round(float(np.mean([run[key]["mean"] for run in runs])), 4) for key in ("f1", "f1_off")}
        for kind, runs in results.items()
    }
    print(json.dumps({"means": means, "runs": results, "strength": curves, "settings": str(settings)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
