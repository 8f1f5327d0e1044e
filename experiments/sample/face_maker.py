"""Makes the faces of an order with any trained generator, steered as the callbacks of a run would steer it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from callbacks.synthesis.layout_initialisation import LayoutInitialisation
from callbacks.synthesis.semantic_guidance import SemanticGuidance
from datamodules.rows.images import check_not_constant, read_image
from datamodules.rows.sample_table import ArrayImages, SampleTable, one_hot
from datamodules.rows.source_faces import TrainingSources
from experiments.command_line.project import SHIPPED_GENERATOR, shipped
from experiments.sample.face_order import FaceOrder, StartFace, check_known
from lightning_modules.base_generator import generator_of_base, is_base
from synfer.faces.expressions import EXPRESSIONS
from synfer.synthesis.faces import Faces
from synfer.synthesis.hooks import FaceHook
from synfer.synthesis.request import SamplingSettings, SynthesisRequest, SynthesisSettings
from synfer.synthesis.synthesiser import Synthesiser, TakesSources, load_synthesiser

_STRENGTHS = ("expression_strength", "strength")
"""What the settings of a diffusion model, and those of a VAE-GAN, call the strength."""

_PIXELS = 64 * 48 * 48
"""Pixels that are made at a time."""

_SMALL = 64
"""Side up to which a face is small."""


class FaceMaker:
    """A trained generator, ready to make faces.

    Args:
        checkpoint: a checkpoint, a run folder, a folder of ``save_trained``, a Stable Diffusion in diffusers' layout or
            its Hub id; what comes with the project is found from any folder.
        guide: a classifier that guides a diffusion model in the later half of the steps (before, it sees no face yet);
            None = no guidance.
        device: "cpu", "cuda"; None = an accelerator where there is one.
        through: what the guide moves: the "text", or the "latents" of the predicted face.
        calibration: file of the guide's temperatures, from a run with ``guidance.calibration``; None = none.

    Attributes:
        name: the checkpoint as it was given.
        au_names: action units that it hears; () where it hears none.
        step_size: length of the guide's steps where an order says nothing; 0 without a guide.

    Raises:
        FileNotFoundError: nothing there.
        ValueError: nothing that makes faces.
    """

    def __init__(
        self,
        checkpoint: str | Path = SHIPPED_GENERATOR,
        guide: str | None = None,
        device: str | None = None,
        *,
        through: Literal["text", "latents"] = "text",
        calibration: str | None = None,
    ) -> None:
        self.name = str(checkpoint)
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        if calibration is not None and not Path(calibration).is_file():
            raise FileNotFoundError(f"guidance.calibration '{calibration}': found no such file, expected that of a run")
        self._guidance = None
        if guide is not None:
            self._guidance = SemanticGuidance(True, guide, through=through, calibration=calibration)
        self.synthesiser = load(checkpoint).to(self.device)
        unet = getattr(getattr(self.synthesiser, "model", None), "unet", None)
        deaf = unet is not None and unet.encoder_hid_proj is None
        self.au_names: tuple[str, ...] = () if deaf else tuple(self.synthesiser.au_names)
        if guide is not None and not self.denoises:
            raise ValueError(f"guide: found '{guide}' for '{self.name}', which does not denoise, expected none")
        self._weights: str | None = None
        self.step_size = 0.0 if self._guidance is None else self._guidance.own_step

    @property
    def label_space(self) -> tuple[str, ...]:
        """Names of the expressions that it makes."""
        return self.synthesiser.label_space

    @property
    def denoises(self) -> bool:
        """Whether it is a diffusion model."""
        return isinstance(self.synthesiser.sampling, SamplingSettings)

    @property
    def needs_a_face(self) -> bool:
        """Whether it makes its faces from a real one."""
        return isinstance(self.synthesiser, TakesSources)

    # ---------------------------------------------------------------- what is made

    def make(self, order: FaceOrder) -> Iterator[Faces]:
        """Yields the faces of an order, expression by expression, some at a time.

        A face is that of ``predict`` with the same weights, settings, seed and sample id.

        Raises:
            ValueError: the generator cannot make them.
        """
        request = self.request(order)
        hooks = self._hooks(order)
        at_a_time = max(1, _PIXELS // self.synthesiser.image_size**2)
        for start in range(0, len(request), at_a_time):
            yield self.synthesiser.synthesise(request.part(start, start + at_a_time), hooks)

    def request(self, order: FaceOrder) -> SynthesisRequest:
        """Returns an order in the generator's own words.

        Raises:
            ValueError: it does not know an expression or an action unit, or has no such setting.
        """
        check_known(order, self.label_space, self.au_names, self.name)
        if self.needs_a_face and order.start is None:
            raise ValueError(
                f"layout: found none for '{self.name}', which makes its faces from a real one, expected an image of a "
                "face"
            )
        names = [name for name in order.expressions for _ in order.sample_ids]
        ids = [index for _ in order.expressions for index in order.sample_ids]
        settings, edits = self.settings(order), dict(order.action_units)
        request = SynthesisRequest.from_expressions(names, ids, order.seed, settings, self.synthesiser.au_names, edits)
        if order.caption is None:
            return request
        if not self.denoises:
            raise ValueError(f"caption: found '{order.caption}' for '{self.name}', which reads none, expected none")
        return replace(request, captions=(order.caption,) * len(request))

    def settings(self, order: FaceOrder) -> SynthesisSettings:
        """Returns the generator's settings with those of an order in their place.

        Raises:
            ValueError: it has no such setting, or a value out of range.
        """
        own: Any = self.synthesiser.sampling
        known = {field.name for field in fields(own)}
        strength = next((name for name in _STRENGTHS if name in known), _STRENGTHS[0])
        asked = {strength: order.strength, "guidance_scale": order.guidance_scale, "num_steps": order.steps}
        changes = {name: value for name, value in asked.items() if value is not None}
        for name, value in changes.items():
            if name not in known:
                raise ValueError(f"{name}: found {value:g} for '{self.name}', which has no such setting, expected none")
        return replace(own, **changes)

    def unknown_words(self, order: FaceOrder) -> list[str]:
        """Returns the words of an order's caption that the generator reads as one and the same."""
        model = getattr(self.synthesiser, "model", None)
        if order.caption is None or model is None or getattr(self.synthesiser, "hparams", {}).get("base") is not None:
            return []
        known = set(model.tokenizer.get_vocab())
        return [word for word in dict.fromkeys(order.caption.lower().split()) if word not in known]

    # ---------------------------------------------------------------- how it is steered

    def _hooks(self, order: FaceOrder) -> list[FaceHook]:
        hooks: list[FaceHook] = []
        settings: Any = self.settings(order)
        steps = getattr(settings, "num_steps", 0)
        if order.start is not None and self.needs_a_face:
            table = _table(order.start, order.expressions)
            synthesiser: Any = self.synthesiser
            synthesiser.use_sources(TrainingSources(table, [], "layout"), order.expressions, settings)
        elif order.start is not None:
            steps = order.start.steps if order.start.steps is not None else max(1, round(0.7 * steps))
            layout = LayoutInitialisation(True, steps)
            layout.use_table(_table(order.start, (order.start.shows,)), [])
            hooks.append(layout)
        if self._guidance is not None and order.guidance_step_size != 0:
            asked = order.guidance_step_size
            self._guidance.own_step = self.step_size if asked is None else asked
            self._guidance.start_step = steps // 2
            hooks.append(self._guidance)
        return hooks

    @property
    def guide(self) -> Any:
        """The network that guides; None = there is none."""
        return None if self._guidance is None else self._guidance.guide

    # ---------------------------------------------------------------- what is said of it

    def record(self, order: FaceOrder, faces: Faces, place: int) -> dict[str, Any]:
        """Returns what made one face: enough to make it again, in plain types.

        Args:
            order: what was wanted.
            faces: those that :meth:`make` has given.
            place: of the face among them.
        """
        request = faces.request
        units = {
            name: round(float(value), 4)
            for name, value in zip(request.au_names, request.action_units[place], strict=True)
            if not np.isnan(value)
        }
        if self._weights is None:
            self._weights = self.synthesiser.weights_fingerprint()
        record: dict[str, Any] = {
            "Software": "synfer",
            "expression": request.expressions[place],
            "seed": request.seed,
            "sample_id": request.sample_ids[place],
            "caption": request.captions[place] if self.denoises else "",
            "action_units": units,
            "settings": asdict(self.settings(order)),  # type: ignore[arg-type]
            "checkpoint": self.name,
            "weights": self._weights,
        }
        if self._guidance is not None and order.guidance_step_size != 0:
            record["guidance"] = self._guidance.recipe()
        if order.start is not None:
            pixels = hashlib.sha256(order.start.path.read_bytes()).hexdigest()[:16]
            record["layout"] = {"image": order.start.path.name, "sha256": pixels, "shows": order.start.shows}
        return record


