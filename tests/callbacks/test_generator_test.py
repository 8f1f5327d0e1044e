from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from lightning.pytorch import Callback
from PIL import Image
from safetensors.torch import save_file

from callbacks.generator_test import GeneratorTest
from callbacks.synthesis.pseudo_labeller import PseudoLabeller
from callbacks.synthesis.semantic_guidance import SemanticGuidance
from datamodules.expression_data_module import ExpressionDataModule
from datamodules.loading.augmentation import Augmentation
from datamodules.rows.grey_or_colour import as_rgb
from lightning_modules.generator import ExpressionGenerator
from synfer.metrics.frechet_distance import frechet_distance, weighted_moments
from synfer.networks.au_estimator import ActionUnitNetwork
from synfer.networks.feature_extractor import ClassifierFeatures
from tests.fixtures.tiny_data import TinyReader, tiny_table
from tests.fixtures.tiny_generator import (
    NAMES,
    SIDE,
    opinionated_classifier,
    request_for,
    save_checkpoint,
    tiny_classifier,
    tiny_generator,
)
from tests.lightning_modules.test_generator import make_trainer, tiny_data

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
    test = GeneratorTest(**{"judge": checkpoint(folder, "judge", 1), "samples": SAMPLES, **settings})
    trainer = make_trainer(folder, callbacks=[*(callbacks or []), test], inference_mode=not callbacks)
    return dict(trainer.test(tiny_generator(), datamodule=module or data(), verbose=False)[0])


def test_distances_in_the_judges_features(tmp_path: Path) -> None:
    found = evaluate(tmp_path, batch_size=5)
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

    def copy(generator: ExpressionGenerator, request: Any, *args: Any) -> dict[str, torch.Tensor]:
        rows = np.arange(len(request))
        return {"images": as_rgb(table.images.batch(rows)), "label": torch.from_numpy(table.label[rows])}

    monkeypatch.setattr("callbacks.generator_test.synthesise_over_ranks", copy)
    found = evaluate(tmp_path)
    assert found["test/nearest_training/ratio/judge"] < 0.01
    assert found["test/nearest_training/closer_than_1_percent/judge"] == 1
    height = Image.open(tmp_path / "samples" / "nearest.png").size[1]
    assert height == 26 + 8 * (96 + 18)


def test_a_generator_of_more_expressions_is_tested_on_those_of_the_data(tmp_path: Path) -> None:
    """Labels are names: neither another order nor names that the data lacks change a figure."""
    found = {}
    for name, space in (("same", NAMES), ("wider", ("contempt", "sad", "neutral", "fear", "happy"))):
        test = GeneratorTest(judge=checkpoint(tmp_path, "judge", 1), samples=SAMPLES)
        trainer = make_trainer(tmp_path / name, callbacks=[test])
        generator = tiny_generator(label_space=list(space))
        found[name] = dict(trainer.test(generator, datamodule=data(), verbose=False)[0])
        assert test.report.names == list(NAMES)
    timed = {"test/images_per_s"}
    assert found["same"].keys() == found["wider"].keys() and "test/fer_accuracy" in found["same"]
    for key in found["same"].keys() - timed:
        assert found["wider"][key] == pytest.approx(found["same"][key], abs=1e-6), key


def test_data_of_an_expression_that_the_generator_does_not_know_are_refused(tmp_path: Path) -> None:
    test = GeneratorTest(judge=checkpoint(tmp_path, "judge", 1), samples=SAMPLES)
    trainer = make_trainer(tmp_path, callbacks=[test])
    with pytest.raises(ValueError, match=r"data has the label space .*'sad'\], the generator \['neutral', 'happy'\]"):
        trainer.test(tiny_generator(label_space=["neutral", "happy"]), datamodule=data(), verbose=False)
    for stage in ("fit", "validate"):
        wider = tiny_generator(label_space=[*NAMES, "fear"])
        with pytest.raises(ValueError, match=r"data has the label space .*'sad'\], the generator .*'fear'\]"):
            getattr(make_trainer(tmp_path, limit_val_batches=1), stage)(wider, datamodule=data())


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


