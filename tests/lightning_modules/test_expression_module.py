"""What classifier and annotator share: averaged weights in evaluations, trained ones everywhere else."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_modules.expression_module import ExpressionModule
from synfer.foundation.module_file import ModuleFormat
from synfer.optimisation.ema import ParameterEMA


class Brightness(ExpressionModule):
    """One linear layer over the mean of an image."""

    file_format = ModuleFormat("brightness", "layer", "Brightness", entry="brightness")

    def __init__(self, label_space: tuple[str, ...] = ("happy", "sad"), optimizer: str = "sgd") -> None:
        super().__init__()
        self.label_space = label_space
        self.layer = nn.Linear(1, len(label_space))
        self.ema = ParameterEMA(self.layer, 0.5)
        self._config = {"label_space": list(label_space), "optimizer": optimizer}

    def predict_probabilities(self, image: Tensor, flip: bool | None = None) -> Tensor:
        return self.layer(image.mean((1, 2, 3))[:, None]).softmax(1)

    def _clear_evaluation(self, stage: str) -> None:
        self.seen: list[Tensor] = []

    def _evaluate(self, stage: str, batch: Any) -> None:
        self.seen.append(self.layer.weight.detach().clone())

    def _report_evaluation(self, stage: str) -> None:
        self.seen.append(self.layer.weight.detach().clone())


def trained() -> Brightness:
    """Has taken two steps: the average lies between the weights of now and before."""
    module = Brightness()
    assert module.ema is not None
    for value in (0.0, 1.0):
        nn.init.constant_(module.layer.weight, value)
        module.ema.update()
    return module


@pytest.mark.parametrize("stage", ["validation", "test"])
def test_an_evaluation_sees_the_average_and_leaves_the_training_weights(stage: str) -> None:
    module = trained()
    getattr(module, f"on_{stage}_start")()
    getattr(module, f"on_{stage}_epoch_start")()
    getattr(module, f"{stage}_step")({}, 0)
    getattr(module, f"on_{stage}_epoch_end")()
    during, after = module.seen
    assert 0 < during[0, 0] < 1
    assert after[0, 0] == 1  # a checkpoint callback that hears of the metrics saves these


def test_a_checkpoint_written_in_an_evaluation_holds_the_training_weights() -> None:
    module = trained()
    module.on_predict_start()
    checkpoint: dict[str, Any] = {"state_dict": dict(module.state_dict())}
    average = module._average_to_save(checkpoint)
    assert checkpoint["state_dict"]["layer.weight"][0, 0] == 1
    assert average is not None and 0 < average["average"]["weight"][0, 0] < 1


def test_weights_of_an_interrupted_evaluation_do_not_come_back_over_loaded_ones() -> None:
    module, other = trained(), trained()
    nn.init.constant_(other.layer.weight, 7.0)
    checkpoint: dict[str, Any] = {"state_dict": other.state_dict(), "global_step": 2}
    average = other._average_to_save(checkpoint)
    module.on_validation_start()  # and never ended
    module._load_average(average)
    module.load_state_dict(checkpoint["state_dict"])
    module.on_fit_start()
    assert module.layer.weight[0, 0] == 7


def test_weights_without_an_average_are_not_evaluated_with_another_one() -> None:
    module = trained()
    checkpoint: dict[str, Any] = {"state_dict": {"layer.weight": torch.full((2, 1), 7.0)}}
    module._load_average(None)
    module.load_state_dict(checkpoint["state_dict"], strict=False)
    module.on_test_start()
    module.on_test_epoch_start()
    module.test_step({}, 0)
    assert [float(weight[0, 0]) for weight in module.seen] == [7.0]


def test_predictions_come_from_the_average_and_leave_the_training_weights() -> None:
    module = trained()
    image = torch.rand(2, 3, 4, 4)
    raw = module.predict_step({"sample_id": ["a", "b"], "image": image}, 0)["probabilities"]  # type: ignore[typeddict-item]
    module.on_predict_start()
    assert 0 < module.layer.weight[0, 0] < 1
    predicted = module.predict_step({"sample_id": ["a", "b"], "image": image}, 0)  # type: ignore[typeddict-item]
    assert predicted["sample_id"] == ["a", "b"] and tuple(predicted["probabilities"].shape) == raw.shape
    module.on_predict_end()
    assert module.layer.weight[0, 0] == 1


def test_checkpoints_of_another_task_are_refused() -> None:
    module = Brightness()
    with pytest.raises(ValueError, match="label space happy, fear, expected happy, sad"):
        module._check_same_task({"label_space": ["happy", "fear"], "optimizer": "sgd"}, ())
    with pytest.raises(ValueError, match="optimizer"):
        module._check_same_task({"label_space": ["happy", "sad"], "optimizer": "muon"}, ("optimizer",))
    module._check_same_task({"label_space": ["happy", "sad"], "optimizer": "muon"}, ())  # matters in fit alone


def test_what_a_subclass_must_have() -> None:
    class Idle(ExpressionModule):
        pass

    with pytest.raises(TypeError, match="abstract"):
        Idle()  # type: ignore[abstract]


def test_averaging_may_be_off() -> None:
    module = trained()
    module.ema = None
    module.on_validation_start()
    module.on_validation_epoch_start()
    module.validation_step({}, 0)
    module.on_validation_epoch_end()
    assert all(bool((weight == 1).all()) for weight in module.seen)
    assert module._average_to_save({"state_dict": {}}) is None
    module._load_average({"average": {}})
    torch.testing.assert_close(module.layer.weight, torch.ones(2, 1))
