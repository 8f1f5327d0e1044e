"""Relabeller: several voters judge the labels of a data set, each row by voters that were not trained on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor
from torchmetrics.classification import MulticlassConfusionMatrix

from datamodules.batch import Batch
from datamodules.rows.folds import hash_numbers
from lightning_modules.aligned_faces import tell_of_other_alignment
from lightning_modules.trainer_access import command_name, data_of
from lightning_modules.voter import LoadedVoter, load_voter
from synfer.faces.expressions import canonical_expression
from synfer.labels.label_table import LabelTable, read_label_table
from synfer.labels.rectification import (
    add_label_evidence,
    blend_labels,
    correct_by_transition,
    noise_transition,
    shift_prior,
)
from synfer.labels.reliability import read_reliability, write_reliability
from synfer.labels.tie_break import argmax_with_tie_break
from synfer.labels.vote import map_votes, mean_vote, vote


class Relabeller(LightningModule):
    """Gives every row of a split a new soft label, from its old one and the votes.

    A voter is one network, or the k networks of k folds: then each row is judged by those of them that did not train on
    it (their mean). Checkpoints of this project carry the content hashes of their training rows, so this is checked row
    by row; a row without any such network is an error. The check is of what was trained on the fold, which in an
    annotator is its head: a generator that was trained on all rows has had their labels as captions, so that these
    votes are not independent of them. A generator that has seen rows is warned of, and ``generators`` says of how many.
    ``predict`` yields the votes, which
    :class:`callbacks.label_table_writer.LabelTableWriter` turns into a Parquet label table; ``validate`` measures each
    voter's per-class precision on the validation split and writes ``reliability.json`` into the run folder.

    Args:
        voters: name → checkpoints, folders or ``.json`` files (see :func:`lightning_modules.voter.load_voter`).
        rule: "blend" = old_weight · old label + (1 − old_weight) · mean of the votes; "vote" = SynFER's rule (more than
            half of the voters confirm the old label: it stays; otherwise the mean); "evidence" = the old label is one
            more witness, as reliable per class as the votes make it (Bayes); "transition" = the label noise is
            estimated from the votes and undone (``synfer/labels/rectification.py``).
        old_weight: weight of the old label in "blend", in [0, 1].
        hard: one-hot labels of the most probable class instead of soft ones.
        class_prior: expression → how frequent it is among such faces, > 0, in any unit, known from elsewhere (a survey,
            another data set); the votes are shifted from the old labels' frequencies to these before the rule. null =
            the old labels' frequencies are believed.
        votes_from: a label table of an earlier ``predict`` on the same rows: its votes are combined anew, and no voter
            is asked. For trying rules, which then takes seconds.
        reliability: a ``reliability.json``: votes are weighted by each voter's precision in each class; null = alike.

    Attributes:
        generators: voter → what the generators of its networks have seen, known after ``setup``: {"rows": n of the
            split, None = not recorded, "of": rows of the split, "label_space", "reader", "labels"}. Voters that read no
            generator are missing.

    Raises:
        ValueError: no voter, or a value out of range.
    """

    def __init__(
        self,
        voters: dict[str, list[str]],
        rule: Literal["blend", "vote", "evidence", "transition"] = "blend",
        old_weight: float = 0.3,
        hard: bool = False,
        class_prior: dict[str, float] | None = None,
        reliability: str | None = None,
        votes_from: str | None = None,
    ) -> None:
        super().__init__()
        if votes_from is not None and reliability is not None:
            raise ValueError(
                f"model.votes_from '{votes_from}' does not say whose weights voted: found model.reliability beside it, "
                "expected one of them"
            )
        if not voters and votes_from is None:
            raise ValueError("model.voters: found none, expected at least one name with its checkpoints")
        empty = [name for name, paths in voters.items() if not paths]
        if empty:
            raise ValueError(f"model.voters.{empty[0]}: found no checkpoint, expected at least one")
        if not 0 <= old_weight <= 1:
            raise ValueError(f"model.old_weight: found {old_weight}, expected a number in [0, 1]")
        if rule not in ("blend", "vote", "evidence", "transition"):
            raise ValueError(f"model.rule: found '{rule}', expected blend, vote, evidence or transition")
        low = [name for name, share in (class_prior or {}).items() if not 0 < share < float("inf")]
        if low:
            raise ValueError(
                f"model.class_prior.{low[0]}: found {class_prior[low[0]]}, expected a number above 0"  # type: ignore[index]
            )
        if reliability is not None and not Path(reliability).is_file():
            raise FileNotFoundError(f"model.reliability '{reliability}': no such file, expected a reliability.json")
        self.voter_paths, self.rule, self.old_weight, self.hard = voters, rule, old_weight, hard
        self.class_prior, self.reliability = class_prior, reliability
        self._stored: LabelTable | None = None if votes_from is None else read_label_table(votes_from)
        self.votes_from = votes_from
        self.label_space: tuple[str, ...] = ()
        self.prior: Tensor | None = None
        self.weights: Tensor | None = None
        # In a plain dictionary: nothing here is trained or saved.
        self._voters: dict[str, list[LoadedVoter]] = {}
        self._confusions: dict[str, MulticlassConfusionMatrix] = {}
        self._hash_of: dict[str, str] = {}
        self._row_of: dict[str, int] = {}
        self.generators: dict[str, dict[str, Any]] = {}

    def setup(self, stage: str) -> None:
        """Loads the voters and learns which image is which.

        Raises:
            ValueError: the command is neither predict on real faces nor validate, or a prior of other classes.
        """
        stage = command_name(stage)
        data = data_of(self.trainer)
        split = {"predict": getattr(data, "predict_split", None), "validate": "val"}.get(stage)
        if split in (None, "synthesis"):
            raise ValueError(
                f"relabelling in {stage}: found data.predict_split={getattr(data, 'predict_split', None)}, expected "
                "predict with data.predict_split=train, or validate"
            )
        self.label_space = tuple(data.label_space)
        if self.class_prior is not None:
            self.prior = _prior_of(self.class_prior, self.label_space)
        table = getattr(data, f"{split}_table")
        numbers = hash_numbers(table.content_hash)
        self._hash_of = dict(zip(table.sample_id.tolist(), table.content_hash.tolist(), strict=True))
        if self._stored is not None:
            self._use_stored(self._stored, stage)
            return
        if not self._voters:
            self._voters = {name: [load_voter(path) for path in paths] for name, paths in self.voter_paths.items()}
        for name, members in self._voters.items():
            for member in members:
                tell_of_other_alignment(self.trainer, member.network, f"model.voters.{name}: '{member.name}'")
                if not member.recorded:
                    raise ValueError(
                        f"model.voters.{name}: '{member.name}' does not say what it was trained on, expected a "
                        "checkpoint of a fit with this version"
                    )
        fingerprints = {name: [m.network.weights_fingerprint() for m in ms] for name, ms in self._voters.items()}
        found = {name: _seen_by_generators(name, members, numbers) for name, members in self._voters.items()}
        self.generators = {name: seen for name, seen in found.items() if seen is not None}
        twice = [name for name, own in fingerprints.items() if len(set(own)) < len(own)]
        if twice:
            raise ValueError(f"model.voters.{twice[0]}: found the same weights twice, expected one network per fold")
        if self.reliability is not None:
            self.weights = read_reliability(self.reliability, fingerprints, self.label_space)
        if stage == "validate":
            self._confusions = {
                name: MulticlassConfusionMatrix(len(self.label_space), validate_args=False) for name in self._voters
            }

    @property
    def voter_names(self) -> list[str]:
        """Names of the voters, in the order of the votes."""
        return list(self.voter_paths if self._stored is None else self._stored.votes)

    def _use_stored(self, stored: LabelTable, stage: str) -> None:
        """Checks that the stored votes are on these rows.

        Raises:
            ValueError: another command than predict, no votes, other classes, or other rows.
        """
        found = f"model.votes_from '{self.votes_from}'"
        if stage != "predict":
            raise ValueError(f"{found} in {stage}: expected predict (there are no networks to measure)")
        if not stored.votes:
            raise ValueError(f"{found}: found no votes, expected a table of predict with a Relabeller")
        if stored.label_space != self.label_space:
            raise ValueError(
                f"{found}: found the classes {list(stored.label_space)}, expected {list(self.label_space)}"
            )
        known = dict(zip(stored.sample_id.tolist(), stored.content_hash.tolist(), strict=True))
        other = [name for name, own in self._hash_of.items() if known.get(name) != own]
        if other:
            raise ValueError(
                f"{found}: found {'another image' if other[0] in known else 'no vote'} under '{other[0]}' "
                f"({len(other)} of {len(self._hash_of)} rows), expected the rows that were voted on"
            )
        self._row_of = {name: row for row, name in enumerate(stored.sample_id.tolist())}
        self.generators = {name: dict(seen) for name, seen in stored.generators.items()}

    def forward(self, image: Tensor, sample_id: list[str]) -> dict[str, Tensor]:
        """Returns each voter's probabilities, float32 (B, K), of images in [0, 1].

        Raises:
            ValueError: a row that every network of a voter was trained on, or a voter without a wanted class.
        """
        if not len(image):  # a rank may have no row
            return {name: image.new_zeros(0, len(self.label_space)) for name in self.voter_names}
        if self._stored is not None:
            rows = [self._row_of[name] for name in sample_id]
            return {name: torch.from_numpy(v[rows]).to(image.device) for name, v in self._stored.votes.items()}
        numbers = hash_numbers([self._hash_of[name] for name in sample_id])
        return {name: self._votes(name, members, image, sample_id, numbers) for name, members in self._voters.items()}

    def _votes(
        self, name: str, members: list[LoadedVoter], image: Tensor, sample_id: list[str], numbers: np.ndarray
    ) -> Tensor:
        total = torch.zeros(len(image), len(self.label_space), device=image.device)
        judges = torch.zeros(len(image), 1, device=image.device)
        for member in members:
            seen = np.zeros(len(numbers), bool) if member.trained_on is None else np.isin(numbers, member.trained_on)
            fresh = torch.from_numpy(np.flatnonzero(~seen)).to(image.device)
            if len(fresh):
                found = member.network.to(image.device).predict_probabilities(image[fresh])
                total[fresh] += map_votes(
                    found, member.network.label_space, self.label_space, f"model.voters.{name} '{member.name}'"
                )
                judges[fresh] += 1
        pupils = (judges[:, 0] == 0).nonzero()[:, 0].tolist()
        if pupils:
            raise ValueError(
                f"model.voters.{name}: '{sample_id[pupils[0]]}' and {len(pupils) - 1} more rows of this batch were in "
                f"the training of all {len(members)} of its networks, expected one that held them out (data.folds)"
            )
        return total / judges

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """Returns the sample ids, old labels (B,) and votes of one batch."""
        votes = self(batch["image"], batch["sample_id"])
        return {"sample_id": batch["sample_id"], "old_label": batch["label"], "votes": votes}

    def rectify(self, old: Tensor, votes: Tensor) -> Tensor:
        """Returns new labels, float (n, K), rows sum to 1, of all rows at once.

        Args:
            old: int64 (n,).
            votes: float (V, n, K), in the order of ``voters``.
        """
        weights = None if self.weights is None else self.weights.to(votes)
        if self.prior is not None:
            votes = shift_prior(votes, old, self.prior)
        if self.rule == "vote":
            new = vote(votes, old, weights=weights).soft_label
        else:
            mean = mean_vote(votes, weights)
            if self.rule == "blend":
                new = blend_labels(mean, old, self.old_weight)
            elif self.rule == "evidence":
                new = add_label_evidence(mean, old)
            else:
                transition = noise_transition(mean, old)
                wrong = float(1 - transition[old, old].mean())
                rank_zero_info(
                    f"label noise estimated from the votes: {wrong:.1%} of labels differ from the true class"
                )
                new = correct_by_transition(mean, old, transition)
        return torch.nn.functional.one_hot(argmax_with_tie_break(new, old), new.shape[1]).to(new) if self.hard else new

    def content_hash(self, sample_id: str) -> str:
        """Returns the content hash of a row."""
        return self._hash_of[sample_id]

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Counts what each voter says of one batch."""
        if not len(batch["label"]):
            return
        for name, probabilities in self(batch["image"], batch["sample_id"]).items():
            self._confusions[name].to(probabilities.device).update(probabilities, batch["label"])

    def on_validation_epoch_end(self) -> None:
        """Logs each voter's accuracy and writes reliability.json."""
        confusions = {name: metric.compute() for name, metric in self._confusions.items()}
        for name, confusion in confusions.items():
            accuracy = float(confusion.diagonal().sum() / confusion.sum().clamp_min(1))
            self.log(f"val/accuracy/{name}", accuracy, rank_zero_only=False, sync_dist=True)
        if self.trainer.is_global_zero:
            fingerprints = {name: [m.network.weights_fingerprint() for m in ms] for name, ms in self._voters.items()}
            path = Path(self.trainer.default_root_dir) / "reliability.json"
            write_reliability(path, confusions, fingerprints, self.label_space)
            rank_zero_info(f"reliability of {len(confusions)} voters: {path}")


