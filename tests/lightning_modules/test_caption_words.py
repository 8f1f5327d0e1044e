from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from datamodules.captions.settings import CaptionSettings
from datamodules.rows.template_captions import template_captions
from lightning_modules.caption_words import check_caption_words
from synfer.faces.captions import VOCABULARY
from synfer.networks.word_tokenizer import build_word_tokenizer
from tests.fixtures.tiny_data import tiny_table

SMALL = build_word_tokenizer(VOCABULARY, 16)


def data(captions: list[str] | None, **settings: Any) -> SimpleNamespace:
    table = tiny_table(4)
    if captions is not None:
        table = replace(table, caption=np.array(captions, dtype=object))
    return SimpleNamespace(train_table=table, val_table=None, captions=CaptionSettings(**settings))


def test_templates_are_read_as_they_are() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_caption_words(data(None), SMALL, closed=True)
        check_caption_words(data(template_captions(tiny_table(4), False).tolist()), SMALL, closed=True)


def test_unknown_words_are_said_in_one_line() -> None:
    captions = ["a man with a beard", "a Photo of a face", "a man", "a face"]
    with pytest.warns(UserWarning, match="do not|does not know") as said:
        check_caption_words(data(captions), SMALL, closed=True)
    (line,) = [str(warning.message) for warning in said]
    assert line == (
        "data.reader: 2 of 4 train captions have words that the small generator does not know ('man', 'beard': 2 in "
        "all), which it reads as one and the same; a model.base knows them"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_caption_words(data(captions), SMALL, closed=False)


def test_ends_that_do_not_fit_are_said() -> None:
    captions = ["a face " * 7, "a face " * 8, "a face", "a face"]  # with begin and end 16 and 18 tokens
    with pytest.warns(UserWarning, match=r"1 of 4 train captions are longer than the 16 tokens .* \(the longest 18\)"):
        check_caption_words(data(captions), SMALL, closed=False)


def test_action_units_need_an_open_vocabulary(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"data\.captions\.action_units=true: found the closed vocabulary"):
        check_caption_words(data(None, action_units=True), SMALL, closed=True)
    check_caption_words(data(None, action_units=True), SMALL, closed=False)


def test_prompts_unlike_the_captions_are_said() -> None:
    with pytest.warns(UserWarning, match=r"data\.captions\.mention_expression=false, but sampling\.mention"):
        check_caption_words(data(None, mention_expression=False), SMALL, True, sampling_names=True)
    with pytest.warns(UserWarning, match=r"data\.captions\.mention_expression=true, but sampling\.mention"):
        check_caption_words(data(None), SMALL, True, sampling_names=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_caption_words(data(None, mention_expression=False), SMALL, True, sampling_names=False)
        check_caption_words(data(None), SMALL, True, sampling_names=True)
