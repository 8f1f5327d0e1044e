from __future__ import annotations

import json
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file
from torch.nn import functional as F
from transformers import AutoTokenizer, CLIPModel

from lightning_modules.annotator import LabelAnnotator
from lightning_modules.classifier import ExpressionClassifier
from lightning_modules.generator import ExpressionGenerator
from lightning_modules.voter import load_voter
from synfer.faces.expressions import EXPRESSIONS
from synfer.labels.voters import VOTERS, Guide, Voter, VoterKind
from tests.fixtures.outside_models import save_clip, save_timm
from tests.fixtures.tiny_generator import (
    NAMES,
    SIDE,
    save_checkpoint,
    save_trained_on,
    tiny_classifier,
    tiny_generator,
)

FACES = torch.rand(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


def test_a_classifier_s_checkpoint(tmp_path: Path) -> None:
    classifier = tiny_classifier()
    voter = load_voter(save_checkpoint(classifier, tmp_path / "a.ckpt"))
    assert isinstance(voter.network, ExpressionClassifier) and voter.name == str(tmp_path / "a.ckpt")
    assert not voter.recorded and voter.trained_on is None  # no data module was there
    torch.testing.assert_close(voter.network.predict_probabilities(FACES), classifier.predict_probabilities(FACES))


def test_an_annotator_s_checkpoint_and_a_generator_that_has_moved(tmp_path: Path) -> None:
    tiny_generator().save_trained(tmp_path / "generator")
    module = LabelAnnotator(str(tmp_path / "generator"), list(NAMES), width=16, num_heads=2).eval()
    path = save_checkpoint(module, tmp_path / "a.ckpt")
    assert isinstance(load_voter(path).network, LabelAnnotator)
    (tmp_path / "generator").rename(tmp_path / "moved")
    with pytest.raises(FileNotFoundError, match=r"generator '.*generator': no such"):
        load_voter(path)
    (tmp_path / "a.json").write_text(json.dumps({"path": "a.ckpt", "generator": "moved"}))
    voter = load_voter(tmp_path / "a.json")
    assert voter.name.endswith("a.json")
    torch.testing.assert_close(voter.network.predict_probabilities(FACES), module.predict_probabilities(FACES))


def test_an_annotator_knows_what_its_generator_was_trained_on(tmp_path: Path) -> None:
    generator = save_trained_on(tiny_generator(), tmp_path / "generator.ckpt", [5, 3, 9])
    module = LabelAnnotator(str(generator), list(NAMES), width=16, num_heads=2).eval()
    save_trained_on(module, tmp_path / "a.ckpt", [7])
    bare = torch.load(generator, weights_only=True)
    del bare["ExpressionDataModule"]  # as in an export: the annotator's own checkpoint says it still
    torch.save(bare, tmp_path / "bare.ckpt")
    generator.unlink()
    (tmp_path / "a.json").write_text(json.dumps({"path": "a.ckpt", "generator": "bare.ckpt"}))
    voter = load_voter(tmp_path / "a.json")
    assert voter.trained_on is not None and voter.trained_on.tolist() == [7]
    assert voter.generator is not None and voter.generator.trained_on is not None
    assert voter.generator.trained_on.tolist() == [3, 5, 9]
    assert voter.generator.source == {"label_space": list(NAMES), "reader": "FER2013Reader", "labels": "original"}
    unknown = LabelAnnotator(str(tmp_path / "bare.ckpt"), list(NAMES), width=16, num_heads=2).generator_data
    assert unknown.trained_on is None and unknown.reader is None
    assert load_voter(save_checkpoint(tiny_classifier(), tmp_path / "c.ckpt")).generator is None


def test_a_timm_folder_votes_with_the_classes_that_are_expressions(tmp_path: Path) -> None:
    folder = save_timm(tmp_path / "timm", ["Anger", "other", "Happiness", "sad"])
    voter = load_voter(folder).network
    assert voter.label_space == ("anger", "happy", "sad")
    args = json.loads((folder / "config.json").read_text())["model_args"]
    network = timm.create_model("vit_tiny_patch16_224", **args).eval()
    assert network.num_classes == 4
    network.load_state_dict(load_file(folder / "model.safetensors"))
    with torch.no_grad():
        expected = network(FACES * 2 - 1)[:, [0, 2, 3]].softmax(1)
    torch.testing.assert_close(voter.predict_probabilities(FACES), expected)
    assert tuple(voter.predict_probabilities(torch.rand(2, 3, 40, 40)).shape) == (2, 3)
    assert tuple(voter.predict_probabilities(FACES[:0]).shape) == (0, 3)
    other = load_voter(save_timm(tmp_path / "other", ["anger", "other", "happy", "sad"], seed=1)).network
    assert voter.weights_fingerprint() != other.weights_fingerprint()


def test_clip_names_the_expression_whose_captions_fit_best(tmp_path: Path) -> None:
    folder = save_clip(tmp_path / "clip")
    assert load_voter(folder).network.label_space == EXPRESSIONS
    prompts = {"happy": ["a happy face", "a photo of a happy face"], "sad": ["a sad face"]}
    (tmp_path / "clip.json").write_text(json.dumps({"path": "clip", "prompts": prompts}))
    voter = load_voter(tmp_path / "clip.json").network
    assert voter.label_space == ("happy", "sad")
    clip, tokenizer = CLIPModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    mean, std = voter.mean, voter.std  # type: ignore[attr-defined]
    similar = []
    with torch.no_grad():
        for captions in prompts.values():
            logits = []
            for caption in captions:
                tokens = tokenizer([caption], return_tensors="pt")
                text = clip.get_text_features(**tokens)
                logits.append(F.normalize(getattr(text, "pooler_output", text), dim=1)[0])
            similar.append(F.normalize(torch.stack(logits).mean(0), dim=0))
        image = clip.get_image_features(pixel_values=(FACES - mean) / std)
        image = F.normalize(getattr(image, "pooler_output", image), dim=1)
        expected = (image @ torch.stack(similar).T * clip.logit_scale.exp()).softmax(1)
    torch.testing.assert_close(voter.predict_probabilities(FACES), expected)
    assert expected.std() > 0


def test_what_a_voter_is_asked_is_part_of_its_fingerprint(tmp_path: Path) -> None:
    save_clip(tmp_path / "clip")
    prints = set()
    for number, (happy, sad) in enumerate((("a happy face", "a sad face"), ("a sad face", "a happy face"))):
        path = tmp_path / f"{number}.json"
        path.write_text(json.dumps({"path": "clip", "prompts": {"happy": [happy], "sad": [sad]}}))
        prints.add(load_voter(path).network.weights_fingerprint())
    one = tmp_path / "one.json"  # a caption need be in no list
    one.write_text(json.dumps({"path": "clip", "prompts": {"happy": "a happy face", "sad": "a sad face"}}))
    assert len(prints) == 2 and load_voter(one).network.weights_fingerprint() in prints
    folder = save_timm(tmp_path / "timm", ["anger", "happy", "sad"])
    before = load_voter(folder).network.weights_fingerprint()
    config = json.loads((folder / "config.json").read_text())
    swapped = json.dumps(config).replace("happy", "x").replace("sad", "happy").replace('"x"', '"sad"')
    (folder / "config.json").write_text(swapped)
    assert load_voter(folder).network.weights_fingerprint() != before


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"path": "clip", "prompts": {"happy": [], "sad": ["sad"]}}, r"found \[\] as prompts of 'happy'"),
        ({"path": "clip", "prompts": {"happy": 3, "sad": ["sad"]}}, "found 3 as prompts of 'happy'"),
        ({"path": "clip", "prompts": ["happy", "sad"]}, "found list as prompts, expected an object"),
        ({"path": "clip", "generator": "g.ckpt"}, "found 'generator', which only an annotator supports"),
        ({"path": "timm", "prompts": {"happy": ["x"]}}, "found 'prompts', which only a CLIP model supports"),
        ({"path": "c.ckpt", "prompts": {"happy": ["x"]}}, "found 'prompts', which only a CLIP model supports"),
    ],
)
def test_what_a_voter_would_not_hear_is_refused(more: dict, message: str, tmp_path: Path) -> None:
    if more["path"] == "clip":
        save_clip(tmp_path / "clip")
    elif more["path"] == "timm":
        save_timm(tmp_path / "timm", ["anger", "happy", "sad"])
    else:
        save_checkpoint(tiny_classifier(), tmp_path / "c.ckpt")
    (tmp_path / "v.json").write_text(json.dumps(more))
    with pytest.raises(ValueError, match=message):
        load_voter(tmp_path / "v.json")


