"""Latents and text tokens of a training set: computed once by all ranks, read at every step."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn

from datamodules.batch import Batch
from datamodules.loading.face_views import all_views, check_countable, show_views, view_keys
from datamodules.loading.mixed_dataset import MixedDataset
from lightning_modules.trainer_access import data_of
from synfer.foundation.fingerprint import fingerprint
from synfer.networks.diffusion import DiffusionModel
from synfer.networks.feature_cache import FeatureCache
from synfer.networks.tensor_cache import TensorCache
from synfer.networks.unloaded_weights import UnloadedWeights
from synfer.synthesis.diffusion.cache_settings import CacheSettings

_KEY = "model.cache.path"


class TrainingCache:
    """What the frozen networks of a base make of the training set.

    Latents are found by the content of a picture, its view (crop, flip, …) and its size, text by its tokens; the names
    of folders hold the networks, their precision and number format. So nothing can be stale, and other runs find what
    this one has left. Batches then come without pixels.

    Args:
        settings: where, and what.
        model: with a frozen codec and text encoder.
        image_size: side of the pictures in pixels.
        trainer: with a data module that has been set up for "fit".

    Raises:
        ValueError: views without end, or faces that are made in the course of the training.
    """

    def __init__(self, settings: CacheSettings, model: DiffusionModel, image_size: int, trainer: Any) -> None:
        self.settings, self.model, self.image_size = settings, model, image_size
        self._trainer, self._data = trainer, data_of(trainer)
        if self._data.synthetic_ratio > 0:
            raise ValueError(f"data.synthetic_ratio: found {self._data.synthetic_ratio} with {_KEY}, expected 0")
        check_countable(self._data.augmentation, _KEY)
        self._data.reads_images = False
        self._hash_of = dict(zip(self._table.sample_id.tolist(), self._table.content_hash.tolist(), strict=True))
        self._frozen: UnloadedWeights | None = None
        self._latents: TensorCache | None = None
        self._text: TensorCache | None = None
        self._token_key = lru_cache(maxsize=65536)(self._key_of_caption)

    @property
    def _table(self) -> Any:
        return self._data.train_table

    # ---------------------------------------------------------------- filling

    @torch.no_grad()
    def fill(self, captions: Sequence[str] = ()) -> None:
        """Computes what is not there yet, each rank its share, and takes the frozen networks out of memory (a
        collective).

        Args:
            captions: texts beside those of the training set.

        Raises:
            ValueError: pictures of another size, or no room on the disk.
        """
        device = next(self.model.parameters()).device
        with self._trainer.precision_plugin.forward_context():
            self._fill_latents(device)
            if self.settings.text:
                self._fill_text(captions)
        if self.settings.unload:
            # One rank writes first, then one of each machine whose disk is another.
            for writes in (self._trainer.global_rank == 0, self._trainer.local_rank == 0):
                if writes:
                    self._frozen_weights().store()
                self._trainer.strategy.barrier()
            self.unload()

    def _fill_latents(self, device: torch.device) -> None:
        codec, augmentation, table = self.model.codec, self._data.augmentation, self._table
        pixels = MixedDataset(table, image_size=self._data.image_size)
        found = tuple(pixels.__getitems__([0])["image"].shape[-2:])
        if found != (self.image_size, self.image_size):
            raise ValueError(
                f"model.image_size is {self.image_size}, but the data has images of {found[0]}x{found[1]}: "
                "set data.image_size=model"
            )
        like = codec.encode(torch.linspace(-1, 1, self.image_size, device=device).expand(1, 3, *found))[0]
        identity = {"kind": "latents", "codec": codec.fingerprint(), "image_size": self.image_size}
        self._latents = cache = self._open(identity, codec, like)
        numbers = all_views(table.sample_id.tolist(), augmentation)
        keys = [key for view in numbers for key in view_keys(table.content_hash.tolist(), augmentation, view)]
        keys = [keys[view * len(table) + row] for row in range(len(table)) for view in range(len(numbers))]

        def encode(places: list[int]) -> Tensor:
            rows, views = np.divmod(np.array(places), len(numbers))
            chosen = torch.from_numpy(numbers[views, rows]).to(device)
            images = pixels.__getitems__(rows.tolist())["image"].to(device)
            return codec.encode(show_views(images, augmentation, chosen) * 2 - 1)

        self._share(cache, keys, encode, "latents")

    def _fill_text(self, more: Sequence[str]) -> None:
        encoder = self.model.text_encoder
        captions = sorted({*MixedDataset(self._table).real.captions(np.arange(len(self._table))), *more})
        like = self.model.encode_text(captions[:1])[0]
        # Versions, paths and dtypes change with every saving and loading, and nothing that is computed with them.
        left_out = ("_", "transformers_version", "dtype", "torch_dtype")
        build = {name: v for name, v in encoder.config.to_dict().items() if not name.startswith(left_out)}
        weights = fingerprint(encoder.named_parameters(), json.dumps(build, sort_keys=True, default=str))
        identity = {"kind": "text", "encoder": weights}
        self._text = cache = self._open(identity, encoder, like)
        keys = [self._token_key(caption) for caption in captions]
        self._share(cache, keys, lambda places: self.model.encode_text([captions[i] for i in places]), "texts")

    def _open(self, identity: dict[str, Any], network: nn.Module, like: Tensor) -> TensorCache:
        device = like.device.type
        weights = next(network.parameters()).dtype
        autocast = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
        # What was computed in half precision may come as float32, and is kept in half the room.
        half = next((f for f in (autocast, weights) if f in (torch.bfloat16, torch.float16)), None)
        kept = like.to(half) if half is not None and torch.equal(like.to(half).to(like.dtype), like) else like
        computed_in = {"weights": str(weights), "autocast": str(autocast)}
        return TensorCache(str(self.settings.path), {**identity, **computed_in}, kept)

    def _share(self, cache: TensorCache, keys: list[bytes], compute: Callable[[list[int]], Tensor], name: str) -> None:
        """Has each rank compute its share of what is missing; then each machine what its own disk still lacks."""
        trainer, size = self._trainer, self._data.batch_size
        for ranks, rank in (
            (trainer.world_size, trainer.global_rank),
            (trainer.num_devices, trainer.local_rank),
        ):
            trainer.strategy.barrier()  # nobody writes before all have looked
            cache.refresh()
            missing = cache.missing(keys)
            trainer.strategy.barrier()
            if missing:
                self._check_room(cache, len(missing), name)
                rank_zero_info(f"cache: {len(missing)} of {len(set(keys))} {name} are computed")
            mine = missing[rank::ranks]
            for start in range(0, len(mine), size):
                places = mine[start : start + size]
                # As many at a time as in a step: kernels may round otherwise for other numbers.
                filled = places + places[-1:] * (size - len(places))
                made = compute(filled)[: len(places)]
                if not torch.equal(made.to(cache.dtype).to(made.dtype), made):
                    raise ValueError(
                        f"cache of {name}: found values that {cache.dtype} rounds, expected such as it has"
                    )
                cache.add([keys[i] for i in places], made.to(cache.dtype))
            cache.flush()
        trainer.strategy.barrier()
        cache.refresh()

    def _check_room(self, cache: TensorCache, count: int, name: str) -> None:
        needed, free = count * cache.row_bytes, FeatureCache.free_bytes(str(self.settings.path))
        if needed > free:
            raise ValueError(
                f"{_KEY} '{self.settings.path}': found {free / 1e9:.1f} GB free, expected at least "
                f"{math.ceil(needed / 1e8) / 10} GB for {count} {name}"
            )

    # ---------------------------------------------------------------- reading

    def latents(self, batch: Batch) -> Tensor:
        """Returns what the codec makes of the batch's views, float32 (B, C, h, w), on the device of the labels."""
        assert self._latents is not None
        contents = [self._hash_of[name] for name in batch["sample_id"]]
        numbers = batch["augmentation"].cpu().numpy() if "augmentation" in batch else np.zeros((len(contents), 12))
        keys = view_keys(contents, self._data.augmentation, numbers)
        return self._latents.rows(keys).to(batch["label"].device, non_blocking=True).float()

    def text(self, captions: Sequence[str]) -> Tensor:
        """Returns text tokens, float32 (n, L, D); computed where they are not kept."""
        device = next(self.model.unet.parameters()).device
        if self._text is None:
            return self.model.encode_text(list(captions))
        return self._text.rows([self._token_key(caption) for caption in captions]).to(device, non_blocking=True).float()

    def _key_of_caption(self, caption: str) -> bytes:
        ids = np.asarray(self.model.tokenizer(caption).input_ids, dtype="<i8")
        return blake2b(ids.tobytes(), digest_size=16).digest()

    # ---------------------------------------------------------------- memory

    def unload(self) -> None:
        """Takes the frozen networks out of memory: the codec, and the text encoder where its tokens are kept."""
        if self.settings.unload:
            self._frozen_weights().unload()

    def _frozen_weights(self) -> UnloadedWeights:
        if self._frozen is None:
            modules: dict[str, nn.Module] = {"codec": self.model.codec}
            if self.settings.text:
                modules["text_encoder"] = self.model.text_encoder
            self._frozen = UnloadedWeights(Path(str(self.settings.path)), modules)
        return self._frozen

    def restore(self) -> None:
        """Puts the frozen networks back."""
        if self._frozen is not None:
            self._frozen.restore()

    def close(self) -> None:
        """Leaves model and data as they were found."""
        self.restore()
        self._data.reads_images = True