def suit_threads(maker: FaceMaker) -> None:
    """Has this process compute on one thread where faces are small: there more threads wait longer than they help."""
    if maker.device == "cpu" and maker.synthesiser.image_size <= _SMALL:
        torch.set_num_threads(1)


def as_text(records: list[dict[str, Any]]) -> dict[str, str]:
    """Returns what a PNG says of the faces in it: a value that all share as it is, others as a JSON list."""
    found = {}
    for key in records[0]:
        values = [record[key] for record in records]
        value = values[0] if all(other == values[0] for other in values) else values
        found[key] = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return found


def load(checkpoint: str | Path) -> Synthesiser:
    """Loads whatever makes faces: a trained module of ours, or a Stable Diffusion.

    Raises:
        FileNotFoundError: nothing there.
        ValueError: nothing that makes faces.
    """
    path = shipped(checkpoint)
    if is_base(path):
        return generator_of_base(str(path))
    name = str(checkpoint)
    if not path.exists() and not path.parent.exists() and re.fullmatch(r"[\w.-]+/[\w.-]+(?<!\.ckpt)", name):
        return generator_of_base(name)
    if not path.exists():
        raise FileNotFoundError(
            f"checkpoint '{checkpoint}': found no such file or folder, expected a checkpoint, a run folder or a folder "
            "of weights"
        )
    return load_synthesiser(path)


def _table(face: StartFace, expressions: tuple[str, ...]) -> SampleTable:
    """Returns the rows of one image, shown once for each expression that it may pass for."""
    image = read_image(face.path)
    check_not_constant(image, str(face.path))
    n = len(expressions)
    label = np.array([EXPRESSIONS.index(name) for name in expressions], dtype=np.int64)
    digest = hashlib.sha256(image.tobytes()).hexdigest()[:16]
    return SampleTable(
        ArrayImages(np.stack([image] * n)),
        label,
        one_hot(label, len(EXPRESSIONS)),
        np.array([face.path.name if n == 1 else f"{face.path.name}:{name}" for name in expressions]),
        np.array([digest] * n),
        EXPRESSIONS,
        "train",
    )