class Coin:
    """A voter of another kind: says "happy" with the probability that its file holds."""

    label_space = ("happy", "sad")

    def __init__(self, path: Path) -> None:
        self.share = float(path.read_text())

    def predict_probabilities(self, image: torch.Tensor) -> torch.Tensor:
        return torch.tensor([[self.share, 1 - self.share]]).expand(len(image), -1)

    def weights_fingerprint(self) -> str:
        return str(self.share)

    def to(self, device: object) -> Coin:
        return self


def test_a_new_kind_of_voter_is_one_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = VoterKind("a coin", lambda path, found: "share" in found, lambda path, device: Coin(path / "share"))
    monkeypatch.setattr("lightning_modules.voter.VOTERS", [*VOTERS, kind])
    (tmp_path / "share").write_text("0.75")
    (tmp_path / "config.json").write_text(json.dumps({"share": "share"}))
    voter = load_voter(tmp_path)
    assert isinstance(voter.network, Voter) and not isinstance(voter.network, Guide)
    assert voter.network.predict_probabilities(FACES).tolist() == [[0.75, 0.25]] * 3
    (tmp_path / "coin.json").write_text(json.dumps({"path": ".", "prompts": {"happy": "x"}}))
    with pytest.raises(ValueError, match="found 'prompts', which only a CLIP model supports"):
        load_voter(tmp_path / "coin.json")


