"""Classifiers that differ by little more than their data, as one: the mean of their weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from datamodules.rows.alignment_record import in_words, lie_alike
from lightning_modules.classifier import ExpressionClassifier
from synfer.foundation.validate import check_setting

_SAME = ("backbone", "backbone_kwargs", "stem", "image_size", "in_channels", "mean", "std", "latents_of")


def blend_classifiers(paths: Sequence[str | Path], shares: Sequence[float] | None = None) -> ExpressionClassifier:
    """Returns a classifier whose weights are the weighted mean of others' (model soups, arXiv 2203.05482).

    Of a run on real faces alone and one on a mixture, the mean may be better than either; it is so only where both
    began with the same weights, as with one ``model.backbone_weights`` or one seed. Running statistics of batch norms
    are averaged as well, which is right for runs that lie near each other. The averaged weights of each run are taken,
    where there are any.

    Args:
        paths: at least two checkpoints, run folders or folders of ``save_trained``.
        shares: of each in the mean, > 0; they are divided by their sum. None = each alike.

    Raises:
        FileNotFoundError: nothing there.
        ValueError: fewer than two, shares that do not fit, other classes, another network, or faces aligned otherwise.
    """
    check_setting(len(paths) >= 2, "runs", len(paths), "at least two runs", group="blend")
    wanted = [1.0] * len(paths) if shares is None else list(shares)
    fine = len(wanted) == len(paths) and all(share > 0 for share in wanted)
    check_setting(fine, "shares", wanted, f"{len(paths)} numbers > 0, one for each run", group="blend")
    loaded = [ExpressionClassifier.load_trained(path) for path in paths]
    first = loaded[0]
    for path, other in zip(paths[1:], loaded[1:], strict=True):
        if other.label_space != first.label_space:
            raise ValueError(
                f"blend: found the label space {', '.join(other.label_space)} in '{path}', expected "
                f"{', '.join(first.label_space)} as in '{paths[0]}'"
            )
        kept = first.face_alignment, other.face_alignment
        if None not in kept and not lie_alike(kept[0] or {}, kept[1] or {}):
            raise ValueError(
                f"blend: found training faces {in_words(kept[1] or {})} in '{path}', expected them "
                f"{in_words(kept[0] or {})} as in '{paths[0]}'"
            )
        for name in _SAME:
            if other._config[name] != first._config[name]:
                raise ValueError(
                    f"blend: found model.{name}={other._config[name]} in '{path}', expected {first._config[name]} as "
                    f"in '{paths[0]}'"
                )
    states = [classifier.state_dict() for classifier in loaded]
    parts = [share / sum(wanted) for share in wanted]
    first.load_state_dict({name: _mean([state[name] for state in states], parts) for name in states[0]})
    return first


def _mean(tensors: Sequence[Tensor], parts: Sequence[float]) -> Tensor:
    """Returns the weighted mean, summed in float64; of whole numbers, which count batches, the largest."""
    if not tensors[0].is_floating_point():
        return torch.stack(list(tensors)).amax(0)
    total = torch.zeros_like(tensors[0], dtype=torch.float64)
    for tensor, part in zip(tensors, parts, strict=True):
        total += part * tensor.double()
    return total.to(tensors[0].dtype)
