from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from lightning.pytorch import Callback
from PIL import Image
from safetensors.torch import save_file

from callbacks.synthesis.pseudo_labeller import PseudoLabeller
from callbacks.synthesis.semantic_guidance import SemanticGuidance
from datamodules.expression_data_module import ExpressionDataModule
from datamodules.loading.augmentation import Augmentation
from lightning_modules.generator import ExpressionGenerator
from synfer.metrics.frechet_distance import frechet_distance, weighted_moments
from synfer.networks.au_estimator import ActionUnitNetwork
from synfer.networks.feature_extractor import ClassifierFeatures
from tests.fixtures.tiny_data import TinyReader, tiny_table
from tests.fixtures.tiny_generator import (
    NAMES,
    SIDE,
    request_for,
    save_checkpoint,
    tiny_classifier,
    tiny_generator,
)
from tests.lightning_modules.test_generator import make_trainer

SAMPLES = 12


def data(**tables: Any) -> ExpressionDataModule:
    sizes = {"train": 24, "val": 8, "test": 17}  # 6, 6 and 5 real faces per expression
    given = {split: tiny_table(n, split, SIDE, label_space=NAMES) for split, n in sizes.items()}
    settings: dict[str, Any] = {"batch_size": 8, "seed": 0, "augmentation": Augmentation(enabled=False)}
    return ExpressionDataModule(TinyReader(**{**given, **tables}), eval_batch_size=4, **settings)


def checkpoint(folder: Path, name: str, seed: int) -> str:
    classifier = tiny_classifier(seed=seed)
    with torch.no_grad():
        classifier.backbone.get_classifier().weight.mul_(30)
    return str(save_checkpoint(classifier, folder / f"{name}.ckpt"))


def evaluate(
    folder: Path, module: ExpressionDataModule | None = None, callbacks: list[Callback] | None = None, **settings: Any
) -> dict[str, float]:
    generator = tiny_generator(**{"judge": checkpoint(folder, "judge", 1), "test_samples": SAMPLES, **settings})
    trainer = make_trainer(folder, callbacks=callbacks or [], inference_mode=not callbacks)
    return dict(trainer.test(generator, datamodule=module or data(), verbose=False)[0])


def test_distances_in_the_judges_features(tmp_path: Path) -> None:
    found = evaluate(tmp_path, test_batch_size=5)
    extractor = ClassifierFeatures(tiny_classifier(seed=1), "judge")
    images = tiny_generator().synthesise(request_for([NAMES[i % 3] for i in range(SAMPLES)])).images
    real, train = (tiny_table(n, split, SIDE, label_space=NAMES) for n, split in ((17, "test"), (24, "train")))
    with torch.no_grad():
        generated, references, training = (
            extractor(pixels.float() / 255)
            for pixels in (images, real.images.batch(np.arange(17)), train.images.batch(np.arange(24)))
        )
    weights = torch.tensor([4 / [6, 6, 5][label] for label in real.label])
    expected = frechet_distance(weighted_moments(generated), weighted_moments(references, weights))
    assert found["test/frechet/judge"] == pytest.approx(expected, rel=1e-4)
    near = torch.cdist(generated.double(), training.double()).min(1).values
    held_out = torch.cdist(references.double(), training.double()).min(1).values
    typical = float((held_out * weights).sum() / weights.sum())
    assert found["test/nearest_training/generated/judge"] == pytest.approx(float(near.mean()), rel=1e-4)
    assert found["test/nearest_training/held_out/judge"] == pytest.approx(typical, rel=1e-4)
    assert found["test/nearest_training/ratio/judge"] == pytest.approx(float(near.mean()) / typical, rel=1e-4)
    closer = float((near < held_out.min()).double().mean())
    assert found["test/nearest_training/closer_than_1_percent/judge"] == pytest.approx(closer)
    assert found["test/real_faces"] == 17 and 16 < found["test/effective_real_faces"] < 17
    for name in ("kid", "kid_std", "improved_precision", "improved_recall"):
        assert math.isfinite(found[f"test/{name}/judge"])


def test_a_copied_training_set_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = tiny_table(24, "train", SIDE, label_space=NAMES)

    def copy(self: ExpressionGenerator, request: Any, *args: Any) -> dict[str, torch.Tensor]:
        rows = np.arange(len(request))
        return {"images": table.images.batch(rows), "label": torch.from_numpy(table.label[rows])}

    monkeypatch.setattr(ExpressionGenerator, "synthesise_over_ranks", copy)
    found = evaluate(tmp_path)
    assert found["test/nearest_training/ratio/judge"] < 0.01
    assert found["test/nearest_training/closer_than_1_percent/judge"] == 1
    height = Image.open(tmp_path / "samples" / "nearest.png").size[1]
    assert height == 26 + 8 * (96 + 18)


