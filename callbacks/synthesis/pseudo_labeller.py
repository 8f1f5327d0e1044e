"""Several classifiers vote on what each synthetic face really shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from callbacks.synthesis.synthesis_callback import SynthesisCallback
from callbacks.synthesis.voter_level import check_level
from lightning_modules.aligned_faces import tell_of_other_alignment
from lightning_modules.voter import LoadedVoter, load_voter
from synfer.foundation.json_file import read_json
from synfer.foundation.rank_states import counters, own_state, states_of_ranks
from synfer.labels.class_thresholds import ClassThresholds
from synfer.labels.reliability import read_reliability
from synfer.labels.vote import map_votes, vote
from synfer.pictures.confusion_matrix import save_confusion_matrix
from synfer.synthesis.faces import Faces


class PseudoLabeller(SynthesisCallback):
    """Keeps, softens or discards the label of each finished face by a vote (SynFER, arXiv 2410.09865).

    The rule is in :func:`synfer.labels.vote.vote`; this callback says when, and with which voters.
    At the end of a run ``samples/pseudo_labels.png`` shows how many faces of each intended expression got which final
    label. Every rank votes on its own faces and has thresholds of its own; the picture counts all ranks.

    Args:
        enabled: whether to vote.
        voters: at least one of: a checkpoint of an :class:`ExpressionClassifier` or a :class:`LabelAnnotator`, a folder
            with a timm network or a CLIP model, a ``.json`` file (:func:`lightning_modules.voter.load_voter`). Their
            classes are matched by name.
        soft: a rectified label is the mean of the voters' probabilities; false = its most probable class.
        discard_below: faces whose final label has a smaller mean probability are discarded, in [0, 1); 0 keeps all.
        adaptive_quantile: also discard about this share of each intended expression, the least confident ones, in
            [0, 1): a threshold per class (``synfer/labels/class_thresholds.py``); null = off.
        adaptive_window: last faces of each expression that such a threshold is taken from, at least 1.
        reliability: a ``reliability.json`` of ``train.py validate`` with a :class:`Relabeller`: votes are weighted by
            each voter's precision in each class; null = all alike.
        batch_size: faces that a voter sees at a time, for less memory than where it sees all that were made together;
            null = all of them. The same votes, but for rounding.

    Raises:
        ValueError: a value out of range, or enabled without voters.
        FileNotFoundError: no such voter or table.
    """

    changes_picture = False
    config_group = "pseudo_labels"

    def __init__(
        self,
        enabled: bool = False,
        voters: list[str] | None = None,
        soft: bool = True,
        discard_below: float = 0.0,
        adaptive_quantile: float | None = None,
        adaptive_window: int = 256,
        reliability: str | None = None,
        batch_size: int | None = None,
    ) -> None:
        super().__init__(enabled)
        shares = {"discard_below": discard_below}
        shares |= {} if adaptive_quantile is None else {"adaptive_quantile": adaptive_quantile}
        for name, value in shares.items():
            if not 0 <= value < 1:
                raise ValueError(f"pseudo_labels.{name}: found {value}, expected a number in [0, 1)")
        if adaptive_window < 1:
            raise ValueError(f"pseudo_labels.adaptive_window: found {adaptive_window}, expected at least 1")
        if batch_size is not None and batch_size < 1:
            raise ValueError(f"pseudo_labels.batch_size: found {batch_size}, expected at least 1, or null")
        if enabled and not voters:
            raise ValueError("pseudo_labels.voters: found none, expected at least one classifier checkpoint")
        if len(set(voters or [])) < len(voters or []):
            raise ValueError(f"pseudo_labels.voters: found one twice in {voters}, expected different classifiers")
        for path in (voters or []) if enabled else []:
            if not Path(path).exists():
                raise FileNotFoundError(f"pseudo_labels.voters '{path}': no such file or folder, expected a voter")
        if enabled and reliability is not None and not Path(reliability).is_file():
            raise FileNotFoundError(f"pseudo_labels.reliability '{reliability}': no such file")
        self.voter_paths = list(voters or [])
        self.soft = soft
        self.discard_below = discard_below
        self.adaptive_quantile, self.adaptive_window = adaptive_quantile, adaptive_window
        self.reliability = reliability
        self.batch_size = batch_size
        self._voters: list[LoadedVoter] = []
        self._weights: tuple[tuple[str, ...], Tensor] | None = None
        self._stored_thresholds: dict[str, Any] | None = None
        self.thresholds: ClassThresholds | None = None
        self.flow: Tensor | None = None
        self._label_space: tuple[str, ...] = ()
        self.seen = 0
        self.agreed = 0
        self.discarded = 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Loads the voters, and in a fit looks whether they know anything.

        Raises:
            ValueError: a voter has learned from rows that are held out for validation.
        """
        if self.enabled:
            for voter in self._load():
                tell_of_other_alignment(trainer, voter.network, f"pseudo_labels.voters '{voter.name}'")
                if stage == "fit":
                    check_level("pseudo_labels.voters", voter, trainer)

    def _load(self) -> list[LoadedVoter]:
        if not self._voters:
            self._voters = [load_voter(path) for path in self.voter_paths]
        return self._voters

    def in_words(self) -> str:
        """Names the voters, and below which confidence a face is discarded."""
        below = f", discards below {self.discard_below:g}" if self.discard_below else ""
        below += f", discards the least sure {self.adaptive_quantile:.0%}" if self.adaptive_quantile else ""
        return f"vote of {len(self.voter_paths)} ({', '.join(self.voter_paths)}){below}"

    def recipe(self) -> dict[str, Any]:
        """Returns the settings, and the voters by their weights."""
        return {
            "voters": [voter.network.weights_fingerprint() for voter in self._load()],
            "soft": self.soft,
            "discard_below": self.discard_below,
            "adaptive_quantile": self.adaptive_quantile,
            "adaptive_window": self.adaptive_window,
            "reliability": None if self.reliability is None else read_json(self.reliability, "reliability table"),
        }

    @property
    def counts(self) -> dict[str, int]:
        """Faces whose intended label the vote confirmed, and those whose label it changed: for summary.json."""
        return {"agreed": self.agreed, "rectified": self.seen - self.agreed} if self.enabled else {}

    @torch.no_grad()
    def on_faces(self, faces: Faces) -> None:
        """Votes on the finished faces.

        Raises:
            ValueError: a voter does not know an expression of the generator, or was not measured.
        """
        if not len(faces):
            return
        image = faces.images.float() / 255
        device, rounded = image.device, faces.number_format == torch.bfloat16
        for path, voter in zip(self.voter_paths, self._load(), strict=True):
            network = voter.network.to(device)
            parts = image.split(self.batch_size or len(image))
            with torch.autocast(device.type, torch.bfloat16, enabled=rounded):
                probabilities = torch.cat([network.predict_probabilities(part) for part in parts])
            if not probabilities.isfinite().all():
                raise ValueError(
                    f"pseudo_labels.voters '{path}': found NaN among its probabilities, expected finite ones (its "
                    "weights are not finite, or too large for bfloat16: take another checkpoint)"
                )
            space = voter.network.label_space
            faces.votes[path] = map_votes(probabilities, space, faces.label_space, f"pseudo_labels.voters '{path}'")
        self._prepare(faces.label_space)
        votes = torch.stack([faces.votes[path] for path in self.voter_paths])
        below: float | Tensor = self.discard_below
        if self.thresholds is not None:
            below = self.thresholds.of(faces.label).clamp_min(self.discard_below)
        weights = None if self._weights is None else self._weights[1].to(votes.device)
        outcome = vote(votes, faces.label, self.soft, below, weights)
        if self.thresholds is not None:
            self.thresholds.update(faces.label, outcome.confidence)
        faces.soft_label = outcome.soft_label
        self.discarded += int((faces.kept & ~outcome.kept).sum())  # of what others have left
        faces.kept = faces.kept & outcome.kept
        self._count(faces, outcome.agreed)

    def _prepare(self, label_space: tuple[str, ...]) -> None:
        """Gets thresholds, weights and counts ready for a label space, which is known with the first faces."""
        if self.adaptive_quantile is not None and (
            self.thresholds is None or self.thresholds.label_space != label_space
        ):
            self.thresholds = ClassThresholds(label_space, self.adaptive_quantile, self.adaptive_window)
            if self._stored_thresholds is not None:
                self.thresholds.load_state_dict(self._stored_thresholds)
        if self.reliability is not None and (self._weights is None or self._weights[0] != label_space):
            prints = {voter.name: [voter.network.weights_fingerprint()] for voter in self._voters}
            self._weights = (label_space, read_reliability(self.reliability, prints, label_space))
        if self.flow is None or self._label_space != label_space:
            self.flow = torch.zeros(len(label_space), len(label_space), dtype=torch.int64)
            self._label_space = label_space

    def _count(self, faces: Faces, agreed: Tensor) -> None:
        assert self.flow is not None
        k = len(faces.label_space)
        pairs = faces.label * k + faces.soft_label.argmax(1)
        self.flow += torch.bincount(pairs.cpu(), minlength=k * k).reshape(k, k)
        self.seen += len(faces.label)
        self.agreed += int(agreed.sum())

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Logs the share of faces that show what was asked, and of those that are thrown away."""
        if self.enabled and self.seen:
            pl_module.log("pseudo_labels/agreement", self.agreed / self.seen)
            pl_module.log("pseudo_labels/discarded", self.discarded / self.seen)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Saves the picture of the flow from intended to final labels, summed over ranks."""
        if not self.enabled or not self._label_space:  # the same on every rank: all make faces, or none does
            return
        assert self.flow is not None
        summed = trainer.strategy.reduce(self.flow.to(pl_module.device).float(), reduce_op="sum")
        assert isinstance(summed, Tensor)
        if trainer.is_global_zero:
            path = Path(trainer.default_root_dir) / "samples" / "pseudo_labels.png"
            save_confusion_matrix(summed.long(), self._label_space, path, "votes", rows="intended", columns="final")
            for logger in trainer.loggers:
                if hasattr(logger, "log_image"):
                    logger.log_image("pseudo_labels/flow", [str(path)])

    on_test_end = on_predict_end = on_train_end

    def state_dict(self) -> dict[str, Any]:
        """Returns every rank's counts and class thresholds; a collective."""
        if not self.enabled:
            return {}
        own: dict[str, Any] = {"seen": self.seen, "agreed": self.agreed, "discarded": self.discarded}
        if self.flow is not None:
            own |= {"flow": self.flow.clone(), "label_space": list(self._label_space)}
        thresholds = self._stored_thresholds if self.thresholds is None else self.thresholds.state_dict()
        if thresholds is not None:  # a run that goes on may be stopped once more before it has made a face
            own["thresholds"] = thresholds
        return {"ranks": states_of_ranks(own)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on counting, and with the stored class thresholds; other ranks than before share what there is."""
        states = state_dict.get("ranks") or [state_dict]  # older checkpoints hold rank 0's alone
        mine = counters(states, ("seen", "agreed", "discarded", "flow"))
        self.seen, self.agreed, self.discarded = int(mine["seen"]), int(mine["agreed"]), int(mine["discarded"])
        if isinstance(mine["flow"], Tensor):
            self.flow = mine["flow"].cpu().clone()
            self._label_space = tuple(next(s["label_space"] for s in states if "label_space" in s))
        self._stored_thresholds = (own_state(states) or states[0]).get("thresholds")
