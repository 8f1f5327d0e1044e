"""The tokenizer of a model in diffusers' layout, old files and new ones."""

from __future__ import annotations

from typing import Any

from transformers import AutoTokenizer, CLIPTokenizer, PreTrainedTokenizerBase

from synfer.foundation.file_reading import FileError
from synfer.networks.stable_diffusion.base_folder import BaseFolder
from synfer.networks.stable_diffusion.base_shape import read_part_config

_CONFIG = "tokenizer_config.json"
_SLOW = ("vocab.json", "merges.txt")


def load_tokenizer(base: BaseFolder, max_length: int, num_embeddings: int) -> PreTrainedTokenizerBase:
    """Returns the tokenizer, which pads and cuts captions to what the text encoder takes.

    Files without a ``tokenizer_config.json`` name no longest caption: transformers then takes 10³⁰ tokens for it.

    Args:
        base: the model.
        max_length: positions of the text encoder.
        num_embeddings: words of the text encoder.

    Raises:
        FileNotFoundError: no tokenizer there.
        ValueError: it knows more words than the text encoder.
    """
    folder = base.path / "tokenizer"
    stored = read_part_config(base, "tokenizer", _CONFIG) if (folder / _CONFIG).is_file() else {}
    complete = (folder / "tokenizer.json").is_file() or all((folder / name).is_file() for name in _SLOW)
    if not complete:
        raise FileNotFoundError(
            f"model.base '{base.name}': found neither tokenizer.json nor vocab.json and merges.txt in tokenizer, "
            "expected the files of a CLIPTokenizer"
        )
    clip = str(stored.get("tokenizer_class", "CLIPTokenizer")).startswith("CLIPTokenizer")
    kind: Any = CLIPTokenizer if clip else AutoTokenizer
    tokenizer: PreTrainedTokenizerBase = kind.from_pretrained(str(folder))
    if len(tokenizer) > num_embeddings:
        raise FileError(
            f"model.base '{base.name}': found a tokenizer of {len(tokenizer)} words beside a text encoder of "
            f"{num_embeddings}, expected no more of them"
        )
    tokenizer.model_max_length = min(tokenizer.model_max_length, max_length)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token  # as in Stable Diffusion 1.x
    return tokenizer