def test_another_extractor_names_the_metrics(tmp_path: Path) -> None:
    other = checkpoint(tmp_path / "runs" / "witness" / "checkpoints", "last", 2)
    found = evaluate(tmp_path, features=other, nearest_training=0)
    assert {"test/frechet/witness", "test/kid/witness", "test/improved_recall/witness"} <= set(found)
    assert not any(name.endswith("/judge") or "nearest_training" in name for name in found)
    assert not (tmp_path / "samples" / "nearest.png").exists()


def test_expressions_without_real_faces_are_left_out(tmp_path: Path) -> None:
    table = tiny_table(18, "test", SIDE, label_space=NAMES)
    with pytest.warns(UserWarning, match="the test split has no face of sad"):
        found = evaluate(tmp_path, data(test=table.select(table.label < 2)))
    assert found["test/real_faces"] == 12 and math.isfinite(found["test/frechet/judge"])
    assert "test/fer_recall/sad" in found and "test/judge_on_real_recall/sad" not in found


def test_action_units_are_scored_by_name(tmp_path: Path) -> None:
    torch.manual_seed(0)
    tiny = {"img_size": SIDE, "patch_size": 8, "embed_dim": 16, "depth": 1, "num_heads": 2}
    estimator = ActionUnitNetwork(["AU4", "AU12", "AU27"], "vit_tiny_patch16_224", SIDE, tiny)
    with torch.no_grad():  # sees AU12 in every face, nothing else
        estimator.backbone.get_classifier().weight.zero_()
        estimator.backbone.get_classifier().bias.copy_(torch.tensor([-5.0, 5.0, -5.0]))
    estimator.save(tmp_path / "au")
    found = evaluate(tmp_path, au_estimator=str(tmp_path / "au"))
    # AU12 is core to happy, a third of the faces; AU4 to sad; AU27 to none of the three.
    asked = request_for([NAMES[i % 3] for i in range(SAMPLES)]).action_units
    positives = int((asked[:, list(tiny_generator().au_names).index("AU12")] > 0.5).sum())
    assert found["test/au_f1/AU12"] == pytest.approx(2 * positives / (positives + SAMPLES))
    assert found["test/au_f1/AU4"] == 0 and "test/au_f1/AU27" not in found
    assert found["test/au_f1_mean"] == pytest.approx(found["test/au_f1/AU12"] / 2)
    assert not any("au_f1_on_real" in name for name in found)  # no action unit of these real faces is known


def test_pictures_show_real_unguided_and_guided_faces(tmp_path: Path) -> None:
    guide = checkpoint(tmp_path, "guide", 2)
    evaluate(tmp_path / "unguided")
    evaluate(tmp_path / "guided", callbacks=[SemanticGuidance(True, guide, start_step=1, step_size=30.0)])
    pictures = {
        name: np.asarray(Image.open(tmp_path / name / "samples" / "comparison.png")) for name in ("unguided", "guided")
    }
    three = 3 * 96
    assert pictures["unguided"].shape[1] == 110 + 2 * three + 14
    assert pictures["guided"].shape[1] == 110 + 3 * three + 2 * 14
    # Columns of real and of unguided faces are the same in both; the guide has changed the third.
    faces = slice(26, 26 + 96)
    left = 110 + three + 14
    assert (pictures["unguided"][faces] == pictures["guided"][faces, : left + three]).all()
    guided = pictures["guided"][faces, left + three + 14 :]
    assert (guided != pictures["unguided"][faces, left:]).any()


@pytest.mark.ddp
@pytest.mark.slow
def test_two_ranks_report_what_one_rank_does(tmp_path: Path) -> None:
    alone = evaluate(tmp_path)
    generator = tiny_generator(judge=str(tmp_path / "judge.ckpt"), test_samples=SAMPLES)
    both = make_trainer(tmp_path / "two", devices=2, strategy="ddp_fork", inference_mode=False)
    both.test(generator, datamodule=data(), verbose=False)
    assert set(both.callback_metrics) == set(alone)
    for name, value in alone.items():
        if name != "test/images_per_s":
            assert float(both.callback_metrics[name]) == pytest.approx(value, rel=1e-4, abs=1e-6), name
    assert (tmp_path / "two" / "samples" / "comparison.png").is_file()


