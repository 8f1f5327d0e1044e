from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import train
from datamodules.readers import DrawnReader
from datamodules.rows.folds import hash_numbers
from lightning_modules.annotator import LabelAnnotator
from lightning_modules.relabeller import Relabeller, _seen_by_generators
from lightning_modules.voter import LoadedVoter
from synfer.labels.label_table import read_label_table
from synfer.labels.rectification import (
    add_label_evidence,
    blend_labels,
    correct_by_transition,
    noise_transition,
)
from synfer.labels.vote import vote
from tests.fixtures.outside_models import save_timm
from tests.fixtures.processes import run_to_end
from tests.fixtures.tiny_generator import (
    NAMES,
    save_checkpoint,
    save_trained_on,
    tiny_classifier,
    tiny_generator,
)

CONFIGS = Path(train.__file__).parent / "configs"
BASIC7 = ("neutral", "happy", "sad", "surprise", "fear", "disgust", "anger")
QUIET = ["--trainer.logger=false", "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
NOISE = ["--data.reader.init_args.label_noise=0.4"]


@pytest.fixture(scope="module")
def study(tiny_run: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two folds of a tiny classifier on 112 drawn faces with noise, and one that saw them all."""
    folder = tmp_path_factory.mktemp("study")
    for fold in range(2):
        folds = ["--data.folds=2", f"--data.fold={fold}", "--data.steps_per_epoch=1"]
        train.main(["fit", *tiny_run, *QUIET, *NOISE, *folds, f"--run_dir={folder}/fold{fold}"])
    train.main(["fit", *tiny_run, *QUIET, *NOISE, "--data.steps_per_epoch=1", f"--run_dir={folder}/all"])
    save_timm(folder / "timm", [*BASIC7, "contempt"])
    return folder


def checkpoints(study: Path, *names: str) -> str:
    return "[" + ",".join(f"{study}/{name}/checkpoints/last.ckpt" for name in names) + "]"


def predict(study: Path, run_dir: Path, voters: str, *more: str, command: str = "predict") -> Any:
    return train.main(
        [
            command,
            f"--config={CONFIGS / 'data/drawn.yaml'}",
            f"--config={CONFIGS / 'labels/relabel.yaml'}",
            "--data.reader.init_args.count={train: 112, val: 28, test: 28}",
            f"--model.voters={voters}",
            "--model.rule=blend",
            *NOISE,
            "--data.eval_batch_size=40",
            "--trainer.accelerator=cpu",
            *QUIET,
            *more,
            f"--run_dir={run_dir}",
        ]
    )


def clean_labels() -> np.ndarray:
    return DrawnReader({"train": 112, "val": 28, "test": 28}, label_space="basic7").clean_labels("train")


def test_relabel_score_and_train_on_it(study: Path, tmp_path: Path, tiny_run: list[str]) -> None:
    voters = "{own: " + checkpoints(study, "fold0", "fold1") + f", outside: [{study}/timm]" + "}"
    cli = predict(study, tmp_path / "relabel", voters)
    path = tmp_path / "relabel" / "labels.parquet"
    table = read_label_table(path)
    assert len(table) == 112 and set(table.votes) == {"own", "outside"} and table.label_space == BASIC7
    mean = (table.votes["own"] + table.votes["outside"]) / 2
    expected = 0.7 * mean + 0.3 * np.eye(7, dtype=np.float32)[table.old_label]
    np.testing.assert_allclose(table.soft_label, expected, atol=1e-5)
    np.testing.assert_array_equal(table.sample_id, cli.datamodule.train_table.sample_id)
    summary = json.loads((tmp_path / "relabel" / "summary.json").read_text())
    assert summary["counts"]["relabelled"] == 112
    assert summary["counts"]["changed"] == int((table.label != table.old_label).sum())
    assert (tmp_path / "relabel" / "samples" / "relabelled.png").is_file()
    assert sorted(p.name for p in path.parent.iterdir() if p.suffix == ".parquet") == ["labels.parquet"]

    score = [f"--config={CONFIGS / 'labels/score_drawn.yaml'}", f"--model.label_table={path}", *QUIET]
    score += ["--data.reader.init_args.reader.init_args.count={train: 112, val: 28, test: 28}"]
    train.main(["validate", *score, f"--run_dir={tmp_path / 'score'}"])
    metrics = json.loads((tmp_path / "score" / "summary.json").read_text())["metrics"]
    truth = clean_labels()
    wrong = table.old_label != truth
    assert 0.2 < wrong.mean() < 0.6
    assert metrics["val/agreement_old"] == pytest.approx(1 - wrong.mean(), abs=1e-6)
    assert metrics["val/agreement_new"] == pytest.approx((table.label == truth).mean(), abs=1e-6)
    assert metrics["val/repaired"] == pytest.approx((table.label == truth)[wrong].mean(), abs=1e-6)
    assert metrics["val/found"] == pytest.approx((table.label != table.old_label)[wrong].mean(), abs=1e-6)
    assert metrics["val/harmed"] == pytest.approx((table.label != truth)[~wrong].mean(), abs=1e-6)
    assert metrics["val/agreement/own"] == pytest.approx((table.votes["own"].argmax(1) == truth).mean(), abs=1e-6)
    assert metrics["val/rows"] == 112 and (tmp_path / "score" / "samples" / "reliability.png").is_file()

    again = train.main(["fit", *tiny_run, *QUIET, f"--data.label_table={path}", f"--run_dir={tmp_path / 'fit'}"])
    np.testing.assert_allclose(again.datamodule.train_table.soft_label, table.soft_label, atol=1e-5)


def test_each_row_is_judged_by_the_network_that_held_it_out(study: Path, tmp_path: Path) -> None:
    voters = "{own: " + checkpoints(study, "fold0", "fold1") + "}"
    cli = predict(study, tmp_path, voters)
    table = read_label_table(tmp_path / "labels.parquet")
    rows = cli.datamodule.train_table
    image = rows.images.batch(np.arange(112)).float() / 255
    members = cli.model._voters["own"]
    from datamodules.rows.folds import assign_folds

    fold = assign_folds(rows, 2)
    for number, member in enumerate(members):
        mine = np.flatnonzero(fold == number)
        expected = member.network.predict_probabilities(image[mine])
        np.testing.assert_allclose(table.votes["own"][mine], expected.numpy(), atol=1e-4)


def test_rows_that_a_generator_has_seen_are_said(tmp_path: Path) -> None:
    rows = DrawnReader({"train": 112, "val": 28, "test": 28}, label_space="basic7").read("train")
    seen = hash_numbers(rows.content_hash[:100])
    generator = save_trained_on(tiny_generator(label_space=list(BASIC7)), tmp_path / "generator.ckpt", seen)
    module = LabelAnnotator(str(generator), "basic7", width=16, num_heads=2)
    head = save_trained_on(module, tmp_path / "head.ckpt", [])  # trained on other rows
    said = (
        r"model.voters.feranno: its generator was trained on 100 of these 112 rows, .* \(reader FER2013Reader, labels o"
    )
    with pytest.warns(UserWarning, match=said):
        predict(tmp_path, tmp_path / "run", f"{{feranno: [{head}]}}")
    generators = read_label_table(tmp_path / "run" / "labels.parquet").generators
    assert generators["feranno"]["rows"] == 100 and generators["feranno"]["of"] == 112
    assert generators["feranno"]["labels"] == "original" and generators["feranno"]["label_space"] == list(BASIC7)
    counts = json.loads((tmp_path / "run" / "summary.json").read_text())["counts"]
    assert counts["seen_by_generator_of/feranno"] == 100 and counts["relabelled"] == 112


def test_a_generator_that_says_nothing_of_its_training_is_warned_of(tmp_path: Path) -> None:
    generator = save_checkpoint(tiny_generator(), tmp_path / "generator.ckpt")
    module = LabelAnnotator(str(generator), list(NAMES), width=16, num_heads=2)
    voter = LoadedVoter("a", module, np.zeros(0, np.int64), generator=module.generator_data)
    with pytest.warns(UserWarning, match=r"what its generator was trained on is not recorded \(reader not recorded"):
        found = _seen_by_generators("a", [voter], np.arange(3))
    assert found is not None and found["rows"] is None and found["of"] == 3


@pytest.mark.parametrize(
    ("names", "more", "message"),
    [
        (["all"], [], "were in the training of all 1 of its networks, expected one that held them out"),
        (["fold0"], [], "were in the training of all 1 of its networks"),
        (["fold0", "fold0"], [], "found the same weights twice"),
        (["fold0"], ["--data.predict_split=synthesis"], "found data.predict_split=synthesis"),
        (["fold0", "fold1"], ["--trainer.limit_predict_batches=1"], "found no votes on 'drawn-1-train-"),
        (["fold0", "fold1"], ["--data.reader.init_args.label_space=ferplus8"], "does not know 'contempt'"),
    ],
)
def test_what_would_make_a_wrong_table_is_refused(
    names: list[str], more: list[str], message: str, study: Path, tmp_path: Path, capsys: Any
) -> None:
    with pytest.raises(SystemExit):
        predict(study, tmp_path, "{own: " + checkpoints(study, *names) + "}", *more)
    assert message in capsys.readouterr().err
    assert not (tmp_path / "labels.parquet").exists()


def test_a_checkpoint_without_record_of_its_training_is_refused(study: Path, tmp_path: Path, capsys: Any) -> None:
    path = save_checkpoint(tiny_classifier(BASIC7), tmp_path / "old.ckpt")
    with pytest.raises(SystemExit):
        predict(study, tmp_path / "run", "{own: [" + str(path) + "]}")
    assert "does not say what it was trained on" in capsys.readouterr().err


def test_one_fold_of_rows_with_the_network_that_held_it_out(study: Path, tmp_path: Path) -> None:
    predict(study, tmp_path, "{own: " + checkpoints(study, "fold1") + "}", "--data.folds=2", "--data.fold=1")
    assert len(read_label_table(tmp_path / "labels.parquet")) == 56


def test_reliability_is_measured_and_used(study: Path, tmp_path: Path, capsys: Any) -> None:
    voters = "{own: " + checkpoints(study, "fold0", "fold1") + f", outside: [{study}/timm]" + "}"
    predict(study, tmp_path / "measured", voters, command="validate")
    path = tmp_path / "measured" / "reliability.json"
    table = json.loads(path.read_text())
    assert set(table) == {"own", "outside"} and table["own"]["rows"] == 28
    assert len(table["own"]["fingerprints"]) == 2
    weighted = predict(study, tmp_path / "weighted", voters, f"--model.reliability={path}")
    weights = weighted.model.weights
    np.testing.assert_allclose(weights[1], [table["outside"]["precision"][name] for name in BASIC7], atol=1e-5)
    predict(study, tmp_path / "plain", voters)
    labels = [read_label_table(tmp_path / name / "labels.parquet").soft_label for name in ("weighted", "plain")]
    assert np.abs(labels[0] - labels[1]).max() > 1e-3
    with pytest.raises(SystemExit):
        predict(study, tmp_path / "other", "{x: " + checkpoints(study, "all") + "}", f"--model.reliability={path}")
    assert "found no entry of voter 'x'" in capsys.readouterr().err


@pytest.mark.parametrize("rule", ["vote", "evidence", "transition"])
def test_other_rules(rule: str, study: Path, tmp_path: Path) -> None:
    voters = "{own: " + checkpoints(study, "fold0", "fold1") + "}"
    predict(study, tmp_path / "soft", voters, f"--model.rule={rule}")
    predict(study, tmp_path / "hard", voters, f"--model.rule={rule}", "--model.hard=true")
    soft, hard = (read_label_table(tmp_path / name / "labels.parquet") for name in ("soft", "hard"))
    votes, old = torch.from_numpy(soft.votes["own"]), torch.from_numpy(soft.old_label)
    expected = {
        "vote": lambda: vote(votes[None], old).soft_label,
        "evidence": lambda: add_label_evidence(votes, old),
        "transition": lambda: correct_by_transition(votes, old, noise_transition(votes, old)),
    }[rule]()
    np.testing.assert_allclose(soft.soft_label, expected.numpy(), atol=1e-5)
    assert np.abs(soft.soft_label - blend_labels(votes, old, 0.3).numpy()).max() > 1e-2  # not what another rule gives
    np.testing.assert_array_equal(hard.soft_label, np.eye(7, dtype=np.float32)[soft.label])


def test_a_prior_for_rare_expressions(study: Path, tmp_path: Path) -> None:
    voters = "{own: " + checkpoints(study, "fold0", "fold1") + "}"
    predict(study, tmp_path / "plain", voters, "--model.old_weight=0")
    affectnet = f"--config={CONFIGS / 'labels/prior_affectnet.yaml'}"
    shifted = predict(study, tmp_path / "shifted", voters, "--model.old_weight=0", affectnet)
    plain, new = (read_label_table(tmp_path / name / "labels.parquet") for name in ("plain", "shifted"))
    np.testing.assert_allclose(plain.votes["own"], new.votes["own"], atol=1e-6)  # what was said stays on record
    prior = shifted.model.prior.numpy()
    assert BASIC7[int(prior.argmax())] == "happy" and prior[0] == pytest.approx(75374 / 287401)
    expected = plain.soft_label * prior / np.bincount(plain.old_label, minlength=7)
    np.testing.assert_allclose(new.soft_label, expected / expected.sum(1, keepdims=True), atol=1e-5)


def test_stored_votes_are_combined_anew(study: Path, tmp_path: Path, capsys: Any) -> None:
    voters = "{own: " + checkpoints(study, "fold0", "fold1") + f", outside: [{study}/timm]" + "}"
    predict(study, tmp_path / "first", voters)
    stored = f"--model.votes_from={tmp_path / 'first' / 'labels.parquet'}"
    predict(study, tmp_path / "asked", voters, "--model.rule=vote")
    predict(study, tmp_path / "again", "{}", stored, "--model.rule=vote")
    asked, again = (read_label_table(tmp_path / name / "labels.parquet") for name in ("asked", "again"))
    assert list(again.votes) == ["own", "outside"]
    np.testing.assert_allclose(again.soft_label, asked.soft_label, atol=1e-6)
    for more, message in (
        (["--data.reader.init_args.seed=5"], "'drawn-5-train-"),
        (["--data.reader.init_args.label_space=ferplus8"], "found the classes ["),
        ([f"--model.reliability={tmp_path}/x.json"], "found model.reliability beside it"),
    ):
        with pytest.raises(SystemExit):
            predict(study, tmp_path / "other", "{}", stored, *more)
        assert message in capsys.readouterr().err
    with pytest.raises(SystemExit):
        predict(study, tmp_path / "other", "{}", stored, command="validate")
    assert "in validate: expected predict" in capsys.readouterr().err


def test_priors_that_do_not_fit(study: Path, tmp_path: Path, capsys: Any) -> None:
    voters = "{own: " + checkpoints(study, "fold0", "fold1") + "}"
    for prior, message in (
        ("{neutral: 1, happy: 2}", "model.class_prior: found no 'sad' among ['neutral', 'happy']"),
        ("{bored: 1}", "model.class_prior: unknown expression 'bored'"),
        ("{happy: 0}", "model.class_prior.happy: found 0"),
    ):
        with pytest.raises(SystemExit):
            predict(study, tmp_path, voters, f"--model.class_prior={prior}")
        assert message in capsys.readouterr().err


def test_settings_out_of_range() -> None:
    with pytest.raises(ValueError, match=r"model.voters: found none"):
        Relabeller({})
    with pytest.raises(ValueError, match=r"model.voters.a: found no checkpoint"):
        Relabeller({"a": []})
    with pytest.raises(ValueError, match=r"model.old_weight: found 1.5"):
        Relabeller({"a": ["x"]}, old_weight=1.5)
    with pytest.raises(FileNotFoundError, match=r"model\.reliability"):
        Relabeller({"a": ["x"]}, reliability="nowhere.json")


def test_rectify_by_hand() -> None:
    votes = torch.tensor([[[0.6, 0.4], [0.1, 0.9]], [[0.8, 0.2], [0.7, 0.3]]])
    old = torch.tensor([0, 0])
    module = Relabeller({"a": ["x"], "b": ["y"]}, old_weight=0.5)
    torch.testing.assert_close(module.rectify(old, votes), torch.tensor([[0.85, 0.15], [0.7, 0.3]]))
    module = Relabeller({"a": ["x"], "b": ["y"]}, rule="vote")
    torch.testing.assert_close(module.rectify(old, votes), torch.tensor([[1.0, 0.0], [0.4, 0.6]]))


def test_two_networks_that_did_not_see_a_row_are_averaged() -> None:
    class Fixed:
        def __init__(self, *p: float) -> None:
            self.p, self.label_space = torch.tensor(p), ("happy", "sad")

        def predict_probabilities(self, image: torch.Tensor) -> torch.Tensor:
            return self.p.expand(len(image), -1)

        def to(self, device: Any) -> Fixed:
            return self

    module = Relabeller({"a": ["x"]})
    module.label_space, module._hash_of = ("happy", "sad"), {"one": "0" * 16, "two": "0" * 15 + "1"}
    networks = [Fixed(0.8, 0.2), Fixed(0.4, 0.6)]
    members = zip("xy", networks, (1, 5), strict=True)
    module._voters = {"a": [LoadedVoter(name, network, np.array([row])) for name, network, row in members]}  # type: ignore[arg-type]
    found = module(torch.zeros(2, 3, 4, 4), ["one", "two"])["a"]
    torch.testing.assert_close(found, torch.tensor([[0.6, 0.4], [0.4, 0.6]]))


@pytest.mark.ddp
@pytest.mark.slow
def test_two_ranks_write_the_same_table_as_one(study: Path, tmp_path: Path) -> None:
    voters = "{own: " + checkpoints(study, "fold0", "fold1") + "}"
    predict(study, tmp_path / "one", voters)
    config = tmp_path / "one" / "config.yaml"
    command = [sys.executable, str(CONFIGS.parent / "train.py"), "predict", f"--config={config}"]
    command += ["--trainer.devices=2", "--trainer.strategy=ddp", "--data.eval_batch_size=33"]
    done = run_to_end(
        [*command, f"--run_dir={tmp_path / 'two'}"],
        cwd=CONFIGS.parent,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    one, two = (read_label_table(tmp_path / name / "labels.parquet") for name in ("one", "two"))
    np.testing.assert_array_equal(one.sample_id, two.sample_id)
    np.testing.assert_allclose(one.soft_label, two.soft_label, atol=1e-5)
    assert sorted(p.name for p in (tmp_path / "two").glob("*.parquet")) == ["labels.parquet"]
    assert json.loads((tmp_path / "two" / "summary.json").read_text())["counts"]["relabelled"] == 112
