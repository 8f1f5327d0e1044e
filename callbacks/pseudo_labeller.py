"""Several classifiers vote on what each synthetic face really shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer

from callbacks.synthesis import SynthesisCallback
from datamodules.expressions import map_label_space
from lightning_modules.classifier import ExpressionClassifier
from lightning_modules.sampling.denoising import DenoisingState
from lightning_modules.sampling.label_vote import vote


class PseudoLabeller(SynthesisCallback):
    """Keeps, softens or discards the label of each finished face by a vote (SynFER, arXiv 2410.09865).

    The rule is in :func:`lightning_modules.sampling.label_vote.vote`; this callback says when, and with which voters.

    Args:
        enabled: whether to vote.
        voters: checkpoints of :class:`ExpressionClassifier`, at least one; their classes are matched by name.
        soft: a rectified label is the mean of the voters' probabilities; false = its most probable class.
        discard_below: faces whose final label has a smaller top probability are discarded; 0 keeps all.

    Raises:
        ValueError: a value out of range, or enabled without voters.
        FileNotFoundError: no such checkpoint.
    """

    def __init__(
        self, enabled: bool = False, voters: list[str] | None = None, soft: bool = True, discard_below: float = 0.0
    ) -> None:
        super().__init__(enabled)
        if not 0 <= discard_below < 1:
            raise ValueError(f"pseudo_labels.discard_below: found {discard_below}, expected a number in [0, 1)")
        if enabled and not voters:
            raise ValueError("pseudo_labels.voters: found none, expected at least one classifier checkpoint")
        if len(set(voters or [])) < len(voters or []):
            raise ValueError(f"pseudo_labels.voters: found one twice in {voters}, expected different classifiers")
        for path in (voters or []) if enabled else []:
            if not Path(path).is_file():
                raise FileNotFoundError(f"pseudo_labels.voters '{path}': no such file, expected a checkpoint")
        self.voter_paths = list(voters or [])
        self.soft = soft
        self.discard_below = discard_below
        self._voters: list[ExpressionClassifier] = []
        self.seen = 0
        self.agreed = 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Loads the voters."""
        if self.enabled:
            self._load()

    def _load(self) -> list[ExpressionClassifier]:
        if not self._voters:
            self._voters = [ExpressionClassifier.load_trained(path) for path in self.voter_paths]
        return self._voters

    @property
    def counts(self) -> dict[str, int]:
        """Faces whose intended label the vote confirmed, and those whose label it changed: for summary.json."""
        return {"agreed": self.agreed, "rectified": self.seen - self.agreed} if self.enabled else {}

    @torch.no_grad()
    def on_synthesis_end(self, state: DenoisingState) -> None:
        """Votes on the finished faces.

        Raises:
            ValueError: a voter does not know an expression of the generator.
        """
        assert state.images is not None
        image = state.images.float() / 255
        for path, voter in zip(self.voter_paths, self._load(), strict=True):
            columns = map_label_space(voter.label_space, state.label_space)
            if (columns < 0).any():
                missing = state.label_space[int((columns < 0).argmax())]
                raise ValueError(
                    f"pseudo_labels.voters '{path}' does not know '{missing}': it has {list(voter.label_space)}, the "
                    f"generator {list(state.label_space)}"
                )
            voter.to(image.device)
            with state.autocast():
                probabilities = voter.predict_probabilities(image).float()
            probabilities = probabilities[:, torch.from_numpy(columns).to(image.device)]
            state.votes[path] = probabilities / probabilities.sum(1, keepdim=True).clamp_min(1e-12)
        outcome = vote(torch.stack(list(state.votes.values())), state.label, self.soft, self.discard_below)
        state.soft_label = outcome.soft_label
        state.kept = state.kept & outcome.kept
        self.seen += len(image)
        self.agreed += int(outcome.agreed.sum())

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Logs the share of faces that show what was asked."""
        if self.enabled and self.seen:
            pl_module.log("pseudo_labels/agreement", self.agreed / self.seen)
