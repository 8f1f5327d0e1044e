from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from synfer.faces.captions import ADJECTIVES, TEMPLATES, VOCABULARY
from synfer.networks.word_tokenizer import build_word_tokenizer

PAD, UNKNOWN, BEGIN, END = range(4)


def ids(tokenizer: Any, captions: list[str]) -> list[list[int]]:
    return tokenizer(captions, padding="max_length", max_length=tokenizer.model_max_length, truncation=True).input_ids


def test_words_get_the_ids_that_the_docstring_says() -> None:
    tokenizer = build_word_tokenizer(["happy", "a", "face"], max_length=8)
    assert ids(tokenizer, ["a happy face"]) == [[BEGIN, 4, 6, 5, END, PAD, PAD, PAD]]  # a, face, happy sorted: 4, 5, 6
    special = (tokenizer.pad_token_id, tokenizer.unk_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id)
    assert special == (PAD, UNKNOWN, BEGIN, END)
    assert len(tokenizer) == 7


def test_case_does_not_matter_and_foreign_words_are_unknown() -> None:
    tokenizer = build_word_tokenizer(["happy", "face"], max_length=5)
    assert ids(tokenizer, ["Happy FACE"]) == ids(tokenizer, ["happy face"])
    assert ids(tokenizer, ["happy horse"])[0] == [BEGIN, 5, UNKNOWN, END, PAD]


def test_empty_caption_is_begin_and_end() -> None:
    assert ids(build_word_tokenizer(["face"], max_length=4), [""]) == [[BEGIN, END, PAD, PAD]]


def test_long_captions_are_cut_and_still_end() -> None:
    (row,) = ids(build_word_tokenizer(["very", "happy"], max_length=6), ["very " * 20 + "happy"])
    assert len(row) == 6 and row[0] == BEGIN and row[-1] == END


def test_word_order_and_repetition_in_the_vocabulary_do_not_matter() -> None:
    one, other = build_word_tokenizer(["b", "a"], 8), build_word_tokenizer(["a", "b", "a"], 8)
    assert one.get_vocab() == other.get_vocab()


def test_every_template_caption_is_in_the_vocabulary_and_fits() -> None:
    tokenizer = build_word_tokenizer(VOCABULARY, max_length=16)
    captions = [template.format(word) for template in TEMPLATES for word in ADJECTIVES.values()]
    encoded = ids(tokenizer, captions)
    assert not any(UNKNOWN in row for row in encoded)
    assert all(row.count(END) == 1 and row[-1] in (END, PAD) for row in encoded)
    assert len({tuple(row) for row in encoded}) == len(captions)


def test_saved_and_loaded_like_any_other(tmp_path: Path) -> None:
    tokenizer = build_word_tokenizer(VOCABULARY, max_length=16)
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    captions = ["a photo of a face with a happy expression", "a zebra", ""]
    assert ids(loaded, captions) == ids(tokenizer, captions)
    assert loaded.model_max_length == 16
