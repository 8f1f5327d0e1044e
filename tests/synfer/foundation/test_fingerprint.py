from __future__ import annotations

import torch

from synfer.foundation.fingerprint import fingerprint


def test_names_values_and_prefix_count_and_order_does_not() -> None:
    weights = {"b": torch.ones(2), "a": torch.zeros(3, 2)}
    plain = fingerprint(weights.items())
    assert len(plain) == 16 and plain == fingerprint(reversed(list(weights.items())))
    assert plain == fingerprint({name: tensor.double() for name, tensor in weights.items()}.items())
    others = [
        fingerprint({**weights, "b": torch.tensor([1.0, 1.0001])}.items()),
        fingerprint({"c": weights["b"], "a": weights["a"]}.items()),
        fingerprint(weights.items(), "other settings"),
    ]
    assert len({plain, *others}) == 4
