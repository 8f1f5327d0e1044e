"""What a diffusion UNet sees in an image: feature maps of modules named by the user, and one attention map per word.

SynFER's FERAnno (arXiv 2410.09865) reads both from one pass of the UNet over the inverted image. Nothing is replaced
for that: forward hooks listen to the modules and to the query and key projections of each cross-attention layer, so the
network's output stays what it was, whatever attention processor it runs with.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn
from torch.nn import functional as F

PROMPT_START = "a photo of a face"
"""Begin of the prompt that is read with; the words follow. It is the same for every image, so it tells no label."""


@dataclass
class Captured:
    """What one pass of the UNet has left.

    Attributes:
        features: module name → float (B, C, s, s).
        attention: cross-attention layer → float (B, words, s, s): softmax(QKᵀ) of each word, mean over the heads.
    """

    features: dict[str, Tensor] = field(default_factory=dict)
    attention: dict[str, Tensor] = field(default_factory=dict)


class _AllIsThere(Exception):
    """Ends a pass of which nothing more is wanted."""


def word_prompt(tokenizer: Any, words: Sequence[str], start: str = PROMPT_START) -> tuple[str, list[list[int]]]:
    """Returns one prompt that holds all words, and the token positions of each.

    Args:
        tokenizer: as ``CLIPTokenizer``; a word may take several tokens.
        words: what attention maps are wanted of.
        start: text before the first word.

    Raises:
        ValueError: the prompt is longer than the text encoder's, or the tokenizer does not know a word.
    """
    prompt, positions = start, []
    before = tokenizer(prompt).input_ids
    for word in words:
        prompt = f"{prompt} {word}"
        ids = tokenizer(prompt).input_ids
        first = next((i for i, (a, b) in enumerate(zip(before, ids, strict=False)) if a != b), len(before))
        mine = list(range(first, len(ids) - (len(before) - first)))
        unknown = tokenizer.unk_token_id
        if not mine or (unknown != tokenizer.eos_token_id and any(ids[i] == unknown for i in mine)):
            raise ValueError(f"text encoder: its tokenizer does not know '{word}', expected a word that it was made of")
        positions.append(mine)
        before = ids
    if len(before) > tokenizer.model_max_length:
        raise ValueError(
            f"text encoder: the prompt '{prompt}' has {len(before)} tokens, expected at most "
            f"{tokenizer.model_max_length}"
        )
    return prompt, positions


@contextmanager
def capture(
    unet: UNet2DConditionModel, modules: Sequence[str], word_positions: Sequence[Sequence[int]], map_size: int
) -> Iterator[Captured]:
    """Listens to a UNet inside the ``with`` block; maps larger than ``map_size`` are average-pooled to it.

    As soon as all that is listened to has spoken, the block is left: what the UNet would do after that is not waited
    for, and neither is what follows its call inside the block.

    Args:
        unet: any ``UNet2DConditionModel``; images and maps are square.
        modules: names of submodules whose output is an image map (B, C, h, w), or a tuple that begins with one.
        word_positions: for each word the positions of its tokens; their attention is summed. Empty = no attention.
        map_size: largest side of what is kept.

    Raises:
        ValueError: no such module, or one without a map as output.
    """
    captured, handles = Captured(), []
    known = dict(unet.named_modules())
    layers = [name for name in known if name.endswith(".attn2")] if word_positions else []

    def leave_when_complete(*_: Any) -> None:
        if len(captured.features) == len(set(modules)) and len(captured.attention) == len(layers):
            raise _AllIsThere

    for name in modules:
        if not name or name not in known or isinstance(known[name], nn.ModuleList):  # a list of modules never runs
            near = sorted(n for n in known if re.fullmatch(r"mid_block|(down|up)_blocks\.\d+", n))
            raise ValueError(f"model.feature_modules: found '{name}', expected names such as {', '.join(near)}")
    for name in modules:
        handles.append(known[name].register_forward_hook(_keep_features(captured, name, map_size)))
        handles.append(known[name].register_forward_hook(leave_when_complete))
    for name in layers:
        layer: Any = known[name]
        heard = _CrossAttention(captured, name, layer, word_positions, map_size)
        handles.append(layer.to_q.register_forward_hook(heard.keep_query))
        handles.append(layer.to_k.register_forward_hook(heard.keep_key))
        handles.append(layer.to_k.register_forward_hook(leave_when_complete))
    try:
        yield captured
    except _AllIsThere:
        pass
    finally:
        for handle in handles:
            handle.remove()


def pooled(maps: Tensor, map_size: int) -> Tensor:
    """Returns float32 maps (B, C, s, s) with s ≤ ``map_size``, finite in float16."""
    maps = maps.float()
    if maps.shape[-1] > map_size or maps.shape[-2] > map_size:
        maps = F.adaptive_avg_pool2d(maps, map_size)
    limit = torch.finfo(torch.float16).max
    return maps.nan_to_num(0.0, limit, -limit).clamp(-limit, limit)


def _keep_features(captured: Captured, name: str, map_size: int) -> Any:
    def hook(module: nn.Module, inputs: Any, output: Any) -> None:
        found = output[0] if isinstance(output, tuple) else output
        if not isinstance(found, Tensor) or found.ndim != 4:
            shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise ValueError(f"model.feature_modules: '{name}' gives {shape}, expected a map (B, C, h, w)")
        captured.features[name] = pooled(found.detach(), map_size)

    return hook


class _CrossAttention:
    """Turns queries and keys of one layer into attention maps as soon as both are there."""

    def __init__(
        self,
        captured: Captured,
        name: str,
        attention: Any,
        word_positions: Sequence[Sequence[int]],
        map_size: int,
    ) -> None:
        self.captured, self.name, self.attention = captured, name, attention
        self.word_positions, self.map_size = word_positions, map_size
        self.query: Tensor | None = None

    def keep_query(self, module: nn.Module, inputs: Any, output: Tensor) -> None:
        self.query = output.detach()

    def keep_key(self, module: nn.Module, inputs: Any, output: Tensor) -> None:
        assert self.query is not None  # every diffusers processor projects queries before keys
        maps = text_attention(self.query, output.detach(), self.attention.heads, self.attention.scale)
        self.query = None
        words = torch.stack([maps[:, :, list(positions)].sum(2) for positions in self.word_positions], 1)
        side = math.isqrt(words.shape[2])
        self.captured.attention[self.name] = pooled(words.unflatten(2, (side, -1)), self.map_size)


def text_attention(query: Tensor, key: Tensor, heads: int, scale: float) -> Tensor:
    """Returns softmax(QKᵀ · scale), mean over the heads: float32 (B, N, L).

    Args:
        query: (B, N, heads · d).
        key: (B, L, heads · d).
        heads: number of heads.
        scale: 1 / √d as the layer has it.
    """
    q, k = (t.float().unflatten(-1, (heads, -1)).transpose(1, 2) for t in (query, key))
    with torch.autocast(query.device.type, enabled=False):
        return (q @ k.transpose(2, 3) * scale).softmax(-1).mean(1)
