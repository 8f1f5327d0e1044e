"""How often a diffusion model's training sees each noise level."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from synfer.foundation.validate import check_setting

TimestepKind = Literal["uniform", "logit_normal", "log_normal"]

_PUBLISHED = {"logit_normal": (0.0, 1.0), "log_normal": (-0.5, 1.2)}


@dataclass(frozen=True)
class TimestepDraw:
    """Which timesteps of the noise schedule the samples of a batch are trained at.

    "uniform": each as often. "logit_normal" (Esser et al. 2024, arXiv 2403.03206, section 3.1): t ÷ T = 1/(1 + e⁻ˣ), x
    being normal: the middle more often. "log_normal" (Karras et al. 2022, arXiv 2206.00364, table 1): ln σ is normal,
    σ = s/a being the noise ÷ the signal, and the timestep is the one with the nearest σ. With the time of flow
    matching, whose σ is t/(1 − t), these two are one: its logit-normal draw is "log_normal" here.

    The last two hardly ever look at pure noise, where sampling begins: ``uniform_share`` of the samples does.

    Attributes:
        kind: one of the three.
        mean: of x or ln σ; null = 0 of x, −0.5 of ln σ (Karras' −1.2 is for data of deviation 0.5, latents have about
            1); a higher one: more noise.
        std: its deviation, above 0; null = 1 of x, 1.2 of ln σ.
        uniform_share: share of the samples, in [0, 1], drawn uniformly beside the others.
        stratified: the n samples of a batch are spread evenly over the distribution, from one random beginning (Kingma
            et al. 2021, arXiv 2107.00630): each sample's timestep is distributed as before, and the loss of a batch
            varies less.

    Raises:
        ValueError: a value out of range, or a mean, deviation or share of "uniform", which has none.
    """

    kind: TimestepKind = "uniform"
    mean: float | None = None
    std: float | None = None
    uniform_share: float = 0.1
    stratified: bool = False

    def __post_init__(self) -> None:
        known = get_args(TimestepKind)
        check_setting(self.kind in known, "timesteps.kind", self.kind, f"one of {', '.join(known)}")
        for name, value in (("mean", self.mean), ("std", self.std)):
            fine = value is None or self.kind != "uniform"
            check_setting(fine, f"timesteps.{name}", value, "null with model.timesteps.kind 'uniform'")
        check_setting(self.std is None or self.std > 0, "timesteps.std", self.std, "a number above 0 or null")
        check_setting(0 <= self.uniform_share <= 1, "timesteps.uniform_share", self.uniform_share, "a share in [0, 1]")

    def draw(self, n: int, alphas_cumprod: Tensor, generator: torch.Generator) -> Tensor:
        """Returns timesteps of n samples, int64 (n,) in [0, T), on the generator's device.

        Args:
            n: samples.
            alphas_cumprod: ᾱ of the T timesteps, falling, (T,).
            generator: whose numbers decide.
        """
        total, device = len(alphas_cumprod), generator.device
        if self.kind == "uniform" and not self.stratified:
            return torch.randint(total, (n,), generator=generator, device=device)
        share = torch.rand(1 if self.stratified else n, generator=generator, device=device)
        if self.stratified:
            share = (share + torch.arange(n, device=device) / n) % 1
        plain = 1.0 if self.kind == "uniform" else self.uniform_share
        even = (share / max(plain, 1e-6) * total).long()
        if plain == 1:
            return even.clamp_max(total - 1)
        odd = self._at((share - plain) / (1 - plain), alphas_cumprod.to(device, torch.float32))
        return torch.where(share < plain, even, odd).clamp(0, total - 1)

    def _at(self, quantile: Tensor, alphas_cumprod: Tensor) -> Tensor:
        """Returns the timesteps at these quantiles of the distribution, int64."""
        mean, std = _PUBLISHED[self.kind]
        mean, std = self.mean if self.mean is not None else mean, self.std if self.std is not None else std
        normal = math.sqrt(2) * torch.erfinv((2 * quantile - 1).clamp(-1 + 1e-6, 1 - 1e-6))
        x = mean + std * normal
        if self.kind == "logit_normal":
            return (torch.sigmoid(x) * len(alphas_cumprod)).long()
        levels = 0.5 * (torch.log1p(-alphas_cumprod) - torch.log(alphas_cumprod))  # ln σ, ∞ at pure noise
        return torch.bucketize(x, (levels[1:] + levels[:-1]) / 2)
