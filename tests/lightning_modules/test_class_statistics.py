"""What a loss is told of the classes: their real rows, and the labels as they are drawn."""

from __future__ import annotations

import warnings
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from datamodules.expression_data_module import ExpressionDataModule
from datamodules.loading.class_sampling import ClassSampling
from datamodules.rows.sample_table import SampleTable, one_hot
from lightning_modules.class_statistics import adapt_to_classes, label_prior, real_class_counts
from synfer.labels.long_tail_losses import LOSSES, LossSettings
from tests.fixtures.tiny_data import TinyReader, tiny_table

COUNTS = np.array([40, 20, 10, 5, 3, 2, 0])
REAL = COUNTS / 80


def _table(counts: np.ndarray, split: str = "train") -> SampleTable:
    label = np.repeat(np.arange(7), counts)
    return replace(tiny_table(len(label), split), label=label, soft_label=one_hot(label, 7))


pytestmark = pytest.mark.filterwarnings("ignore:found no training face of")  # of the last class, on purpose


def _data(**settings: Any) -> ExpressionDataModule:
    module = ExpressionDataModule(TinyReader(train=_table(COUNTS), val=tiny_table(7, "val")), seed=1, **settings)
    module.setup("fit")
    return module


SYNTHETIC = TinyReader(train=_table(np.array([0, 2, 2, 2, 4, 4, 6]), "synthetic"))
OF_SYNTHETIC = np.array([0, 2, 2, 2, 4, 4, 6]) / 20
DRAWN, AS_THEY_ARE = LossSettings("logit_adjustment"), LossSettings("logit_adjustment", prior="real")


def test_without_a_sampler_the_prior_is_that_of_the_rows() -> None:
    for settings in (DRAWN, AS_THEY_ARE):
        np.testing.assert_allclose(label_prior(_data(), settings, 1.0), REAL)


@pytest.mark.parametrize(
    "sampler",
    [{"class_balance": 1.0}, {"class_sampling": ClassSampling("balanced")}],
)
def test_beside_a_balanced_sampler_nothing_is_left_to_adjust(sampler: dict[str, Any]) -> None:
    data = _data(**sampler)
    np.testing.assert_allclose(label_prior(data, DRAWN, 1.0), [1 / 6] * 6 + [0])
    adjusted = LOSSES["logit_adjustment"](DRAWN, 7)
    adapt_to_classes(adjusted, data, 1.0)
    offset = adjusted.get_buffer("offset")
    assert float(offset.max() - offset.min()) == pytest.approx(0, abs=1e-6)
    with pytest.warns(UserWarning, match=r"model\.loss\.prior=real beside a sampler of the classes or synthetic faces"):
        np.testing.assert_allclose(label_prior(data, AS_THEY_ARE, 1.0), REAL)


@pytest.mark.parametrize("sampler", ["none", "square_root", "effective_number", "repeat_factor"])
@pytest.mark.parametrize(("ratio", "weight"), [(0.25, 1.0), (0.5, 0.5), (1.0, 1.0), (0.5, 0.0)])
def test_the_drawn_prior_is_what_the_batches_hold(sampler: Any, ratio: float, weight: float) -> None:
    data = _data(
        synthetic_ratio=ratio,
        synthetic_reader=SYNTHETIC,
        class_sampling=ClassSampling(sampler),
        batch_size=8,
        steps_per_epoch=500,
    )
    drawn = np.array(list(data.training_sampler()))
    real = np.bincount(np.repeat(np.arange(7), COUNTS)[drawn[drawn < 80]], minlength=7)
    synthetic = np.bincount(SYNTHETIC.tables["train"].label[drawn[drawn >= 80] - 80], minlength=7)
    found = real + weight * synthetic
    np.testing.assert_allclose(label_prior(data, DRAWN, weight), found / found.sum(), atol=1e-3)


def test_the_priors_of_real_and_synthetic_samples_apart(caplog: pytest.LogCaptureFixture) -> None:
    apart = replace(DRAWN, prior="per_source")
    data = _data(synthetic_ratio=0.25, synthetic_reader=SYNTHETIC, class_sampling=ClassSampling("square_root"))
    with caplog.at_level("INFO"):
        real, synthetic = label_prior(data, apart, 0.5)
    np.testing.assert_allclose(real, np.sqrt(COUNTS) / np.sqrt(COUNTS).sum(), atol=1e-6)
    np.testing.assert_allclose(synthetic, OF_SYNTHETIC, atol=1e-6)
    assert "; of synthetic samples neutral 0.0000, happy 0.1000" in caplog.text
    np.testing.assert_allclose(label_prior(_data(), apart, 1.0), REAL)
    adjusted = LOSSES["logit_adjustment"](apart, 7)
    adapt_to_classes(adjusted, data, 1.0)
    assert not torch.equal(adjusted.get_buffer("offset")[0], adjusted.get_buffer("offset")[1])


def test_soft_labels_are_counted_by_their_parts() -> None:
    data = _data()
    table = data.train_table
    assert table is not None
    data.train_table = replace(table, soft_label=0.9 * table.soft_label + np.float32(0.1 / 7))
    np.testing.assert_allclose(label_prior(data, DRAWN, 1.0), 0.9 * REAL + 0.1 / 7, rtol=1e-5)


def test_faces_made_during_the_run_have_no_known_shares() -> None:
    data = _data(synthetic_ratio=0.5)
    try:
        with pytest.raises(ValueError, match=r"^model\.loss\.prior=drawn: found synthetic faces made during") as caught:
            label_prior(data, DRAWN, 1.0)
        assert "\n" not in str(caught.value)
        with pytest.warns(UserWarning, match=r"model\.loss\.prior=real beside"):
            np.testing.assert_allclose(label_prior(data, AS_THEY_ARE, 1.0), REAL)
        np.testing.assert_allclose(label_prior(data, DRAWN, 0.0), REAL)  # they teach nothing
    finally:
        data.teardown("fit")


def test_margins_come_from_the_real_rows_whatever_the_sampler(caplog: pytest.LogCaptureFixture) -> None:
    told = LOSSES["ldam"](LossSettings("ldam"), 7)
    with caplog.at_level("INFO"), warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "found no training face of")
        adapt_to_classes(told, _data(class_sampling=ClassSampling("balanced")), 1.0)
    margin = 0.5 * (2 / np.maximum(COUNTS, 2)) ** 0.25
    np.testing.assert_allclose(told.get_buffer("margin").numpy(), margin, rtol=1e-6)
    assert "model.loss.kind 'ldam': no training row of anger" in caplog.text


def test_data_that_say_nothing_of_their_rows() -> None:
    with pytest.raises(ValueError, match=r"model\.class_weights 'balanced' needs a data module with a train_table"):
        real_class_counts(SimpleNamespace(), "model.class_weights 'balanced'")
    with pytest.raises(ValueError, match="'logit_adjustment' needs the labels of a data module's training rows"):
        label_prior(None, DRAWN, 1.0)
