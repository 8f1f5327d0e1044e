"""Voters from elsewhere, behind the classifier's interface: timm networks with named classes, and CLIP zero-shot."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from synfer.faces.captions import ADJECTIVES, TEMPLATES
from synfer.faces.expressions import EXPRESSIONS, canonical_expression, resolve_label_space
from synfer.foundation.file_reading import FileError, plain_reason
from synfer.foundation.fingerprint import fingerprint
from synfer.foundation.json_file import read_json
from synfer.foundation.safetensors_file import read_safetensors
from synfer.networks.backbone import averaged_for_grey
from synfer.networks.clip_folder import read_clip
from synfer.networks.on_faces import OnFaces


class ExternalClassifier(OnFaces, ABC):
    """A network that was trained elsewhere.

    Attributes:
        label_space: names of its K classes.
        image_size: side to which images are resized.
    """

    label_space: tuple[str, ...]

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__(mean, std, "bicubic")

    @abstractmethod
    def _logits(self, image: Tensor) -> Tensor: ...

    def forward(self, image: Tensor) -> Tensor:
        """Returns logits (B, K) of images (B, 3, H, W) in [0, 1]; differentiable, so that it may guide."""
        return self._logits(self.prepare(image))

    def logits(self, image: Tensor) -> Tensor:
        """Returns logits (B, K) of images (B, 3, H, W) in [0, 1], as calling it does."""
        return self(image)

    @property
    def codec(self) -> None:
        """It reads pixels."""

    @torch.no_grad()
    def predict_probabilities(self, image: Tensor) -> Tensor:
        """Returns probabilities float32 (B, K) of images (B, 3, H, W) in [0, 1]."""
        if len(image) == 0:
            return image.new_zeros(0, len(self.label_space))
        return self(image).float().softmax(1)

    def weights_fingerprint(self) -> str:
        """Returns 16 hex digits of SHA-256 over all weights, and over the names that its outputs are known by."""
        return fingerprint(self.state_dict().items(), repr((self.label_space, self._outputs(), self.image_size)))

    def _outputs(self) -> list[int]:
        """Returns which output of the network each class is."""
        return list(range(len(self.label_space)))


class TimmVoter(ExternalClassifier):
    """A timm network in the layout of timm's own ``save_for_hf``: ``config.json`` and ``model.safetensors``.

    The classes are named in the config by ``label_names`` (there or in ``pretrained_cfg``), in the network's order or
    by the number of its output; names that are no expressions ("other") are classes that do not vote. A network for
    grey images gets the mean of the three channels.

    Args:
        folder: where the two files lie.

    Raises:
        ValueError: a file or a key is missing, or the weights do not fit.
    """

    def __init__(self, folder: Path) -> None:
        import timm

        for name in ("config.json", "model.safetensors"):
            if not (folder / name).is_file():
                raise ValueError(f"timm voter '{folder}': found no {name}, expected a folder of timm's save_for_hf")
        config = read_json(folder / "config.json", "timm voter", "what timm's save_for_hf wrote")
        pretrained = config.get("pretrained_cfg") or {}
        names = config.get("label_names") or pretrained.get("label_names")
        if not names or "architecture" not in config:
            raise ValueError(f"timm voter '{folder}': config.json lacks 'architecture' or 'label_names'")
        by_output = {int(i): name for i, name in (names if isinstance(names, dict) else dict(enumerate(names))).items()}
        arguments = {"num_classes": config.get("num_classes", max(by_output) + 1), **(config.get("model_args") or {})}
        outputs = int(arguments["num_classes"])
        if max(by_output) >= outputs or (isinstance(names, list) and len(names) != outputs):
            raise ValueError(
                f"timm voter '{folder}': found {len(names)} label_names, the last one for output {max(by_output)}, of "
                f"a network with {outputs} outputs"
            )
        image_shape = pretrained.get("input_size") or (3, 224, 224)
        channels = arguments["in_chans"] = int(arguments.get("in_chans", image_shape[0]))
        if channels not in (1, 3):
            raise ValueError(f"timm voter '{folder}': found a network for {channels} channels, expected 1 or 3")
        mean = averaged_for_grey(pretrained.get("mean") or (0.485, 0.456, 0.406), channels)
        std = averaged_for_grey(pretrained.get("std") or (0.229, 0.224, 0.225), channels)
        if not len(mean) == len(std) == channels:
            raise ValueError(
                f"timm voter '{folder}': found mean {mean} and std {std}, expected a number for each of the "
                f"{channels} channels"
            )
        super().__init__(mean, std)
        expressions = {i: known for i, name in by_output.items() if (known := _expression_or_none(name)) is not None}
        self.columns = list(expressions)
        self.image_size = int(image_shape[-1])
        try:
            self.label_space = resolve_label_space(list(expressions.values()))
            self.network = timm.create_model(config["architecture"], pretrained=False, **arguments)
            self.network.load_state_dict(read_safetensors(folder / "model.safetensors", "timm voter"))
        except FileError:
            raise
        except (RuntimeError, TypeError, ValueError) as error:
            raise ValueError(f"timm voter '{folder}': {plain_reason(error)}, expected weights of its config") from error

    def _logits(self, image: Tensor) -> Tensor:
        return self.network(image)[:, self.columns]

    def _outputs(self) -> list[int]:
        return self.columns


class ClipVoter(ExternalClassifier):
    """CLIP zero-shot (Radford et al., ICML 2021): the caption that fits a face best names its expression.

    Args:
        folder: a CLIP model in transformers' layout, with its tokenizer.
        prompts: expression → captions, or one caption; the mean of their normalised embeddings stands for it. None =
            the project's caption templates for every expression.

    Raises:
        ValueError: no CLIP model there, fewer than two expressions, or one without captions.
    """

    def __init__(self, folder: Path, prompts: Mapping[str, Sequence[str] | str] | None = None) -> None:
        found = read_clip(folder, "CLIP voter")
        super().__init__(found.mean, found.std)
        if prompts is None:
            prompts = {name: [text.format(ADJECTIVES[name]) for text in TEMPLATES] for name in EXPRESSIONS}
        captions_of = _captions(folder, prompts)
        self.label_space = resolve_label_space(list(captions_of))
        self.image_size, clip = found.image_size, found.model
        # With the model, not after it: only the image's half is needed from here on.
        with torch.no_grad():
            means = []
            for captions in captions_of.values():
                tokens = found.tokens(captions)
                text = clip.text_model(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask).pooler_output
                means.append(F.normalize(F.normalize(clip.text_projection(text), dim=1).mean(0), dim=0))
        self.register_buffer("text", torch.stack(means) * clip.logit_scale.detach().exp())
        self.vision, self.projection = clip.vision_model, clip.visual_projection
        self.text: Tensor

    def _logits(self, image: Tensor) -> Tensor:
        seen = self.projection(self.vision(pixel_values=image).pooler_output)
        return F.normalize(seen, dim=1) @ self.text.T


def load_timm(path: Path, device: Any) -> ExternalClassifier:
    """Loads a timm network as a voter, in evaluation mode and without gradients."""
    return TimmVoter(path).eval().requires_grad_(False).to(device)


def load_clip(path: Path, device: Any, prompts: Any = None) -> ExternalClassifier:
    """Loads a CLIP model as a voter, in evaluation mode and without gradients.

    Args:
        path: its folder.
        device: where to.
        prompts: expression → captions; None = the project's own.
    """
    return ClipVoter(path, prompts).eval().requires_grad_(False).to(device)


def _captions(folder: Path, prompts: Any) -> dict[str, list[str]]:
    expected = "expected an object of expression → caption or list of captions"
    if not isinstance(prompts, Mapping):
        raise ValueError(f"CLIP voter '{folder}': found {type(prompts).__name__} as prompts, {expected}")
    found = {str(name): [value] if isinstance(value, str) else value for name, value in prompts.items()}
    for name, captions in found.items():
        if not isinstance(captions, Sequence) or not captions or not all(c and isinstance(c, str) for c in captions):
            raise ValueError(f"CLIP voter '{folder}': found {captions!r} as prompts of '{name}', {expected}")
    return {name: list(captions) for name, captions in found.items()}


def _expression_or_none(name: str) -> str | None:
    try:
        return canonical_expression(name)
    except ValueError:
        return None
