"""The moving average goes with the optimiser, step by step."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lightning_modules.averaged_module import AveragedModule
from synfer.foundation.module_file import ModuleFormat
from synfer.optimisation.ema import ParameterEMA
from synfer.optimisation.schedule import Schedule


class Slope(AveragedModule):
    file_format = ModuleFormat("slope", "layer", "Slope")

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)
        self.ema = ParameterEMA(self.layer, 0.5)

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return self.layer(batch.float()[:, None]).square().mean()

    def build_optimiser(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01)

    def learning_rate_schedule(self) -> tuple[Schedule, float]:
        return "constant", 0.0


@pytest.mark.parametrize(("accumulated", "steps"), [(1, 6), (2, 3), (4, 2)])
def test_one_update_per_optimiser_step_and_none_is_missing_in_a_checkpoint(
    accumulated: int, steps: int, tmp_path: Path
) -> None:
    module = Slope()
    saver = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    Trainer(
        max_epochs=1,
        accelerator="cpu",
        accumulate_grad_batches=accumulated,
        callbacks=[saver],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    ).fit(module, DataLoader(torch.arange(6.0)))
    assert module.ema is not None and module.ema.num_updates == steps
    for step in range(1, steps + 1):
        saved = torch.load(tmp_path / f"step={step}.ckpt", weights_only=True)
        assert saved["kind"] == "slope"
        assert saved["ema"]["num_updates"] == saved["global_step"] == step
        if step == 1:  # the first update copies
            assert torch.equal(saved["ema"]["average"]["weight"], saved["state_dict"]["layer.weight"])


def test_a_saved_average_takes_the_place_of_one_that_an_evaluation_has_left() -> None:
    saved, module = Slope(), Slope()
    for each in (saved, module):
        assert each.ema is not None
        each.ema.update()
    assert module.ema is not None and saved.ema is not None
    module.ema.apply()
    module._load_average(saved.ema.state_dict())
    assert not module.ema.is_swapped
    assert torch.equal(module.ema.average["weight"], saved.layer.weight)
