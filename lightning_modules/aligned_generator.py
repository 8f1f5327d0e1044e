"""A generator whose inner maps are aligned, while it is trained, with those of a frozen network."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.random import fork_rng

from datamodules.batch import Batch
from datamodules.row_record import refuse_seen
from lightning_modules.frozen_features import BackboneFaces, FrozenFeatures
from lightning_modules.generator_file import GeneratorFile
from lightning_modules.trainer_access import data_of
from synfer.foundation.validate import check_setting
from synfer.networks.feature_extractor import backbone_fingerprint
from synfer.networks.feature_maps import feature_maps
from synfer.synthesis.diffusion.representation_alignment import AlignmentSettings, RepresentationAlignment

_PROJECTION = "alignment."


class AlignedGenerator(GeneratorFile):
    """Holds the projection of an alignment and the network that it looks at, in a fit alone.

    The projection is in checkpoints, so that a fit goes on as if never stopped, and not in folders; the network is in
    neither, and is read when a fit begins.

    Attributes:
        alignment: the projection and its loss; None = none, or no fit.
    """

    model: Any
    _alignment_settings: AlignmentSettings

    def __init__(self) -> None:
        super().__init__()
        self.alignment: RepresentationAlignment | None = None
        self._seen_by: tuple[BackboneFaces, ...] = ()  # no submodule: what is frozen stays out of checkpoints (C7)

    def _begin_alignment(self) -> None:
        """Reads the network, and makes the projection between its features and the UNet's maps.

        Raises:
            FileNotFoundError: no such network.
            ValueError: the judge or the guide of the same command, a network that has learned from rows that are held
                out, one without maps, or no such layer.
        """
        settings = self._alignment_settings
        if settings.features is None:
            return
        check_apart(settings.features, self.trainer.callbacks)  # type: ignore[attr-defined]
        key = "model.alignment.features"
        frozen = FrozenFeatures(settings.features, key)
        network, held_out = frozen.network, getattr(data_of(self.trainer), "val_table", None)
        refuse_seen(held_out, frozen.trained_on, f"{key} '{settings.features}'")
        expected = "a pre-training, a classifier or a network of timm"
        check_setting(isinstance(network, BackboneFaces), "alignment.features", "a CLIP model", expected)
        assert isinstance(network, BackboneFaces)
        self._seen_by = (network.to(self.device),)
        with fork_rng(devices=[]), torch.no_grad():  # the global numbers that follow are as without it
            wanted = self._features(torch.zeros(1, 3, network.image_size, network.image_size, device=self.device))
            made = RepresentationAlignment(self._inner_channels(), wanted.shape[1]).to(self.device)
        if self.alignment is None:  # a second fit of the same module goes on with its own
            self.alignment = made
        self._remember(backbone_fingerprint(network))

    def _inner_channels(self) -> int:
        layer, unet = self._alignment_settings.layer, self.model.unet
        known = layer in dict(unet.named_modules())
        check_setting(known, "alignment.layer", layer, "the name of a module of the UNet, as mid_block or up_blocks.0")
        with self._listening(always=True) as heard:
            self._pass_of_nothing()
        is_map = bool(heard) and heard[0].ndim == 4
        found = f"{layer}, whose output is no map"
        check_setting(is_map, "alignment.layer", found, "one whose output is a map, as mid_block or up_blocks.0")
        return int(heard[0].shape[1])

    @abstractmethod
    def _pass_of_nothing(self) -> None:
        """Passes one sample of zeros through the UNet."""

    @contextmanager
    def _listening(self, always: bool = False) -> Iterator[list[Tensor]]:
        """Gives a list that what the aligned layer says inside the block is put into; without an alignment, nothing."""
        heard: list[Tensor] = []
        if self.alignment is None and not always:
            yield heard
            return
        layer = self.model.unet.get_submodule(self._alignment_settings.layer)
        handle = layer.register_forward_hook(
            lambda module, inputs, output: heard.append(output[0] if isinstance(output, tuple) else output)
        )
        try:
            yield heard
        finally:
            handle.remove()

    def _with_alignment(self, loss: Tensor, heard: list[Tensor], batch: Batch) -> Tensor:
        """Adds the alignment of what was heard with the faces, and logs it; without one returns the loss as it is."""
        if self.alignment is None:
            return loss
        aligned: Tensor = self.alignment(heard[0], self._features(batch["image"]))
        self.log("train/alignment_loss", aligned)
        return loss + self._alignment_settings.weight * aligned

    def _features(self, image: Tensor) -> Tensor:
        (network,) = self._seen_by
        with torch.no_grad():
            return feature_maps(network.to(image.device).network, network.prepare(image))

    # ---------------------------------------------------------------- files

    def _not_in_folders(self) -> set[str]:
        """What a ``base`` gives back, and the projection, which makes no face."""
        return self._frozen_names() | {name for name in self.state_dict() if name.startswith(_PROJECTION)}

    def _completed(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Adds what a ``base`` gives back; a projection is taken over where this module goes on with it."""
        own = {name: tensor for name, tensor in self.state_dict().items() if name.startswith(_PROJECTION)}
        model = {name: tensor for name, tensor in weights.items() if not name.startswith(_PROJECTION)}
        taken = {name: weights.get(name, tensor) for name, tensor in own.items()}
        return {**super()._completed(model), **taken}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes over the moving average and the projection.

        Raises:
            ValueError: in ``fit``, a checkpoint of a training with an alignment where this has none, or the reverse.
        """
        if self._trainer is not None and self._trainer.state.fn == "fit" and "optimizer_states" in checkpoint:
            saved = any(name.startswith(_PROJECTION) for name in checkpoint.get("state_dict", {}))
            expected = "one, as in the checkpoint" if saved else "null, as in the checkpoint"
            found = self._alignment_settings.features
            check_setting(saved == (self.alignment is not None), "alignment.features", found, expected)
        super().on_load_checkpoint(checkpoint)


def check_apart(features: str, callbacks: Any) -> None:
    """Refuses a network that the same command names as guide, judge or extractor.

    Args:
        features: path of the network that a generator is aligned with.
        callbacks: the trainer's.

    Raises:
        ValueError: names the other setting.
    """
    for callback in callbacks:
        files = getattr(callback, "files", None)
        guide = getattr(callback, "guide_path", None) if getattr(callback, "enabled", False) else None
        named = {"test.judge": getattr(files, "judge", None), "test.features": getattr(files, "features", None)}
        for key, path in {**named, "guidance.guide": guide}.items():
            same = path is not None and Path(path).resolve() == Path(features).resolve()
            expected = f"another network than {key}: what a generator learns by can neither guide nor judge it"
            check_setting(not same, "alignment.features", f"'{features}'", expected)
