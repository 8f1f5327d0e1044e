from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from torch import nn

from callbacks.synthesis.faces_ahead import FacesAhead, check_may_overlap
from callbacks.synthesis.layout_initialisation import LayoutInitialisation
from callbacks.synthesis.online_synthesis import OnlineSynthesis
from callbacks.synthesis.pseudo_labeller import PseudoLabeller
from callbacks.synthesis.semantic_guidance import SemanticGuidance
from lightning_modules.classifier import ExpressionClassifier
from synfer.synthesis.diffusion.synthesiser import DiffusionSynthesiser
from synfer.synthesis.request import SamplingSettings
from tests.callbacks.synthesis.test_online_synthesis import fit
from tests.fixtures.tiny_generator import NAMES, save_checkpoint, tiny_classifier, tiny_generator

CPU = torch.device("cpu")
FEW = SamplingSettings(num_steps=3, guidance_scale=2.0)
CONVOLUTIONS: dict[str, Any] = {
    "backbone": "ese_vovnet39b",
    "backbone_kwargs": {
        "stem_chs": [4, 4, 8],
        "stage_conv_chs": [4, 4, 4, 4],
        "stage_out_chs": [8, 8, 8, 8],
        "layer_per_block": 1,
        "block_per_stage": [1, 1, 1, 1],
    },
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("files")
    models = {"generator": tiny_generator(), "guide": tiny_classifier(), "voter": tiny_classifier(drop_rate=0.1)}
    return {name: str(save_checkpoint(model, folder / f"{name}.ckpt")) for name, model in models.items()}


class SavesOnce(Callback):
    """Writes a checkpoint in the middle."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        if trainer.global_step == 7:
            trainer.save_checkpoint(self.path)


def mixed(files: dict[str, str], folder: Path, ahead: bool, ckpt: str | None = None, *others: Callback) -> Any:
    """A mixed training with layouts, guidance and a vote: what was in the pool at its end, weights, counts."""
    torch.manual_seed(0)
    synthesis = OnlineSynthesis(True, files["generator"], batch_size=6, max_reuse=2, sampling=FEW, ahead=ahead)
    layout = LayoutInitialisation(True, num_inverted=2, max_similarity=0.999)
    guidance = SemanticGuidance(True, files["guide"], through="latents", start_step=0)
    vote = PseudoLabeller(True, [files["voter"]], discard_below=0.05)
    network = ExpressionClassifier(NAMES, image_size=16, drop_rate=0.0, **CONVOLUTIONS)
    pool, _ = fit(folder, synthesis, layout, guidance, vote, *others, epochs=4, network=network, ckpt_path=ckpt)
    weights = torch.cat([parameter.detach().flatten() for parameter in network.parameters()])
    return pool.samples, weights, (synthesis.made, synthesis.discarded, vote.seen, vote.agreed, layout.copies)


def test_it_is_the_same_run(files: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synthesise, where = DiffusionSynthesiser.synthesise, []

    def note(*given: Any) -> Any:
        where.append(threading.current_thread().name)
        return synthesise(*given)

    monkeypatch.setattr(DiffusionSynthesiser, "synthesise", note)
    pool, weights, counts = mixed(files, tmp_path, ahead=False)
    plain, where[:] = list(where), []
    pool_ahead, weights_ahead, counts_ahead = mixed(files, tmp_path, ahead=True)
    assert len(plain) > 3 and set(plain) == {"MainThread"}
    # The pool's first batch is made before there is a thread, and no batch that would never be used.
    assert where[0] == "MainThread" and all(name.startswith("synthesis") for name in where[1:])
    assert len(where) == len(plain) and counts == counts_ahead
    assert torch.equal(weights, weights_ahead)
    for name in ("image", "label", "soft_label", "au"):
        assert torch.equal(pool[name], pool_ahead[name])
    assert pool["layout"] == pool_ahead["layout"]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("synthesis")]


def test_a_run_that_was_stopped_goes_on_as_it_would_have(files: dict[str, str], tmp_path: Path) -> None:
    """A batch that is under way is no part of a checkpoint."""
    path = tmp_path / "stopped.ckpt"
    pool, weights, counts = mixed(files, tmp_path, True, None, SavesOnce(path))
    pool_on, weights_on, counts_on = mixed(files, tmp_path, True, str(path))
    assert torch.equal(weights, weights_on) and counts == counts_on
    assert torch.equal(pool["image"], pool_on["image"])


def test_what_goes_wrong_in_the_thread_ends_the_run(
    files: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synthesise = DiffusionSynthesiser.synthesise

    def fails(*given: Any) -> Any:
        if threading.current_thread().name.startswith("synthesis"):
            raise ValueError("found a face that is no face")
        return synthesise(*given)

    monkeypatch.setattr(DiffusionSynthesiser, "synthesise", fails)
    with pytest.raises(ValueError, match="found a face that is no face"):
        mixed(files, tmp_path, ahead=True)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("synthesis")]


def test_one_batch_is_under_way_at_a_time_and_a_stranger_is_not_taken() -> None:
    ahead, made = FacesAhead(CPU), []
    make: Any = lambda name: lambda: made.append(name) or name  # noqa: E731
    ahead.begin(6, make("sixth"))
    ahead.begin(12, make("twelfth"))
    assert ahead.take(6) == "sixth" and made == ["sixth"] and ahead.take(12) is None
    ahead.begin(18, make("eighteenth"))
    assert ahead.take(12) is None and ahead.take(18) is None and made == ["sixth", "eighteenth"]
    ahead.close()


def test_what_would_not_be_the_same_run_is_refused() -> None:
    with pytest.raises(ValueError, match=r"synthesis.ahead=true beside synthesis.plan=feedback: found shares"):
        check_may_overlap(CPU, nn.Identity(), "feedback")
    for network in (tiny_classifier(), nn.Sequential(nn.MultiheadAttention(4, 1))):
        with pytest.raises(ValueError, match=r"synthesis.ahead=true on a CPU: found attention in the network"):
            check_may_overlap(CPU, network, "even")
    check_may_overlap(torch.device("cuda", 0), tiny_classifier(), "even")
    check_may_overlap(CPU, nn.Conv2d(1, 1, 1), "even")