def _prior_of(shares: dict[str, float], names: tuple[str, ...]) -> Tensor:
    """Returns a prior in the order of the label space, (K,), sum 1."""
    try:
        known = {canonical_expression(name): share for name, share in shares.items()}
    except ValueError as error:
        raise ValueError(f"model.class_prior: {error}") from error
    missing = [name for name in names if name not in known]
    if missing:
        raise ValueError(
            f"model.class_prior: found no '{missing[0]}' among {list(known)}, expected every one of {list(names)}"
        )
    prior = torch.tensor([known[name] for name in names])
    return prior / prior.sum()


def _seen_by_generators(name: str, members: list[LoadedVoter], numbers: np.ndarray) -> dict[str, Any] | None:
    """Returns, and warns of, what the generators behind a voter were trained on; None where there is no generator."""
    known = [member.generator for member in members if member.generator is not None]
    if not known:
        return None
    source = known[0].source
    whose = f"reader {source['reader'] or 'not recorded'}, labels {source['labels'] or 'of its own'}"
    trained_on = [generator.trained_on for generator in known if generator.trained_on is not None]
    if len(trained_on) < len(known):
        rank_zero_warn(
            f"model.voters.{name}: what its generator was trained on is not recorded ({whose}); if it was these rows, "
            "with their labels as captions, these votes are not independent of the labels"
        )
        return {"rows": None, "of": len(numbers), **source}
    seen = np.isin(numbers, np.concatenate(trained_on))
    if seen.any():
        rank_zero_warn(
            f"model.voters.{name}: its generator was trained on {seen.sum()} of these {len(numbers)} rows, with their "
            f"labels as captions ({whose}): only the head held them out"
        )
    return {"rows": int(seen.sum()), "of": len(numbers), **source}