class Brightness:
    """A score of a user's own: nothing of the project knows it."""

    name, higher_is_better = "brightness", True

    def __call__(self, images: torch.Tensor, captions: Sequence[str]) -> torch.Tensor:
        assert len(captions) == len(images) and all("face" in caption for caption in captions)
        return images.mean((1, 2, 3))


class Sadness(Brightness):
    name, higher_is_better = "sadness", False

    def __call__(self, images: torch.Tensor, captions: Sequence[str]) -> torch.Tensor:
        return torch.tensor([float("sad" in caption) for caption in captions])


class OneForAll(Brightness):
    def __call__(self, images: torch.Tensor, captions: Sequence[str]) -> torch.Tensor:
        return images.mean()


def test_a_user_s_scores_are_reported(tmp_path: Path) -> None:
    found = evaluate(tmp_path, scores=[f"{__name__}.Brightness", f"{__name__}.Sadness"])
    images = tiny_generator().synthesise(request_for([NAMES[i % 3] for i in range(SAMPLES)])).images
    assert found["test/score/brightness"] == pytest.approx(float((images / 255).mean()), rel=1e-4)
    assert found["test/score_lower/sadness"] == pytest.approx(1 / 3)
    with pytest.raises(
        ValueError, match=r"test.scores 'brightness': found values of shape \(\), expected \(12,\), one p"
    ):
        evaluate(tmp_path, scores=[f"{__name__}.OneForAll"])


@pytest.mark.ddp
@pytest.mark.slow
def test_two_ranks_report_what_one_rank_does(tmp_path: Path) -> None:
    alone = evaluate(tmp_path)
    test = GeneratorTest(judge=str(tmp_path / "judge.ckpt"), samples=SAMPLES)
    both = make_trainer(tmp_path / "two", callbacks=[test], devices=2, strategy="ddp_fork", inference_mode=False)
    both.test(tiny_generator(), datamodule=data(), verbose=False)
    assert set(both.callback_metrics) == set(alone)
    for name, value in alone.items():
        if name != "test/images_per_s":
            assert float(both.callback_metrics[name]) == pytest.approx(value, rel=1e-4, abs=1e-6), name
    assert (tmp_path / "two" / "samples" / "comparison.png").is_file()


# ---------------------------------------------------------------- test by a judge


def run_test(
    test: GeneratorTest, folder: Path, generator: ExpressionGenerator | None = None, **changes: Any
) -> dict[str, float]:
    trainer = make_trainer(folder, **{**changes, "callbacks": [*changes.get("callbacks", []), test]})
    return dict(trainer.test(generator or tiny_generator(), datamodule=tiny_data(), verbose=False)[0])


def test_judge_scores_synthetic_and_real_faces(tmp_path: Path) -> None:
    judge = opinionated_classifier(seed=1)
    path = save_checkpoint(judge, tmp_path / "judge.ckpt")
    generator = tiny_generator()
    metrics = run_test(GeneratorTest(judge=str(path), samples=10, batch_size=4), tmp_path, generator)
    names = [NAMES[i % 3] for i in range(10)]
    images = generator.synthesise(request_for(names)).images
    with torch.no_grad():
        seen = judge.predict_probabilities(images.float() / 255).argmax(1)
        table = tiny_data().reader.read("test")
        real = judge.predict_probabilities(table.images.batch(range(12)).float() / 255).argmax(1)
    wanted, truth = torch.tensor([NAMES.index(name) for name in names]), torch.from_numpy(table.label)
    for prefix, label, found in (("test/fer", wanted, seen), ("test/judge_on_real", truth, real)):
        recalls = [float((found[label == k] == k).float().mean()) for k in range(3)]
        for name, recall in zip(NAMES, recalls, strict=True):
            assert metrics[f"{prefix}_recall/{name}"] == pytest.approx(recall)
        assert metrics[f"{prefix}_accuracy"] == pytest.approx(sum(recalls) / 3)
    assert metrics["test/images_per_s"] > 0
    assert (tmp_path / "samples" / "test.png").is_file()
    assert not any("judge" in name for name in generator.state_dict())


