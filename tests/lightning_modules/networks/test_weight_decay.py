from __future__ import annotations

from torch import nn

from lightning_modules.networks.weight_decay import decay_groups


def test_kernels_decay_and_biases_norms_and_frozen_weights_do_not() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Linear(2, 2))
    network[2].weight.requires_grad_(False)
    decayed, kept = decay_groups(network.parameters(), 0.1)
    assert decayed == {"params": [network[0].weight], "weight_decay": 0.1}
    assert kept["weight_decay"] == 0.0
    assert [id(p) for p in kept["params"]] == [
        id(p) for p in (network[0].bias, network[1].weight, network[1].bias, network[2].bias)
    ]
