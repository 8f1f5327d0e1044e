"""Synthesis work: what to make is a pure function of (seed, sample id)."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from synfer.faces.expressions import LABEL_SPACES
from synfer.synthesis.plan import SynthesisWork


def test_same_sample_in_any_batch() -> None:
    work = SynthesisWork(20, LABEL_SPACES["ferplus8"], seed=4)
    whole, alone = work.__getitems__(range(20)), work[11]
    assert alone["sample_id"] == ["syn-4-000011"] == whole["sample_id"][11:12]
    assert torch.equal(alone["au"], whole["au"][11:12])
    assert whole["label"].bincount().max() - whole["label"].bincount().min() <= 1
    assert whole["caption"][1] == "a photo of a face with a happy expression" and whole["expression"][1] == "happy"
    assert len(work) == 20


def test_sets_that_were_begun_go_on_with_the_same_faces() -> None:
    batch = SynthesisWork(20, LABEL_SPACES["ferplus8"], seed=4)[11]
    known = [0.710325, 0.580764, 0.808756, 0.946312, 0.619502]  # as in every set since the first
    assert batch["au"][batch["au"] > 0].tolist() == pytest.approx(known, abs=1e-6)
    assert batch["expression"] == ["surprise"] and batch["caption"] == ["a photo of a face with a surprised expression"]


def test_seeds_differ() -> None:
    first, second = (SynthesisWork(4, LABEL_SPACES["basic7"], seed=s).__getitems__(range(4)) for s in (1, 2))
    assert not torch.equal(first["au"], second["au"])


def test_chosen_expressions_without_those_that_exist() -> None:
    work = SynthesisWork(6, LABEL_SPACES["basic7"], 1, expressions=["anger", "happy"], done=np.array([0, 3, 99]))
    batch = work.__getitems__(range(len(work)))
    assert batch["index"].tolist() == [1, 2, 4, 5] and batch["expression"] == ["happy", "anger", "anger", "happy"]
    assert [LABEL_SPACES["basic7"][k] for k in batch["label"]] == batch["expression"]
    with pytest.raises(ValueError, match=r"data\.synthesis_expressions: found 'contempt'"):
        SynthesisWork(6, LABEL_SPACES["basic7"], 1, expressions=["contempt"])
