from __future__ import annotations

import pytest
import torch

from synfer.labels.class_thresholds import ClassThresholds

NAMES = ("happy", "sad", "fear")


def test_each_class_has_a_threshold_of_its_own() -> None:
    thresholds = ClassThresholds(NAMES, quantile=0.5)
    label = torch.tensor([1, 1, 1, 2])
    assert thresholds.of(label).tolist() == [0, 0, 0, 0]
    thresholds.update(label, torch.tensor([0.2, 0.9, 0.4, 0.8]))
    # ⌊0.5 · 4⌋ = the second smallest of three; ⌊0.5 · 2⌋ = the only one.
    torch.testing.assert_close(thresholds.of(torch.tensor([0, 1, 2])), torch.tensor([0.0, 0.4, 0.8]))
    again = ClassThresholds(NAMES, quantile=0.5)
    again.load_state_dict(thresholds.state_dict())
    assert again.values == thresholds.values
    again.load_state_dict({"values": {"sad": 0.4}})  # of a state without confidences
    assert again.values == {}


def test_only_the_last_confidences_count() -> None:
    thresholds = ClassThresholds(NAMES, quantile=0.5, window=3)
    thresholds.update(torch.zeros(6, dtype=torch.long), torch.tensor([0.1, 0.1, 0.1, 0.7, 0.8, 0.9]))
    assert thresholds.values["happy"] == pytest.approx(0.8)


@pytest.mark.parametrize("per_class", [1, 7])
@pytest.mark.parametrize("quantile", [0.05, 0.2, 0.5])
def test_the_share_that_falls_below_is_the_one_asked_for(quantile: float, per_class: int) -> None:
    thresholds = ClassThresholds(NAMES, quantile)
    generator = torch.Generator().manual_seed(0)
    label = torch.arange(3).repeat(per_class)
    below = []
    for _ in range(3000 // per_class):
        confidence = torch.rand(len(label), generator=generator) * (1 + label)  # classes of very different confidence
        below.append(confidence < thresholds.of(label))
        thresholds.update(label, confidence)
    for index in range(3):
        share = torch.stack(below)[:, label == index].float().mean()
        assert float(share) == pytest.approx(quantile, abs=0.03)


@pytest.mark.parametrize(("quantile", "window"), [(1.0, 8), (-0.1, 8), (0.5, 0)])
def test_values_out_of_range_are_refused(quantile: float, window: int) -> None:
    with pytest.raises(ValueError, match="class thresholds: found quantile"):
        ClassThresholds(NAMES, quantile, window)
