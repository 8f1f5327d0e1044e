"""A tokenizer with one token per word, for the small text encoder."""

from __future__ import annotations

from collections.abc import Iterable

from transformers import PreTrainedTokenizerFast


def build_word_tokenizer(words: Iterable[str], max_length: int) -> PreTrainedTokenizerFast:
    """Builds a word-level tokenizer of the closed caption vocabulary.

    It is called like Stable Diffusion's ``CLIPTokenizer`` and saves with ``save_pretrained``, so that the small
    generator and a large checkpoint go the same way. Ids: 0 padding, 1 unknown, 2 begin, 3 end, then the words sorted.

    Args:
        words: vocabulary, lower case.
        max_length: ``model_max_length``, including begin and end.
    """
    from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors
    from tokenizers.models import WordLevel

    special = ["<pad>", "<unk>", "<s>", "</s>"]
    vocabulary = {word: index for index, word in enumerate([*special, *sorted(set(words))])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", vocabulary["<s>"]), ("</s>", vocabulary["</s>"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=max_length,
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
    )
