"""One data module for every LightningModule: real rows, synthetic samples and the exact mix of both."""

from __future__ import annotations

import os
from typing import Any, Literal

import numpy as np
import torch
from torch.utils.data import DataLoader

from datamodules.au_tables.au_table import AUTable
from datamodules.au_tables.settings import AUTableSettings
from datamodules.captions.settings import CaptionSettings
from datamodules.class_presence import warn_of_absent_classes
from datamodules.loading.augmentation import Augmentation
from datamodules.loading.class_sampling import ClassSampling, drawn_shares, label_shares
from datamodules.loading.device_batch import DeviceBatch
from datamodules.loading.evaluation_loader import evaluation_loader, loader_settings
from datamodules.loading.mixed_dataset import MixedDataset
from datamodules.loading.mixture_sampler import MixtureSampler
from datamodules.loading.model_size import side_of_model
from datamodules.loading.planned_requests import requests_loader
from datamodules.loading.resumable_loader import ResumableLoader
from datamodules.loading.training_sampler import build_training_sampler
from datamodules.prepared_pictures import PreparedPictures
from datamodules.readers.held_out import HeldOutReader
from datamodules.readers.read_split import read_split, read_split_if_there
from datamodules.readers.reader import Reader, Split
from datamodules.resumable_data_module import ResumableDataModule
from datamodules.row_record import RowRecord
from datamodules.rows.alignment import Alignment
from datamodules.rows.held_out_share import ValidationShare
from datamodules.rows.near_copies import NearCopies
from datamodules.rows.provenance import DuplicateReport
from datamodules.rows.sample_table import ImageSource, SampleTable, square_side
from datamodules.rows.unlabelled import check_labels_needed
from datamodules.setting_range import check_counts, check_range
from datamodules.synthetic.finished_set import most_synthetic, read_finished_set, refuse_beside_folds
from datamodules.synthetic.planned_set import PlannedSet
from datamodules.synthetic.pool_folder import PoolFolder
from datamodules.synthetic.synthetic_pool import SyntheticPool
from datamodules.training_rows import TrainingRows
from synfer.faces.action_units import mirrored_order
from synfer.synthesis.request import SynthesisRequest

_DEFAULT_AUGMENTATION = Augmentation()


