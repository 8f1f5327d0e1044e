"""Sharpness-aware minimisation: steps by the gradient at the worst place near by, around any optimiser."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.optim import Optimizer

from synfer.foundation.validate import check_setting


class SharpnessAware(Optimizer):
    """Takes each step by the gradient at w + ρ·g / ‖g‖ (SAM; Foret et al. 2021, arXiv 2010.01412).

    Each step computes the loss twice, and costs twice as much. Rates, groups and state are those of the optimiser
    inside, so that schedules and checkpoints see one optimiser alone.

    Args:
        optimiser: that takes the step.
        rho: ρ > 0, length of the way to the worst place; 0.05 is usual.

    Attributes:
        is_perturbed: whether the weights are those of the worst place at the moment: a loss of theirs is not the
            training's.

    Raises:
        ValueError: ρ is not above 0.
    """

    def __init__(self, optimiser: Optimizer, rho: float) -> None:
        if not rho > 0:
            raise ValueError(f"model.sam_rho: found {rho}, expected a number > 0, or null")
        super().__init__(optimiser.param_groups, optimiser.defaults)
        self.optimiser, self.rho, self.is_perturbed = optimiser, rho, False
        self._share()

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float:  # type: ignore[override]
        """Takes one step; returns the loss before it.

        Args:
            closure: computes loss and gradients; called twice.

        Raises:
            RuntimeError: there is no closure, as under manual optimisation and with a scaler of gradients.
        """
        if closure is None:
            raise RuntimeError(
                "model.sam_rho: found a step without a closure, expected one that can be computed twice "
                "(trainer.precision 32-true or bf16-mixed, not 16-mixed)"
            )
        closure = torch.enable_grad()(closure)
        loss = closure()
        gradients = [(p, p.grad) for group in self.param_groups for p in group["params"] if p.grad is not None]
        if not gradients:
            self.optimiser.step()
            return loss
        norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g.float()) for _, g in gradients]))
        before = [p.detach().clone() for p, _ in gradients]
        for p, gradient in gradients:
            p.add_(gradient * (self.rho / (norm + 1e-12)).to(gradient.dtype))
        self.is_perturbed = True
        try:
            closure()
        finally:
            for (p, _), value in zip(gradients, before, strict=True):  # a copy: what is added would not go to the bit
                p.copy_(value)
            self.is_perturbed = False
        self.optimiser.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """Returns that of the optimiser inside."""
        return self.optimiser.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Gives it to the optimiser inside."""
        self.optimiser.load_state_dict(state_dict)
        self._share()

    def _share(self) -> None:
        self.param_groups, self.state = self.optimiser.param_groups, self.optimiser.state


def check_accumulation(batches: int) -> None:
    """Refuses gradients of several batches: the worst place would be that of the last of them.

    Args:
        batches: whose gradients are added up for one step.

    Raises:
        ValueError: more than one.
    """
    check_setting(batches == 1, "accumulate_grad_batches", batches, "1 with model.sam_rho", group="trainer")


def is_perturbed(optimiser: Any) -> bool:
    """Whether an optimiser, or what a trainer wraps it in, is at the worst place near the weights at the moment."""
    inner: Any = getattr(optimiser, "optimizer", optimiser)
    return bool(getattr(inner, "is_perturbed", False))
