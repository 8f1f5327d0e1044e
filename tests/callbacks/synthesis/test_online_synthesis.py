from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, Trainer

import train
from callbacks.synthesis.online_synthesis import OnlineSynthesis
from callbacks.synthesis.pseudo_labeller import PseudoLabeller
from datamodules.expression_data_module import ExpressionDataModule
from datamodules.loading.augmentation import Augmentation
from lightning_modules.classifier import ExpressionClassifier
from lightning_modules.generator import ExpressionGenerator
from synfer.synthesis.plan import EndlessPlan
from synfer.synthesis.request import SamplingSettings, SynthesisRequest
from tests.fixtures.tiny_data import TinyReader, tiny_table
from tests.fixtures.tiny_generator import NAMES, SIDE, save_checkpoint, tiny_classifier, tiny_generator

FAST = SamplingSettings(num_steps=1, guidance_scale=1.0)


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_checkpoint(tiny_generator(), tmp_path_factory.mktemp("generator") / "x.ckpt"))


class PoolAtEnd(Callback):
    """Reads the pool before it is deleted, and notes how much it held before the first batch."""

    def __init__(self) -> None:
        self.samples: dict[str, Any] = {}
        self.at_first_batch = 0

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == 0:
            self.at_first_batch = trainer.datamodule.pool.written  # type: ignore[attr-defined]

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        pool = trainer.datamodule.pool  # type: ignore[attr-defined]
        self.samples = pool.read(range(pool.filled))


def data(label_space: tuple[str, ...] = NAMES, **changes: Any) -> ExpressionDataModule:
    tables = {split: tiny_table(32, split, SIDE, label_space=label_space) for split in ("train", "val", "test")}
    settings: dict[str, Any] = {
        "batch_size": 8,
        "seed": 0,
        "synthetic_ratio": 0.5,
        "augmentation": Augmentation(enabled=False),
    }
    return ExpressionDataModule(TinyReader(**tables), **{**settings, **changes})


def fit(
    folder: Path,
    synthesis: OnlineSynthesis,
    *others: Callback,
    epochs: int = 1,
    network: ExpressionClassifier | None = None,
    ckpt_path: str | None = None,
    **changes: Any,
) -> tuple[PoolAtEnd, ExpressionDataModule]:
    datamodule, pool = data(**changes), PoolAtEnd()
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        default_root_dir=folder,
        callbacks=[synthesis, *others, pool],
    )
    network = network or tiny_classifier(datamodule.label_space)
    trainer.fit(network, datamodule=datamodule, ckpt_path=ckpt_path, weights_only=True)
    return pool, datamodule


# ---------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, r"synthesis.batch_size: found 0"),
        ({"max_reuse": 0.5}, r"synthesis.max_reuse: found 0.5"),
        ({"initial_samples": 0}, r"synthesis.initial_samples: found 0"),
        ({"enabled": True}, r"synthesis.generator: found none"),
        ({"expressions": ["happy", "bored"]}, r"unknown expression 'bored'"),
    ],
)
def test_settings_out_of_range(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OnlineSynthesis(**settings)


def test_a_missing_generator_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"synthesis.generator '.*nowhere.ckpt'"):
        OnlineSynthesis(True, str(tmp_path / "nowhere.ckpt"))
    OnlineSynthesis(False, str(tmp_path / "nowhere.ckpt"))  # off: nobody asks


# ---------------------------------------------------------------- what is made


def first_request(count: int, first: int = 0, names: tuple[str, ...] = NAMES) -> SynthesisRequest:
    """Returns what rank 0 makes first in a run with seed 0."""
    synthesis = OnlineSynthesis(sampling=FAST)
    synthesis._names = list(names)
    return synthesis.plan(0, 0).request(range(first, first + count))


def test_what_is_made_is_a_function_of_seed_rank_and_number() -> None:
    synthesis = OnlineSynthesis()
    synthesis._names = list(NAMES)
    request = synthesis.plan(1, 5).request(range(3, 9))
    planned = EndlessPlan(NAMES, 5, 1).request(range(3, 9))
    assert (request.expressions, request.sample_ids) == (planned.expressions, planned.sample_ids)
    assert np.array_equal(request.action_units, planned.action_units)


def test_state_goes_on_counting() -> None:
    synthesis, other = OnlineSynthesis(), OnlineSynthesis()
    synthesis.next_number, synthesis.made, synthesis.discarded = 10, 10, 3
    other.load_state_dict(synthesis.state_dict())
    assert (other.next_number, other.counts) == (10, {"generated": 10, "discarded": 3})


# ---------------------------------------------------------------- in a fit


