"""When to generate while a classifier trains, how much, and into which pool."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from callbacks.near_copy_count import NearCopyCount
from callbacks.synthesis import SynthesisCallback, active_hooks
from datamodules.expressions import canonical_expression, map_label_space
from datamodules.keyed_random import keyed_uniform
from lightning_modules.sampling.request import SamplingSettings, SynthesisRequest, SynthesisResult

if TYPE_CHECKING:
    from lightning_modules.generator import ExpressionGenerator

_EXPRESSION_STREAM = 0x0E
_RANK_STRIDE = 1 << 40  # sample ids of different ranks never meet
_FRUITLESS_BATCHES = 20


class OnlineSynthesis(SynthesisCallback):
    """Fills the rank's synthetic pool before training and refreshes it as samples are used.

    Every rank generates for itself on its own device; no collective is needed. A pool sample is used ``max_reuse``
    times on average: after each training batch, new faces are made once ``drawn / max_reuse`` exceeds those made by a
    whole generation batch. ``data.synthetic_multiple`` bounds the distinct samples; from there on the pool stays.

    What is made next is a pure function of (seed, rank, number): expression, action units, noise, layout.

    Args:
        enabled: whether to generate.
        generator: checkpoint of an :class:`ExpressionGenerator`, or a folder of its ``save_trained``.
        batch_size: faces made at a time.
        max_reuse: mean number of times that a pool sample is trained on, ≥ 1.
        initial_samples: faces kept in the pool before training starts; null = one generation batch.
        expressions: names to make, evenly; null = all that data and generator share.
        sampling: how to denoise; null = the generator's own settings.

    Raises:
        ValueError: a value out of range, or enabled without a generator.
        FileNotFoundError: no such checkpoint.
    """

    def __init__(
        self,
        enabled: bool = False,
        generator: str | None = None,
        batch_size: int = 64,
        max_reuse: float = 4.0,
        initial_samples: int | None = None,
        expressions: list[str] | None = None,
        sampling: SamplingSettings | None = None,
    ) -> None:
        super().__init__(enabled)
        if batch_size < 1:
            raise ValueError(f"synthesis.batch_size: found {batch_size}, expected at least 1")
        if max_reuse < 1:
            raise ValueError(f"synthesis.max_reuse: found {max_reuse}, expected at least 1")
        if initial_samples is not None and initial_samples < 1:
            raise ValueError(f"synthesis.initial_samples: found {initial_samples}, expected at least 1")
        if enabled and generator is None:
            raise ValueError("synthesis.generator: found none, expected a generator checkpoint")
        if enabled and not Path(str(generator)).exists():
            raise FileNotFoundError(
                f"synthesis.generator '{generator}': no such file or folder, expected a trained generator"
            )
        self.generator_path = generator
        self.batch_size = batch_size
        self.max_reuse = max_reuse
        self.initial_samples = initial_samples
        self.expressions = None if expressions is None else [canonical_expression(name) for name in expressions]
        self.sampling = sampling
        self.made = 0
        self.discarded = 0
        self.next_number = 0
        self.seconds = 0.0
        self.copies = NearCopyCount()
        self._drawn_at_start = 0
        self._kept_since_start = 0
        self._names: list[str] = []
        self._generator: ExpressionGenerator | None = None

    @property
    def counts(self) -> dict[str, int]:
        """Faces made on this rank, those thrown away, and near copies among those kept: for summary.json."""
        return {"generated": self.made, "discarded": self.discarded, **(self.copies.counts if self.enabled else {})}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Loads the generator and checks that there is a pool to fill and an expression to make.

        At ratio 0 nothing is loaded or made, so that one sweep file serves the control too.

        Raises:
            ValueError: a finished synthetic set or folds beside online synthesis, or an expression that nobody knows.
        """
        datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
        if stage != "fit" or not self.enabled:
            return
        if datamodule.synthetic_ratio == 0:
            rank_zero_info(
                "synthesis.enabled=true at data.synthetic_ratio=0: nothing is generated (the control of a sweep)"
            )
            return
        if datamodule.pool is None:
            raise ValueError(
                "synthesis.enabled=true beside data.synthetic_reader: two sources of synthetic samples, expected one"
            )
        if datamodule.folds is not None:  # as beside data.synthetic_reader: nothing would tell of it
            raise ValueError(
                f"synthesis.enabled=true beside data.folds={datamodule.folds}: generator, guide and voters may have "
                "learned from the rows that this fold holds out, with their labels; expected one or the other"
            )
        # Imported where it is used: diffusers takes seconds to load, and most runs do not synthesise.
        from lightning_modules.generator import ExpressionGenerator

        self._generator = ExpressionGenerator.load_trained(str(self.generator_path))
        shared = [name for name in datamodule.label_space if name in self._generator.label_space]
        for name in self.expressions or []:
            if name not in shared:
                raise ValueError(f"synthesis.expressions: '{name}' is not shared by data and generator ({shared})")
        self._names = self.expressions or shared
        if not self._names:
            raise ValueError(
                f"data {list(datamodule.label_space)} and generator {list(self._generator.label_space)} share no name"
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Fills the pool before the first batch is drawn."""
        if self._generator is None:
            return
        self._generator.to(pl_module.device)
        datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
        self._drawn_at_start = datamodule.counts["synthetic"]
        wanted = min(self.initial_samples or self.batch_size, datamodule.pool_size)
        bound = self._bound(trainer)
        if bound is not None and bound < 1:
            raise ValueError("data.synthetic_multiple leaves no sample for each rank: expected at least one per rank")
        while datamodule.pool.written < (wanted if bound is None else min(wanted, bound)):
            self._generate(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Makes the faces that have fallen due."""
        if self._generator is None:
            return
        datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
        drawn = datamodule.counts["synthetic"] - self._drawn_at_start
        bound = self._bound(trainer)
        while (drawn / self.max_reuse - self._kept_since_start) >= self.batch_size:
            if bound is not None and datamodule.pool.written >= bound:
                break
            self._generate(trainer)
        pl_module.log("synthesis/made", float(self.made))
        pl_module.log("synthesis/discarded", float(self.discarded))
        pl_module.log("synthesis/seconds", self.seconds)
        if self.copies.checked:
            pl_module.log("synthesis/near_copies", self.copies.share)
            pl_module.log("synthesis/near_copies_real", datamodule.near_copies().held_out_share())

    def _bound(self, trainer: Trainer) -> int | None:
        """Distinct samples that this rank may write: its share of ``data.synthetic_multiple``."""
        maximum = trainer.datamodule.max_synthetic  # type: ignore[attr-defined]
        if maximum is None:
            return None
        return maximum // trainer.world_size + int(trainer.global_rank < maximum % trainer.world_size)

    def next_request(self, rank: int, seed: int, count: int) -> SynthesisRequest:
        """Returns what to make next: expressions evenly in a random order, all else from the sample id."""
        numbers = np.arange(self.next_number, self.next_number + count)
        self.next_number += count
        classes = len(self._names)
        rounds, place = np.divmod(numbers, classes)
        order = keyed_uniform(rounds, classes, seed, rank, _EXPRESSION_STREAM).argsort(1)
        expressions = [self._names[index] for index in order[np.arange(count), place]]
        sample_ids = [int(number) + rank * _RANK_STRIDE for number in numbers]
        # The generator's own settings count as if they were given: its action-unit edits belong into the request.
        settings = self.sampling or (self._generator.sampling if self._generator is not None else None)
        return SynthesisRequest.from_expressions(expressions, sample_ids, seed, settings)

    def _generate(self, trainer: Trainer) -> None:
        assert self._generator is not None
        datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
        started = time.monotonic()
        seed = datamodule.run_seed
        bound = self._bound(trainer)
        for _ in range(_FRUITLESS_BATCHES):
            request = self.next_request(trainer.global_rank, seed, self.batch_size)
            result = self._generator.synthesise(request, active_hooks(trainer))
            room = math.inf if bound is None else bound - datamodule.pool.written
            kept = result.kept.nonzero().flatten()
            self.made += len(request)
            self.discarded += len(request) - len(kept)
            kept = kept[: int(min(room, len(kept)))]
            if len(kept):
                self._append(datamodule, result, kept)
                self._kept_since_start += len(kept)
                self.seconds += time.monotonic() - started
                return
        raise RuntimeError(
            f"pseudo-labels and layout.max_similarity discarded all of {_FRUITLESS_BATCHES * self.batch_size} "
            "synthetic faces in a row: expected some to be kept (lower pseudo_labels.discard_below, raise "
            "layout.num_inverted or use a better generator)"
        )

    def _append(self, datamodule: Any, result: SynthesisResult, kept: torch.Tensor) -> None:
        assert self._generator is not None
        columns = map_label_space(self._generator.label_space, datamodule.label_space)
        soft = result.soft_label[kept].cpu()
        # By name; an expression that the data does not know gives its share to the others.
        mapped = torch.where(torch.from_numpy(columns >= 0), soft[:, np.maximum(columns, 0)], 0.0)
        total = mapped.sum(1, keepdim=True)
        own = [datamodule.label_space.index(self._generator.label_space[i]) for i in result.label[kept].tolist()]
        intended = torch.nn.functional.one_hot(torch.tensor(own), len(datamodule.label_space)).float()
        mapped = torch.where(total > 1e-3, mapped / total.clamp_min(1e-12), intended)
        self.copies.add(datamodule.near_copies(), result.images[kept])
        rows = kept.cpu().numpy()
        images, side = result.images[kept].cpu(), datamodule.pool.image_size
        if images.shape[-1] != side:
            images = torch.nn.functional.interpolate(images, size=(side, side), mode="bilinear", antialias=True)
        datamodule.pool.append(
            images,
            mapped.argmax(1),
            mapped,
            torch.from_numpy(result.request.action_units[rows]),
            [result.request.seed] * len(rows),
            [result.layout_source[row] for row in rows],
        )

    def state_dict(self) -> dict[str, Any]:
        """Returns the counters. Rank 0's serve all ranks: a number used twice repeats a face and does no other harm."""
        state = {"made": self.made, "discarded": self.discarded, "next_number": self.next_number}
        return {**state, **self.copies.counts}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on numbering where the checkpoint stopped; the pool is filled anew."""
        self.made, self.discarded = int(state_dict["made"]), int(state_dict["discarded"])
        self.next_number = int(state_dict["next_number"])
        self.copies.checked = int(state_dict.get("checked", 0))
        self.copies.near_copies = int(state_dict.get("near_copies", 0))
