"""One seed rules what a run draws by key, and sample i is the same face wherever it is made."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from torch import Tensor

from callbacks.synthesis.online_synthesis import OnlineSynthesis
from datamodules.expression_data_module import ExpressionDataModule
from lightning_modules import run_seed as run_seed_module
from lightning_modules.generator import ExpressionGenerator
from lightning_modules.run_seed import run_seed
from synfer.synthesis.plan import SynthesisWork
from synfer.synthesis.request import SynthesisRequest, SynthesisResult
from tests.fixtures.tiny_data import TinyReader, tiny_table
from tests.fixtures.tiny_generator import NAMES, SIDE, scaled_weights, tiny_generator

NAME = "PL_GLOBAL_SEED"


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Leaves out Lightning's advice on workers and on logging."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        yield


def _data(**settings: Any) -> ExpressionDataModule:
    tables = {split: tiny_table(12, split, SIDE, label_space=NAMES) for split in ("train", "val", "test")}
    return ExpressionDataModule(TinyReader(**tables), batch_size=4, eval_batch_size=4, **settings)


def _trainer(folder: Path) -> Trainer:
    return Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        devices=1,
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )


class _Asked(ExpressionGenerator):
    """Keeps what it was asked to make."""

    asked: list[SynthesisRequest]
    made: list[Tensor]

    def synthesise(self, request: SynthesisRequest, hooks: Any = ()) -> SynthesisResult:
        result = super().synthesise(request, hooks)
        self.asked.append(request)
        self.made.append(result.images)
        return result


def _asking(**changes: Any) -> _Asked:
    generator = scaled_weights(tiny_generator(**changes))
    generator.__class__ = _Asked
    assert isinstance(generator, _Asked)
    generator.asked, generator.made = [], []
    return generator


def test_the_seed_of_the_data_goes_before_that_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_seed(None) == run_seed(SimpleNamespace()) == 0
    monkeypatch.setenv(NAME, "3")
    assert run_seed(None) == run_seed(SimpleNamespace(datamodule=_data())) == 3
    assert (
        run_seed(SimpleNamespace(datamodule=_data(seed=5))) == 5 and run_seed(SimpleNamespace(datamodule=object())) == 3
    )
    assert run_seed(SimpleNamespace(datamodule=_data(seed=0))) == 0


def test_nobody_else_asks_the_environment() -> None:
    """The data module and this function alone know where the seed of a run stands."""
    project = Path(run_seed_module.__file__).parents[1]
    folders = ("callbacks", "datamodules", "lightning_modules")
    asking = [path for folder in folders for path in (project / folder).rglob("*.py") if NAME in path.read_text()]
    assert sorted(path.name for path in asking) == ["expression_data_module.py", "run_seed.py"]


def test_data_seed_rules_training_and_grid_of_a_generator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fit(process: int, seed: int | None) -> tuple[Tensor, SynthesisRequest]:
        monkeypatch.setenv(NAME, str(process))
        generator = _asking(grid_samples=1)
        _trainer(tmp_path).fit(generator, datamodule=_data(seed=seed))
        return torch.cat([p.detach().flatten() for p in generator.model.unet.parameters()]), generator.asked[0]

    (first, grid), (second, _), (other, _) = fit(1, 5), fit(2, 5), fit(1, 6)
    assert grid.seed == 5 and torch.equal(first, second) and not torch.equal(first, other)
    assert torch.equal(fit(5, None)[0], first)


def test_sample_i_is_one_face_in_a_set_a_pool_and_a_request(tmp_path: Path) -> None:
    generator, data = _asking(), _data(seed=5, synthesis_count=8)
    trainer = _trainer(tmp_path)
    trainer.predict(generator, datamodule=data, return_predictions=False)
    images = torch.cat(generator.made)
    units = np.concatenate([request.action_units for request in generator.asked])
    assert {request.seed for request in generator.asked} == {5}

    names = [NAMES[i % 3] for i in range(8)]
    request = SynthesisRequest.from_expressions(names, range(8), 5, generator.sampling, generator.au_names)
    assert np.array_equal(request.action_units, units)
    again = torch.cat([generator.synthesise(request.part(i, i + 4)).images for i in (0, 4)])
    assert torch.equal(again, images)

    online = OnlineSynthesis()
    online._names, online._generator = list(NAMES), generator
    pool = online.next_request(rank=0, seed=5, count=8)
    for name, number, drawn in zip(pool.expressions, pool.sample_ids, pool.action_units, strict=True):
        planned = SynthesisWork(8, NAMES, 5, expressions=[name])[number]  # the pool has its own order of expressions
        assert np.array_equal(planned["au"][0].numpy(), drawn)


def test_a_test_makes_the_first_faces_of_the_set() -> None:
    work = SynthesisWork(100, NAMES, 7)
    batch = work.__getitems__(range(100))
    request = SynthesisRequest.from_expressions(batch["expression"], batch["index"].tolist(), 7)
    assert np.array_equal(request.action_units, batch["au"].numpy()) and list(request.captions) == batch["caption"]