# ---------------------------------------------------------------- bad input


def test_the_guide_must_not_give_the_features(tmp_path: Path) -> None:
    guide = checkpoint(tmp_path, "guide", 2)
    guidance = SemanticGuidance(True, guide, start_step=1)
    with pytest.raises(ValueError, match=r"model.features '.*guide.ckpt' is the guide's own network: a feature ext"):
        evaluate(tmp_path, callbacks=[guidance], features=guide)


def test_the_guide_must_not_be_the_timm_extractor(tmp_path: Path) -> None:
    name = "test_vit"
    torch.manual_seed(0)
    network = timm.create_model(name, num_classes=len(NAMES))
    folder = tmp_path / "guide"
    folder.mkdir()
    save_file(network.state_dict(), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"architecture": name, "label_names": list(NAMES)}))
    bare = {key: value for key, value in network.state_dict().items() if not key.startswith("head.")}
    save_file(bare, tmp_path / "bare.safetensors")
    guidance = SemanticGuidance(True, str(folder), start_step=1)
    with pytest.raises(ValueError, match=r"'.*bare.safetensors' is the guide's own network: a feature"):
        evaluate(tmp_path, callbacks=[guidance], features=name, features_weights=str(tmp_path / "bare.safetensors"))


def test_a_judge_that_lacks_an_expression_is_refused(tmp_path: Path) -> None:
    path = save_checkpoint(tiny_classifier(("neutral", "happy")), tmp_path / "two.ckpt")
    with pytest.raises(ValueError, match=r"two.ckpt' does not know 'sad': found neutral, happy, expected all"):
        evaluate(tmp_path, judge=str(path))
    assert "test/fer_recall/happy" in evaluate(tmp_path, judge=str(path), test_expressions=["neutral", "happy"])


def test_the_vote_does_not_count_the_unguided_duplicates(tmp_path: Path) -> None:
    guidance = SemanticGuidance(True, checkpoint(tmp_path, "guide", 2), start_step=1)
    labeller = PseudoLabeller(True, [checkpoint(tmp_path, "voter", 3)])
    evaluate(tmp_path, callbacks=[guidance, labeller])
    assert labeller.seen == SAMPLES


def test_one_face_is_too_few(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"model.test_samples: found 1, expected at least 2"):
        evaluate(tmp_path, test_samples=1)
    with pytest.raises(ValueError, match=r"found 1 real test faces of happy, expected at least 2"):
        evaluate(tmp_path, data(test=tiny_table(3, "test", SIDE, label_space=NAMES)), test_expressions=["happy"])


def test_training_faces_that_cannot_be_read(tmp_path: Path) -> None:
    module = data()
    assert isinstance(module.reader, TinyReader)
    del module.reader.tables["train"]
    with pytest.raises(ValueError, match=r"model.nearest_training: the training split cannot be read"):
        evaluate(tmp_path, module)


@pytest.mark.parametrize(
    "settings, error, message",
    [
        ({"features": "nowhere.ckpt"}, FileNotFoundError, r"model.features 'nowhere.ckpt': no such file"),
        ({"features": "inception_v3"}, ValueError, r"expected model.features_weights, a file of its weights"),
        ({"features_weights": "w.pth"}, ValueError, r"found weights without model.features"),
        ({"features": "resnet19", "features_weights": "w.pth"}, ValueError, r"found 'resnet19'.*did you mean"),
        ({"features": "resnet18", "features_weights": "w.pth"}, FileNotFoundError, r"'w.pth': no such file"),
        ({"au_estimator": "nowhere"}, FileNotFoundError, r"AU estimator 'nowhere': found no config.json"),
        ({"au_present_above": 1.0}, ValueError, r"model.au_present_above: found 1.0"),
        ({"nearest_training": -1}, ValueError, r"model.nearest_training: found -1"),
    ],
)
def test_settings_are_checked_before_anything_is_loaded(
    settings: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        tiny_generator(**settings)


def test_an_extractor_that_is_no_classifier(tmp_path: Path) -> None:
    (tmp_path / "text.ckpt").write_text("nothing")
    with pytest.raises(ValueError, match=r"text.ckpt cannot be read as a checkpoint"):
        evaluate(tmp_path, features=str(tmp_path / "text.ckpt"))