def test_pool_is_filled_before_the_first_batch_and_refreshed_as_it_is_used(generator: str, tmp_path: Path) -> None:
    synthesis = OnlineSynthesis(True, generator, batch_size=6, max_reuse=2, initial_samples=10, sampling=FAST)
    pool, datamodule = fit(tmp_path, synthesis, epochs=2)
    assert pool.at_first_batch == 12  # two batches of six hold the ten that were asked
    assert datamodule.counts == {"real": 64, "synthetic": 64}
    # 64 draws, each sample twice on average, need 32 samples, of which whole batches of six make 30.
    assert synthesis.made == 30 and synthesis.discarded == 0
    assert len(pool.samples["label"]) == 30


def test_faces_in_the_pool_are_the_generator_s(generator: str, tmp_path: Path) -> None:
    synthesis = OnlineSynthesis(True, generator, batch_size=6, max_reuse=1000, sampling=FAST)
    pool, _ = fit(tmp_path, synthesis)
    request = first_request(6)
    names = list(request.expressions)
    expected = ExpressionGenerator.load_trained(generator).synthesise(
        type(request).from_expressions(names, request.sample_ids, 0, FAST)
    )
    assert torch.equal(pool.samples["image"], expected.images)
    assert [NAMES[k] for k in pool.samples["label"].tolist()] == names
    assert torch.equal(pool.samples["soft_label"], expected.soft_label)
    assert torch.equal(pool.samples["au"], torch.from_numpy(request.action_units))
    assert pool.samples["seed"].tolist() == [0] * 6 and pool.samples["layout"] == [""] * 6


def test_the_same_run_makes_the_same_faces(generator: str, tmp_path: Path) -> None:
    pools = []
    for seed in (0, 0, 1):
        torch.manual_seed(len(pools))  # the global generator plays no part
        synthesis = OnlineSynthesis(True, generator, batch_size=4, sampling=FAST)
        pools.append(fit(tmp_path, synthesis, seed=seed)[0].samples["image"])
    assert torch.equal(pools[0], pools[1]) and not torch.equal(pools[0], pools[2])


def test_number_of_distinct_faces_is_bounded(generator: str, tmp_path: Path) -> None:
    synthesis = OnlineSynthesis(True, generator, batch_size=6, max_reuse=1, sampling=FAST)
    pool, datamodule = fit(tmp_path, synthesis, epochs=2, synthetic_multiple=0.5)
    assert len(pool.samples["label"]) == 16 == datamodule.max_synthetic
    assert datamodule.counts == {"real": 64, "synthetic": 64}


@pytest.mark.parametrize(("maximum", "shares"), [(16, [8, 8]), (17, [9, 8]), (1, [1, 0])])
def test_ranks_share_the_bound(maximum: int, shares: list[int]) -> None:
    datamodule = SimpleNamespace(max_synthetic=maximum)
    ranks: list[Any] = [SimpleNamespace(datamodule=datamodule, world_size=2, global_rank=rank) for rank in range(2)]
    assert [OnlineSynthesis()._bound(rank) for rank in ranks] == shares


def test_labels_go_by_name_into_the_label_space_of_the_data(generator: str, tmp_path: Path) -> None:
    space = ("anger", "sad", "happy")  # no neutral, another order
    synthesis = OnlineSynthesis(True, generator, batch_size=6, max_reuse=1000, sampling=FAST)
    pool, _ = fit(tmp_path, synthesis, label_space=space)
    names = [space[k] for k in pool.samples["label"].tolist()]
    assert Counter(names) == {"sad": 3, "happy": 3}
    assert torch.equal(pool.samples["soft_label"].argmax(1), pool.samples["label"])


def test_soft_labels_lose_what_the_data_do_not_know(generator: str, tmp_path: Path) -> None:
    class Soften(PseudoLabeller):
        def __init__(self) -> None:
            super().__init__()
            self.enabled = True

        def setup(self, *args: Any, **kwargs: Any) -> None: ...

        def on_faces(self, faces: Any) -> None:
            for row, name in enumerate(faces.request.expressions):  # neutral, happy, sad
                faces.soft_label[row] = torch.tensor([0.5, 0.4, 0.1] if name == "happy" else [1.0, 0.0, 0.0])

    synthesis = OnlineSynthesis(True, generator, batch_size=6, max_reuse=1000, sampling=FAST)
    pool, _ = fit(tmp_path, synthesis, Soften(), label_space=("sad", "happy", "fear"))
    expected = {"happy": [0.2, 0.8, 0.0], "sad": [1.0, 0.0, 0.0]}  # nothing known is left of sad: as intended
    names = first_request(6, names=("sad", "happy")).expressions
    torch.testing.assert_close(pool.samples["soft_label"], torch.tensor([expected[name] for name in names]))


