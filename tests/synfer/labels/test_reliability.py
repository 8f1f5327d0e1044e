from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from synfer.labels.reliability import class_precision, read_reliability, write_reliability
from synfer.labels.vote import map_votes, mean_vote, vote

NAMES = ("neutral", "happy", "sad")
GOOD, BAD = torch.tensor([[9, 1, 0], [1, 9, 0], [0, 0, 0]]), torch.tensor([[3, 7, 0], [0, 10, 0], [0, 0, 0]])


def table(tmp_path: Path) -> Path:
    prints = {"good": ["a0", "a1"], "bad": ["b0"]}
    return write_reliability(tmp_path / "sub" / "reliability.json", {"good": GOOD, "bad": BAD}, prints, NAMES)


def test_precision_is_shrunk_to_the_accuracy() -> None:
    precision = class_precision(GOOD)
    assert precision[2] == pytest.approx(19 / 22)  # a class that was never named
    assert precision[0] == pytest.approx((9 + 2 * 19 / 22) / 12)
    assert class_precision(torch.zeros(3, 3)).tolist() == [0.5] * 3


def test_weights_are_found_by_fingerprint_and_by_name(tmp_path: Path) -> None:
    path = table(tmp_path)
    weights = read_reliability(path, {"other name": ["b0"], "good": ["a1"]}, ("happy", "neutral"))
    expected = torch.stack([class_precision(BAD)[[1, 0]], class_precision(GOOD)[[1, 0]]]).float()
    torch.testing.assert_close(weights, expected, atol=1e-5, rtol=0)
    assert json.loads(path.read_text())["good"]["rows"] == 20


def test_voters_and_expressions_that_were_not_measured_are_named(tmp_path: Path) -> None:
    path = table(tmp_path)
    with pytest.raises(ValueError, match=r"no entry of voter 'x' .* it holds good, bad"):
        read_reliability(path, {"x": ["c"]}, NAMES)
    with pytest.raises(ValueError, match="voter 'good' was not measured on 'fear'"):
        read_reliability(path, {"good": ["a0"]}, ("fear",))
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_reliability(tmp_path / "nowhere.json", {}, NAMES)
    path.write_text("[1]")
    with pytest.raises(ValueError, match=r"found a list, expected one written by train\.py"):
        read_reliability(path, {"good": ["a0"]}, NAMES)


def test_weighted_vote_by_hand() -> None:
    votes = torch.tensor([[[0.6, 0.4]], [[0.2, 0.8]]])
    weights = torch.tensor([[3.0, 1.0], [1.0, 1.0]])
    raw = torch.tensor([0.75 * 0.6 + 0.25 * 0.2, 0.5 * 0.4 + 0.5 * 0.8])
    torch.testing.assert_close(mean_vote(votes, weights)[0], raw / raw.sum())
    torch.testing.assert_close(vote(votes, torch.tensor([0]), weights=weights).soft_label[0], raw / raw.sum())
    equal = mean_vote(votes, torch.full((2, 2), 0.3))
    torch.testing.assert_close(equal, votes.mean(0))


def test_weights_that_do_not_fit_are_refused() -> None:
    votes = torch.full((2, 1, 2), 0.5)
    for weights in (torch.ones(2, 3), torch.tensor([[1.0, 1.0], [-1.0, 1.0]]), torch.tensor([[1.0, 0.0], [1.0, 0.0]])):
        with pytest.raises(ValueError, match=r"label vote: found weights of shape"):
            mean_vote(votes, weights)


def test_votes_are_mapped_by_name() -> None:
    found = map_votes(torch.tensor([[0.5, 0.3, 0.2], [1.0, 0.0, 0.0]]), ("fear", "sad", "happy"), ("happy", "sad"), "v")
    torch.testing.assert_close(found, torch.tensor([[0.4, 0.6], [0.5, 0.5]]))
    with pytest.raises(ValueError, match=r"v does not know 'neutral': it has \['fear', 'sad', 'happy'\]"):
        map_votes(torch.ones(1, 3) / 3, ("fear", "sad", "happy"), ("happy", "neutral"), "v")


def test_all_tied_and_empty_batches_are_defined() -> None:
    even = torch.full((3, 2, 4), 0.25)
    outcome = vote(even, torch.tensor([0, 3]))
    assert outcome.agreed.tolist() == [False, False]  # whoever knows nothing confirms nothing, whatever was intended
    torch.testing.assert_close(outcome.soft_label, even[0])
    hard = vote(even, torch.tensor([0, 3]), soft=False)
    torch.testing.assert_close(hard.soft_label, torch.eye(4)[[0, 3]])  # and moves no label
    empty = vote(torch.empty(2, 0, 4), torch.empty(0, dtype=torch.long))
    assert tuple(empty.soft_label.shape) == (0, 4) and len(empty.kept) == 0
