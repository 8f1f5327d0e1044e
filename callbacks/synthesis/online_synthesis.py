"""When to generate while a classifier trains, how much, and into which pool."""

from __future__ import annotations

import itertools
import math
import time
from collections import deque
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from callbacks.planned_validation import validates_now
from callbacks.recording.progress_display import Task
from callbacks.recording.run_progress import display_of
from callbacks.synthesis.copy_warning import warn_of_copies
from callbacks.synthesis.face_sentence import face_sentence
from callbacks.synthesis.faces_ahead import FacesAhead, check_may_overlap, see_all, steering
from callbacks.synthesis.faces_due import all_make_faces, steps_between_looks
from callbacks.synthesis.generator_fit import check_generator_fits
from callbacks.synthesis.near_copy_count import NearCopyCount
from callbacks.synthesis.planned_shares import PlannedShares, merged_states
from callbacks.synthesis.synthesis_callback import SynthesisCallback
from datamodules.rows.source_faces import training_sources
from datamodules.synthetic.synthetic_pool import SyntheticPool
from synfer.faces.expressions import canonical_expression
from synfer.foundation.rank_states import counters, own_state, states_of_ranks
from synfer.synthesis.class_shares import EVEN
from synfer.synthesis.faces import Faces
from synfer.synthesis.feedback_shares import FeedbackSettings
from synfer.synthesis.hooks import active_hooks
from synfer.synthesis.plan import RANK_STRIDE, Plan
from synfer.synthesis.request import SamplingSettings, SynthesisRequest, SynthesisSettings
from synfer.synthesis.synthesiser import Synthesiser, TakesSources, changed_settings, check_settings, load_synthesiser

_FRUITLESS_BATCHES = 20
_COUNTERS = ("made", "discarded", "seconds", "next_number", "kept", "drawn")


