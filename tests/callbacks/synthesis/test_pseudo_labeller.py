from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from callbacks.synthesis.pseudo_labeller import PseudoLabeller
from lightning_modules.annotator import LabelAnnotator
from lightning_modules.classifier import ExpressionClassifier
from lightning_modules.voter import load_voter
from synfer.labels.reliability import write_reliability
from synfer.synthesis.faces import Faces
from tests.fixtures.outside_models import save_clip, save_timm
from tests.fixtures.tiny_generator import (
    NAMES,
    SIDE,
    request_for,
    save_checkpoint,
    tiny_classifier,
    tiny_generator,
)


def biased(label_space: tuple[str, ...], *favourites: tuple[str, float]) -> ExpressionClassifier:
    """A classifier that sees the same in every face: its bias is the logarithm of the given probabilities."""
    classifier = tiny_classifier(label_space)
    chances = dict(favourites)
    rest = (1 - sum(chances.values())) / max(1, len(label_space) - len(chances))
    head = classifier.backbone.get_classifier()
    with torch.no_grad():
        head.weight.zero_()
        head.bias.copy_(torch.tensor([chances.get(name, rest) for name in label_space]).log())
    return classifier


@pytest.fixture
def voter(tmp_path: Path) -> Any:
    def save(name: str, *favourites: tuple[str, float], label_space: tuple[str, ...] = NAMES) -> str:
        return str(save_checkpoint(biased(label_space, *favourites), tmp_path / f"{name}.ckpt"))

    return save


