from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from datamodules.captions.caption_table import read_caption_table, write_caption_table, written_by
from datamodules.captions.policy import apply_policy
from datamodules.captions.settings import CaptionSettings
from datamodules.rows.template_captions import template_captions
from synfer.faces.action_units import ACTION_UNITS
from synfer.faces.captions import captions_for
from synfer.faces.expression_words import names_expression
from synfer.foundation.counter_based_random import keys_of
from tests.fixtures.tiny_data import tiny_table

OWN = np.array(["a smiling woman", "he smiles", "a man with a hat", "A girl. She is sad."], dtype=object)


def test_at_the_defaults_rows_stay_the_very_same() -> None:
    rows = tiny_table(4)
    same, said = apply_policy(rows, CaptionSettings())
    assert same is rows and not said
    named = captions_for([rows.label_space[c] for c in rows.label], keys_of(rows.sample_id.tolist()))
    assert template_captions(rows).tolist() == named


def test_templates_do_without_the_expression() -> None:
    rows, (line,) = apply_policy(tiny_table(30), CaptionSettings(mention_expression=False))
    assert rows.caption is not None and not any(map(names_expression, rows.caption))
    assert len(set(rows.caption)) == 5 and "30 are templates without it" in line


def test_read_captions_are_rewritten_or_replaced_and_counted() -> None:
    rows, (line,) = apply_policy(replace(tiny_table(4), caption=OWN), CaptionSettings(mention_expression=False))
    assert rows.caption is not None
    assert rows.caption[[0, 2, 3]].tolist() == ["a woman", "a man with a hat", "A girl."]
    assert rows.caption[1] == template_captions(tiny_table(4), mention_expression=False)[1]
    assert line == (
        "data.captions.mention_expression=false: of 4 train captions 1 named no expression, 2 were rewritten, 1 had "
        "nothing else and are templates now (the first of them of 'train-1')"
    )
    kept, _ = apply_policy(replace(tiny_table(4), caption=OWN), CaptionSettings())
    assert kept.caption is OWN


def test_action_units_are_said_where_they_are_known() -> None:
    au = np.zeros((4, len(ACTION_UNITS)), dtype=np.float32)
    au[0, ACTION_UNITS.index("AU25")] = 0.5
    au[2] = np.nan
    table = replace(tiny_table(4), caption=OWN, au=au)
    rows, (line,) = apply_policy(table, CaptionSettings(action_units=True))
    assert rows.caption is not None
    assert rows.caption.tolist() == [
        "a smiling woman. Clearly parted lips.",
        "he smiles. Face at rest.",
        "a man with a hat",
        "A girl. She is sad. Face at rest.",
    ]
    assert "said of 3 of 4 train rows" in line
    part, _ = apply_policy(table.select(np.array([3, 0])), CaptionSettings(action_units=True))
    assert part.caption is not None and part.caption.tolist() == rows.caption[[3, 0]].tolist()  # of the row alone
    with pytest.raises(ValueError, match="found no known action unit of any of the 4 train rows"):
        apply_policy(tiny_table(4), CaptionSettings(action_units=True))


@pytest.mark.parametrize("name", ["captions.parquet", "captions.csv"])
def test_written_captions_are_joined_and_the_unmatched_counted(name: str, tmp_path: Path) -> None:
    written = {"train-2": 'a "tall", happy\nman', "train-0": "a dog", "stranger": "a cat"}
    path = write_caption_table(tmp_path / name, written, {"model": "m"})
    assert read_caption_table(path) == written
    rows, said = apply_policy(tiny_table(4), CaptionSettings(path=str(path)))
    assert rows.caption is not None and rows.caption[0] == "a dog"
    assert rows.caption[[1, 3]].tolist() == template_captions(tiny_table(4))[[1, 3]].tolist()
    assert said == [
        "data.captions.path: captions of 2 of 4 train rows; 2 rows are not in it, the first of them 'train-1', and "
        "keep their own"
    ]
    plain, _ = apply_policy(tiny_table(4), CaptionSettings(path=str(path), mention_expression=False))
    assert plain.caption is not None and not any(map(names_expression, plain.caption))
    assert plain.caption[2] == 'a "tall", man'
    if name.endswith("parquet"):
        assert written_by(path) == {"model": "m"}


def test_damaged_tables_of_captions(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"data\.captions\.path '.*gone': no such file"):
        CaptionSettings(path=str(tmp_path / "gone"))
    path = tmp_path / "c.csv"
    for content, message in (
        ("sample_id,text\na,b\n", "found no column 'caption'"),
        ("sample_id,caption\na,b\na,c\n", "found sample id 'a' more than once"),
        ("sample_id,caption\na,b\n", "found captions of none of the 4 train rows"),
        ("sample_id,caption\ntrain-0,\n", "found captions of none"),
    ):
        path.write_text(content)
        with pytest.raises(ValueError, match=message) as caught:
            apply_policy(tiny_table(4), CaptionSettings(path=str(path)))
        assert "\n" not in str(caught.value) and "data.captions.path" in str(caught.value)
    (tmp_path / "c.parquet").write_text("no Parquet")
    with pytest.raises(ValueError, match="found a file that is not Parquet"):
        apply_policy(tiny_table(4), CaptionSettings(path=str(tmp_path / "c.parquet")))


def test_made_faces_keep_their_captions() -> None:
    CaptionSettings().check_beside(0.5)
    with pytest.raises(ValueError, match=r"data\.captions=.*expected the defaults beside data\.synthetic_ratio=0\.5"):
        CaptionSettings(mention_expression=False).check_beside(0.5)