def test_judge_speaks_by_name_whatever_its_order(tmp_path: Path) -> None:
    judge = opinionated_classifier(seed=1)
    shuffled = tiny_classifier(("sad", "anger", "neutral", "happy"), seed=1)
    source, target = judge.backbone, shuffled.backbone
    head = source.get_classifier()
    with torch.no_grad():
        target.load_state_dict(
            {
                name: tensor
                for name, tensor in source.state_dict().items()
                if "head.w" not in name and "head.b" not in name
            },
            strict=False,
        )
        order = [NAMES.index("sad"), None, NAMES.index("neutral"), NAMES.index("happy")]
        for row, old in enumerate(order):
            target.get_classifier().weight[row] = 0 if old is None else head.weight[old]
            target.get_classifier().bias[row] = -1e4 if old is None else head.bias[old]
    results = []
    for number, network in enumerate((judge, shuffled)):
        # Of one name, which is part of the metrics' names.
        path = save_checkpoint(network, tmp_path / str(number) / "judge.ckpt")
        results.append(run_test(GeneratorTest(judge=str(path), samples=6), tmp_path))
    speed = "test/images_per_s"
    assert {**results[0], speed: 0.0} == pytest.approx({**results[1], speed: 0.0}, nan_ok=True)


def test_fewer_samples_than_expressions(tmp_path: Path) -> None:
    path = save_checkpoint(opinionated_classifier(seed=1), tmp_path / "judge.ckpt")
    metrics = run_test(GeneratorTest(judge=str(path), samples=2), tmp_path)
    assert "test/fer_recall/happy" in metrics and "test/fer_recall/sad" not in metrics


def test_expressions_of_a_test_go_by_any_known_spelling(tmp_path: Path) -> None:
    path = save_checkpoint(opinionated_classifier(seed=1), tmp_path / "judge.ckpt")
    test = GeneratorTest(judge=str(path), samples=2, expressions=["Happiness", "sadness"])
    metrics = run_test(test, tmp_path)
    assert {"test/fer_recall/happy", "test/fer_recall/sad"} <= set(metrics) and "test/fer_recall/neutral" not in metrics


def test_a_test_without_judge_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"test.judge: found none"):
        run_test(GeneratorTest(), tmp_path)


def test_the_guide_must_not_judge_under_whatever_name(tmp_path: Path) -> None:
    classifier = opinionated_classifier(seed=1)
    guide = save_checkpoint(classifier, tmp_path / "guide.ckpt")
    copy = save_checkpoint(classifier, tmp_path / "copy.ckpt")
    guidance = SemanticGuidance(True, str(guide), start_step=1)
    test = GeneratorTest(judge=str(copy), samples=3)
    with pytest.raises(ValueError, match=r"copy.ckpt' is the guide's own network"):
        run_test(test, tmp_path, callbacks=[guidance], inference_mode=False)
    off = SemanticGuidance(False, str(guide))
    assert "test/fer_accuracy" in run_test(test, tmp_path, callbacks=[off])


@pytest.mark.parametrize("through", ["text", "latents"])
def test_guidance_acts_in_a_test_and_another_network_judges(through: Any, tmp_path: Path) -> None:
    guide = save_checkpoint(opinionated_classifier(seed=1), tmp_path / "guide.ckpt")
    judge = save_checkpoint(opinionated_classifier(seed=2), tmp_path / "judge.ckpt")
    guidance = SemanticGuidance(True, str(guide), through, start_step=1)
    test = GeneratorTest(judge=str(judge), samples=3)
    metrics = run_test(test, tmp_path, callbacks=[guidance], inference_mode=False)
    assert "test/fer_accuracy" in metrics and len(guidance.losses) == 3


