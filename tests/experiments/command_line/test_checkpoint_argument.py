from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from experiments.command_line.checkpoint_argument import check_fits, is_file_name, locate
from synfer.networks.diffusion import SMALL_SCHEDULER, SMALL_UNET
from tests.fixtures.tiny_augmenter import tiny_augmenter
from tests.fixtures.tiny_generator import SIDE, TINY_UNET, save_checkpoint, tiny_classifier, tiny_generator


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"  # a parent of its own: a message lists the runs in it
    (folder / "checkpoints").mkdir(parents=True)
    save_checkpoint(tiny_classifier(), folder / "checkpoints" / "last.ckpt")
    return folder


def test_a_run_folder_means_its_last_checkpoint(run_folder: Path) -> None:
    last = str(run_folder / "checkpoints" / "last.ckpt")
    assert locate(str(run_folder), True) == locate(str(run_folder / "checkpoints"), True) == locate(last, False) == last
    check_fits(last, tiny_classifier())


def test_what_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"ckpt_path: found no file '.*nowhere'"):
        locate(str(tmp_path / "nowhere"), fit=True)
    with pytest.raises(FileNotFoundError, match=r"ckpt_path: found an empty folder"):
        locate(str(tmp_path), fit=True)
    torch.save({"weight": torch.ones(1)}, tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match=r"ckpt_path: found no weights in '.*other\.ckpt'"):
        locate(str(tmp_path / "other.ckpt"), fit=True)
    tiny_generator().save_trained(tmp_path / "folder")
    with pytest.raises(
        ValueError, match=r"ckpt_path: '.*folder' is a folder of save_trained, weights alone; expected a ch"
    ):
        locate(str(tmp_path / "folder"), fit=True)
    assert locate(str(tmp_path / "folder"), fit=False) == str(tmp_path / "folder")
    assert is_file_name("x") and not any(map(is_file_name, (None, "last", "best", "hpc", "s3://a/b")))


def test_folders_that_hold_none(run_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "predicted").mkdir()
    (tmp_path / "predicted" / "summary.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match=r"ckpt_path checkpoint '.*': found a run folder without checkpoints"):
        locate(str(tmp_path / "predicted"), fit=False)
    (tmp_path / "faces" / "happy").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"^ckpt_path: found no checkpoint in the folder '.*faces', expected [\w ]+$"):
        locate(str(tmp_path / "faces"), fit=False)
    said = rf"expected a checkpoint or a run folder \(one of the runs in it: .*{run_folder.name}"
    with pytest.raises(ValueError, match=said):
        locate(str(run_folder.parent), fit=True)
    (tmp_path / "sharded").mkdir()
    (tmp_path / "sharded" / ".metadata").touch()  # as torch writes them
    assert locate(str(tmp_path / "sharded"), fit=True) == str(tmp_path / "sharded")


def test_checkpoints_of_other_models(run_folder: Path) -> None:
    last = locate(str(run_folder), fit=True)
    wider = {"img_size": SIDE, "patch_size": 4, "embed_dim": 32, "depth": 1, "num_heads": 2}
    for model, said in (
        (
            tiny_classifier(backbone_kwargs=wider),
            r"of shape [\d×]+16, expected [\d×]+32 as in this Expr",
        ),
        (tiny_classifier(("happy", "sad")), r"label space neutral, happy, sad, expected happy, sad"),
        (
            tiny_classifier(backbone="resnet18", backbone_kwargs=None),
            r"model\.backbone: found resnet18, expected vit",
        ),
        (tiny_generator(), r"found weights of another kind of model .*expected a checkpoint of ExpressionGenerator"),
    ):
        with pytest.raises(ValueError, match=r"^ckpt_path '.*last\.ckpt': ") as caught:
            check_fits(last, model)
        caught.match(said)


def test_weights_that_are_no_numbers(run_folder: Path, tmp_path: Path) -> None:
    content = torch.load(run_folder / "checkpoints" / "last.ckpt", weights_only=True)
    content["state_dict"]["backbone.head.weight"][0, 0] = torch.nan
    torch.save(content, tmp_path / "nan.ckpt")
    with pytest.raises(ValueError, match=r"ckpt_path '.*nan\.ckpt': found 1 of \d+ numbers in 'backbone\.head\."):
        check_fits(str(tmp_path / "nan.ckpt"), tiny_classifier())


def test_folders_of_trained_weights(tmp_path: Path, stable_diffusion: Path) -> None:
    base = str(stable_diffusion)
    for name, module in {
        "small": tiny_generator(),
        "adapter": tiny_generator(base=base, trained="adapter"),
        "lora": tiny_generator(base=base, trained="lora"),
        "augmenter": tiny_augmenter(),
    }.items():
        module.save_trained(tmp_path / name)
        check_fits(str(tmp_path / name), module)
    other = {**TINY_UNET, "block_out_channels": [16, 32]}
    for name, model, said in (
        (
            "small",
            tiny_classifier(),
            "found a folder of the kind diffusion, expected weights of a ExpressionClassifier",
        ),
        (
            "augmenter",
            tiny_generator(),
            "found a folder of the kind vae_gan, expected weights of a ExpressionGenerator",
        ),
        (
            "small",
            tiny_generator(unet=other),
            r"its network has unet\.block_out_channels \[.*\], found .* \[16, 32\] in",
        ),
        ("lora", tiny_generator(base=base, trained="adapter"), r"found 'model\.unet\..*lora.*expected the weights of"),
        ("adapter", tiny_generator(base=base, trained="lora"), r"found no 'model\.unet\..*lora.*expected the weights"),
    ):
        with pytest.raises(ValueError, match=rf"^ckpt_path '.*{name}': .*{said}"):
            check_fits(str(tmp_path / name), model)
    (tmp_path / "small" / "config.json").unlink()
    with pytest.raises(ValueError, match=r"small': found no config.json, expected one written by save_trained"):
        check_fits(str(tmp_path / "small"), tiny_generator())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"scheduler": {"prediction_type": "sample"}}, "scheduler.prediction_type v_prediction, found .* sample in"),
        (
            {"codec_config": {"patch": 4, "channels": 3, "scaling_factor": 1.0}},
            "codec_config.scaling_factor 2.0, found .* 1.0 in",
        ),
        ({"unet": {**TINY_UNET, "act_fn": "gelu"}}, "unet.act_fn silu, found .* gelu in"),
    ],
)
def test_a_network_that_only_its_settings_tell_apart(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    save_checkpoint(tiny_generator(), tmp_path / "x.ckpt")
    tiny_generator().save_trained(tmp_path / "folder")
    same = tiny_generator(
        scheduler={**SMALL_SCHEDULER}, unet={**SMALL_UNET, **TINY_UNET, "act_fn": "silu"}
    )  # in other words
    for name in ("x.ckpt", "folder"):
        check_fits(str(tmp_path / name), same)
        with pytest.raises(
            ValueError, match=rf"^ckpt_path '.*{name}': its network has {said} the settings of this run"
        ):
            check_fits(str(tmp_path / name), tiny_generator(**changes))