def test_chosen_expressions_alone_are_made(generator: str, tmp_path: Path) -> None:
    synthesis = OnlineSynthesis(True, generator, batch_size=4, max_reuse=1000, expressions=["Happiness"], sampling=FAST)
    pool, _ = fit(tmp_path, synthesis)
    assert pool.samples["label"].tolist() == [NAMES.index("happy")] * 4


def test_faces_are_brought_to_the_size_of_the_data(generator: str, tmp_path: Path) -> None:
    synthesis = OnlineSynthesis(True, generator, batch_size=3, max_reuse=1000, sampling=FAST)
    datamodule = data(image_size=SIDE + 8)
    datamodule.setup("fit")
    trainer: Any = SimpleNamespace(datamodule=datamodule, world_size=1, global_rank=0, callbacks=[])
    synthesis.setup(trainer, tiny_classifier(), "fit")
    synthesis.on_train_start(trainer, tiny_classifier())
    assert datamodule.pool is not None
    images = datamodule.pool.read(range(3))["image"]
    own = ExpressionGenerator.load_trained(generator).synthesise(first_request(3)).images
    assert images.shape == (3, 3, SIDE + 8, SIDE + 8) and own.shape == (3, 3, SIDE, SIDE)
    datamodule.teardown("fit")


class Discard(PseudoLabeller):
    """Keeps some faces of each batch, in place of a vote."""

    def __init__(self, kept: int) -> None:
        super().__init__()
        self.enabled, self.number = True, kept

    def setup(self, *args: Any, **kwargs: Any) -> None: ...

    def on_faces(self, faces: Any) -> None:
        faces.kept = torch.arange(len(faces.kept)) >= len(faces.kept) - self.number


def test_discarded_faces_are_counted_and_stay_out(generator: str, tmp_path: Path) -> None:
    synthesis = OnlineSynthesis(True, generator, batch_size=6, max_reuse=1000, initial_samples=4, sampling=FAST)
    pool, _ = fit(tmp_path, synthesis, Discard(kept=2))
    assert len(pool.samples["label"]) == 4
    assert synthesis.counts == {"generated": 12, "discarded": 8, "checked": 4, "near_copies": 0}
    first, second = first_request(12).expressions[4:6], first_request(6, 6).expressions[4:]
    assert [NAMES[k] for k in pool.samples["label"].tolist()] == [*first, *second]


def test_an_end_of_all_faces_is_an_error_and_not_a_loop(generator: str, tmp_path: Path) -> None:
    synthesis = OnlineSynthesis(True, generator, batch_size=1, sampling=FAST)
    with pytest.raises(RuntimeError, match=r"discarded all of 20 synthetic faces in a row: expected some to be kept"):
        fit(tmp_path, synthesis, Discard(kept=0))


def test_nothing_is_loaded_at_ratio_zero(generator: str, tmp_path: Path) -> None:
    synthesis = OnlineSynthesis(True, generator)
    datamodule = data(synthetic_ratio=0.0)
    trainer: Any = SimpleNamespace(datamodule=datamodule)
    synthesis.setup(trainer, tiny_classifier(), "fit")
    assert synthesis._generator is None
    synthesis.on_train_start(trainer, tiny_classifier())
    assert synthesis.made == 0


def test_two_sources_of_synthetic_faces_are_refused(generator: str, tmp_path: Path) -> None:
    reader = TinyReader(train=tiny_table(8, side=SIDE, label_space=NAMES))
    with pytest.raises(ValueError, match=r"beside data.synthetic_reader"):
        fit(tmp_path, OnlineSynthesis(True, generator), synthetic_reader=reader)


def test_folds_are_refused(generator: str, tmp_path: Path) -> None:
    """Who made the faces may have seen what the fold holds out."""
    with pytest.raises(ValueError, match=r"synthesis.enabled=true beside data.folds=2: .* expected one or the other"):
        fit(tmp_path, OnlineSynthesis(True, generator, batch_size=4), folds=2, fold=0)


def test_expressions_that_cannot_be_made_are_refused(generator: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"synthesis.expressions: 'fear' is not shared by data and generator"):
        fit(tmp_path, OnlineSynthesis(True, generator, expressions=["fear"]))
    with pytest.raises(ValueError, match=r"share no name"):
        fit(tmp_path, OnlineSynthesis(True, generator), label_space=("fear", "anger"))


def test_a_ratio_without_synthesis_is_one_clear_line(
    tiny_run: list[str], tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    capfd.readouterr()
    with pytest.raises(SystemExit) as caught:
        train.main(["fit", *tiny_run, "--data.synthetic_ratio=0.5", f"--run_dir={tmp_path}", "--trainer.logger=false"])
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error")]
    assert caught.value.code == 1
    assert len(lines) == 1 and "--synthesis.enabled=true" in lines[0] and "pool" in lines[0]
