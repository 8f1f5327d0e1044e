"""Muon: momentum of matrices and kernels with all its singular values made one, AdamW for everything else."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer

_COEFFICIENTS = (
    (4.0848, -6.8946, 2.9270),
    (3.9505, -6.3029, 2.6377),
    (3.7418, -5.5913, 2.3037),
    (2.8769, -3.1427, 1.2046),
    (2.8366, -3.0525, 1.2012),
)
"""a, b, c of X ← (a + b·XXᵀ + c·(XXᵀ)²) X, step by step (Cesista et al. 2025, leloykun.github.io, muon-opt-coeffs):
singular values from a five-hundredth of the norm on end between 0.85 and 1.15."""

_LONG = 1.25
"""From this ratio of its sides on, a matrix is orthogonalised by way of the products of its shorter side."""

_SMALLEST, _LONGEST = 4, 128
"""Rows of fewer numbers, and sides further apart, have no directions worth making equal."""


class Muon(Optimizer):
    """Steps of matrices and kernels along orthogonal matrices (Jordan et al. 2024, kellerjordan.github.io/posts/muon).

    A kernel (O, I, h, w) counts as the matrix (O, I·h·w). Its Nesterov momentum, orthogonalised, is scaled by
    0.2·√(the longer side), which makes steps as large as AdamW's (Liu et al. 2025, arXiv 2502.16982), so that its rates
    will do. Vectors, matrices of fewer than four rows or columns, and groups with ``use_fallback`` go with AdamW,
    Nesterov's way too (Dozat 2016).

    The state is as timm's Muon has it, whose checkpoints it goes on from. On a CPU everything is computed in float32:
    in bfloat16, as timm has it, a step of 15 million weights took 4.6 s on one AVX-512 core, and takes 0.8 s so.

    Args:
        parameters: as every optimiser takes them: tensors, or groups.
        lr: peak rate.
        momentum: of matrices and kernels, in [0, 1); 0.95 is usual.
        betas: of AdamW.
        weight_decay: decoupled; of each group that does not name its own.
        eps: smallest norm of a matrix that counts, and ε of AdamW.
    """

    def __init__(
        self,
        parameters: Iterable[Parameter] | Iterable[dict[str, Any]],
        lr: float,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.95),
        weight_decay: float = 0.0,
        eps: float = 1e-7,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "betas": betas, "weight_decay": weight_decay, "eps": eps}
        super().__init__(parameters, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Takes one step.

        Args:
            closure: computes loss and gradients, if they are not there yet.

        Returns:
            The closure's loss.
        """
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            rest = []
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                if not group.get("use_fallback", False) and is_matrix(parameter):
                    self._step_matrix(parameter, parameter.grad, group)
                else:
                    rest.append(parameter)
            if rest:
                self._step_rest(rest, group)
        return loss

    def _step_matrix(self, parameter: Parameter, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        mean = state["momentum_buffer"].lerp_(gradient, 1 - group["momentum"])
        ahead = gradient.lerp(mean, group["momentum"]).flatten(1)
        update = orthogonalised(ahead, group["eps"]).to(parameter.dtype).view(parameter.shape)
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.add_(update, alpha=-group["lr"] * 0.2 * math.sqrt(max(ahead.shape)))

    def _step_rest(self, parameters: list[Parameter], group: dict[str, Any]) -> None:
        from timm.optim.nadamw import nadamw  # timm takes seconds to import

        for parameter in parameters:
            state = self.state[parameter]
            if "step" not in state:
                state["step"] = torch.tensor(0.0)
                state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        states = [self.state[parameter] for parameter in parameters]
        nadamw(
            parameters,  # type: ignore[arg-type]
            [parameter.grad for parameter in parameters],  # type: ignore[misc]
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [state["step"] for state in states],
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            caution=False,
            maximize=False,
            max_lr=None,
        )


def is_matrix(parameter: Tensor) -> bool:
    """Whether a parameter has directions that can be made equal: a matrix or kernel, not too small or too thin.

    Position embeddings (1, L, D) and kernels of one channel each (depth-wise ones, or of grey pictures) are none.
    """
    if parameter.ndim < 2 or 1 in parameter.shape[:2]:
        return False
    short, long = sorted((parameter.shape[0], math.prod(parameter.shape[1:])))
    return short >= _SMALLEST and long <= _LONGEST * short


def orthogonalised(matrix: Tensor, eps: float = 1e-7) -> Tensor:
    """Returns about U·Vᵀ of a matrix U·S·Vᵀ, by five Newton-Schulz steps.

    Every step multiplies by a polynomial of XXᵀ, and all of these commute: of a long matrix that product is made once,
    the steps are taken on it alone, and X is multiplied once by what they come to. That squares the singular values,
    for which float32 has digits enough and bfloat16 has not: on an accelerator, which multiplies bfloat16 many times as
    fast, each step is taken on X itself.

    Args:
        matrix: float (m, n).
        eps: smallest Frobenius norm that counts; the result of a smaller one is small.

    Returns:
        float32 (m, n) on a CPU, else bfloat16.
    """
    on_cpu = matrix.device.type == "cpu"
    x = matrix.float() if on_cpu else matrix.bfloat16()
    upright = x.shape[0] > x.shape[1]
    x = x.mT if upright else x
    x = x / x.norm().clamp(min=eps)
    x = _by_products(x) if on_cpu and x.shape[1] > _LONG * x.shape[0] else _by_steps(x)
    return x.mT.contiguous() if upright else x


def _by_steps(x: Tensor) -> Tensor:
    for a, b, c in _COEFFICIENTS:
        product = x @ x.mT
        x = torch.addmm(x, torch.addmm(product, product, product, beta=b, alpha=c), x, beta=a)
    return x


def _by_products(x: Tensor) -> Tensor:
    product, whole = x @ x.mT, None
    for a, b, c in _COEFFICIENTS:
        factor = torch.addmm(product, product, product, beta=b, alpha=c)
        factor.diagonal().add_(a)
        whole = factor if whole is None else factor @ whole
        product = factor @ (factor @ product)  # of what X has become
    return x if whole is None else whole @ x
