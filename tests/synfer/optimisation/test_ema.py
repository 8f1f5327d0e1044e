from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from synfer.optimisation.ema import ParameterEMA


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.BatchNorm2d(4, affine=False))


def test_average_follows_the_closed_form_and_warms_up() -> None:
    module = nn.Linear(1, 1, bias=False)
    ema = ParameterEMA(module, decay=0.9)
    expected = None
    for n, value in enumerate((1.0, 5.0, -2.0, 4.0)):
        nn.init.constant_(module.weight, value)
        ema.update()
        decay = min(0.9, (1 + n) / (10 + n))
        expected = value if expected is None else decay * expected + (1 - decay) * value
    assert ema.average["weight"].item() == pytest.approx(expected)
    assert ema.num_updates == 4


def test_long_training_reaches_the_given_decay() -> None:
    module = nn.Linear(1, 1, bias=False)
    ema = ParameterEMA(module, decay=0.5)
    nn.init.constant_(module.weight, 0.0)
    for _ in range(20):
        ema.update()
    nn.init.constant_(module.weight, 1.0)
    ema.update()
    assert ema.average["weight"].item() == pytest.approx(0.5)


def test_batch_norm_statistics_are_averaged_and_frozen_parts_are_not() -> None:
    module = nn.ModuleDict({"trained": network(), "frozen": network().requires_grad_(False)})
    ema = ParameterEMA(module, decay=0.9)
    ema.update()
    assert "trained.1.running_mean" in ema.average
    assert "trained.2.running_var" in ema.average  # belongs to a trained part though it has no weights of its own
    assert not any(name.startswith("frozen") for name in ema.average)
    assert not any("num_batches_tracked" in name for name in ema.average)


def test_swapped_shows_the_average_and_gives_everything_back() -> None:
    module = network()
    ema = ParameterEMA(module, decay=0.9)
    ema.update()
    before = {name: t.clone() for name, t in module.state_dict().items()}
    with torch.no_grad():
        for p in module.parameters():
            p.add_(1.0)
    module(torch.randn(8, 3, 6, 6))
    now = {name: t.clone() for name, t in module.state_dict().items()}
    with ema.swapped():
        assert ema.is_swapped
        for name in ema.average:
            torch.testing.assert_close(module.state_dict()[name], before[name])
        with pytest.raises(RuntimeError, match="restore"):
            ema.update()
    assert not ema.is_swapped
    for name, tensor in module.state_dict().items():
        torch.testing.assert_close(tensor, now[name], rtol=0, atol=0)


def test_swapped_gives_the_weights_back_after_an_error() -> None:
    module = network()
    ema = ParameterEMA(module)
    ema.update()
    nn.init.zeros_(module[0].weight)
    with pytest.raises(KeyError), ema.swapped():
        raise KeyError
    assert int(module[0].weight.count_nonzero()) == 0


def test_training_goes_on_after_a_swap_under_inference_mode() -> None:
    module = network()
    ema = ParameterEMA(module)
    ema.update()
    with torch.inference_mode(), ema.swapped():
        module.eval()(torch.randn(2, 3, 6, 6))
    module.train()(torch.randn(2, 3, 6, 6)).sum().backward()
    ema.update()
    assert not any(t.is_inference() for t in module.state_dict().values())


def test_no_average_before_the_first_update() -> None:
    module = network()
    ema = ParameterEMA(module)
    nn.init.constant_(module[0].weight, 3.0)  # weights loaded after the average was made
    with ema.swapped():
        assert float(module[0].weight.detach().mean()) == 3.0
    ema.update()
    assert float(ema.average["0.weight"].mean()) == 3.0


def test_state_goes_through_a_weights_only_file(tmp_path: Path) -> None:
    module = network()
    ema = ParameterEMA(module, decay=0.9)
    ema.update()
    ema.update()
    torch.save(ema.state_dict(), tmp_path / "ema.pt")
    other = ParameterEMA(network(), decay=0.5)
    other.load_state_dict(torch.load(tmp_path / "ema.pt", weights_only=True))
    assert (other.num_updates, other.decay) == (2, 0.5)
    for name, tensor in ema.average.items():
        torch.testing.assert_close(other.average[name], tensor)
    with pytest.raises(ValueError, match="does not fit"):
        ParameterEMA(nn.Linear(2, 2)).load_state_dict(ema.state_dict())


def test_memory_format_survives_a_swap() -> None:
    module = network().to(memory_format=torch.channels_last)
    ema = ParameterEMA(module)
    ema.update()
    with ema.swapped():
        assert module[0].weight.is_contiguous(memory_format=torch.channels_last)


def test_wrong_use_is_one_plain_line() -> None:
    with pytest.raises(ValueError, match=r"EMA decay: found 1.0"):
        ParameterEMA(network(), decay=1.0)
    with pytest.raises(ValueError, match="no parameter that requires a gradient"):
        ParameterEMA(network().requires_grad_(False))
