"""When a generator is tested: faces are made after the last real batch, scored, reported and pictured."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from callbacks.copies_of_training import against_sources, near_copies, nearest_training
from callbacks.recording.run_progress import display_of, face_count
from callbacks.scoring_networks import BATCH, ScoringFiles, ScoringNetworks, as_float
from callbacks.synthesis.face_sentence import face_sentence
from datamodules.batch import Batch
from datamodules.rows.reference_faces import ReferenceFaces, real_test_faces, some_training_faces
from datamodules.rows.source_faces import training_sources
from lightning_modules.aligned_faces import tell_of_other_alignment
from lightning_modules.run_seed import run_seed
from lightning_modules.trainer_access import data_of
from synfer.faces.action_units import action_unit_indices
from synfer.faces.expressions import LABEL_SPACES, canonical_expression, map_label_space
from synfer.foundation.counter_based_random import keys_of
from synfer.metrics.face_scores import checked_scores, load_score, metric_of
from synfer.metrics.face_set_report import FaceSetReport, Rows
from synfer.metrics.gathered_rows import GatheredRows
from synfer.pictures.face_comparison import (
    COLUMNS,
    first_faces,
    nearest_pairs,
    save_expression_grid,
    save_face_comparison,
    save_nearest_pairs,
)
from synfer.synthesis.hooks import FaceHook, active_hooks
from synfer.synthesis.over_ranks import synthesise_over_ranks
from synfer.synthesis.plan import EvenPlan
from synfer.synthesis.request import SynthesisRequest
from synfer.synthesis.synthesiser import Synthesiser, TakesSources


class GeneratorTest(Callback):
    """Scores the faces that a generator makes in ``trainer.test`` against the faces of the data's test split.

    The metrics are those of :class:`synfer.metrics.face_set_report.FaceSetReport`, and

    * ``test/near_copies``: share of generated faces whose grey pixels correlate by more than 0.97 with a training face,
      all of them searched (:mod:`datamodules.rows.near_copies`); ``test/near_copies_real``: of validation faces.
      Where something discards faces, ``test/kept`` and ``test/near_copies_kept``;
    * ``test/score/<name>``: mean of a score of ``scores`` over the generated faces (``test/score_lower/<name>`` where
      lower is better); ``test/images_per_s``: speed of the synthesis.

    Everything runs on the module's device. Each rank scores its share of the faces; all ranks then hold all rows in one
    order, so that the figures depend neither on the number of ranks nor on batch sizes.

    Args:
        samples: faces made for each test, spread evenly over ``expressions``.
        expressions: expressions of the test (default: the seven basic ones in the label space).
        batch_size: faces per batch of synthesis.
        judge: checkpoint of the classifier that scores the test; never the guide.
        features: what Fréchet distance, KID, precision, recall and nearest neighbours are measured in: a classifier
            checkpoint (its penultimate features, never the guide's), or a timm name ("inception_v3", …); None = the
            judge.
        features_weights: file of weights where ``features`` is a timm name.
        au_estimator: folder of an ``ActionUnitNetwork``; the test then gives F1 per action unit.
        au_present_above: intensity in [0, 1) above which an action unit counts as present.
        nearest_training: training faces, drawn by the seed, among which the test looks for the nearest one of each
            generated face; None = all of them, 0 = no such search. A copy of another one goes unseen, so search all
            before calling a generator free of copies.
        scores: class paths of further scores of single faces (:class:`synfer.metrics.face_scores.FaceScore`).

    Raises:
        FileNotFoundError: ``judge`` or another file is missing.
        ValueError: a value out of range, or files that do not fit each other.
    """

    def __init__(
        self,
        samples: int = 1000,
        expressions: list[str] | None = None,
        batch_size: int = 100,
        judge: str | None = None,
        features: str | None = None,
        features_weights: str | None = None,
        au_estimator: str | None = None,
        au_present_above: float = 0.5,
        nearest_training: int | None = 4000,
        scores: list[str] | None = None,
    ) -> None:
        for name, value in (("samples", samples), ("batch_size", batch_size)):
            if value < 1:
                raise ValueError(f"test.{name}: found {value}, expected at least 1")
        if not 0 <= au_present_above < 1:
            raise ValueError(f"test.au_present_above: found {au_present_above}, expected a number in [0, 1)")
        if nearest_training is not None and nearest_training < 0:
            raise ValueError(f"test.nearest_training: found {nearest_training}, expected at least 0, or null for all")
        self.files = ScoringFiles(judge, features, features_weights, au_estimator)
        self.samples, self.expressions, self.batch_size = samples, expressions, batch_size
        self.au_present_above, self.nearest_training = au_present_above, nearest_training
        self.scores = list(map(load_score, scores or []))
        self.networks: ScoringNetworks
        self.report: FaceSetReport
        self.test_faces: ReferenceFaces
        self.train_faces: ReferenceFaces | None = None
        self._data: Any = None
        self._codes: Tensor  # code in the report of each name of the generator
        self._real: GatheredRows

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Loads the networks and the real faces.

        Raises:
            FileNotFoundError: a file of judge, extractor or estimator is missing.
            ValueError: a module that makes no faces, no judge, one that lacks an expression, a judge or extractor that
                is the guide, fewer than two faces on either side, or no training faces to compare with.
        """
        if stage != "test":
            return
        module: object = pl_module
        if not isinstance(module, Synthesiser):
            raise ValueError(f"generator test: found the model {type(module).__name__}, expected one that makes faces")
        self._data, seed = data_of(trainer), run_seed(trainer)
        # Codes are those of the data's names, before names that the generator alone has.
        known = getattr(self._data, "label_space", module.label_space)
        space = (*known, *(name for name in module.label_space if name not in known))
        self._codes = torch.from_numpy(map_label_space(space, module.label_space))
        asked = self.expressions or [name for name in known if name in LABEL_SPACES["basic7"]]
        names = [canonical_expression(name) for name in asked]
        callbacks = trainer.callbacks  # type: ignore[attr-defined]
        device = trainer.strategy.root_device  # not the module's: Lightning moves it only after the setup hooks
        taught_by = getattr(module, "taught_by", ())
        self.networks = networks = ScoringNetworks(self.files, names, callbacks, device, taught_by)
        tell_of_other_alignment(trainer, networks.judge, f"test.judge '{self.files.judge}'")
        if self.samples < 2:
            raise ValueError(f"test.samples: found {self.samples}, expected at least 2")
        if isinstance(module, TakesSources):
            module.use_sources(training_sources(self._data, "source face"), names)
        self._au_columns = action_unit_indices(networks.au_names, module.au_names)
        side = module.image_size
        self.test_faces = real_test_faces(self._data, names, side)
        self.train_faces = None
        if self.nearest_training != 0:
            self.train_faces = some_training_faces(self._data, self.nearest_training, seed, side)
        spaces, above = (space, networks.judge.label_space), self.au_present_above
        self.report = FaceSetReport(names, *spaces, networks.extractor.name, seed, networks.au_names, above)
        self._real = networks.no_rows(side)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compares judge and extractor with those who taught the weights: by now those of ``--ckpt_path`` are loaded.

        Raises:
            ValueError: one of them did.
        """
        self.networks.refuse_teachers(getattr(pl_module, "taught_by", ()))

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Scores real faces: one batch of the test split."""
        if not len(batch["label"]):  # a rank may have no row
            return
        columns = {**self.networks.score(batch["image"]), "label": batch["label"]}
        if self._au_columns:
            columns["au_truth"] = batch["au"][:, self._au_columns].float()
        self._real.update(torch.from_numpy(keys_of(batch["sample_id"]).astype(np.int64)), **columns)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Makes the faces, logs what they are worth and writes the pictures (a collective)."""
        assert isinstance(pl_module, Synthesiser)
        hooks = active_hooks(trainer.callbacks)  # type: ignore[attr-defined]
        request = self._request(pl_module)
        started = time.monotonic()
        display_of(trainer).say(face_sentence(pl_module, "", None, hooks, "even"))
        made = self._make(trainer, pl_module, request, hooks, "faces of the test")
        metrics = {"test/images_per_s": self.samples / (time.monotonic() - started)}
        fake, real = self._score_generated(trainer, made, request), self._real.compute()
        report = self.report
        metrics |= report.recalls("test/fer", fake) | report.recalls("test/judge_on_real", real)
        metrics |= report.action_units("test/au_f1", fake) | report.action_units("test/au_f1_on_real", real)
        for i, score in enumerate(self.scores):
            metrics[metric_of(score)] = float(fake[f"score{i}"].cpu().double().mean())
        faces = report.compared(fake, real)
        metrics |= report.distances(faces)
        rank_zero_info(
            f"distances: {len(faces.generated['label'])} generated faces against {len(faces.real['label'])} real faces "
            f"of the split '{self.test_faces.table.split}', weighted to the same expressions (as good as "
            f"{faces.effective_real_faces:.0f} equally weighted ones), features: {report.extractor}"
        )
        nearest = None
        if self.train_faces is not None:
            rank, world = trainer.global_rank, trainer.world_size
            distance, _ = nearest = nearest_training(faces, self.train_faces, self.networks, rank, world)
            count = len(faces.generated["label"])
            metrics |= report.nearest(distance[:count], distance[count:], faces.weights)
        metrics |= near_copies(self._data, made, self.networks.device)
        metrics |= against_sources(self._data, made, fake, self.networks, report)
        unguided = self._unguided(trainer, pl_module, request, hooks)
        if trainer.is_global_zero:
            folder = Path(trainer.default_root_dir) / "samples"
            self._save_pictures(made["images"], fake["label"], unguided, folder)
            if nearest is not None:
                self._save_nearest(made["images"], faces.generated, *nearest, folder / "nearest.png")
        pl_module.log_dict(metrics, rank_zero_only=True)

    # ---------------------------------------------------------------- the generator: all that is asked of it

    def _request(self, module: Synthesiser) -> SynthesisRequest:
        names, count = self.report.names, self.samples
        return EvenPlan(count, names, self.report.seed, module.sampling, module.au_names).request(range(count))

    def _make(
        self, trainer: Trainer, module: Synthesiser, request: SynthesisRequest, hooks: Sequence[FaceHook], name: str
    ) -> dict[str, Tensor]:
        with face_count(trainer, name, -(-len(request) // trainer.world_size)) as count:
            made = synthesise_over_ranks(module, request, [*hooks, count], self.batch_size)
        return {**made, "label": self._codes[made["label"]]}

    def _unguided(
        self, trainer: Trainer, module: Synthesiser, request: SynthesisRequest, hooks: Sequence[FaceHook]
    ) -> Tensor | None:
        """Makes the first faces of each expression again, from the same seeds without the guide (a collective)."""
        if not any(hasattr(hook, "guide_fingerprint") for hook in hooks):
            return None
        # A vote changes no picture, and would count these faces as if they were more of the test's.
        others = [h for h in hooks if not hasattr(h, "guide_fingerprint") and getattr(h, "changes_picture", True)]
        counted = [(hook, hook.state_dict()) for hook in others if isinstance(hook, Callback)]
        first = request.part(0, COLUMNS * len(self.report.names))
        images = self._make(trainer, module, first, others, "faces without guidance")["images"]
        for hook, state in counted:  # nor are discarded copies among them more of the test's
            hook.load_state_dict(state)
        return images

    # ---------------------------------------------------------------- scoring

    def _score_generated(self, trainer: Trainer, made: dict[str, Tensor], request: SynthesisRequest) -> Rows:
        """Scores this rank's share of the generated faces and returns the rows of all."""
        rows = self.networks.no_rows(made["images"].shape[-1], [f"score{i}" for i in range(len(self.scores))])
        for chunk in torch.arange(trainer.global_rank, len(request), trainer.world_size).split(BATCH):
            image = as_float(made["images"][chunk], self.networks.device)
            columns = {**self.networks.score(image), "label": made["label"][chunk]}
            if self._au_columns:
                columns["au_truth"] = torch.from_numpy(request.action_units)[chunk][:, self._au_columns]
            captions = [request.captions[i] for i in chunk.tolist()]
            for i, score in enumerate(self.scores):
                columns[f"score{i}"] = checked_scores(score, image, captions)
            rows.update(chunk, **columns)
        return rows.compute()

    # ---------------------------------------------------------------- pictures, into the run folder only

    def _save_pictures(self, images: Tensor, label: Tensor, unguided: Tensor | None, folder: Path) -> None:
        names = self.report.names
        codes = [self.report.label_space.index(name) for name in names]
        save_expression_grid(images, label, codes, names, folder / "test.png")
        sets = [("real", [self.test_faces.examples(code, COLUMNS) for code in codes])]
        sets += [("unguided", first_faces(images if unguided is None else unguided, label, codes))]
        if unguided is not None:
            sets += [("guided", first_faces(images, label, codes))]
        save_face_comparison(sets, names, self.networks.agreement, folder / "comparison.png")

    def _save_nearest(self, images: Tensor, fake: Rows, distance: Tensor, row: Tensor, path: Path) -> None:
        """Writes the generated faces that are nearest to a training face, beside that face."""
        assert self.train_faces is not None
        closest = nearest_pairs(distance[: len(fake["label"])]).cpu()
        training, near = row.cpu()[closest], distance.cpu()[closest]
        names = [self.report.label_space[label] for label in fake["label"].cpu()[closest].tolist()]
        ids = [str(self.train_faces.table.sample_id[r]) for r in training.tolist()]
        generated = images[fake["key"].cpu()[closest]]
        save_nearest_pairs(generated, self.train_faces.images(training), near.tolist(), ids, names, path)
