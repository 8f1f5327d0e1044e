from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from datamodules.readers import EmoNetFaceBinaryReader, EmoNetFaceHQReader
from datamodules.readers.emonet_face.emotions import EMOTIONS, NAMED, canonical_emotion
from tests.fixtures.published_sets import emonet_binary, emonet_hq, emonet_hq_parquet, few_pictures, rows_of

pytestmark = few_pictures


def shares_of(table, row: int) -> dict[str, float]:  # type: ignore[no-untyped-def]  # noqa: ANN001
    return {
        name: pytest.approx(share, abs=1e-6)
        for name, share in zip(table.label_space, table.soft_label[row].tolist(), strict=True)
        if share
    }


def test_yes_of_most_is_an_expression_and_every_other_face_is_counted(tmp_path: Path) -> None:
    table = EmoNetFaceBinaryReader(str(emonet_binary(tmp_path))).read("train")
    assert rows_of(table) == {
        "images/00000.jpg": "anger",
        "images/00001.jpg": "happy",
        "images/00003.jpg": "fear",  # as strong as pain, which is no expression
        "images/00006.jpg": "contempt",
    }
    assert table.report.excluded == {
        "no expression is strong enough": 2,  # one of two is not most; amusement is no expression by its name
        "two expressions are equally strong": 1,
    }
    assert table.is_synthetic and table.report.read == 7
    assert shares_of(table, 3) == {"contempt": 2 / 3, "anger": 1 / 3}
    assert table.attributes["annotators"].tolist() == ["1", "3", "1", "2"]
    assert table.attributes["agreement"].tolist() == ["one annotator", "most", "one annotator", "all"]


@pytest.mark.parametrize("layout", [emonet_hq, emonet_hq_parquet])
def test_intensities_are_soft_labels_and_models_do_not_count(tmp_path: Path, layout) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    table = EmoNetFaceHQReader(str(layout(tmp_path))).read("test")
    assert list(rows_of(table).values()) == ["anger", "happy"]
    assert shares_of(table, 0) == {"anger": 12 / 21, "contempt": 7 / 21, "disgust": 2 / 21}
    assert shares_of(table, 1) == {"happy": 1.0}
    assert table.report.excluded == {
        "another emotion is stronger than every expression": 1,  # sour, not disgusted
        "no expression is strong enough": 1,
        "two expressions are equally strong": 1,
    }
    assert table.attributes["agreement"].tolist() == ["most", "all"]
    assert table.is_synthetic and table.split == "test" and table.images.batch(np.array([0])).shape == (1, 3, 32, 32)


def test_what_counts_as_an_expression_is_the_users_to_say(tmp_path: Path) -> None:
    root = str(emonet_binary(tmp_path))
    more = EmoNetFaceBinaryReader(root, emotions={"amusement": "happy", "Contempt": None}).read("train")
    assert rows_of(more)["images/00005.jpg"] == "happy" and "images/00006.jpg" not in rows_of(more)
    basic = EmoNetFaceBinaryReader(root, label_space="basic7").read("train")
    assert "contempt" not in basic.label_space and "images/00006.jpg" not in rows_of(basic)
    weak = EmoNetFaceBinaryReader(root, least_strength=0.5).read("train")
    assert rows_of(weak)["images/00002.jpg"] == "sad"
    sour = EmoNetFaceHQReader(str(emonet_hq(tmp_path / "hq")), only_strongest=False).read("test")
    assert rows_of(sour)["images/face_2.png"] == "disgust"
    for settings, message in (
        ({"emotions": {"Calm": "neutral"}}, r"emotions: found the emotion 'Calm', expected one of the forty"),
        ({"emotions": {"Awe": "calm"}}, r"emotions.Awe: unknown expression 'calm'"),
        ({"least_strength": 2.0}, r"least_strength: found 2.0, expected 0 to 1"),
    ):
        with pytest.raises(ValueError, match=message):
            EmoNetFaceBinaryReader(root, **settings)  # type: ignore[arg-type]


def test_the_rule_of_names() -> None:
    assert len(EMOTIONS) == len(set(EMOTIONS)) == 40 and set(NAMED) <= set(EMOTIONS)
    assert canonical_emotion("Hopelessness") == "Helplessness"  # as binary.csv spells it
    assert canonical_emotion("Joy|jealousy_&_envy") == "Jealousy & Envy"
    assert canonical_emotion("thankfulness_gratitude") == "Thankfulness/Gratitude"
    assert canonical_emotion("Extra Dimensions|Arousal") is None


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "00000,human-1,True,Anger",
            "00000,human-1,yes,Anger",
            r"csv, line 2: found the value 'yes', expected True",
        ),
        ("00000,human-1,True,Anger", "00000,human-1,True,Calm", r"line 2: found the emotion 'Calm', expected one of"),
        ("00000,human-1,True,Anger", "00000,human-1,True", r"line 2: found another number of cells than in the header"),
        ("00000,human-1,True", "99999,human-1,True", r"binary.csv: found no picture '99999.\*' below"),
        ("00001,human-2,False", "00001,human-1,False", r"found two answers of 'human-1' about Elation, expected one"),
    ],
)
def test_a_row_that_is_wrong_is_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = emonet_binary(tmp_path) / "data" / "binary.csv"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(ValueError, match=message):
        EmoNetFaceBinaryReader(str(tmp_path)).read("train")
    assert len(EmoNetFaceBinaryReader(str(tmp_path), on_bad_sample="skip").read("train").report.skipped) == 1


def test_annotations_are_read_and_never_run(tmp_path: Path) -> None:
    path = emonet_hq(tmp_path) / "data" / "hq.csv"
    text = path.read_text()
    mark = tmp_path / "mark"
    told = text.splitlines()[1].split('"')[1]
    path.write_text(text.replace(f'"{told}"', f"\"__import__('pathlib').Path('{mark}').touch()\"", 1))
    with pytest.raises(ValueError, match=r"hq.csv, line 2: found '__import__.*', expected a dictionary"):
        EmoNetFaceHQReader(str(tmp_path)).read("test")
    assert not mark.exists()
    path.write_text(text.replace("'Family|Anger': 6", "'Family|Anger': 8", 1))
    with pytest.raises(ValueError, match=r"line 2: found the intensity '8', expected 0 to 7"):
        EmoNetFaceHQReader(str(tmp_path)).read("test")


def test_the_test_set_is_no_training_set(tmp_path: Path) -> None:
    reader = EmoNetFaceHQReader(str(emonet_hq_parquet(tmp_path)))
    assert reader.has_split("test") and not reader.has_split("train")
    with pytest.raises(ValueError, match=r"found no official split 'train' \(test\), expected one of them"):
        reader.read("train")
    (tmp_path / "hq.csv").write_text("image,annotator,human,annotations\n")
    with pytest.raises(ValueError, match=r"root: found .*hq.csv and .*parquet, expected the table with pictures or"):
        EmoNetFaceHQReader(str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"found no binary.csv or \*.parquet in .*\(there: nothing\)"):
        (tmp_path / "empty").mkdir()
        EmoNetFaceBinaryReader(str(tmp_path / "empty"))


def test_another_number_of_faces_is_said(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=r"EmoNet-Face Binary .*, split 'train': found 7 labelled pictures, .* 19,999"):
        EmoNetFaceBinaryReader(str(emonet_binary(tmp_path))).read("train")
