from __future__ import annotations

import pytest
import torch

from lightning_modules.networks.annotator_head import AnnotatorHead, Branches
from lightning_modules.networks.temperature import fit_temperature

FEATURES, ATTENTION = [(8, 2), (6, 4)], [(3, 4), (3, 2)]


def maps(n: int, shapes: list[tuple[int, int]], seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(n, c, s, s, generator=generator) for c, s in shapes]


@pytest.mark.parametrize("branches", ["both", "features", "attention"])
def test_each_branch_counts_and_no_other(branches: Branches) -> None:
    torch.manual_seed(0)
    head = AnnotatorHead(FEATURES, ATTENTION, 3, branches, width=16, num_heads=2).eval()
    features, attention = maps(2, FEATURES), maps(2, ATTENTION)
    logits = head(features, attention)
    assert tuple(logits.shape) == (2, 3)
    moved = head(maps(2, FEATURES, 1), attention), head(features, maps(2, ATTENTION, 1))
    assert (not torch.equal(logits, moved[0])) == (branches != "attention")
    assert (not torch.equal(logits, moved[1])) == (branches != "features")


def test_branches_look_at_each_other() -> None:
    torch.manual_seed(0)
    head = AnnotatorHead(FEATURES, ATTENTION, 3, width=16, num_heads=2).eval()
    head.linear.weight.data[:, 16:] = 0  # what the feature tokens end as, alone
    features = maps(2, FEATURES)
    assert not torch.equal(head(features, maps(2, ATTENTION)), head(features, maps(2, ATTENTION, 1)))


def test_every_weight_learns() -> None:
    head = AnnotatorHead(FEATURES, ATTENTION, 3, width=16, num_heads=2, dropout=0.1)
    head(maps(4, FEATURES), maps(4, ATTENTION)).square().sum().backward()
    assert all(p.grad is not None and bool(p.grad.any()) for n, p in head.named_parameters() if "in_proj_bias" not in n)


def test_it_learns_what_an_attention_map_shows() -> None:
    torch.manual_seed(0)
    head = AnnotatorHead(FEATURES, ATTENTION, 3, width=16, num_heads=2, dropout=0.0)
    features, attention = maps(48, FEATURES), maps(48, ATTENTION)
    label = attention[0].mean((2, 3)).argmax(1)
    optimizer = torch.optim.AdamW(head.parameters(), 5e-3)
    for _ in range(40):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(head(features, attention), label).backward()
        optimizer.step()
    assert (head.eval()(features, attention).argmax(1) == label).float().mean() > 0.9


def test_temperature_undoes_a_scale_and_is_found_in_inference_mode() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4000, 4, generator=generator) * 2
    label = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
    assert fit_temperature(logits, label) == pytest.approx(1, abs=0.06)
    with torch.inference_mode():
        assert fit_temperature(logits * 3, label) == pytest.approx(3, abs=0.2)
    assert fit_temperature(logits / 4, label) == pytest.approx(0.25, abs=0.02)


def test_temperature_of_hopeless_cases_stays_in_range() -> None:
    assert fit_temperature(torch.empty(0, 3), torch.empty(0, dtype=torch.long)) == 1
    right = torch.eye(3) * 5
    assert 0.05 <= fit_temperature(right, torch.arange(3)) < 0.5
    assert fit_temperature(right, torch.tensor([1, 2, 0])) > 15
