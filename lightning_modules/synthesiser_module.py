"""A module that trains whatever makes faces, and hands on what is asked of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, TypeVar

from datamodules.batch import Batch
from lightning_modules.initial_weights import begin_with
from lightning_modules.predict_faces import predict_faces
from lightning_modules.run_seed import run_seed
from lightning_modules.synthesiser_file import SynthesiserFile
from lightning_modules.trainer_access import data_of
from lightning_modules.training_provenance import data_state
from synfer.foundation.fingerprint import fingerprint
from synfer.foundation.module_file import StoredModule
from synfer.synthesis.faces import Faces
from synfer.synthesis.hooks import FaceHook
from synfer.synthesis.request import SynthesisRequest

_TAUGHT_BY = "_taught_by"  # beside the settings in files

Taught = TypeVar("Taught", bound="SynthesiserModule")


class SynthesiserModule(SynthesiserFile):
    """Holds a plain synthesiser of the same networks, which a subclass sets as ``synthesiser`` in its ``__init__``."""

    synthesiser: Any
    label_space: tuple[str, ...]
    weights_source: dict[str, str] | None = None
    """Path, kind and fingerprint of what a training began with, for records; None = its own, drawn by the seed."""

    decide_weights: ClassVar[tuple[str, ...]] = ()
    """Settings without which the weights of a file would mean something else."""

    begins_with: ClassVar[str] = "initial_weights"
    """Setting that names the weights that a training begins with."""

    may_differ_at_the_start: ClassVar[tuple[str, ...]] = ()
    """Parts of groups among ``decide_weights`` in which a training may differ from what it begins with."""

    may_be_new_at_the_start: ClassVar[tuple[str, ...]] = ()
    """Names of weights that what a training begins with may lack."""

    def on_fit_start(self) -> None:
        """Takes over the weights that a training is to begin with, and which rows they have seen.

        Here and not in ``setup``, where the trainer does not know yet whether it goes on from a checkpoint.

        Raises:
            FileNotFoundError: nothing there.
            ValueError: weights that do not fit, or that have seen rows which this run holds out.
        """
        super().on_fit_start()
        path = self.hparams.get(self.begins_with)
        if path is None or self.trainer.ckpt_path is not None:  # it goes on, and began long ago
            return
        key = f"model.{self.begins_with}"
        differ, new = self.may_differ_at_the_start, self.may_be_new_at_the_start
        stored = begin_with(self, path, self.decide_weights, key, differ, new)
        self._began_with(stored)
        self.weights_source = {
            "path": str(path),
            "kind": self.file_format.kind,
            "fingerprint": fingerprint(sorted(stored.weights.items())),
        }
        data = data_of(self.trainer)
        if hasattr(data, "row_record"):
            data.row_record.add(data_state(stored.content), data.val_table, f"{key} '{path}'")

    def _began_with(self, stored: StoredModule) -> None:
        """Takes over what else is known of weights that a training begins with."""
        self._remember(stored.settings.get(_TAUGHT_BY))

    # ---------------------------------------------------------------- who taught it

    @property
    def taught_by(self) -> tuple[str, ...]:
        """Fingerprints of the networks that it learned by, as in its files: none of them must judge its faces."""
        found = self.hparams.get(_TAUGHT_BY) or ()
        return (found,) if isinstance(found, str) else tuple(found)

    def _remember(self, teachers: str | Sequence[str] | None) -> None:
        """Adds those who taught these weights, of an earlier part of the training too."""
        more = (teachers,) if isinstance(teachers, str) else teachers or ()
        if known := list(dict.fromkeys([*self.taught_by, *more])):
            self.hparams[_TAUGHT_BY] = known

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes over the moving average, and who taught these weights."""
        super().on_load_checkpoint(checkpoint)
        self._remember(checkpoint.get("hyper_parameters", {}).get(_TAUGHT_BY))

    @classmethod
    def _restored(cls: type[Taught], stored: StoredModule) -> Taught:
        """Returns a module with these settings and weights, which remembers who taught them."""
        module: Taught = super()._restored(stored)  # type: ignore[misc]
        module._remember(stored.settings.get(_TAUGHT_BY))
        return module

    # ---------------------------------------------------------------- data

    def _check_label_space_of_data(self, stage: str) -> None:
        """Checks that the expressions of the data are those that this generator makes.

        Labels are names: where nothing is learnt, in ``test`` and ``predict``, the data may have fewer of them, in
        another order.

        Args:
            stage: of the trainer.

        Raises:
            ValueError: other expressions.
        """
        found = tuple(getattr(data_of(self.trainer), "label_space", self.label_space))
        if found == self.label_space or (stage in ("test", "predict") and set(found) <= set(self.label_space)):
            return
        raise ValueError(f"data has the label space {list(found)}, the generator {list(self.label_space)}")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Does nothing: ``callbacks/generator_test.py`` makes the faces of a test and scores them."""

    def predict_step(self, batch: SynthesisRequest, batch_idx: int) -> Faces:
        """Makes the faces of one request.

        Raises:
            ValueError: ``predict`` on real faces.
        """
        return predict_faces(self, batch, self.trainer)  # type: ignore[arg-type]

    def synthesise(self, request: SynthesisRequest, hooks: Sequence[FaceHook] = ()) -> Faces:
        """Makes the requested faces, as the synthesiser does."""
        faces: Faces = self.synthesiser.synthesise(request, hooks)
        return faces

    @property
    def _seed(self) -> int:
        return run_seed(self._trainer)

    def _fitting_step(self) -> int | None:
        """Returns the step of the training that this module is in; None where it is not being trained."""
        fitting = self._trainer is not None and self.trainer.state.fn == "fit"
        return self.global_step if fitting and self.trainer.lightning_module is self else None