class OnlineSynthesis(SynthesisCallback):
    """Fills the rank's synthetic pool before training and refreshes it as samples are used.

    Every rank generates for itself on its own device. A pool sample is used ``max_reuse`` times on average: new faces
    are made once ``drawn / max_reuse`` exceeds those kept by a whole generation batch, on several ranks in the mean of
    all, so that they make them in the same steps. ``data.synthetic_multiple`` bounds the distinct samples; from there
    on the pool stays.

    What is made next is a pure function of (seed, rank, number): expression, action units, noise, layout. So a
    checkpoint holds which faces are in the pool, with their labels, and no pictures: a run that goes on makes the same
    ones again before its first step, and is then the same run (``data.num_workers`` 0; workers read ahead). On another
    number of ranks the faces are dealt out anew.

    Args:
        enabled: whether to generate.
        generator: checkpoint or folder of a synthesiser: an :class:`ExpressionGenerator`, or another kind that
            :func:`synfer.synthesis.synthesiser.load_synthesiser` knows.
        batch_size: faces made at a time.
        max_reuse: mean number of times that a pool sample is trained on, ≥ 1.
        initial_samples: faces kept in the pool before training starts; null = one generation batch.
        expressions: names to make; null = all that data and generator share.
        sampling: how a diffusion model denoises; null = the generator's own settings.
        settings: values that replace some of the generator's own settings, by name, whatever its kind: of a VAE-GAN
            {strength: 1.5}; null = none.
        plan: how often each of them is made: "even", "real" (as among the training rows in use), "fill" (what each
            class lacks to the largest), "inverse" (1 / its training rows) or "feedback" (more of those whose recall in
            validation is low; evenly before the first).
        feedback: how strongly "feedback" follows the recalls; null = its defaults.
        ahead: make the next batch in a thread (on a GPU in a stream) of its own while the network trains, for whoever
            has a core or a device to spare. The same faces at the same steps: not beside plan "feedback", nor on a CPU
            beside a network with attention.

    Raises:
        ValueError: a value out of range, an unknown plan, or enabled without a generator.
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
        settings: dict[str, Any] | None = None,
        plan: str = EVEN,
        feedback: FeedbackSettings | None = None,
        ahead: bool = False,
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
                f"synthesis.generator '{generator}': no such file or folder, expected a trained generator (its run "
                "folder; python train.py fit with a config of configs/generator/ makes one)"
            )
        self.generator_path = generator
        self.batch_size = batch_size
        self.max_reuse = max_reuse
        self.initial_samples = initial_samples
        self.expressions = None if expressions is None else [canonical_expression(name) for name in expressions]
        if sampling is not None and settings:
            raise ValueError("synthesis.sampling beside synthesis.settings: found both, expected one of them")
        self._changes = settings or {}
        self.settings: SynthesisSettings | None = sampling
        self.planned = PlannedShares(plan, feedback)
        self.ahead = ahead
        self._ahead: FacesAhead | None = None
        self.made = 0
        self.discarded = 0
        self.next_number = 0
        self.seconds = 0.0
        self.copies = NearCopyCount()
        self.kept = 0  # distinct faces that ever went into the pool
        self.drawn, self._drawn_before = 0, 0  # pool samples trained on, and what the data module had counted then
        self._entries: deque[int] = deque()  # sample ids of the faces in the pool, oldest first
        self._numbers: dict[int, int] = {}  # next number of each rank that ever took part
        self._stored: list[dict[str, Any]] | None = None
        self._names: list[str] = []
        self._pool: SyntheticPool | None = None
        self._generator: Synthesiser | None = None

    @property
    def counts(self) -> dict[str, int]:
        """Faces made on this rank, those thrown away, and near copies among those kept: for summary.json."""
        return {"generated": self.made, "discarded": self.discarded, **(self.copies.counts if self.enabled else {})}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Loads the generator and checks that there is a pool to fill and an expression to make.

        At ratio 0 nothing is loaded or made, so that one sweep file serves the control too.

        Raises:
            ValueError: a finished synthetic set or folds beside online synthesis, an expression that nobody knows, or a
                plan that these data or this fit cannot keep.
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
        self._generator = load_synthesiser(str(self.generator_path))
        check_generator_fits(str(self.generator_path), self._generator, datamodule)
        shared = [name for name in datamodule.label_space if name in self._generator.label_space]
        for name in self.expressions or []:
            if name not in shared:
                raise ValueError(f"synthesis.expressions: '{name}' is not shared by data and generator ({shared})")
        self._names = self.expressions or shared
        if not self._names:
            raise ValueError(
                f"data {list(datamodule.label_space)} and generator {list(self._generator.label_space)} share no name"
            )
        if self._changes:
            self.settings = changed_settings(self._generator, self._changes, "synthesis.settings")
        check_settings(self._generator, self.settings)
        if isinstance(self._generator, TakesSources):
            self._generator.use_sources(training_sources(datamodule, "source face"), self._names, self.settings)
        if self.planned.follows_recalls and not trainer.limit_val_batches:
            raise ValueError(
                "synthesis.plan=feedback: found trainer.limit_val_batches=0, expected validations whose recalls it can "
                "follow"
            )
        if self.ahead:
            check_may_overlap(trainer.strategy.root_device, pl_module, self.planned.name)
        self.planned.begin(self._names, datamodule.train_table.class_counts(), datamodule.synthetic_ratio)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Fills the pool before the first batch is drawn."""
        if self._generator is None:
            return
        self._generator.to(pl_module.device)
        datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
        self._pool, self._entries = datamodule.pool, deque(maxlen=datamodule.pool_size)
        self._drawn_before = datamodule.counts["synthetic"]
        wanted = min(self.initial_samples or self.batch_size, datamodule.pool_size)
        bound = self._bound(trainer)
        if bound is not None and bound < 1:
            raise ValueError("data.synthetic_multiple leaves no sample for each rank: expected at least one per rank")
        self._say_what_makes_them(trainer, datamodule)
        if self._stored:
            self._refill(trainer, self._stored)
        else:
            wanted = wanted if bound is None else min(wanted, bound)
            with display_of(trainer).task("filling the pool", wanted, "faces") as task:
                while self.kept < wanted:
                    before = self.kept
                    self._generate(trainer)
                    task.advance(self.kept - before)
            warn_of_copies(self.copies, datamodule.near_copies().held_out_share(), trainer.callbacks)  # type: ignore[attr-defined]
        if self.ahead:
            self._ahead = FacesAhead(pl_module.device)
            self._begin_next(trainer)

    def _say_what_makes_them(self, trainer: Trainer, datamodule: Any) -> None:
        display_of(trainer).say(
            face_sentence(
                self._generator,
                str(self.generator_path),
                self.settings,
                trainer.callbacks,  # type: ignore[attr-defined]
                self.planned.name,
                f"{datamodule.synthetic_ratio:.0%} of each batch, each face used {self.max_reuse:g} times",
            )
        )

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Makes the faces that have fallen due."""
        if self._generator is None:
            return
        datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
        counted = datamodule.counts["synthetic"]
        self.drawn, self._drawn_before = self.drawn + counted - self._drawn_before, counted
        if trainer.world_size == 1 or (trainer.global_step % self._steps_between_looks(datamodule) == 0):
            while all_make_faces(trainer, pl_module, self._due(trainer), self.batch_size):
                if self._due(trainer) is not None:
                    self._generate(trainer)
            self._begin_next(trainer)
        pl_module.log("synthesis/made", float(self.made))
        pl_module.log("synthesis/discarded", float(self.discarded))
        pl_module.log("synthesis/seconds", self.seconds)
        if self.copies.checked:
            pl_module.log("synthesis/near_copies", self.copies.share)
            pl_module.log("synthesis/near_copies_real", datamodule.near_copies().held_out_share())
        if self.planned.follows_recalls:
            for name, share in (self.planned.now or {}).items():
                pl_module.log(f"synthesis/share/{name}", share)

    def _due(self, trainer: Trainer) -> float | None:
        """Returns how many distinct faces this rank lacks by now; None = it has all that it may make."""
        bound = self._bound(trainer)
        return None if bound is not None and self.kept >= bound else self.drawn / self.max_reuse - self.kept

    def _steps_between_looks(self, datamodule: Any) -> int:
        per_step = datamodule.synthetic_ratio * datamodule.batch_size
        return steps_between_looks(self.batch_size, self.max_reuse, per_step)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Lets the shares follow the recalls of each validation that is planned, not of one that a stop brings on.

        Raises:
            ValueError: the model logs no recalls.
        """
        if self._generator is None or not self.planned.follows_recalls or trainer.state.fn != "fit":
            return
        if not trainer.sanity_checking and validates_now(trainer):
            self.planned.follow(trainer.callback_metrics, type(pl_module).__name__)

    def _bound(self, trainer: Trainer) -> int | None:
        """Distinct samples that this rank may write: its share of ``data.synthetic_multiple``."""
        maximum = trainer.datamodule.max_synthetic  # type: ignore[attr-defined]
        if maximum is None:
            return None
        return maximum // trainer.world_size + int(trainer.global_rank < maximum % trainer.world_size)

    def plan(self, rank: int, seed: int) -> Plan:
        """Returns what a rank makes: expressions in the shares of the plan, all else from the sample id."""
        # The generator's own settings count as if they were given: its action-unit edits belong into the request.
        if self._generator is None:
            return self.planned.plan(self._names, seed, rank, self.settings)
        settings = self.settings or self._generator.sampling
        return self.planned.plan(self._names, seed, rank, settings, self._generator.au_names)

    def _generate(self, trainer: Trainer) -> None:
        assert self._generator is not None
        datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
        started = time.monotonic()
        hooks = active_hooks(trainer.callbacks)  # type: ignore[attr-defined]
        bound = self._bound(trainer)
        for _ in range(_FRUITLESS_BATCHES):
            request = self._next_request(trainer)
            begun = None if self._ahead is None else self._ahead.take(self.next_number)
            self.next_number += self.batch_size
            result = self._generator.synthesise(request, hooks) if begun is None else see_all(begun, hooks)
            room = math.inf if bound is None else bound - self.kept
            kept = result.kept.nonzero().flatten()
            self.made += len(request)
            self.discarded += len(request) - len(kept)
            kept = kept[: int(min(room, len(kept)))]
            if len(kept):
                self.copies.add(datamodule.near_copies(), result.images[kept])
                self._append(datamodule, result, kept, self._labels(datamodule, result, kept))
                self.kept += len(kept)
                self.seconds += time.monotonic() - started
                return
        raise RuntimeError(
            f"pseudo-labels and layout.max_similarity discarded all of {_FRUITLESS_BATCHES * self.batch_size} "
            "synthetic faces in a row: expected some to be kept (lower pseudo_labels.discard_below, raise "
            "layout.num_inverted or use a better generator)"
        )

    def _next_request(self, trainer: Trainer) -> SynthesisRequest:
        first = self.next_number
        self.planned.go_on(trainer.global_rank, first)
        plan = self.plan(trainer.global_rank, trainer.datamodule.run_seed)  # type: ignore[attr-defined]
        return plan.request(range(first, first + self.batch_size))

    def _begin_next(self, trainer: Trainer) -> None:
        """Begins with the next batch, where faces are made ahead and it will fall due."""
        generator = self._generator
        if self._ahead is None or self._ahead.is_busy or generator is None or (due := self._due(trainer)) is None:
            return
        datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
        left = trainer.estimated_stepping_batches - trainer.global_step
        if due + left * datamodule.synthetic_ratio * datamodule.batch_size / self.max_reuse < self.batch_size:
            return
        request, hooks = self._next_request(trainer), steering(active_hooks(trainer.callbacks))  # type: ignore[attr-defined]
        self._ahead.begin(self.next_number, lambda: generator.synthesise(request, hooks))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Waits for faces that are under way."""
        if self._ahead is not None:
            self._ahead.close()
            self._ahead = None

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Waits for faces that are under way."""
        self.on_train_end(trainer, pl_module)

    def _labels(self, datamodule: Any, result: Faces, kept: torch.Tensor) -> torch.Tensor:
        """Returns the soft labels of the kept faces in the label space of the data, float32 (n, K)."""
        return result.in_label_space(tuple(datamodule.label_space)).soft_label[kept].cpu()

    def _append(self, datamodule: Any, result: Faces, chosen: torch.Tensor, soft_label: torch.Tensor) -> None:
        rows = chosen.cpu().numpy()
        images, side = result.images[chosen].cpu(), datamodule.pool.image_size
        if images.shape[-1] != side:
            images = torch.nn.functional.interpolate(images, size=(side, side), mode="bilinear", antialias=True)
        datamodule.pool.append(
            images,
            soft_label.argmax(1),
            soft_label,
            torch.from_numpy(result.request.action_units_of(datamodule.train_table.au_names)[rows]),
            [result.request.seed] * len(rows),
            [result.layout_source[row] for row in rows],
        )
        self._entries.extend(result.request.sample_ids[row] for row in rows)

    # ------------------------------------------------------------------ going on

    def state_dict(self) -> dict[str, Any]:
        """Returns the counters of every rank, and which faces with which labels are in its pool; a collective."""
        own: dict[str, Any] = {name: getattr(self, name) for name in _COUNTERS}
        own |= self.copies.counts
        if self._pool is not None:
            newest = self._pool.read(range(self._pool.written - len(self._entries), self._pool.written))
            own["entries"] = torch.tensor(list(self._entries), dtype=torch.int64)
            own["soft_label"] = newest["soft_label"]
        if not self.planned.is_even:
            own["plan"] = self.planned.state()
        ranks = states_of_ranks(own)
        numbers = {**self._numbers, **{rank: state["next_number"] for rank, state in enumerate(ranks)}}
        state = {"ranks": ranks, "numbers": {str(rank): number for rank, number in numbers.items()}}
        return state if self.planned.is_even else {**state, "plan": merged_states([own.pop("plan") for own in ranks])}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on counting and numbering where the checkpoint stopped; the pool is filled in ``on_train_start``."""
        # Older checkpoints hold rank 0's counters alone, and nothing of the pool.
        ranks = state_dict.get("ranks") or [state_dict]
        self._stored = ranks if "entries" in ranks[0] else None  # none at ratio 0
        mine = counters(ranks, (*_COUNTERS, "checked", "near_copies"))
        self.made, self.discarded, self.seconds = mine["made"], mine["discarded"], mine["seconds"]
        self.copies.checked, self.copies.near_copies = mine["checked"], mine["near_copies"]
        self.next_number = int((own_state(ranks) or ranks[0]).get("next_number", 0))
        self._numbers = {int(rank): number for rank, number in state_dict.get("numbers", {}).items()}
        self.planned.load(state_dict.get("plan"), self._numbers or range(len(ranks)))

    def _refill(self, trainer: Trainer, states: list[dict[str, Any]]) -> None:
        """Makes the faces again that were in the pool."""
        datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
        ranks, rank = trainer.world_size, trainer.global_rank
        mine = own_state(states)
        if mine is not None:
            self.kept, self.drawn = mine["kept"], mine["drawn"]
            entries, soft_label = mine["entries"], mine["soft_label"]
        else:
            # Distinct faces and their uses stay as many as they were, over all ranks.
            kept, drawn = (sum(state[name] for state in states) for name in ("kept", "drawn"))
            self.kept, self.drawn = kept // ranks + int(rank < kept % ranks), drawn // ranks
            entries = torch.cat([state["entries"] for state in states])[rank::ranks]
            soft_label = torch.cat([state["soft_label"] for state in states])[rank::ranks]
            entries, soft_label = entries[-datamodule.pool_size :], soft_label[-datamodule.pool_size :]
            self.next_number = self._numbers.get(rank, 0)
        started = time.monotonic()
        if len(entries) >= datamodule.pool_size:  # else every slot from the first one on is filled
            datamodule.pool.begin_at(self.kept - len(entries))
        with display_of(trainer).task("making the pool's faces again", len(entries), "faces") as task:
            self._again(trainer, entries.tolist(), soft_label, task)
        self.seconds += time.monotonic() - started
        if not len(entries):  # more ranks than faces: this one begins with faces of its own
            self.kept = 0
            self._generate(trainer)

    def _batch_of(self, sample_id: int) -> tuple[int, int]:
        """Returns the rank that made a face first, and in which of its batches."""
        rank, number = divmod(sample_id, RANK_STRIDE)
        return rank, number // self.batch_size

    def _again(self, trainer: Trainer, sample_ids: list[int], soft_label: torch.Tensor, task: Task) -> None:
        assert self._generator is not None
        datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
        # Those that only judge a face have judged it already, and must not count it twice.
        callbacks = trainer.callbacks  # type: ignore[attr-defined]
        hooks = [hook for hook in active_hooks(callbacks) if getattr(hook, "changes_picture", True)]
        before = [dict(vars(hook)) for hook in hooks]
        place = 0
        # In the batches of the first time: rounding may depend on what else is in a batch.
        for (rank, batch), group in itertools.groupby(sample_ids, key=self._batch_of):
            own = list(group)
            first = batch * self.batch_size
            request = self.plan(rank, datamodule.run_seed).request(range(first, first + self.batch_size))
            result = self._generator.synthesise(request, hooks)
            chosen = torch.tensor([request.sample_ids.index(i) for i in own])
            self._append(datamodule, result, chosen, soft_label[place : place + len(own)])
            place += len(own)
            task.advance(len(own))
        for hook, state in zip(hooks, before, strict=True):
            vars(hook).update(state)