def test_what_can_guide(tmp_path: Path) -> None:
    tiny_generator().save_trained(tmp_path / "generator")
    annotator = LabelAnnotator(str(tmp_path / "generator"), list(NAMES), width=16, num_heads=2)
    assert isinstance(tiny_classifier(), Guide)
    assert isinstance(load_voter(save_timm(tmp_path / "timm", ["anger", "happy"])).network, Guide)
    assert isinstance(annotator, Voter) and not isinstance(annotator, Guide)


def test_loading_draws_no_random_number(tmp_path: Path) -> None:
    """A control at ratio 0 would else depend on which guide and voters lie unused beside it."""
    tiny_generator().save_trained(tmp_path / "generator")
    annotator = LabelAnnotator(str(tmp_path / "generator"), list(NAMES), width=16, num_heads=2)
    voters = [
        save_checkpoint(tiny_classifier(), tmp_path / "classifier.ckpt"),
        save_checkpoint(annotator, tmp_path / "annotator.ckpt"),
        save_timm(tmp_path / "timm", ["anger", "happy"]),
        save_clip(tmp_path / "clip"),
    ]
    before = torch.get_rng_state()
    for voter in voters:
        load_voter(voter)
        assert torch.equal(torch.get_rng_state(), before), voter
    ExpressionGenerator.load_trained(tmp_path / "generator")
    assert torch.equal(torch.get_rng_state(), before)


def test_what_cannot_vote_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"voter '.*nowhere': no such file or folder"):
        load_voter(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="found another model's checkpoint"):
        load_voter(save_checkpoint(tiny_generator(), tmp_path / "generator.ckpt"))
    (tmp_path / "text.ckpt").write_text("hello")
    with pytest.raises(ValueError, match=r"voter '.*text.ckpt' cannot be read"):
        load_voter(tmp_path / "text.ckpt")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="found a folder without a config of timm or CLIP"):
        load_voter(tmp_path / "empty")
    (tmp_path / "spec.json").write_text(json.dumps({"path": "empty", "weights": 1}))
    with pytest.raises(ValueError, match=r"found keys \['path', 'weights'\], expected path, generator, prompts"):
        load_voter(tmp_path / "spec.json")
    folder = save_timm(tmp_path / "timm", ["anger", "happy"])
    config = json.loads((folder / "config.json").read_text())
    del config["label_names"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"config.json lacks 'architecture' or 'label_names'"):
        load_voter(folder)
    for changed, message in (
        (
            {"label_names": ["anger", "happy", "sad"]},
            "found 3 label_names, the last one for output 2, of a network with 2",
        ),
        ({"label_names": {"0": "anger", "2": "happy"}}, "found 2 label_names, the last one for output 2"),
        ({"label_names": ["happy", "happiness"]}, "happy"),
        ({"label_names": ["anger", "happy"], "architecture": "no_such_network"}, "no_such_network"),
        (
            {"label_names": ["anger", "happy"], "model_args": {"num_classes": 2, "no_such_argument": 1}},
            "no_such_argument",
        ),
        (
            {"label_names": ["anger", "happy"], "model_args": {"num_classes": 2}},
            "its weights do not fit: 'cls_token' has",
        ),
        ({"label_names": ["anger", "happy"], "model_args": {"num_classes": 2, "in_chans": 4}}, "4 channels"),
        (
            {"label_names": ["anger", "happy"], "pretrained_cfg": {"mean": [0.5, 0.5], "input_size": [3, 16, 16]}},
            r"found mean \[0.5, 0.5\]",
        ),
    ):
        (folder / "config.json").write_text(json.dumps({**config, **changed}))
        with pytest.raises(ValueError, match=rf"timm voter '.*timm': .*{message}"):
            load_voter(folder)


def test_a_timm_network_for_grey_images_and_names_by_number(tmp_path: Path) -> None:
    names = {0: "anger", 2: "happy"}  # as timm writes them where outputs have no name
    voter = load_voter(save_timm(tmp_path / "timm", names, channels=1, num_classes=4)).network
    assert voter.label_space == ("anger", "happy")
    grey = FACES.mean(1, keepdim=True)
    with torch.no_grad():
        expected = voter.network(grey * 2 - 1)[:, [0, 2]].softmax(1)  # type: ignore[operator]
    torch.testing.assert_close(voter.predict_probabilities(FACES), expected)
    torch.testing.assert_close(voter.predict_probabilities(grey.expand(-1, 3, -1, -1)), expected)