# ---------------------------------------------------------------- bad input


def test_the_guide_must_not_give_the_features(tmp_path: Path) -> None:
    guide = checkpoint(tmp_path, "guide", 2)
    guidance = SemanticGuidance(True, guide, start_step=1)
    with pytest.raises(ValueError, match=r"test.features '.*guide.ckpt' is the guide's own network: a feature ext"):
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
    assert "test/fer_recall/happy" in evaluate(tmp_path, judge=str(path), expressions=["neutral", "happy"])


def test_the_vote_does_not_count_the_unguided_duplicates(tmp_path: Path) -> None:
    guidance = SemanticGuidance(True, checkpoint(tmp_path, "guide", 2), start_step=1)
    labeller = PseudoLabeller(True, [checkpoint(tmp_path, "voter", 3)])
    evaluate(tmp_path, callbacks=[guidance, labeller])
    assert labeller.seen == SAMPLES


def test_one_face_is_too_few(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"test.samples: found 1, expected at least 2"):
        evaluate(tmp_path, samples=1)
    with pytest.raises(ValueError, match=r"found 1 real test faces of happy, expected at least 2"):
        evaluate(tmp_path, data(test=tiny_table(3, "test", SIDE, label_space=NAMES)), expressions=["happy"])


def test_training_faces_that_cannot_be_read(tmp_path: Path) -> None:
    module = data()
    assert isinstance(module.reader, TinyReader)
    del module.reader.tables["train"]
    with pytest.raises(ValueError, match=r"test.nearest_training: the training split cannot be read"):
        evaluate(tmp_path, module)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"samples": 0}, ValueError, r"test.samples: found 0"),
        ({"judge": "nowhere.ckpt"}, FileNotFoundError, r"test.judge 'nowhere.ckpt'"),
        ({"features": "nowhere.ckpt"}, FileNotFoundError, r"test.features 'nowhere.ckpt': no such file"),
        ({"features": "inception_v3"}, ValueError, r"expected test.features_weights, a file of its weights"),
        ({"features_weights": "w.pth"}, ValueError, r"found weights without test.features"),
        ({"features": "resnet19", "features_weights": "w.pth"}, ValueError, r"found 'resnet19'.*did you mean"),
        ({"features": "resnet18", "features_weights": "w.pth"}, FileNotFoundError, r"'w.pth': no such file"),
        ({"au_estimator": "nowhere"}, FileNotFoundError, r"AU estimator 'nowhere': found no config.json"),
        ({"au_present_above": 1.0}, ValueError, r"test.au_present_above: found 1.0"),
        ({"scores": ["torch.Nothing"]}, ValueError, r"test.scores 'torch.Nothing': .*expected package.module.Class"),
        ({"scores": ["nothing"]}, ValueError, r"test.scores 'nothing': "),
        ({"scores": ["decimal.Decimal"]}, ValueError, r"test.scores 'decimal.Decimal': found no name"),
        ({"nearest_training": -1}, ValueError, r"test.nearest_training: found -1"),
    ],
)
def test_settings_are_checked_before_anything_is_loaded(
    settings: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        GeneratorTest(**settings)


def test_an_extractor_that_is_no_classifier(tmp_path: Path) -> None:
    (tmp_path / "text.ckpt").write_text("nothing")
    with pytest.raises(ValueError, match=r"text.ckpt cannot be read as a checkpoint"):
        evaluate(tmp_path, features=str(tmp_path / "text.ckpt"))


def test_a_module_that_makes_no_faces_is_refused(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, callbacks=[GeneratorTest(judge=checkpoint(tmp_path, "judge", 1))])
    with pytest.raises(ValueError, match=r"found the model ExpressionClassifier, expected one that makes faces"):
        trainer.test(tiny_classifier(), datamodule=data(), verbose=False)
