from __future__ import annotations

import pytest
import torch

from experiments.command_line.device import device_named


def test_what_a_machine_has() -> None:
    assert device_named("cpu") == "cpu"
    assert device_named("auto") == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("name", ["cuda:77", "abacus"])
def test_what_it_has_not(name: str) -> None:
    with pytest.raises(ValueError, match=f"--device: found '{name}', which this machine has not, expected auto or cpu"):
        device_named(name)
