"""What a loss for rare classes asks of the data: the real rows of each class, and how often its label is drawn."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor

from datamodules.loading.class_sampling import label_shares
from synfer.labels.class_weights import CLASS_WEIGHTS
from synfer.labels.long_tail_losses import ClassLosses, LossSettings


def real_class_counts(data: Any, asked_by: str) -> np.ndarray:
    """Returns the real training rows in use per class, (K,), however often each is drawn.

    Args:
        data: the data module, set up for "fit".
        asked_by: the setting that needs them, for errors: "model.class_weights 'balanced'".

    Raises:
        ValueError: there is no training table.
    """
    table = getattr(data, "train_table", None)
    if table is None:
        raise ValueError(f"{asked_by} needs a data module with a train_table, found none")
    counts = table.class_counts()
    without = [name for name, count in counts.items() if not count]
    if without:
        rank_zero_info(f"{asked_by}: no training row of {', '.join(without)}")
    return np.array(list(counts.values()))


def label_prior(data: Any, settings: LossSettings, synthetic_weight: float) -> np.ndarray:
    """Returns the share of each class among the labels that are trained on, float64 (K,) or (2, K), sums 1.

    "drawn": (1 − r) · (labels of the real rows, as the sampler draws them) + r · (labels of the synthetic set), with
    the ratio r of synthetic samples weighted by what one counts in the loss. "per_source": both apart, real ones first.
    "real": the labels of the real rows alone, each drawn once.

    Args:
        data: an :class:`datamodules.expression_data_module.ExpressionDataModule`, set up for "fit".
        settings: of the loss.
        synthetic_weight: weight of a synthetic sample in the loss, a real one having 1.

    Raises:
        ValueError: the shares that are drawn are not known.
    """
    train, synthetic = getattr(data, "train_table", None), getattr(data, "synthetic_table", None)
    if train is None or not hasattr(data, "drawn_label_shares"):
        raise ValueError(
            f"model.loss.kind '{settings.kind}' needs the labels of a data module's training rows, found none"
        )
    drawn = data.drawn_label_shares()
    as_they_are = label_shares(train, train.count_per_class() / len(train))
    ratio = data.synthetic_ratio * synthetic_weight
    ratio = ratio / (1 - data.synthetic_ratio + ratio) if ratio else 0.0
    if settings.prior == "real":
        if ratio or not np.allclose(drawn, as_they_are):
            rank_zero_warn(
                "model.loss.prior=real beside a sampler of the classes or synthetic faces: what is trained on has "
                "other shares of the classes, and is adjusted by those of the real rows all the same"
            )
        prior = as_they_are
    elif ratio == 0:
        prior = drawn
    elif synthetic is not None:
        made = synthetic.soft_label.mean(0, dtype=np.float64)
        apart = settings.prior == "per_source"
        prior = np.stack([drawn, made]) if apart else (1 - ratio) * drawn + ratio * made
    else:
        raise ValueError(
            f"model.loss.prior={settings.prior}: found synthetic faces made during the run, of which nobody knows "
            "beforehand how many are of each class, expected data.synthetic_reader, or model.loss.prior=real where "
            "they have the shares of the real ones"
        )
    prior = prior / prior.sum(-1, keepdims=True)
    named = [
        ", ".join(f"{name} {share:.4f}" for name, share in zip(train.label_space, row, strict=True))
        for row in np.atleast_2d(prior)
    ]
    rank_zero_info(f"model.loss.prior={settings.prior}: " + "; of synthetic samples ".join(named))
    return np.asarray(prior)


def adapt_to_classes(losses: ClassLosses, data: Any, synthetic_weight: float) -> None:
    """Tells a loss what it needs to know of the classes.

    Args:
        losses: the loss.
        data: the data module, set up for "fit".
        synthetic_weight: weight of a synthetic sample in the loss, a real one having 1.

    Raises:
        ValueError: the data do not say it.
    """
    if losses.needs == "counts":
        counts = real_class_counts(data, f"model.loss.kind '{losses.settings.kind}'")
        losses.adapt(torch.from_numpy(counts))
    elif losses.needs == "prior":
        losses.adapt(torch.from_numpy(label_prior(data, losses.settings, synthetic_weight)))


def named_weights(name: str, data: Any, beta: float) -> Tensor:
    """Returns the class weights of a name of :data:`synfer.labels.class_weights.CLASS_WEIGHTS`, (K,).

    Says so where rare classes would count twice, their rows being drawn more often and weighing more.

    Args:
        name: "balanced" or "effective_number".
        data: the data module, set up for "fit".
        beta: β of "effective_number".

    Raises:
        ValueError: the data do not say how many rows the classes have.
    """
    asked_by = f"model.class_weights '{name}'"
    counts = real_class_counts(data, asked_by)
    sampling = getattr(getattr(data, "class_sampling", None), "kind", "none")
    if getattr(data, "class_balance", 0) > 0 or sampling != "none":
        rank_zero_warn(
            f"{asked_by} beside data.class_balance={data.class_balance}, data.class_sampling.kind={sampling}: rare "
            "classes are drawn more often and weigh more as well; one of the two is the remedy of the papers"
        )
    return torch.from_numpy(CLASS_WEIGHTS[name](counts, beta))
