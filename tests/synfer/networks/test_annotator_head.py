from __future__ import annotations

import pytest
import torch

from synfer.networks.annotator_head import AnnotatorHead, Branches
from synfer.networks.temperature import fit_temperature

FEATURES, ATTENTION = [(8, 2), (6, 4)], [(3, 4), (3, 2)]


def small_head(
    branches: Branches = "both", features: list[tuple[int, int]] = FEATURES, dropout: float = 0.1
) -> AnnotatorHead:
    torch.manual_seed(0)
    return AnnotatorHead(
        features, ATTENTION, 3, branches, 16, [8, 12], [1, 0], num_heads=2, dropout=dropout, drop_rate=dropout
    )


def maps(n: int, shapes: list[tuple[int, int]], seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(n, c, s, s, generator=generator) for c, s in shapes]


@pytest.mark.parametrize("branches", ["both", "features", "attention"])
def test_each_branch_counts_and_no_other(branches: Branches) -> None:
    head = small_head(branches).eval()
    features, attention = maps(2, FEATURES), maps(2, ATTENTION)
    logits = head(features, attention)
    assert tuple(logits.shape) == (2, 3)
    moved = head(maps(2, FEATURES, 1), attention), head(features, maps(2, ATTENTION, 1))
    assert (not torch.equal(logits, moved[0])) == (branches != "attention")
    assert (not torch.equal(logits, moved[1])) == (branches != "features")


@pytest.mark.parametrize(("branches", "places"), [("both", 4), ("attention", 16)])
def test_attention_maps_of_every_size_lie_on_one_grid(branches: Branches, places: int) -> None:
    head = small_head(branches).eval()
    tokens = head.branches["attention"](maps(2, ATTENTION))
    assert tuple(tokens.shape) == (2, places, 16)
    for i in range(len(ATTENTION)):
        others = maps(2, ATTENTION)
        others[i] = maps(2, ATTENTION, 1)[i]
        assert not torch.equal(head.branches["attention"](others), tokens)


def test_branches_look_at_each_other() -> None:
    head = small_head().eval()
    head.linear.weight.data[:, 16:] = 0  # what the feature tokens end as, alone
    features = maps(2, FEATURES)
    assert not torch.equal(head(features, maps(2, ATTENTION)), head(features, maps(2, ATTENTION, 1)))


def test_every_size_of_feature_map_counts_whatever_the_steps_between_them() -> None:
    shapes = [(4, 7), (5, 12), (3, 4), (2, 12)]
    head = small_head("features", shapes).eval()
    first = maps(2, shapes)
    logits = head(first, [])
    for i in range(len(shapes)):
        others = [new if j == i else old for j, (old, new) in enumerate(zip(first, maps(2, shapes, 1), strict=True))]
        assert not torch.equal(head(others, []), logits)
    widths = [projection[2].out_channels for projection in head.branches["features"].inputs]
    assert widths == [8, 12, 12]  # the last width serves all further sizes


@pytest.mark.parametrize("steps", [(12, 3), (12, 2), (15, 3)])
def test_no_place_is_stepped_over_on_the_way_to_a_much_smaller_map(steps: tuple[int, int]) -> None:
    shapes = [(4, steps[0]), (3, steps[1])]
    torch.manual_seed(0)
    head = AnnotatorHead(shapes, [], 3, "features", 16, [8], [0], num_heads=2).eval()
    large, small = (m.requires_grad_() for m in maps(2, shapes))
    head([large, small], []).square().sum().backward()
    assert bool((large.grad.abs().sum((0, 1)) > 0).all())  # type: ignore[union-attr]


def test_every_weight_learns() -> None:
    head = small_head()
    head(maps(4, FEATURES), maps(4, ATTENTION)).square().sum().backward()
    assert all(p.grad is not None and bool(p.grad.any()) for n, p in head.named_parameters() if "in_proj_bias" not in n)


def test_it_learns_what_an_attention_map_shows() -> None:
    head = small_head(dropout=0.0)
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
