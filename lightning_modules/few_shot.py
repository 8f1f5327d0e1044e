"""FewShot: how well a frozen network tells expressions of which it is shown a few faces each."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from datamodules.batch import Batch
from datamodules.row_record import refuse_seen
from datamodules.rows.sample_table import SampleTable
from datamodules.synthetic.finished_set import read_finished_set
from lightning_modules.frozen_features import FrozenFeatures
from lightning_modules.neighbour_scores import features_of_rows
from lightning_modules.trainer_access import command_name, data_of
from synfer.faces.expression_prompts import prompts_of
from synfer.foundation.atomic_file import atomic_write
from synfer.foundation.json_file import write_json
from synfer.foundation.validate import check_setting
from synfer.metrics.confusion_scores import confusion_scores
from synfer.metrics.gathered_rows import GatheredRows
from synfer.representation.few_shot import HeadName, Shots, draw_shots, mean_with_interval
from synfer.representation.zero_shot import ensemble

_SCORES = ("accuracy", "mean_class_accuracy")


class FewShot(LightningModule):
    """Shows k training faces of each class to heads on frozen features, and scores them on the test faces.

    For ``python train.py test`` (or ``validate``, which scores on the validation faces); trains nothing but the heads.
    Which faces are shown is a function of ``seed``, the draw and their sample ids: the same on any machine. The means
    over draws are logged (``test/few_shot_accuracy/linear_k5``, ``test/few_shot_mean_class_accuracy/…``); the table
    with intervals is in ``few_shot.csv`` of the run folder, and ``few_shot.json`` also holds each draw's score and ids.

    Args:
        backbone_weights: the network (:class:`lightning_modules.frozen_features.FrozenFeatures`); of a CLIP model
            Tip-Adapter uses the words as well.
        shots: numbers k of faces of each class.
        draws: of each k.
        seed: of the draws.
        heads: "linear" (logistic regression), "prototype" (nearest class mean), "tip_adapter" (a cache beside zero-shot
            logits, or beside prototypes where the network knows no words).
        synthetic_shots: faces of each class that come from ``data.synthetic_reader`` on top, drawn in the same way.
        decay: L2 penalty of the linear head, > 0.
        alpha: weight of Tip-Adapter's cache.
        beta: how much nearer faces count in it.

    Raises:
        FileNotFoundError: no network there.
        ValueError: a value out of range.
    """

    def __init__(
        self,
        backbone_weights: str,
        shots: list[int] = [1, 5, 10, 16],  # noqa: B006 (not changed)
        draws: int = 10,
        seed: int = 0,
        heads: list[HeadName] = ["linear", "prototype", "tip_adapter"],  # noqa: B006
        synthetic_shots: int = 0,
        decay: float = 1e-3,
        alpha: float = 1.0,
        beta: float = 5.5,
    ) -> None:
        super().__init__()
        check_setting(bool(shots) and all(k >= 0 for k in shots), "shots", shots, "numbers of faces, at least one")
        check_setting(
            all(k + synthetic_shots > 0 for k in shots), "shots", shots, "numbers above 0, or synthetic_shots"
        )
        check_setting(draws >= 1, "draws", draws, "at least 1")
        check_setting(bool(heads), "heads", heads, "at least one of linear, prototype, tip_adapter")
        check_setting(synthetic_shots >= 0, "synthetic_shots", synthetic_shots, "at least 0")
        check_setting(decay > 0, "decay", decay, "a number > 0")
        self.shots, self.draws, self.seed, self.heads = list(shots), draws, seed, list(heads)
        self.synthetic_shots, self.decay, self.alpha, self.beta = synthetic_shots, decay, alpha, beta
        self.network = FrozenFeatures(backbone_weights)
        self.image_size, self.weights_source = self.network.image_size, self.network.source
        self._rows: GatheredRows | None = None

    def forward(self, image: Tensor) -> Tensor:
        """Returns unit rows (B, F) of images (B, 3, H, W) in [0, 1]."""
        rows: Tensor = self.network(image)
        return rows

    def setup(self, stage: str) -> None:
        """Checks what is asked of it.

        Raises:
            ValueError: another command than test or validate, synthetic shots without synthetic faces, or a network
                that has learned from rows held out.
        """
        stage, data = command_name(stage), data_of(self.trainer)
        check_setting(
            stage in ("test", "validate"), "class_path", f"FewShot with the command {stage}", "test or validate"
        )
        wanted = data.synthetic_reader is not None or not self.synthetic_shots
        check_setting(
            wanted, "synthetic_shots", self.synthetic_shots, "0, or a data.synthetic_reader to take them from"
        )
        refuse_seen(data.val_table, self.network.trained_on, f"model.backbone_weights '{self.weights_source['path']}'")

    # ------------------------------------------------------------------ evaluation

    def _clear(self) -> None:
        self._rows = None

    def _take(self, batch: Batch) -> None:
        if self._rows is None:
            width = self(batch["image"].new_zeros(1, 3, self.image_size, self.image_size)).shape[1]
            example = {"features": torch.zeros(0, width), "label": torch.zeros(0, dtype=torch.int64)}
            self._rows = GatheredRows(example, keyed=False).to(self.device)
        known = batch["label"] >= 0
        if bool(known.any()):
            self._rows.update(features=self(batch["image"])[known], label=batch["label"][known])

    def on_test_epoch_start(self) -> None:
        """Forgets an earlier test."""
        self._clear()

    on_validation_epoch_start = on_test_epoch_start

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Keeps the features of one batch."""
        self._take(batch)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Keeps the features of one batch."""
        self._take(batch)

    def on_test_epoch_end(self) -> None:
        """Draws, fits, scores; logs and writes the table."""
        self._report("test")

    def on_validation_epoch_end(self) -> None:
        """Draws, fits, scores; logs and writes the table."""
        self._report("val")

    def _report(self, stage: str) -> None:
        assert self._rows is not None  # a rank without a row gets a batch of none
        scored, data = self._rows.compute(), data_of(self.trainer)
        names, features, truth = tuple(data.label_space), scored["features"], scored["label"]
        check_setting(len(truth) > 0, "reader", "no labelled face to score", "some with a label", group="data")
        prior = self._zero_shot(names, features)
        real = _Drawn(data.training_table(), self, self.shots)
        synthetic = None
        if self.synthetic_shots:
            table = read_finished_set(data.synthetic_reader, names, None, None, self.seed)
            synthetic = _Drawn(table, self, [self.synthetic_shots])
        entries = []
        for k in self.shots:
            for draw in range(self.draws):
                parts = [
                    source.part(n, draw) for source, n in ((real, k), (synthetic, self.synthetic_shots)) if source and n
                ]
                shown = Shots(
                    torch.cat([part["features"] for part in parts]),
                    torch.cat([part["label"] for part in parts]),
                    features,
                    prior,
                    len(names),
                )
                for head in self.heads:
                    found = shown.logits(head, self.decay, self.alpha, self.beta).argmax(1)
                    counts = torch.bincount(truth * len(names) + found, minlength=len(names) ** 2)
                    scores = confusion_scores(counts.view(len(names), -1), names)
                    ids = [name for part in parts for name in part["ids"]]
                    entries.append(
                        {"head": head, "k": k, "draw": draw, **{s: scores[s] for s in _SCORES}, "shown": ids}
                    )
        table_rows = self._table(entries)
        for row in table_rows:
            for score in _SCORES:
                name = f"{stage}/few_shot_{score}/{row['head']}_k{row['k']}"
                self.log(name, row[score], rank_zero_only=False, sync_dist=True)
        if self.trainer.is_global_zero:
            self._write(table_rows, entries, len(truth))

    def _zero_shot(self, names: tuple[str, ...], features: Tensor) -> Tensor | None:
        """Returns the logits (M, K) of a network that knows words, on the scale of cosines; None of another."""
        clip = self.network.clip
        return None if clip is None else features @ ensemble(clip.text, prompts_of("templates", names)).T

    def _table(self, entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
        rows = []
        for head in self.heads:
            for k in self.shots:
                row: dict[str, Any] = {"head": head, "k": k, "synthetic": self.synthetic_shots, "draws": self.draws}
                for score in _SCORES:
                    drawn = [entry[score] for entry in entries if (entry["head"], entry["k"]) == (head, k)]
                    row[score], row[f"{score}_half_width"] = mean_with_interval(drawn)
                rows.append(row)
        return rows

    def _write(self, rows: list[dict[str, Any]], entries: list[dict[str, Any]], scored: int) -> None:
        folder = Path(self.trainer.default_root_dir)
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        with atomic_write(folder / "few_shot.csv") as partial:
            partial.write_text(text.getvalue(), encoding="utf-8")
        whole = {"network": self.weights_source, "seed": self.seed, "scored": scored, "table": rows, "draws": entries}
        write_json(folder / "few_shot.json", whole)
        for row in rows:
            width = row["accuracy_half_width"]
            interval = "" if width is None else f" ± {100 * width:.2f}"
            rank_zero_info(f"{row['head']}, {row['k']} faces of each: accuracy {100 * row['accuracy']:.2f}{interval} %")


class _Drawn:
    """The features of all faces that some draw shows, computed once, by all ranks together."""

    def __init__(self, table: SampleTable, module: FewShot, shots: list[int]) -> None:
        data, names = data_of(module.trainer), tuple(data_of(module.trainer).label_space)
        ids = table.sample_id.tolist()
        self._rows = {
            (k, draw): draw_shots(table.label, ids, names, k, module.seed, draw)
            for k in shots
            if k
            for draw in range(module.draws)
        }
        needed = sorted({int(row) for rows in self._rows.values() for row in rows})
        self._place = {row: place for place, row in enumerate(needed)}
        chosen = table.select(torch.tensor(needed).numpy())
        self._features = features_of_rows(chosen, data, module.trainer, module, module.device)
        self._ids = ids

    def part(self, shots: int, draw: int) -> dict[str, Any]:
        """Returns features, labels and ids of one draw."""
        rows = self._rows[shots, draw].tolist()
        places = torch.tensor([self._place[row] for row in rows], device=self._features["label"].device)
        return {name: self._features[name][places] for name in ("features", "label")} | {
            "ids": [self._ids[row] for row in rows]
        }
