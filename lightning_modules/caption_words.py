"""What a generator will not hear of its captions: words that it does not know, and ends that do not fit."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from lightning.pytorch.utilities import rank_zero_warn

from datamodules.rows.sample_table import SampleTable

_LOOKED_AT = 2_000


def check_caption_words(data: Any, tokenizer: Any, closed: bool, sampling_names: bool | None = None) -> None:
    """Says, before a training, which captions are not read as they are written; templates always are.

    Args:
        data: the run's data module.
        tokenizer: of the generator.
        closed: whether it knows a fixed list of whole words, as that of the small generator does.
        sampling_names: whether its prompts name the expression; None = not known.

    Raises:
        ValueError: action units are to be said, in words that it does not know.
    """
    if closed and getattr(getattr(data, "captions", None), "action_units", False):
        raise ValueError(
            "data.captions.action_units=true: found the closed vocabulary of the small generator, expected a "
            "model.base (whose text encoder knows the words)"
        )
    named = getattr(getattr(data, "captions", None), "mention_expression", True)
    if sampling_names is not None and named != sampling_names:
        rank_zero_warn(
            f"data.captions.mention_expression={str(named).lower()}, but sampling.mention_expression="
            f"{str(sampling_names).lower()}: faces are asked for in other words than this training shows"
        )
    for name in ("train_table", "val_table"):
        table: SampleTable | None = getattr(data, name, None)
        if table is None or table.caption is None:
            continue
        rows = np.linspace(0, len(table) - 1, min(len(table), _LOOKED_AT)).round().astype(np.int64)
        captions = [str(caption) for caption in table.caption[rows]]
        seen = f"{len(rows)} {table.split} captions" + (" looked at" if len(rows) < len(table) else "")
        if closed:
            _say_unknown_words(captions, set(tokenizer.get_vocab()), seen)
        _say_cut_off(captions, tokenizer, seen)


def _say_unknown_words(captions: list[str], known: set[str], seen: str) -> None:
    unknown = [{word for word in caption.lower().split() if word not in known} for caption in captions]
    counts = Counter(word for words in unknown for word in words)
    if counts:
        shown = ", ".join(f"'{word}'" for word, _ in counts.most_common(3))
        rank_zero_warn(
            f"data.reader: {sum(map(bool, unknown))} of {seen} have words that the small generator does not know "
            f"({shown}: {len(counts)} in all), which it reads as one and the same; a model.base knows them"
        )


def _say_cut_off(captions: list[str], tokenizer: Any, seen: str) -> None:
    most = tokenizer.model_max_length
    lengths = [len(ids) for ids in tokenizer(captions, truncation=False, verbose=False)["input_ids"]]
    cut = sum(length > most for length in lengths)
    if cut:
        rank_zero_warn(
            f"data.reader: {cut} of {seen} are longer than the {most} tokens of the text encoder (the longest "
            f"{max(lengths)}), which does not read their ends"
        )
