from __future__ import annotations

from pathlib import Path

import pytest
from transformers import CLIPTokenizer

from synfer.networks.stable_diffusion.base_folder import BaseFolder
from synfer.networks.stable_diffusion.tokenizer import load_tokenizer
from tests.fixtures import stable_diffusion_folder as sd

WORDS = 523
CAPTIONS = ["a happy face", "", "Sad FACES, happy " * 20]


def ids(folder: Path, max_length: int = sd.POSITIONS) -> list[list[int]]:
    tokenizer = load_tokenizer(BaseFolder(str(folder), folder), max_length, WORDS)
    settings = {"padding": "max_length", "max_length": tokenizer.model_max_length, "truncation": True}
    return list(tokenizer(CAPTIONS, **settings).input_ids)


def tokenizer_json_alone(folder: Path) -> None:
    CLIPTokenizer.from_pretrained(folder / "tokenizer").save_pretrained(folder / "new")
    content = (folder / "new" / "tokenizer.json").read_bytes()
    sd.without("tokenizer")(folder)
    sd.with_file("tokenizer/tokenizer.json", content)(folder)


FILES = ("tokenizer/tokenizer_config.json", "tokenizer/special_tokens_map.json")


@pytest.mark.parametrize(
    "change",
    [
        sd.without(*FILES),
        sd.without(FILES[1]),
        sd.config_of("tokenizer", tokenizer_class=None),
        sd.config_of("tokenizer", model_max_length=None),
        sd.config_of("tokenizer", tokenizer_class="CLIPTokenizerFast"),
        tokenizer_json_alone,
    ],
    ids=["two files", "no special tokens", "no class", "no length", "fast", "tokenizer.json alone"],
)
def test_old_and_new_files_give_the_same_tokens(change: sd.Change, stable_diffusion: Path, tmp_path: Path) -> None:
    expected = ids(stable_diffusion)
    assert ids(sd.copied(stable_diffusion, tmp_path / "base", change)) == expected
    assert {len(row) for row in expected} == {sd.POSITIONS}
    end = WORDS - 1
    assert expected[1] == [WORDS - 2, *[end] * (sd.POSITIONS - 1)]  # begin, end, padding
    assert expected[2][-1] == end and end not in expected[2][:-1]  # cut, and closed all the same


def test_captions_are_cut_to_the_positions_of_the_text_encoder(stable_diffusion: Path) -> None:
    assert {len(row) for row in ids(stable_diffusion, max_length=8)} == {8}


def test_a_padding_of_its_own_is_kept(stable_diffusion: Path, tmp_path: Path) -> None:
    other = sd.copied(stable_diffusion, tmp_path / "base", sd.padding_as_in_2)
    assert ids(other)[1] == [WORDS - 2, WORDS - 1, *[0] * (sd.POSITIONS - 2)]
