"""Networks whose features faces are compared in: a trained classifier, or a timm network with weights from a file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

from synfer.foundation.checkpoint_file import check_finite, read_checkpoint
from synfer.foundation.file_reading import FileError, did_you_mean
from synfer.foundation.fingerprint import fingerprint
from synfer.foundation.safetensors_file import read_safetensors
from synfer.networks.backbone import normalisation
from synfer.networks.on_faces import OnFaces


class HasBackbone(Protocol):
    """A classifier that takes images in [0, 1] and holds a timm network (``ExpressionClassifier``)."""

    backbone: Any

    def __call__(self, image: Tensor) -> Tensor:
        """Returns logits (B, K) of images (B, 3, H, W)."""


class ClassifierFeatures(nn.Module):
    """What the last layer of a classifier reads: penultimate features.

    Args:
        classifier: an ``ExpressionClassifier`` in evaluation mode; it does its own resizing and normalisation.
        name: name of the extractor, part of the names of metrics.
    """

    def __init__(self, classifier: HasBackbone, name: str) -> None:
        super().__init__()
        self.name = name
        self.classifier = classifier
        self._caught: Tensor | None = None

    def forward(self, image: Tensor) -> Tensor:
        """Returns float32 (B, D) for images (B, 3, H, W) in [0, 1]."""
        return self.features_and_logits(image)[0]

    def features_and_logits(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Returns features (B, D) and the classifier's logits (B, K) from one pass."""
        # Read at the last layer, and not by timm's forward_features, which lacks pooling and norms that vary by family.
        handle = self.classifier.backbone.get_classifier().register_forward_pre_hook(self._catch)
        try:
            logits = self.classifier(image)
        finally:
            handle.remove()
        assert self._caught is not None
        caught, self._caught = self._caught, None
        return caught.flatten(1).float(), logits

    def _catch(self, layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._caught = inputs[0].detach()


class TimmFeatures(OnFaces):
    """Pooled features of a timm network with weights from a local file.

    "inception_v3" takes torchvision's file (``inception_v3_google-*.pth``): timm's layout is the same. Those are the
    ImageNet weights; figures in their features are not the FID of papers, which comes from another Inception.

    Args:
        name: any name that timm knows.
        weights: .safetensors, or a file of tensors that ``torch.load(weights_only=True)`` reads; classifier heads in it
            are left out.

    Raises:
        FileNotFoundError: no such file.
        ValueError: an unknown network, or a file that does not hold its weights.
    """

    def __init__(self, name: str, weights: str | Path) -> None:
        import timm  # seconds to import: only when a network is really built

        check_timm_name(name, "model.features")
        network = timm.create_model(name, pretrained=False, num_classes=0)
        super().__init__(*normalisation(network), "bicubic")
        self.name = name.replace("/", "-")
        self.network = network
        config: dict[str, Any] = network.pretrained_cfg  # type: ignore[assignment]
        heads = config.get("classifier") or ()
        heads = [heads] if isinstance(heads, str) else heads
        left_out = ("AuxLogits.", *(f"{head}." for head in heads))
        state = {key: value for key, value in read_weights(Path(weights)).items() if not key.startswith(left_out)}
        try:
            self.network.load_state_dict(state)
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:200]
            raise ValueError(f"model.features_weights '{weights}' do not fit '{name}': {reason}") from error
        self.image_size = int(config["input_size"][-1])
        self.eval().requires_grad_(False)

    def forward(self, image: Tensor) -> Tensor:
        """Returns float32 (B, D) for images (B, 3, H, W) in [0, 1], resized to the network's own input size."""
        return self.network(self.prepare(image)).flatten(1).float()


def read_weights(path: Path) -> dict[str, Tensor]:
    """Reads tensors by name from .safetensors or a file of ``torch.save``; nothing in it is executed.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a file of tensors.
    """
    if not path.is_file():
        raise FileNotFoundError(f"model.features_weights '{path}': no such file, expected a network's weights")
    try:
        if path.suffix == ".safetensors":
            state: Any = read_safetensors(path, "model.features_weights")
        else:
            state = read_checkpoint(path, "model.features_weights")
    except ValueError as error:
        raise FileError(f"model.features_weights '{path}' cannot be read as weights: {error}") from error
    state = state.get("state_dict", state) if isinstance(state, dict) else None
    if not isinstance(state, dict) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"model.features_weights '{path}': found no tensors by name, expected a network's weights")
    check_finite(state, "model.features_weights", path)
    return state


def backbone_fingerprint(network: nn.Module) -> str | None:
    """Returns 16 hex digits of SHA-256 over the parameters of a timm network without its head.

    The same network has the same fingerprint as a classifier's backbone, as an extractor and as a guide from a folder.

    Args:
        network: what holds a timm network as ``backbone`` or ``network``; None is returned for anything else.
    """
    bare: Any = getattr(network, "backbone", getattr(network, "network", None))
    if bare is None:
        return None
    heads = (getattr(bare, "pretrained_cfg", None) or {}).get("classifier") or ()
    left_out = tuple(f"{head}." for head in ([heads] if isinstance(heads, str) else heads))
    return fingerprint((name, p) for name, p in bare.named_parameters() if not name.startswith(left_out))


def check_timm_name(name: str, key: str) -> None:
    """Checks that timm knows a network.

    Raises:
        ValueError: it does not; the line offers names like it.
    """
    import timm

    if not timm.is_model(name):
        hint = did_you_mean(name, timm.list_models(), 3)
        raise ValueError(f"{key}: found '{name}', expected a classifier checkpoint or a name that timm knows{hint}")


def name_of_checkpoint(path: str | Path) -> str:
    """Returns what a checkpoint is called: its run folder's name where it lies in one, else its own.

    "runs/judge-ferplus/checkpoints/last.ckpt" and "judge-ferplus.ckpt" are both "judge-ferplus".
    """
    path = Path(path)
    name = path.parent.parent.name if path.parent.name == "checkpoints" and path.parent.parent.name else path.stem
    return re.sub(r"[^\w.-]+", "-", name)
