from __future__ import annotations

import numpy as np
import pytest

from datamodules.rows.source_faces import TrainingSources
from synfer.synthesis.sources import choose_others, choose_sources
from tests.fixtures.tiny_data import BASIC7, tiny_table


def test_each_face_of_the_expression_is_as_likely() -> None:
    sources = TrainingSources(tiny_table(70), [], "source face")
    uniform = (np.arange(1000) + 0.5) / 1000
    rows = choose_sources(sources, ["happy"] * 1000, uniform)
    assert {BASIC7[code] for code in sources.labels(rows)} == {"happy"}
    assert np.unique(rows, return_counts=True)[1].tolist() == [100] * 10
    assert np.unique(choose_sources(sources, ["any"] * 1000, uniform)).tolist() == list(range(70))


def test_what_a_sample_gets_does_not_depend_on_the_others() -> None:
    sources = TrainingSources(tiny_table(70), [], "source face")
    names, uniform = ["sad", "any", "happy", "sad"], np.array([0.1, 0.5, 0.999, 0.9])
    whole = choose_sources(sources, names, uniform)
    for i, name in enumerate(names):
        assert choose_sources(sources, [name], uniform[i : i + 1])[0] == whole[i]


def test_no_face_of_the_expression() -> None:
    sources = TrainingSources(tiny_table(70), [], "source face")
    with pytest.raises(ValueError, match="found no training face of 'contempt', expected at least one"):
        choose_sources(sources, ["happy", "contempt"], np.array([0.1, 0.2]))


def test_faces_of_every_other_expression() -> None:
    sources = TrainingSources(tiny_table(70), [], "source face")
    uniform = (np.arange(600) + 0.5) / 600
    rows = choose_others(sources, ["happy"] * 600, uniform)
    assert {BASIC7[code] for code in sources.labels(rows)} == {*BASIC7} - {"happy"}
    assert np.unique(rows, return_counts=True)[1].tolist() == [10] * 60
    mixed = choose_others(sources, ["sad", "happy"], np.array([0.2, 0.7]))
    assert mixed.tolist() == [choose_others(sources, [n], np.array([u]))[0] for n, u in (("sad", 0.2), ("happy", 0.7))]
    alone = TrainingSources(sources.table.select(sources.rows_of("sad")), [], "source face")
    with pytest.raises(ValueError, match="found no training face of another expression than 'sad', expected at least"):
        choose_others(alone, ["sad"], np.array([0.5]))
