from __future__ import annotations

import torch

from synfer.labels.rectification import (
    add_label_evidence,
    blend_labels,
    correct_by_transition,
    noise_transition,
    shift_prior,
)


def noisy(n: int = 3000, k: int = 5, noise: float = 0.4, seed: int = 0) -> tuple[torch.Tensor, ...]:
    """True classes, labels with symmetric noise, and a voter that learned such labels: right on 95 % of the faces."""
    generator = torch.Generator().manual_seed(seed)
    true = torch.randint(k, (n,), generator=generator)
    other = (true + torch.randint(1, k, (n,), generator=generator)) % k
    old = torch.where(torch.rand(n, generator=generator) < noise, other, true)
    wrong = (true + torch.randint(1, k, (n,), generator=generator)) % k
    seen = torch.where(torch.rand(n, generator=generator) < 0.05, wrong, true)
    transition = torch.full((k, k), noise / (k - 1)).fill_diagonal_(1 - noise)
    logits = transition[seen].log() + 0.3 * torch.randn(n, k, generator=generator)
    return true, old, logits.softmax(1), transition


def test_blend_is_the_weighted_sum() -> None:
    mean = torch.tensor([[0.2, 0.8], [0.6, 0.4]])
    blended = blend_labels(mean, torch.tensor([0, 0]), 0.3)
    torch.testing.assert_close(blended, torch.tensor([[0.44, 0.56], [0.72, 0.28]]))
    assert torch.equal(blend_labels(mean, torch.tensor([1, 1]), 0.0), mean)


def test_a_label_is_one_more_witness() -> None:
    mean = torch.tensor([[0.8, 0.2], [0.6, 0.4], [0.3, 0.7]])
    old = torch.tensor([0, 1, 1])
    # Counted: of the first class 0.8 rows carry label 0 and 0.9 label 1, of the second 0.2 and 1.1.
    witness = torch.tensor([[0.8 / 1.7, 0.9 / 1.7], [0.2 / 1.3, 1.1 / 1.3]])
    expected = mean * witness[:, old].T
    torch.testing.assert_close(add_label_evidence(mean, old), expected / expected.sum(1, keepdim=True))


def test_labels_without_information_change_nothing() -> None:
    mean = torch.tensor([[0.8, 0.2], [0.8, 0.2], [0.3, 0.7], [0.3, 0.7]])
    torch.testing.assert_close(add_label_evidence(mean, torch.tensor([0, 1, 0, 1])), mean)


def test_evidence_repairs_noise() -> None:
    true, old, mean, _ = noisy()
    sharp = (mean**4) / (mean**4).sum(1, keepdim=True)  # voters that are as sure as they are right
    right = add_label_evidence(sharp, old).argmax(1) == true
    assert (old == true).float().mean() < 0.65 < 0.94 < right.float().mean()


def test_transition_is_found_without_ground_truth() -> None:
    _, old, mean, transition = noisy()
    found = noise_transition(mean, old)
    torch.testing.assert_close(found.sum(1), torch.ones(5))
    # 5 % of the faces are seen wrongly, which looks like noise of the labels.
    assert (found - transition).abs().max() < 0.08


def test_transition_of_clean_labels_is_near_the_identity() -> None:
    _, old, mean, _ = noisy(noise=0.001)
    assert (noise_transition(mean, old).diagonal() > 0.9).all()


def test_correction_repairs_noise_and_leaves_good_labels() -> None:
    true, old, mean, _ = noisy()
    new = correct_by_transition(mean, old, noise_transition(mean, old))
    torch.testing.assert_close(new.sum(1), torch.ones(len(old)))
    right, was_right = new.argmax(1) == true, old == true
    assert right.float().mean() > 0.93
    assert right[~was_right].float().mean() > 0.9
    assert new.max(1).values.mean() > mean.max(1).values.mean()  # the voters' noise is undone as well


def test_a_label_decides_where_the_voters_do_not() -> None:
    transition = torch.full((3, 3), 0.1).fill_diagonal_(0.8)
    old = torch.tensor([0, 1, 2])
    assert correct_by_transition(torch.full((3, 3), 1 / 3), old, transition).argmax(1).tolist() == [0, 1, 2]


def test_a_class_without_labels_or_votes_does_no_harm() -> None:
    mean = torch.tensor([[0.7, 0.3, 0.0], [0.2, 0.8, 0.0], [0.6, 0.4, 0.0]])
    transition = noise_transition(mean, torch.tensor([0, 1, 0]))
    assert bool(transition.isfinite().all()) and transition[2].argmax() == 2
    assert bool(correct_by_transition(mean, torch.tensor([0, 1, 1]), transition).isfinite().all())


def test_shifted_votes_are_those_of_a_voter_that_learned_the_other_frequencies() -> None:
    """Bayes by hand: p(face | class) fixed, the frequencies of the classes changed."""
    likelihood = torch.tensor([[0.5, 0.2, 0.1], [0.1, 0.3, 0.6], [0.2, 0.2, 0.2]])
    old = torch.tensor([0, 0, 0, 0, 1, 1, 2, 2])
    learned, wanted = torch.tensor([0.5, 0.25, 0.25]), torch.tensor([0.1, 0.6, 0.3])
    votes = likelihood * learned / (likelihood * learned).sum(1, keepdim=True)
    expected = likelihood * wanted / (likelihood * wanted).sum(1, keepdim=True)
    torch.testing.assert_close(shift_prior(votes, old, wanted), expected)
    torch.testing.assert_close(shift_prior(torch.stack([votes, votes]), old, 100 * wanted)[1], expected)
    torch.testing.assert_close(shift_prior(votes, old, learned), votes)


def test_a_shift_with_a_class_that_no_row_carries_is_finite() -> None:
    shifted = shift_prior(torch.tensor([[0.5, 0.3, 0.2]]), torch.tensor([0, 1]), torch.tensor([0.2, 0.2, 0.6]))
    assert bool(shifted.isfinite().all()) and float(shifted.sum()) == 1