def finished(names: tuple[str, ...] = ("happy", "sad")) -> Any:
    """Faces that nobody has judged yet."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (len(names), 3, SIDE, SIDE), generator=generator, dtype=torch.uint8)
    return Faces.as_asked(request_for(names), images, NAMES)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"discard_below": 1.0}, r"pseudo_labels.discard_below: found 1"),
        ({"discard_below": -0.1}, r"pseudo_labels.discard_below: found -0.1"),
        ({"adaptive_quantile": 1.0}, r"pseudo_labels.adaptive_quantile: found 1"),
        ({"adaptive_window": 0}, r"pseudo_labels.adaptive_window: found 0, expected at least 1"),
        ({"batch_size": 0}, r"pseudo_labels.batch_size: found 0, expected at least 1, or null"),
        ({"enabled": True}, r"pseudo_labels.voters: found none"),
        ({"enabled": True, "voters": []}, r"pseudo_labels.voters: found none"),
        ({"voters": ["a.ckpt", "b.ckpt", "a.ckpt"]}, r"pseudo_labels.voters: found one twice"),
    ],
)
def test_settings_out_of_range(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PseudoLabeller(**settings)


@pytest.mark.parametrize("batch_size", [1, 2, None])
def test_voters_see_so_many_faces_at_a_time(
    voter: Any, batch_size: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    predict, seen = ExpressionClassifier.predict_probabilities, []

    def note(classifier: ExpressionClassifier, image: torch.Tensor) -> torch.Tensor:
        seen.append(len(image))
        return predict(classifier, image)

    path = str(save_checkpoint(tiny_classifier(), Path(voter("a")).with_name("b.ckpt")))
    together, apart = finished(("happy", "sad", "happy")), finished(("happy", "sad", "happy"))
    PseudoLabeller(True, [path]).on_faces(together)
    monkeypatch.setattr(ExpressionClassifier, "predict_probabilities", note)
    PseudoLabeller(True, [path], batch_size=batch_size).on_faces(apart)
    assert seen == {1: [1, 1, 1], 2: [2, 1], None: [3]}[batch_size]
    torch.testing.assert_close(apart.votes[path], together.votes[path])


def test_a_missing_voter_is_named(voter: Any, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"pseudo_labels.voters '.*nowhere.ckpt'"):
        PseudoLabeller(True, [voter("a"), str(tmp_path / "nowhere.ckpt")])
    PseudoLabeller(False, [str(tmp_path / "nowhere.ckpt")])


def test_confirmed_labels_stay_and_others_become_the_mean(voter: Any) -> None:
    paths = [voter("a", ("happy", 0.8)), voter("b", ("happy", 0.6)), voter("c", ("sad", 0.7))]
    state, labeller = finished(), PseudoLabeller(True, paths)
    labeller.on_faces(state)
    mean = torch.tensor([(0.1 + 0.2 + 0.15) / 3, (0.8 + 0.6 + 0.15) / 3, (0.1 + 0.2 + 0.7) / 3])
    torch.testing.assert_close(state.soft_label, torch.stack([torch.tensor([0.0, 1.0, 0.0]), mean]))
    assert state.kept.all()
    assert labeller.counts == {"agreed": 1, "rectified": 1}
    assert state.label.tolist() == [1, 2]  # what was intended stays on record


def test_votes_are_kept_under_the_voter_s_name(voter: Any) -> None:
    paths = [voter("a", ("happy", 0.8)), voter("b", ("sad", 0.7))]
    state = finished()
    PseudoLabeller(True, paths).on_faces(state)
    assert list(state.votes) == paths
    torch.testing.assert_close(state.votes[paths[1]], torch.tensor([[0.15, 0.15, 0.7]] * 2))


def test_classes_of_a_voter_go_by_name_and_its_others_are_left_out(voter: Any) -> None:
    space = ("anger", "sad", "happy", "neutral")
    path = voter("a", ("anger", 0.5), ("happy", 0.3), ("sad", 0.15), label_space=space)
    state = finished(("happy",))
    PseudoLabeller(True, [path]).on_faces(state)
    torch.testing.assert_close(state.votes[path], torch.tensor([[0.1, 0.6, 0.3]]))
    assert state.soft_label.tolist() == [[0.0, 1.0, 0.0]]


def test_a_voter_that_lacks_an_expression_is_refused(voter: Any) -> None:
    path = voter("a", label_space=("neutral", "happy", "fear"))
    with pytest.raises(
        ValueError, match=r"voters '.*a.ckpt' does not know 'sad': it has \['neutral', 'happy', 'fear'\]"
    ):
        PseudoLabeller(True, [path]).on_faces(finished())


def test_a_voter_whose_probabilities_are_not_finite_is_refused(voter: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    labeller = PseudoLabeller(True, [voter("a")])
    monkeypatch.setattr(
        ExpressionClassifier, "predict_probabilities", lambda self, x: torch.full((len(x), 3), torch.nan)
    )
    with pytest.raises(ValueError, match=r"voters '.*a.ckpt': found NaN among its probabilities"):
        labeller.on_faces(finished())


def test_hard_labels_on_request(voter: Any) -> None:
    state = finished(("sad",))
    PseudoLabeller(True, [voter("a", ("happy", 0.8))], soft=False).on_faces(state)
    assert state.soft_label.tolist() == [[0.0, 1.0, 0.0]]


def test_weak_faces_are_discarded_and_others_stay_discarded(voter: Any) -> None:
    path = voter("a", ("happy", 0.5))
    for threshold, kept in ((0.0, [True, False]), (0.45, [True, False]), (0.55, [False, False])):
        state = finished()
        state.kept = torch.tensor([True, False])  # another callback has thrown the second away
        PseudoLabeller(True, [path], discard_below=threshold).on_faces(state)
        assert state.kept.tolist() == kept


def test_counts_go_on_over_batches_and_are_empty_while_it_is_off(voter: Any) -> None:
    labeller = PseudoLabeller(True, [voter("a", ("happy", 0.8))])
    for _ in range(3):
        labeller.on_faces(finished())
    assert labeller.counts == {"agreed": 3, "rectified": 3}
    assert PseudoLabeller(False).counts == {}


def test_a_resumed_run_goes_on_counting(voter: Any, tmp_path: Path) -> None:
    path = voter("a", ("happy", 0.8))
    labeller, again = PseudoLabeller(True, [path], discard_below=0.7), PseudoLabeller(True, [path], discard_below=0.7)
    labeller.on_faces(finished())
    torch.save(labeller.state_dict(), tmp_path / "state.pt")
    again.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    again.on_faces(finished(("sad", "sad")))
    labeller.on_faces(finished(("sad", "sad")))
    assert labeller.seen == 4 and again.counts == labeller.counts
    assert (again.seen, again.discarded) == (labeller.seen, labeller.discarded)
    assert torch.equal(again.flow, labeller.flow)  # type: ignore[arg-type]


def test_agreement_is_logged(voter: Any) -> None:
    labeller, logged = PseudoLabeller(True, [voter("a", ("happy", 0.8))]), {}
    module: Any = SimpleNamespace(log=logged.__setitem__)
    labeller.on_train_batch_end(None, module, None, None, 0)  # type: ignore[arg-type]
    assert not logged
    labeller.on_faces(finished())
    labeller.on_train_batch_end(None, module, None, None, 1)  # type: ignore[arg-type]
    assert logged == {"pseudo_labels/agreement": 0.5, "pseudo_labels/discarded": 0.0}


def test_labels_of_a_synthesis_are_voted_on(voter: Any) -> None:
    path = voter("a", ("sad", 0.9))
    labeller = PseudoLabeller(True, [path])
    labeller.setup(None, None, "fit")  # type: ignore[arg-type]
    result = tiny_generator().synthesise(request_for(["happy", "sad"]), [labeller])
    torch.testing.assert_close(result.soft_label, torch.tensor([[0.05, 0.05, 0.9], [0.0, 0.0, 1.0]]))
    assert result.label.tolist() == [1, 2] and result.kept.all()
    assert set(result.votes) == {path}


def test_voters_of_every_kind_vote_together(voter: Any, tmp_path: Path) -> None:
    tiny_generator().save_trained(tmp_path / "generator")
    annotator = LabelAnnotator(str(tmp_path / "generator"), list(NAMES), width=16, num_heads=2)
    paths = [
        voter("a", ("happy", 0.8)),
        str(save_checkpoint(annotator, tmp_path / "annotator.ckpt")),
        str(save_timm(tmp_path / "timm", ["sad", "neutral", "other", "happy"])),
        str(save_clip(tmp_path / "clip")),
    ]
    state = finished()
    PseudoLabeller(True, paths).on_faces(state)
    assert list(state.votes) == paths
    for votes in state.votes.values():
        torch.testing.assert_close(votes.sum(1), torch.ones(2))
    mean = torch.stack(list(state.votes.values())).mean(0)
    changed = ~(state.soft_label == 1).any(1)
    torch.testing.assert_close(state.soft_label[changed], mean[changed])


def test_reliable_voters_weigh_more(voter: Any, tmp_path: Path) -> None:
    paths = [voter("a", ("happy", 0.8)), voter("b", ("sad", 0.8))]
    prints = {path: [load_voter(path).network.weights_fingerprint()] for path in paths}
    good, bad = torch.eye(3).int() * 1000, torch.full((3, 3), 100, dtype=torch.int32)
    table = write_reliability(tmp_path / "r.json", dict(zip(paths, (good, bad), strict=True)), prints, NAMES)
    state = finished(("neutral",))
    PseudoLabeller(True, paths, reliability=str(table)).on_faces(state)
    assert state.soft_label[0, 1] > 0.55 > 0.4 > state.soft_label[0, 2]  # 3 : 1 for the good voter
    with pytest.raises(FileNotFoundError, match=r"pseudo_labels.reliability 'nowhere.json'"):
        PseudoLabeller(True, paths, reliability="nowhere.json")
    labeller = PseudoLabeller(True, [voter("c", ("sad", 0.4))], reliability=str(table))
    with pytest.raises(ValueError, match=r"found no entry of voter '.*c.ckpt'"):
        labeller.on_faces(finished())


def test_the_weakest_of_each_class_are_discarded(voter: Any) -> None:
    labeller = PseudoLabeller(
        True, [voter("a", ("happy", 0.5), ("sad", 0.3))], adaptive_quantile=0.5, adaptive_window=8
    )
    state = finished()
    labeller.on_faces(state)
    assert state.kept.all()  # nothing is known before the first faces
    thresholds = labeller.thresholds
    assert thresholds is not None and thresholds.window == 8
    label = torch.tensor([NAMES.index("happy"), NAMES.index("sad")]).repeat(3)
    thresholds.update(label, torch.tensor([0.45, 0.55]).repeat(3))
    state = finished()
    labeller.on_faces(state)
    assert state.kept.tolist() == [True, False]
    assert labeller.discarded == 1
    again = PseudoLabeller(True, labeller.voter_paths, adaptive_quantile=0.5, adaptive_window=8)
    again.load_state_dict(labeller.state_dict())
    stored = again.state_dict()["ranks"][0]["thresholds"]
    assert stored == labeller.state_dict()["ranks"][0]["thresholds"]  # stopped once more before it has seen a face
    again._prepare(NAMES)
    assert again.thresholds.values == thresholds.values  # type: ignore[union-attr]


def test_an_empty_batch_is_nothing_to_vote_on(voter: Any) -> None:
    labeller, state = PseudoLabeller(True, [voter("a", ("happy", 0.8))]), finished()
    state.images, state.label = state.images[:0], state.label[:0]
    state.soft_label, state.kept = state.soft_label[:0], state.kept[:0]
    labeller.on_faces(state)
    assert labeller.seen == 0 and tuple(state.soft_label.shape) == (0, 3)


def test_flow_from_intended_to_final_labels_is_a_picture(voter: Any, tmp_path: Path) -> None:
    labeller = PseudoLabeller(True, [voter("a", ("happy", 0.8))])
    trainer: Any = SimpleNamespace(
        strategy=SimpleNamespace(reduce=lambda values, reduce_op: values),
        is_global_zero=True,
        default_root_dir=str(tmp_path),
        loggers=[],
    )
    module: Any = SimpleNamespace(device="cpu")
    labeller.on_train_end(trainer, module)
    assert not (tmp_path / "samples").exists()
    for names in (("happy", "sad"), ("neutral", "neutral")):
        labeller.on_faces(finished(names))
    assert labeller.flow.tolist() == [[0, 2, 0], [0, 1, 0], [0, 1, 0]]  # type: ignore[union-attr]
    labeller.on_train_end(trainer, module)
    assert (tmp_path / "samples" / "pseudo_labels.png").is_file()
