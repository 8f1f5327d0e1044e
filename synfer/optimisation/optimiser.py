"""SGD, AdamW, Muon or LARS by name, with weight decay on matrices and kernels alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, get_args

from torch.nn import Parameter
from torch.optim import SGD, AdamW, Optimizer

from synfer.optimisation.muon import Muon

OptimiserName = Literal["sgd", "adamw", "muon", "lars"]


def build_optimiser(
    parameters: Iterable[Parameter],
    name: OptimiserName,
    learning_rate: float,
    weight_decay: float,
    momentum: float = 0.9,
) -> Optimizer:
    """Returns an optimiser over the parameters that have gradients.

    Args:
        parameters: of the network.
        name: "sgd" (Nesterov where there is momentum); "adamw"; "lars" (You et al., arXiv 1708.03888):
            steps of matrices and kernels in proportion to their weights, for batches of thousands, and plain SGD of
            biases and norms; or "muon" (:class:`synfer.optimisation.muon.Muon`): steps of matrices and kernels are made
            orthogonal and as large as AdamW's; biases and norms go with AdamW.
        learning_rate: peak rate.
        weight_decay: on matrices and kernels, not on biases and norms.
        momentum: of SGD, LARS and Muon (0.95 is usual there), in [0, 1).

    Raises:
        ValueError: another name.
    """
    groups = decay_groups(parameters, weight_decay)
    if name == "sgd":
        return SGD(groups, learning_rate, momentum, nesterov=momentum > 0)
    if name == "adamw":
        return AdamW(groups, learning_rate)
    if name == "muon":
        return Muon(groups, learning_rate, momentum)
    if name == "lars":
        from timm.optim import Lars  # timm takes seconds to import

        groups[0]["always_adapt"] = True  # timm's own way would be plain SGD where nothing decays
        return Lars(groups, learning_rate, momentum=momentum)
    raise ValueError(f"optimizer: found '{name}', expected one of {', '.join(get_args(OptimiserName))}")


def optimiser_of(parameters: Iterable[Parameter], settings: Mapping[str, Any]) -> Optimizer:
    """Returns the optimiser that a module's settings name.

    Args:
        parameters: of what it trains.
        settings: ``optimizer``, ``learning_rate``, ``weight_decay`` and, where the module has one, ``momentum``, as
            :func:`build_optimiser` takes them.

    Raises:
        ValueError: an unknown optimiser.
    """
    chosen = {name: settings[name] for name in ("learning_rate", "weight_decay", "momentum") if name in settings}
    return build_optimiser(parameters, settings["optimizer"], **chosen)


def decay_groups(parameters: Iterable[Parameter], weight_decay: float) -> list[dict[str, Any]]:
    """Returns two parameter groups of an optimiser: what decays, and biases and norms, which do not.

    Args:
        parameters: those without gradient are left out.
        weight_decay: of the first group.
    """
    trained = [p for p in parameters if p.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
