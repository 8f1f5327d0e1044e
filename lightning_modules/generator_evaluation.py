"""The test of a generator: what its faces show, how near they are to real ones, and whether they are copies."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor

from datamodules.batch import Batch
from datamodules.loading.mixed_dataset import MixedDataset
from datamodules.rows.near_copies import pixel_correlation
from datamodules.rows.row_choice import even_order
from datamodules.rows.sample_table import SampleTable
from lightning_modules.classifier import ExpressionClassifier
from synfer.faces.expressions import LABEL_SPACES, action_unit_indices, canonical_expression, map_label_space
from synfer.foundation.checkpoint_file import find_checkpoint
from synfer.foundation.counter_based_random import keyed_uniform, keys_of
from synfer.metrics.action_unit_scores import action_unit_scores
from synfer.metrics.frechet_distance import frechet_distance, weighted_moments
from synfer.metrics.gathered_rows import GatheredRows
from synfer.metrics.kid import kid_over_subsets
from synfer.metrics.nearest_reference import NearestReference
from synfer.metrics.precision_recall import improved_precision_recall
from synfer.networks.au_estimator import ActionUnitNetwork, read_config
from synfer.networks.feature_extractor import (
    ClassifierFeatures,
    TimmFeatures,
    backbone_fingerprint,
    check_timm_name,
    name_of_checkpoint,
)
from synfer.pictures.captioned_grid import FaceColumns, save_captioned_grid
from synfer.pictures.sample_grid import save_sample_grid
from synfer.synthesis.plan import expressions_in_turn
from synfer.synthesis.request import SynthesisRequest

if TYPE_CHECKING:
    from lightning_modules.generator import ExpressionGenerator

NEIGHBOURS = 3
"""k of improved precision and recall, as in their paper."""
_BATCH = 64  # faces through a scoring network at once; a CPU is slower on more
_TRAIN_STREAM = 0x7E
_PICTURE_COLUMNS, _PICTURE_PAIRS = 3, 8


class GeneratorEvaluation:
    """Scores the faces that a generator makes in ``trainer.test`` against the faces of the data's test split.

    Metrics, all over the expressions of the test:

    * ``test/fer_accuracy`` and ``test/fer_recall/<name>``: in which share of faces the judge sees what was asked;
      ``test/judge_on_real_…``: the same judge on real faces, the ceiling.
    * ``test/frechet/<extractor>``, ``test/kid/<extractor>`` with ``test/kid_std/…``, ``test/improved_precision/…`` and
      ``test/improved_recall/…``: distance to the real faces in the features of the named extractor.
    * ``test/nearest_training/…``: distance of each face to the nearest training face (``generated``), the same of real
      test faces (``held_out``), their ``ratio`` (well under 1 = copies, but features can overlook them: see near
      copies) and the share of generated faces that are
      nearer to a training face than the nearest hundredth of real test faces (``closer_than_1_percent``; 0.01 is what
      real faces have). Means; distances are Euclidean. ``nearest_training`` says how many training faces are searched:
      a copy of another one goes unseen, so search all (null) before calling a generator free of copies.
    * ``test/near_copies``: share of generated faces whose grey pixels correlate by more than 0.97 with a training face,
      all of them searched (:mod:`datamodules.rows.near_copies`); ``test/near_copies_real``: of validation faces.
      Where something discards faces, ``test/kept`` and ``test/near_copies_kept``.
    * ``test/source_similarity``: median correlation of the faces from a layout with their source;
      ``test/expression_gain``: accuracy on these faces minus that of the same wishes on their sources.
    * ``test/au_f1/<AU>`` and ``test/au_f1_mean``: F1 of the action units that were asked for, as an estimator sees
      them; ``test/au_f1_on_real…``: the same on real faces where the data knows them.

    Class shares: generated faces hold the asked expressions alike, real test faces do not. Real faces of other
    expressions are left out and the rest get importance weights (share of the class among generated faces ÷ number of
    real faces of the class) in the Fréchet moments, in the recall and in the nearest-neighbour figures; KID averages
    pairs within classes. Balancing by leaving faces out would keep only seven times the rarest class. The weights cost
    precision: ``test/effective_real_faces`` is (Σw)² / Σw², the number of equally weighted faces that estimate a mean
    as well. Precision takes the real faces as they are.

    Everything runs on the module's device, statistics in float64 and networks in float32 whatever the trainer's
    precision. Each rank scores its share of the faces; all ranks then hold all rows in one order, so that the figures
    depend neither on the number of ranks nor on batch sizes. ``step`` holds no collective; ``finish`` is one.

    Args:
        generator: the module under test, attached to a trainer with a data module that has read its test split.

    Raises:
        FileNotFoundError: a file of judge, extractor or estimator is missing.
        ValueError: no judge, one that lacks an expression, a judge or extractor that is the guide, weights that do not
            fit, fewer than two faces on either side, or no training faces to compare with.
    """

    def __init__(self, generator: ExpressionGenerator) -> None:
        self.generator = generator
        self.settings: Any = generator.hparams
        asked = self.settings["test_expressions"]
        self.names = [
            canonical_expression(name)
            for name in (asked or [n for n in generator.label_space if n in LABEL_SPACES["basic7"]])
        ]
        # Not generator.device: Lightning moves the module only after its setup hook.
        self.device = generator.trainer.strategy.root_device
        self.judge = self._load_judge()
        self.extractor = self._load_extractor()
        estimator = self.settings["au_estimator"]
        self.estimator = None if estimator is None else ActionUnitNetwork.load(estimator).to(self.device)
        self.datamodule: Any = getattr(generator.trainer, "datamodule", None)
        self.test_table = self._real_faces()
        self.train_table = None if self.settings["nearest_training"] == 0 else self._training_faces()
        side = self.settings["image_size"]
        self.test_faces = MixedDataset(self.test_table, image_size=side)
        self.train_faces = None if self.train_table is None else MixedDataset(self.train_table, image_size=side)
        self.real = self._rows()

    # ---------------------------------------------------------------- before anything is computed

    def _load_judge(self) -> ExpressionClassifier:
        if self.settings["judge"] is None:
            raise ValueError("model.judge: found none, expected the checkpoint of a classifier that scores the test")
        path = find_checkpoint(self.settings["judge"], "model.judge")
        judge = ExpressionClassifier.load_trained(path, self.device)
        unknown = [name for name in self.names if name not in judge.label_space]
        if unknown:
            raise ValueError(
                f"model.judge '{path}' does not know '{unknown[0]}': found {', '.join(judge.label_space)}, "
                f"expected all expressions of the test ({', '.join(self.names)})"
            )
        self._refuse_the_guide(judge, f"model.judge '{path}'", "judge")
        return judge

    def _load_extractor(self) -> ClassifierFeatures | TimmFeatures:
        features = self.settings["features"]
        if features is None:
            return ClassifierFeatures(
                self.judge, name_of_checkpoint(find_checkpoint(self.settings["judge"], "model.judge"))
            )
        if self.settings["features_weights"] is not None:
            network = TimmFeatures(features, self.settings["features_weights"]).to(self.device)
            where = f"model.features_weights '{self.settings['features_weights']}'"
            self._refuse_the_guide(network, where, "feature extractor")
            return network
        features = find_checkpoint(features, "model.features")
        classifier = ExpressionClassifier.load_trained(features, self.device)
        self._refuse_the_guide(classifier, f"model.features '{features}'", "feature extractor")
        return ClassifierFeatures(classifier, name_of_checkpoint(features))

    def _refuse_the_guide(self, network: ExpressionClassifier | TimmFeatures, where: str, role: str) -> None:
        """Refuses a network that also guides, whatever its head (METHOD: guide ≠ judge)."""
        own = backbone_fingerprint(network)
        for callback in self.generator.trainer.callbacks:  # type: ignore[attr-defined]
            fingerprint = getattr(callback, "guide_fingerprint", None)
            if fingerprint is None or fingerprint() is None:  # none, or disabled
                continue
            if own is not None and own == backbone_fingerprint(callback.guide):
                raise ValueError(f"{where} is the guide's own network: a {role} must be independent of it")

    def _real_faces(self) -> SampleTable:
        if self.settings["test_samples"] < 2:
            raise ValueError(f"model.test_samples: found {self.settings['test_samples']}, expected at least 2")
        table: SampleTable | None = getattr(self.datamodule, "test_table", None)
        if table is None:
            raise ValueError("generator test: found no data module with a test split, expected one (--data)")
        counts = table.class_counts()
        missing = [name for name in self.names if not counts.get(name)]
        found = sum(counts.get(name, 0) for name in self.names)
        if found < 2:
            raise ValueError(
                f"generator test: found {found} real {table.split} faces of {', '.join(self.names)}, expected at least "
                "2 to compare with"
            )
        if missing:
            rank_zero_warn(
                f"the {table.split} split has no face of {', '.join(missing)}: these expressions are left out of "
                "Fréchet distance, KID, precision and recall"
            )
        return table

    def _training_faces(self) -> SampleTable:
        try:
            self.datamodule.setup("fit")  # the rows that a fit with this configuration learns from
        except (FileNotFoundError, KeyError, ValueError) as error:
            raise ValueError(
                f"model.nearest_training: the training split cannot be read ({error}), expected one "
                "(or --model.nearest_training=0)"
            ) from error
        table: SampleTable = self.datamodule.train_table
        wanted = self.settings["nearest_training"]
        if wanted is None or wanted >= len(table):
            return table
        draw = keyed_uniform(keys_of(table.sample_id.tolist()), 1, self.generator._seed, _TRAIN_STREAM)[:, 0]
        return table.select(np.sort(draw.argsort()[:wanted]))

    # ---------------------------------------------------------------- scoring

    def _rows(self) -> GatheredRows:
        empty = torch.empty(0)
        with torch.inference_mode(False), torch.no_grad():
            image = torch.zeros(1, 3, self.settings["image_size"], self.settings["image_size"], device=self.device)
            scored = self._score(image)
        columns = {**scored, "label": torch.empty(0, dtype=torch.int64)}
        if self.estimator is not None:
            columns["au_truth"] = empty.new_empty(0, len(self.estimator.au_names))
        return GatheredRows(columns).to(self.device)

    @torch.no_grad()
    def _score(self, image: Tensor) -> dict[str, Tensor]:
        """Runs all scoring networks on images in [0, 1], (b, 3, H, W), in float32."""
        # A bf16 trainer would otherwise score real faces in bf16 and generated ones, outside its context, in float32.
        with torch.autocast(self.device.type, enabled=False):
            image = image.float()
            if isinstance(self.extractor, ClassifierFeatures) and self.extractor.classifier is self.judge:
                features, logits = self.extractor.features_and_logits(image)
                probabilities = logits.float().softmax(1)
                if self.judge.flip_tta:
                    mirrored = self.judge.predict_probabilities(image.flip(-1), flip=False)
                    probabilities = (probabilities + mirrored) / 2
            else:
                features, probabilities = self.extractor(image), self.judge.predict_probabilities(image)
            scores = {"features": features, "probabilities": probabilities}
            if self.estimator is not None:
                scores["au_seen"] = self.estimator(image)
        return scores

    def step(self, batch: Batch) -> None:
        """Scores real faces: one batch of the test split."""
        columns = {**self._score(batch["image"]), "label": batch["label"]}
        if self.estimator is not None:
            columns["au_truth"] = batch["au"][:, self._au_columns()].float()
        keys = torch.from_numpy(keys_of(batch["sample_id"]).astype(np.int64))
        self.real.update(keys, **columns)

    def _au_columns(self) -> list[int]:
        assert self.estimator is not None
        return action_unit_indices(self.estimator.au_names, self.generator.au_names)

    def finish(self, hooks: Sequence[Any]) -> dict[str, float]:
        """Makes the faces, scores them and writes the pictures (a collective).

        Args:
            hooks: what acts on synthesis.

        Returns:
            The metrics, the same on all ranks. One that cannot be estimated from so few faces is NaN.
        """
        generator, total = self.generator, self.settings["test_samples"]
        request = SynthesisRequest.from_expressions(
            expressions_in_turn(self.names, range(total)),
            range(total),
            generator._seed,
            generator.sampling,
            generator.au_names,
        )
        started = time.monotonic()
        made = generator.synthesise_over_ranks(request, hooks, self.settings["test_batch_size"])
        metrics = {"test/images_per_s": total / (time.monotonic() - started)}
        fake, real = self._score_generated(made, request), self.real.compute()
        metrics |= self._recalls("test/fer", fake) | self._recalls("test/judge_on_real", real)
        metrics |= self._action_units("test/au_f1", fake) | self._action_units("test/au_f1_on_real", real)
        compared, references, weights = self._same_classes(fake, real)
        metrics |= self._distances(compared, references, weights)
        nearest = self._nearest(compared, references, weights)
        if nearest is not None:
            metrics |= nearest[0]
        metrics |= self._copies(made) | self._against_sources(made, fake)
        unguided = self._unguided_pairs(request, hooks)
        if generator.trainer.is_global_zero:
            folder = Path(generator.trainer.default_root_dir) / "samples"
            self._save_grid(made["images"], fake["label"], folder / "test.png")
            self._save_comparison(made["images"], fake, unguided, folder / "comparison.png")
            if nearest is not None:
                self._save_nearest(made["images"], compared, nearest[1], nearest[2], folder / "nearest.png")
        return metrics

    def _score_generated(self, made: dict[str, Tensor], request: SynthesisRequest) -> dict[str, Tensor]:
        """Scores this rank's share of the generated faces and returns the rows of all."""
        rows, trainer = self._rows(), self.generator.trainer
        for chunk in torch.arange(trainer.global_rank, len(request), trainer.world_size).split(_BATCH):
            columns = {
                **self._score(made["images"][chunk].to(self.device).float() / 255),
                "label": made["label"][chunk],
            }
            if self.estimator is not None:
                columns["au_truth"] = torch.from_numpy(request.action_units)[chunk][:, self._au_columns()]
            rows.update(chunk, **columns)
        return rows.compute()

    def _recalls(self, prefix: str, rows: dict[str, Tensor]) -> dict[str, float]:
        """Returns recall per expression and their mean ("accuracy": macro) over the expressions that occur."""
        # By name: the judge may know other expressions, in another order; −1 = none of the generator's.
        own = torch.from_numpy(map_label_space(self.generator.label_space, self.judge.label_space)).to(self.device)
        seen, recalls = own[rows["probabilities"].argmax(1)], {}
        for name in self.names:
            mine = rows["label"] == self.generator.label_space.index(name)
            if mine.any():
                recalls[name] = float((seen[mine] == rows["label"][mine]).cpu().double().mean())
        macro = sum(recalls.values()) / max(1, len(recalls))
        return {f"{prefix}_accuracy": macro, **{f"{prefix}_recall/{name}": value for name, value in recalls.items()}}

    def _action_units(self, prefix: str, rows: dict[str, Tensor]) -> dict[str, float]:
        if self.estimator is None:
            return {}
        above = self.settings["au_present_above"]
        scores = action_unit_scores(rows["au_seen"], rows["au_truth"], self.estimator.au_names, above)
        return {f"{prefix}_mean" if name == "mean" else f"{prefix}/{name}": value for name, value in scores.items()}

    def _same_classes(
        self, fake: dict[str, Tensor], real: dict[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
        """Returns generated and real rows of the expressions that both have, and the weights of the real rows."""
        # MPS knows no float64.
        device = torch.device("cpu") if self.device.type == "mps" else self.device
        rows = []
        for own, other in ((fake, real), (real, fake)):
            shared = torch.isin(own["label"], other["label"])
            rows.append({name: values[shared].to(device) for name, values in own.items()})
        wanted, found = (torch.bincount(r["label"], minlength=len(self.generator.label_space)) for r in rows)
        weights = (wanted.double() / found.clamp_min(1))[rows[1]["label"]]
        return rows[0], rows[1], weights

    def _distances(self, fake: dict[str, Tensor], real: dict[str, Tensor], weights: Tensor) -> dict[str, float]:
        name = self.extractor.name
        generated, references = fake["features"], real["features"]
        kid, kid_std = kid_over_subsets(generated, references, fake["label"], real["label"], self.generator._seed)
        precision, recall = improved_precision_recall(generated, references, NEIGHBOURS, weights)
        frechet = frechet_distance(weighted_moments(references, weights), weighted_moments(generated))
        effective = float(weights.sum().square() / weights.square().sum())
        rank_zero_info(
            f"distances: {len(generated)} generated faces against {len(references)} real faces of the split "
            f"'{self.test_table.split}', weighted to the same expressions (as good as {effective:.0f} "
            f"equally weighted ones), features: {name}"
        )
        return {
            f"test/frechet/{name}": frechet,
            f"test/kid/{name}": kid,
            f"test/kid_std/{name}": kid_std,
            f"test/improved_precision/{name}": precision,
            f"test/improved_recall/{name}": recall,
            "test/real_faces": float(len(references)),
            "test/effective_real_faces": effective,
        }

    @torch.no_grad()
    def _nearest(
        self, fake: dict[str, Tensor], real: dict[str, Tensor], weights: Tensor
    ) -> tuple[dict[str, float], Tensor, Tensor] | None:
        """Returns metrics, and for each generated face the distance and the row of its nearest training face."""
        if self.train_faces is None:
            return None
        queries = torch.cat([fake["features"], real["features"]])
        search, trainer = NearestReference(queries), self.generator.trainer
        for rows in torch.arange(trainer.global_rank, len(self.train_faces), trainer.world_size).split(_BATCH):
            with torch.autocast(self.device.type, enabled=False):
                features = self.extractor(_images(self.train_faces, rows).to(self.device).float() / 255)
            search.update(features.to(queries.device), rows.to(queries.device))
        distance, row = search.compute()
        count = len(fake["features"])
        generated, held_out = distance[:count], distance[count:]
        share = weights / weights.sum()
        typical = (held_out * share).sum()
        order = held_out.argsort()
        # The smallest distance that at least a hundredth of the weight lies at or below.
        threshold = held_out[order][(share[order].cumsum(0) >= 0.01).nonzero()[0, 0]]
        key = "test/nearest_training/{}/" + self.extractor.name
        metrics = {
            key.format("generated"): float(generated.mean()),
            key.format("held_out"): float(typical),
            key.format("ratio"): float(generated.mean() / typical),
            key.format("closer_than_1_percent"): float((generated < threshold).double().mean()),
        }
        return metrics, generated, row[:count]

    def _copies(self, made: dict[str, Tensor]) -> dict[str, float]:
        try:
            search = self.datamodule.near_copies()
        except (FileNotFoundError, KeyError, ValueError) as error:
            rank_zero_warn(f"test/near_copies is not measured, the training split cannot be read: {error}")
            return {}
        copies = search.find(made["images"].to(self.device)).cpu()
        metrics = {"test/near_copies": float(copies.double().mean()), "test/near_copies_real": search.held_out_share()}
        kept = made.get("kept", torch.ones_like(copies))
        if not kept.all():
            metrics |= {
                "test/kept": float(kept.double().mean()),
                "test/near_copies_kept": float(copies[kept].double().mean()),
            }
        return metrics

    def _against_sources(self, made: dict[str, Tensor], fake: dict[str, Tensor]) -> dict[str, float]:
        """Compares faces from a layout with the training faces that it was taken from."""
        keys = made.get("layout_source", torch.zeros(0))
        if not keys.any():
            return {}
        table: SampleTable = self.datamodule.train_table
        place = {key: row for row, key in enumerate(keys_of(table.sample_id.tolist()).astype(np.int64).tolist())}
        rows = torch.tensor([i for i, key in enumerate(keys.tolist()) if key in place], dtype=torch.int64)
        if not len(rows):  # sources that are no rows of this run
            return {}
        faces = MixedDataset(table, image_size=self.settings["image_size"])
        similarities, probabilities = [], []
        for chunk in rows.split(_BATCH):
            sources = _images(faces, torch.tensor([place[key] for key in keys[chunk].tolist()]))
            similarities.append(pixel_correlation(made["images"][chunk], sources))
            probabilities.append(self._score(sources.to(self.device).float() / 255)["probabilities"])
        mine = {name: fake[name][rows.to(fake[name].device)] for name in ("label", "probabilities")}
        shown = {"label": mine["label"], "probabilities": torch.cat(probabilities)}
        accuracy = [self._recalls("of", scored)["of_accuracy"] for scored in (mine, shown)]
        return {
            "test/source_similarity": float(torch.cat(similarities).median()),
            "test/expression_gain": accuracy[0] - accuracy[1],
        }

    # ---------------------------------------------------------------- pictures, into the run folder only

    def _unguided_pairs(self, request: SynthesisRequest, hooks: Sequence[Any]) -> Tensor | None:
        """Makes the first faces of each expression again, from the same seeds without the guide (a collective)."""
        if not any(hasattr(hook, "guide_fingerprint") for hook in hooks):
            return None
        # A vote changes no picture, and would count these faces as if they were more of the test's.
        others = [h for h in hooks if not hasattr(h, "guide_fingerprint") and getattr(h, "changes_picture", True)]
        few = request.part(0, _PICTURE_COLUMNS * len(self.names))
        counted = [(hook, hook.state_dict()) for hook in others]
        images = self.generator.synthesise_over_ranks(few, others, self.settings["test_batch_size"])["images"]
        for hook, state in counted:  # nor are discarded copies among them more of the test's
            hook.load_state_dict(state)
        return images

    def _save_grid(self, images: Tensor, label: Tensor, path: Path) -> None:
        columns = min(8, len(images) // len(self.names))
        if columns:
            rows = [row for name in self.names for row in self._of(label, name)[:columns]]
            save_sample_grid(images[rows], self.names, columns, path)

    def _of(self, label: Tensor, name: str) -> list[int]:
        return (label.cpu() == self.generator.label_space.index(name)).nonzero()[:, 0].tolist()

    def _save_comparison(self, images: Tensor, rows: dict[str, Tensor], unguided: Tensor | None, path: Path) -> None:
        """Writes real | unguided | guided faces, with the judge's probability of the asked expression under each."""
        test, label = self.test_table, rows["label"]
        groups = []
        mixed = even_order(test.label, test.sample_id, seed=0)  # the first rows may all show one person
        real = [
            torch.from_numpy(mixed[test.label[mixed] == self.generator.label_space.index(name)]) for name in self.names
        ]
        faces = [_images(self.test_faces, few[:_PICTURE_COLUMNS]) if len(few) else images[:0] for few in real]
        groups.append(self._columns("real", faces))
        sets = [("unguided", images)] if unguided is None else [("unguided", unguided), ("guided", images)]
        for title, made in sets:
            faces = [made[self._of(label[: len(made)], name)[:_PICTURE_COLUMNS]] for name in self.names]
            groups.append(self._columns(title, faces))
        save_captioned_grid(groups, self.names, path)

    def _columns(self, title: str, faces: list[Tensor]) -> FaceColumns:
        captions: list[list[str]] = []
        for name, row in zip(self.names, faces, strict=True):
            if not len(row):
                captions.append([])
                continue
            column = self.judge.label_space.index(name)
            seen = self._score(row.to(self.device).float() / 255)["probabilities"][:, column]
            captions.append([f"{value:.0%}" for value in seen.tolist()])
        return FaceColumns(title, faces, captions)

    def _save_nearest(self, images: Tensor, fake: dict[str, Tensor], distance: Tensor, row: Tensor, path: Path) -> None:
        """Writes the generated faces that are nearest to a training face, beside that face."""
        assert self.train_table is not None and self.train_faces is not None
        closest = distance.argsort()[:_PICTURE_PAIRS].cpu()
        generated = images[fake["key"].cpu()[closest]]
        training = row.cpu()[closest]
        names = [self.generator.label_space[label] for label in fake["label"].cpu()[closest].tolist()]
        ids = [str(self.train_table.sample_id[r]) for r in training.tolist()]
        groups = [
            FaceColumns("generated", list(generated[:, None]), [[f"{d:.3g}"] for d in distance[closest].tolist()]),
            FaceColumns("training", list(_images(self.train_faces, training)[:, None]), [[name] for name in ids]),
        ]
        save_captioned_grid(groups, names, path)


def _images(faces: MixedDataset, rows: Tensor) -> Tensor:
    """Returns uint8 (n, 3, H, W)."""
    return faces.__getitems__(rows.tolist())["image"]


def check_test_settings(
    judge: str | None, features: str | None, features_weights: str | None, au_estimator: str | None
) -> None:
    """Checks the files and names that a generator's test is given, before anything is loaded.

    Raises:
        FileNotFoundError: one of them is missing.
        ValueError: a name that timm does not know, weights without a name, or an AU estimator of unknown units.
    """
    if judge is not None and not find_checkpoint(judge, "model.judge").is_file():
        raise FileNotFoundError(f"model.judge '{judge}': no such file, expected a classifier checkpoint")
    if features_weights is not None:
        if features is None:
            raise ValueError("model.features_weights: found weights without model.features, expected a timm name there")
        check_timm_name(features, "model.features")
        if not Path(features_weights).is_file():
            raise FileNotFoundError(
                f"model.features_weights '{features_weights}': no such file, expected weights of '{features}'"
            )
    elif features is not None and not find_checkpoint(features, "model.features").is_file():
        import timm  # seconds to import, and only for this error

        if timm.is_model(features):
            raise ValueError(f"model.features '{features}': expected model.features_weights, a file of its weights")
        raise FileNotFoundError(
            f"model.features '{features}': no such file, expected a classifier checkpoint or a timm name"
        )
    if au_estimator is not None:
        read_config(Path(au_estimator))