class ExpressionDataModule(ResumableDataModule):
    """Reads a data set, mixes synthetic samples into each training batch, and augments on the device.

    Batches follow contract C1 (:class:`datamodules.batch.Batch`). Each rank draws its own share of the real rows;
    synthetic samples come from a table (``synthetic_reader``) or from the rank's own pool, filled by online synthesis.

    Args:
        reader: where real faces come from.
        batch_size: training samples per step and rank.
        eval_batch_size: samples per step and rank in validation, test and predict.
        image_size: side in pixels to which faces are cut (the central square) and resized; "model" takes that of the
            model, where it has one; None keeps the size of the training images.
        synthetic_ratio: share of synthetic samples in every training batch, in [0, 1] (contract C4).
        synthetic_multiple: bound on distinct synthetic samples, as a multiple of the real training rows; None = none.
            Of a finished set that many are chosen at random, each class with the share that it has in the set; a
            smaller multiple is a subset of a larger one.
        synthetic_reader: a finished synthetic set, of which the training split is used; None = online synthesis.
        pool_size: slots of the pool per rank.
        num_workers: loader processes per rank; 0 is fastest for data sets held in memory.
        seed: of all that is drawn by key in this run: shuffling, augmentation, the training subset, the noise of a
            generator's training, and the faces that are made; None = the run's ``seed_everything``, which always rules
            the first weights.
        augmentation: how strongly training faces are changed.
        drop_duplicates: remove training rows whose pixels are those of a validation or test row.
        near_duplicates: remove also those that look nearly the same: thumbnails that correlate by more than this, in
            (0, 1); 0.95 finds other copies and crops of one photograph. Needs ``drop_duplicates``. null = none.
        training_fraction: share of the training rows to use, in (0, 1], the same in each class; a smaller share is a
            subset of a larger one. It is a share of the rows left by folds and ``drop_duplicates``, and the classes are
            the data set's own labels, with a ``label_table`` too: the rows are the same with and without one.
        imbalance: make a long tail of the training rows: so many of the largest class for one of the smallest, the
            others between on an exponential curve; ``training_fraction`` is then a share of these. null = as they are.
        imbalance_largest: at most so many rows of the largest class in it; null = as many as the ratio allows.
        subset_seed: of the choice of that subset, and of the faces of a finished set for ``synthetic_multiple``, alone,
            so that runs with other seeds see the same rows, those of a generator for example; None = ``seed``.
        class_balance: b in [0, 1]: a class of n real rows is drawn with a share proportional to n^(1 − b); 0 = as they
            are, 1 = each class equally often.
        class_sampling: another sampler of the classes, in its place.
        steps_per_epoch: training steps per epoch; None = one pass over the real rows.
        pool_dir: folder for the pool's file; None = the system's temporary folder.
        predict_split: what ``predict`` sees: "synthesis" = a list of samples to make, else the faces of a split.
        synthesis_count: length of that list; None, with the plan "fill" alone = what brings every class up to the
            largest.
        synthesis_expressions: the expressions in it; None = all of the label space.
        synthesis_plan: how often each of them comes: "even" (in turn), "real" (as among the training rows in use),
            "fill" (what each class lacks to the largest) or "inverse" (1 / its training rows).
        folds: cut the training rows into so many folds, by content and evenly over the classes; None = no folds. Not
            with a ``synthetic_reader`` in use, whose faces may come from held-out rows, nor with online synthesis.
        fold: the fold, from 0, that ``fit`` holds out of training and that ``predict`` on the training split sees.
        label_table: Parquet label table (``synfer/labels/label_table.py``) whose labels replace those of the training
            rows in ``fit``, and which needs one for each row in use; None = the data set's own. It chooses no rows.
            Evaluation labels are never replaced.
        au_table: action units of the faces, for data sets that come without; in place of the reader's own, in every
            split that is used. None = the reader's.
        captions: what the captions of real rows may say, those of the data set and those from templates.
        val_fraction: share of the training rows, in (0, 1) and the same in each class, that is held out as validation
            rows where the data set has none; None = such a data set is refused.
        val_seed: of that choice alone, so that runs of other seeds, and their generator, guide and voters, hold out the
            same rows.
        val_groups: regular expression that finds in a sample id whom it shows, so that nobody is in both: "/([^/_]+)_".
        decoded_cache: folder in which pictures are kept decoded, for all ranks and later runs; None = they are not.
        alignment: how faces are brought onto one template before anything else; needs ``image_size``.
        decoded_cache_gb: bound on that folder, in 10⁹ bytes; a face of 224 pixels takes 0.15 MB.

    Attributes:
        train_table: real training rows, after dropping duplicates and taking the subset; None before setup.
        val_table: validation rows; None before setup.
        test_table: test rows; None before setup.
        synthetic_table: rows of ``synthetic_reader`` in use; None without one.
        planned_set: what ``predict`` makes, by the settings of that list.
        pool: the rank's pool; None unless online synthesis feeds the training.
        duplicate_report: duplicates of training rows in the evaluation splits that were read; None before setup.
        synthesis_done: indices of that list that exist already and are not made again; None = none.
        reads_images: whether training batches hold pixels; false where a model keeps what it needs of them elsewhere.
        max_synthetic: distinct synthetic samples that may be used, over all ranks; None = unbounded. Online synthesis
            keeps to it; a synthetic table is cut to it here.

    Raises:
        ValueError: a number outside its range.
    """

    def __init__(
        self,
        reader: Reader,
        batch_size: int = 64,
        eval_batch_size: int = 256,
        image_size: int | Literal["model"] | None = None,
        synthetic_ratio: float = 0.0,
        synthetic_multiple: float | None = None,
        synthetic_reader: Reader | None = None,
        pool_size: int = 1024,
        num_workers: int = 0,
        seed: int | None = None,
        augmentation: Augmentation = _DEFAULT_AUGMENTATION,
        drop_duplicates: bool = False,
        near_duplicates: float | None = None,
        training_fraction: float = 1.0,
        subset_seed: int | None = None,
        imbalance: float | None = None,
        imbalance_largest: int | None = None,
        class_balance: float = 0.0,
        class_sampling: ClassSampling = ClassSampling(),  # noqa: B008 (frozen)
        steps_per_epoch: int | None = None,
        pool_dir: str | None = None,
        predict_split: Literal["synthesis", "train", "val", "test"] = "synthesis",
        synthesis_count: int | None = 1000,
        synthesis_expressions: list[str] | None = None,
        synthesis_plan: str = "even",
        folds: int | None = None,
        fold: int | None = None,
        label_table: str | None = None,
        au_table: AUTableSettings | None = None,
        captions: CaptionSettings = CaptionSettings(),  # noqa: B008 (frozen)
        val_fraction: float | None = None,
        val_seed: int = 0,
        val_groups: str | None = None,
        decoded_cache: str | None = None,
        decoded_cache_gb: float = 50.0,
        alignment: Alignment = Alignment(),  # noqa: B008 (frozen)
    ) -> None:
        super().__init__()
        check_range("synthetic_ratio", synthetic_ratio, 0 <= synthetic_ratio <= 1, "a number in [0, 1]")
        check_range("class_balance", class_balance, 0 <= class_balance <= 1, "a number in [0, 1]")
        class_sampling.check_beside(class_balance)
        captions.check_beside(synthetic_ratio)
        if synthetic_multiple is not None:
            check_range("synthetic_multiple", synthetic_multiple, synthetic_multiple > 0, "a number above 0")
        self._training_rows = TrainingRows(
            folds, fold, drop_duplicates, near_duplicates, training_fraction, label_table, imbalance, imbalance_largest
        )
        if synthetic_reader is not None and synthetic_ratio > 0:
            refuse_beside_folds(folds)
        check_counts({"batch_size": batch_size, "eval_batch_size": eval_batch_size, "pool_size": pool_size})
        side = None if image_size == "model" else image_size  # the model is not known before ``setup``
        check_counts({"image_size": side, "steps_per_epoch": steps_per_epoch})
        if val_fraction is not None:
            reader = HeldOutReader(reader, ValidationShare(val_fraction, val_seed, val_groups))
        check_range("num_workers", num_workers, num_workers >= 0, "at least 0")
        # config.yaml in the run folder keeps the settings; in a checkpoint they could only contradict the command line.
        self.reader, self.synthetic_reader = reader, synthetic_reader
        self.batch_size, self.eval_batch_size, self.image_size = batch_size, eval_batch_size, side
        self._follows_model = image_size == "model"
        self.synthetic_ratio, self.synthetic_multiple = synthetic_ratio, synthetic_multiple
        self.pool_size, self.pool_dir, self.num_workers, self.seed = pool_size, pool_dir, num_workers, seed
        self.augmentation, self.drop_duplicates, self.near_duplicates = augmentation, drop_duplicates, near_duplicates
        self.training_fraction, self.subset_seed = training_fraction, subset_seed
        self.imbalance, self.imbalance_largest = imbalance, imbalance_largest
        self.class_balance, self.class_sampling, self.steps_per_epoch = class_balance, class_sampling, steps_per_epoch
        self.predict_split, self.synthesis_count = predict_split, synthesis_count
        wanted = synthesis_expressions if synthesis_expressions is not None else self.label_space
        self.planned_set = PlannedSet(synthesis_plan, synthesis_count, wanted, self.label_space)
        self.folds, self.fold, self.label_table = folds, fold, label_table
        self.au_table, self.captions = au_table, captions
        self.alignment, self._prepared = alignment, PreparedPictures(alignment, decoded_cache, decoded_cache_gb)
        self._prepared.check_beside(image_size, synthetic_ratio, synthetic_reader is not None)
        self.train_table: SampleTable | None = None
        self.val_table: SampleTable | None = None
        self.test_table: SampleTable | None = None
        self.synthetic_table: SampleTable | None = None
        self.pool: SyntheticPool | None = None
        self.duplicate_report: DuplicateReport | None = None
        self.max_synthetic: int | None = None
        self.reads_images = True
        self._all_training: ImageSource | None = None
        self._near_copies: NearCopies | None = None
        self.synthesis_done: np.ndarray | None = None
        self._mirrored_order: list[int] = []
        self._pool_folder: PoolFolder | None = None
        self._action_units: AUTable | None = None
        self._device_batch = DeviceBatch(self.label_space, augmentation)
        self.row_record = RowRecord(reader, self._training_rows)

    @property
    def label_space(self) -> tuple[str, ...]:
        """Ordered names of the expressions, known before anything is read."""
        return self.reader.label_space

    @property
    def num_real_rows(self) -> int:
        """Real training rows in use.

        Raises:
            RuntimeError: before ``setup("fit")``.
        """
        return len(self._need(self.train_table, "train"))

    def setup(self, stage: str) -> None:
        """Reads the splits that the stage needs, once. Every rank reads for itself.

        Args:
            stage: "fit" reads train and val (with ``drop_duplicates`` also test, where there is one), "validate" val,
                "test" test, "predict" only ``predict_split``; a ``synthesis_plan`` that counts rows those of "fit".

        Raises:
            ValueError: a split cannot be used, or the synthetic set does not fit the label space or the bound.
        """
        if self._follows_model:
            self.image_size = side_of_model(self.trainer)
        if self.image_size is not None:
            self.reader.fit_size(self.image_size)
        self._prepared.tell(self.reader, self.synthetic_reader)
        if stage == "fit":
            self.resumed_at = None  # of an earlier fit in this process; a checkpoint is read after this
        if stage == "fit" and self.train_table is None:
            self._setup_training()
        elif stage == "validate" and self.val_table is None:
            self.val_table = self._read("val")
        elif stage == "test" and self.test_table is None:
            self.test_table = self._read("test")
        elif stage == "predict" and self.predict_split != "synthesis":
            name = f"{self.predict_split}_table"
            if getattr(self, name) is None:
                table = self._read(self.predict_split)
                setattr(self, name, self._training_rows.inside_fold(table) if self.predict_split == "train" else table)
        elif stage == "predict":
            self.synthesis_count = self.planned_set.count_rows(lambda: self.training_table().class_counts())
        if stage == "fit" and self.synthetic_ratio > 0 and self.synthetic_reader is None and self.pool is None:
            self._open_pool()

    def _setup_training(self) -> None:
        train = self._read("train")
        self._all_training = train.images
        train = self._training_rows.outside_fold(train)  # before anything is taken away: folds depend on all rows
        if self.val_table is None:
            self.val_table = self._read("val")
        evaluation = [self.val_table]
        if self.drop_duplicates and self.test_table is None:
            evaluation += self.read_if_there("test")
        elif self.test_table is not None:
            evaluation.append(self.test_table)
        train, self.duplicate_report = self._training_rows.choose(train, evaluation, self._subset_seed)
        warn_of_absent_classes(train, self.val_table)
        if self.synthetic_ratio > 0 and self.synthetic_multiple is not None:
            self.max_synthetic = most_synthetic(self.synthetic_multiple, len(train))
        if self.synthetic_ratio > 0 and self.synthetic_reader is not None:
            chosen = (self.synthetic_multiple, self.max_synthetic, self._subset_seed)
            made = read_finished_set(self.synthetic_reader, self.label_space, *chosen)
            self.synthetic_table = self._prepared.of(made, self.image_size, is_set=True)
        if self.image_size is None and self.synthetic_ratio > 0:
            self.image_size = square_side(train)
        self.train_table, self._mirrored_order = train, mirrored_order(train.au_names)

    def _read(self, split: Split) -> SampleTable:
        if self.au_table is not None and self._action_units is None:
            self._action_units = self.au_table.open()
        table = read_split(self.reader, split, self._action_units, self.captions)
        check_labels_needed(table, split, self.trainer)
        return self._prepared.of(table, self.image_size)

    def read_if_there(self, split: Split) -> list[SampleTable]:
        """Reads a split for comparison with the training rows; none, with a warning, where it cannot be read."""
        tables = read_split_if_there(self.reader, split)
        return [self._prepared.of(one, self.image_size) for one in tables] if self.near_duplicates else tables

    def near_copies(self) -> NearCopies:
        """Returns what finds near copies of training faces among made ones, with the level of validation faces.

        All faces of the training split are searched, those that this run leaves out as well: a generator may have
        learned from them. Made when first asked for, and kept; reads the splits of "fit" where they have not been read.

        Raises:
            FileNotFoundError, KeyError, ValueError: a split cannot be read.
        """
        if self._near_copies is None:
            if self._all_training is None or self.val_table is None:
                self._setup_training()
            assert self._all_training is not None and self.val_table is not None
            self._near_copies = NearCopies(self._all_training, self.val_table.images)
        return self._near_copies

    def training_table(self) -> SampleTable:
        """Returns the real training rows in use; reads the splits of "fit" where they have not been read."""
        if self.train_table is None:
            self._setup_training()
        return self._need(self.train_table, "train")

    def _open_pool(self) -> None:
        train = self._need(self.train_table, "train")
        self._pool_folder = PoolFolder(self.pool_dir)
        self.pool = SyntheticPool(
            self._pool_folder.path,
            slots=self.pool_size,
            image_size=self.image_size or square_side(train),
            num_classes=len(self.label_space),
            num_action_units=len(train.au_names),
            rank=self._ranks()[1],
        )

    def teardown(self, stage: str) -> None:
        """Deletes the pool's file after "fit"."""
        if stage == "fit" and self._pool_folder is not None:
            self._pool_folder.remove()
            self._pool_folder, self.pool = None, None

    def training_sampler(self) -> MixtureSampler:
        """Returns a new sampler of this rank's training batches, at the beginning.

        Raises:
            RuntimeError: before ``setup("fit")``.
        """
        made = self.pool_size if self.synthetic_table is None else len(self.synthetic_table)
        slots = made if self.synthetic_ratio > 0 else 0
        return build_training_sampler(
            self._need(self.train_table, "train"),
            slots,
            self.synthetic_table is not None,
            batch_size=self.batch_size,
            ratio=self.synthetic_ratio,
            seed=self.run_seed,
            ranks=self._ranks(),
            steps_per_epoch=self.steps_per_epoch,
            class_balance=self.class_balance,
            class_sampling=self.class_sampling,
            trainer=self.trainer,
        )

    def drawn_label_shares(self) -> np.ndarray:
        """Returns the share of each class among the labels of the real rows as they are drawn, float64 (K,).

        Raises:
            RuntimeError: before ``setup("fit")``.
        """
        train = self._need(self.train_table, "train")
        return label_shares(train, drawn_shares(train, self.class_balance, self.class_sampling))

    def make_training_loader(self, sampler: MixtureSampler) -> ResumableLoader:
        """Returns a new loader of the training batches that a sampler draws, from real rows and synthetic samples."""
        synthetic = self.pool if self.synthetic_table is None else self.synthetic_table
        dataset = MixedDataset(self._need(self.train_table, "train"), synthetic, self.image_size, self.reads_images)
        settings = loader_settings(self.num_workers)
        return ResumableLoader(dataset, batch_size=self.batch_size, sampler=sampler, **settings)

    def val_dataloader(self) -> DataLoader:
        """Returns this rank's validation batches: every row once over all ranks."""
        limit = getattr(self.trainer, "limit_val_batches", 1.0)
        return self._evaluation_loader(self._need(self.val_table, "val"), limit)

    def test_dataloader(self) -> DataLoader:
        """Returns this rank's test batches: every row once over all ranks."""
        limit = getattr(self.trainer, "limit_test_batches", 1.0)
        return self._evaluation_loader(self._need(self.test_table, "test"), limit)

    def predict_dataloader(self) -> DataLoader:
        """Returns this rank's part of what is to be made (requests), or of ``predict_split`` (``Batch``).

        Raises:
            ValueError: an expression outside the label space is to be made.
        """
        if self.predict_split != "synthesis":
            return self._evaluation_loader(self._need(getattr(self, f"{self.predict_split}_table"), self.predict_split))
        faces = self.planned_set.faces(self.label_space, self.run_seed, self.synthesis_done)
        return requests_loader(faces, self.eval_batch_size, self._ranks())

    def _evaluation_loader(self, table: SampleTable, limit: float = 1.0) -> DataLoader:
        return evaluation_loader(table, self.image_size, self.eval_batch_size, self.num_workers, self._ranks(), limit)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Moves a batch; a request has nothing to move."""
        if isinstance(batch, SynthesisRequest):
            return batch
        return super().transfer_batch_to_device(batch, device, dataloader_idx)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Makes images float32 in [0, 1], augments training batches, and checks the first batch of every epoch.

        Raises:
            ValueError: the checked batch breaks contract C1.
        """
        if isinstance(batch, SynthesisRequest):
            return batch
        return self._device_batch.prepare(batch, self.trainer, self._is_training(), self.run_seed, self._mirrored_order)

    def state_dict(self) -> dict[str, Any]:
        """Returns the position, and source and content hashes of the rows; rank 0's state serves all ranks."""
        return {**self.row_record.state_dict(self.train_table), **super().state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on from the position of a checkpoint, and remembers the rows that its model has seen.

        Where no training goes on (validate, test, predict) only those rows count.

        Raises:
            ValueError: a fit goes on with other rows held out, or rows held out now were trained on before.
        """
        goes_on = self.trainer is not None and self.trainer.state.fn == "fit"
        self.row_record.load_state_dict(state_dict, goes_on, self.val_table)
        if goes_on:
            super().load_state_dict(state_dict)

    @property
    def run_seed(self) -> int:
        """The seed of everything drawn by key: ``data.seed``, else that of ``seed_everything``."""
        return self.seed if self.seed is not None else int(os.environ.get("PL_GLOBAL_SEED", 0))

    @property
    def _subset_seed(self) -> int:
        return self.run_seed if self.subset_seed is None else self.subset_seed

    def _need(self, table: SampleTable | None, split: str) -> SampleTable:
        if table is None:
            raise RuntimeError(f"the {split} split has not been read: expected setup() of a stage that needs it first")
        return table
