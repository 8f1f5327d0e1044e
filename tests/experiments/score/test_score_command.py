from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from datamodules.readers import DrawnReader
from experiments.score.score_command import main
from lightning_modules.classifier import ExpressionClassifier
from synfer.faces.expressions import LABEL_SPACES
from synfer.networks.feature_extractor import backbone_fingerprint
from tests.docs.pages import PROJECT
from tests.fixtures.tiny_generator import save_checkpoint, tiny_classifier

BASIC7 = LABEL_SPACES["basic7"]
SIDE = 32
DATA = [
    f"--config={PROJECT / 'configs' / 'data' / 'drawn.yaml'}",
    "--data.reader.init_args.count={train: 28, val: 14, test: 28}",
    f"--data.reader.init_args.image_size={SIDE}",
    "--data.reader.init_args.label_space=basic7",
]


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> str:
    backbone = {"img_size": SIDE, "patch_size": 8, "embed_dim": 16, "depth": 1, "num_heads": 2}
    network = tiny_classifier(BASIC7, backbone_kwargs=backbone, image_size=SIDE)
    return str(save_checkpoint(network, tmp_path_factory.mktemp("judge") / "judge.ckpt"))


def faces(seed: int, count: int = 21) -> Any:
    return DrawnReader(count={"train": count}, image_size=SIDE, seed=seed, label_space="basic7").read("train")


def write_set(folder: Path, table: Any, made_with: dict[str, Any] | None = None, discarded: int = 0) -> str:
    rows = []
    for row in range(len(table)):
        picture = io.BytesIO()
        image = table.images.batch(np.array([row]))[0].permute(1, 2, 0).squeeze(-1).numpy()
        Image.fromarray(image).save(picture, "PNG")
        name = BASIC7[table.label[row]]
        rows.append(
            {
                **{"image": picture.getvalue(), "label": name, "soft_label": {n: float(n == name) for n in BASIC7}},
                **{"caption": "", "au": {"AU12": 0.5}, "seed": 1, "sample_id": f"syn-{row}", "layout_source": None},
                **{"kept": row >= discarded, "votes": [{"voter": "a", "name": name}]},
            }
        )
    folder.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / "faces.parquet")
    (folder / "synthesis.json").write_text(json.dumps(made_with or {}))
    return str(folder)


def scored(out: Path, *words: str) -> dict[str, Any]:
    assert main([*words, *DATA, "--device=cpu", "--out", str(out)]) == 0
    found: dict[str, Any] = json.loads(out.read_text())["sets"]
    return found


def test_a_set_its_run_and_pictures_in_folders_have_one_score(
    judge: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = faces(5)
    whole = write_set(tmp_path / "run" / "synthetic_set", table)
    for row in range(len(table)):
        folder = tmp_path / "pictures" / BASIC7[table.label[row]]
        folder.mkdir(parents=True, exist_ok=True)
        image = table.images.batch(np.array([row]))[0].permute(1, 2, 0).squeeze(-1).numpy()
        Image.fromarray(image).save(folder / f"{row:02}.png")
    sets = [whole, str(tmp_path / "run"), str(tmp_path / "pictures")]
    found = scored(tmp_path / "score.json", *sets, "--judge", judge, "--nearest_training=-1")
    one, run, pictures = found.values()
    assert one == run and one["faces"] == one["scored"] == 21 and one["expressions"] == list(BASIC7)
    assert pictures == {name: pytest.approx(value, abs=1e-6) for name, value in one.items()}
    assert {"frechet/judge", "kid/judge", "improved_recall/judge", "nearest_training/ratio/judge"} <= set(one)
    said = capsys.readouterr().out
    assert whole in said and "recall" in said and f"all figures: {tmp_path / 'score.json'}" in said


def test_training_faces_are_copies(judge: str, tmp_path: Path) -> None:
    data = DrawnReader(count={"train": 28}, image_size=SIDE, label_space="basic7").read("train")
    found = scored(tmp_path / "s.json", write_set(tmp_path / "set", data, discarded=7), "--judge", judge)
    (one,) = found.values()
    assert one["near_copies"] == 1 and one["faces"] == 21  # what the vote discarded is left out
    some = scored(tmp_path / "t.json", str(tmp_path / "set"), "--judge", judge, "--faces=14")
    assert [one["scored"] for one in some.values()] == [14]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{set}", "--judge={judge}", "--faces=1"], "--faces: found 1, expected at least 2"),
        (["{tmp}/nothing", "--judge={judge}"], "nothing': found no folder, expected a synthetic set"),
        (["{set}", "--judge={tmp}/none.ckpt"], "none.ckpt': no such file, expected a classifier checkpoint"),
        (["{set}", "--judge={judge}", "--data.batchsize=3"], "did you mean data.batch_size?"),
        (["{set}", "--judge={judge}", "--out={tmp}"], "found a folder, expected the name of a JSON file"),
    ],
)
def test_wrong_words_end_in_one_line(
    words: list[str], message: str, judge: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    there = write_set(tmp_path / "set", faces(5))
    given = [word.format(set=there, judge=judge, tmp=tmp_path) for word in words]
    assert main([*given, *DATA]) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1


def test_no_data_is_told_by_the_command_that_was_called(judge: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["a-set", "--judge", judge]) == 2
    assert "error: score: found no data on the command line" in capsys.readouterr().err


def test_the_guide_is_no_judge_and_a_voter_is_warned_of(
    judge: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = ExpressionClassifier.load_trained(judge).weights_fingerprint()
    guided = write_set(tmp_path / "guided", faces(5), {"SemanticGuidance": {"guide": own}})
    assert main([guided, "--judge", judge, *DATA]) == 2
    assert f"--judge: found the guide of '{guided}'" in capsys.readouterr().err
    voted = write_set(tmp_path / "voted", faces(5), {"PseudoLabeller": {"voters": [own]}})
    with pytest.warns(UserWarning, match="--judge voted on the faces"):
        scored(tmp_path / "s.json", voted, "--judge", judge)


@pytest.mark.parametrize("merged", [False, True])
def test_who_taught_the_maker_or_guided_a_part_is_no_judge(
    judge: str, merged: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = ExpressionClassifier.load_trained(judge)
    records: list[tuple[dict[str, Any], str]] = [
        ({"taught_by": [backbone_fingerprint(network)]}, "is the network that the generator learned by"),
        ({"SemanticGuidance": {"guide": network.weights_fingerprint()}}, "--judge: found the guide of"),
    ]
    for number, (record, message) in enumerate(records):
        if merged:  # of a set and a set of sets
            parts = [{"made_with": {"generator": "a"}}, {"made_with": {"merged": [{"made_with": record}]}}]
            record = {"merged": parts}
        found = write_set(tmp_path / str(number), faces(5), record)
        assert main([found, "--judge", judge, *DATA]) == 2
        assert message in capsys.readouterr().err
