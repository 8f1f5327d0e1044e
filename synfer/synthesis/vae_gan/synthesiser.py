"""Makes faces from the perturbed codes of real ones, with the encoder and the decoder of a VAE-GAN."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from synfer.faces.face_shape import resize_faces
from synfer.foundation.bfloat16 import bfloat16_autocast
from synfer.foundation.counter_based_random import keyed_uniform
from synfer.foundation.fingerprint import fingerprint
from synfer.foundation.random_streams import Stream
from synfer.synthesis.faces import Faces
from synfer.synthesis.finite_faces import check_finite_faces
from synfer.synthesis.hooks import FaceHook, refuse_denoising_hooks
from synfer.synthesis.request import SynthesisRequest, SynthesisSettings, initial_noise
from synfer.synthesis.sources import SourceFaces, choose_others, choose_sources
from synfer.synthesis.synthesiser import check_request
from synfer.synthesis.vae_gan.perturbation import ANY, OWN, PerturbationSettings

_MEAN_OVER = 512  # faces of an expression whose codes its mean is taken over
_BATCH = 256  # faces encoded at a time
_MOST_CODES = 200_000  # kept; more of them are forgotten and made again
_OVERFLOW = "overflow while decoding: a smaller perturbation.strength"


class EncoderDecoder(Protocol):
    """The networks that faces go through."""

    @property
    def encoder(self) -> nn.Module:
        """Faces (n, C, H, W) in [−1, 1] → mean and log-variance of their codes, (n, Z) each."""
        ...

    @property
    def decoder(self) -> nn.Module:
        """Codes (n, Z), and labels int64 (n,) or None → faces (n, C, H, W), about [−1, 1]."""
        ...

    latent_size: int
    channels: int
    num_classes: int


class _Codes:
    """Codes of sources that are known already: a rare expression's few faces are asked for again and again."""

    def __init__(self) -> None:
        self._place: dict[int, int] = {}
        self._known: tuple[Tensor, Tensor] | None = None
        self._under: object = None

    def clear(self) -> None:
        self._place, self._known = {}, None

    def of(
        self, rows: np.ndarray, state: object, encode: Callable[[np.ndarray], tuple[Tensor, Tensor]]
    ) -> tuple[Tensor, Tensor]:
        """Returns mean and deviation of the rows' codes; encodes those that are not known under this state."""
        if state != self._under or len(self._place) > _MOST_CODES:
            self.clear()
            self._under = state
        new = [row for row in dict.fromkeys(rows.tolist()) if row not in self._place]
        if new:
            found = encode(np.array(new, dtype=np.int64))
            self._place |= {row: len(self._place) + i for i, row in enumerate(new)}
            known = self._known
            self._known = found if known is None else (torch.cat([known[0], found[0]]), torch.cat([known[1], found[1]]))
        assert self._known is not None
        places = torch.tensor([self._place[row] for row in rows.tolist()], device=self._known[0].device)
        return self._known[0][places], self._known[1][places]


class VAEGANSynthesiser:
    """Encodes a training face, perturbs its code and decodes it (arXiv 2411.17254).

    Which face is encoded, and the noise, are functions of (seed, sample id) and of the training faces alone. It takes
    no action units, and which ones a finished face shows is not known.

    Args:
        networks: encoder and decoder; whoever trains them holds the same.
        label_space: names of the expressions.
        image_size: side of the faces in pixels.
        sampling: default settings.
        bf16: run the networks in bfloat16 autocast.
        training_step: returns the step of the training that the networks are in; None = in none. For errors.

    Attributes:
        sources: training faces that it encodes; None before :meth:`use_sources`.
    """

    au_names: tuple[str, ...] = ()

    def __init__(
        self,
        networks: EncoderDecoder,
        label_space: tuple[str, ...],
        image_size: int,
        sampling: PerturbationSettings,
        bf16: bool = True,
        training_step: Callable[[], int | None] | None = None,
    ) -> None:
        self.networks = networks
        self.label_space = label_space
        self.image_size = image_size
        self.sampling = sampling
        self.bf16 = bf16
        self._training_step = training_step
        self.sources: SourceFaces | None = None
        self._codes = _Codes()

    @property
    def device(self) -> torch.device:
        """Where the networks lie."""
        return next(self.networks.decoder.parameters()).device

    def to(self, device: Any) -> VAEGANSynthesiser:
        """Moves the networks."""
        for part in (self.networks.encoder, self.networks.decoder):
            part.to(device)
        self._codes.clear()
        return self

    def weights_fingerprint(self) -> str:
        """Returns 16 hex digits of SHA-256 over encoder and decoder; the discriminator makes no face."""
        return fingerprint(self._weights())

    def recipe(self) -> dict[str, Any]:
        """Returns what its faces are a function of beside weights, settings and seed: the faces that they come from."""
        return {} if self.sources is None else {"sources": self.sources.fingerprint()}

    def use_sources(
        self, sources: SourceFaces, expressions: Sequence[str], settings: SynthesisSettings | None = None
    ) -> None:
        """Sets the training faces that are encoded.

        Args:
            sources: none of them an evaluation image.
            expressions: names that are to be made of them.
            settings: how; None = its own.

        Raises:
            ValueError: no face of one of these expressions (where the mode needs one), or one alone to interpolate.
        """
        self.sources = sources
        self._codes.clear()
        self._check_sources(expressions, settings if isinstance(settings, PerturbationSettings) else self.sampling)

    # ---------------------------------------------------------------- synthesis

    @torch.no_grad()
    def synthesise(self, request: SynthesisRequest, hooks: Sequence[FaceHook] = ()) -> Faces:
        """Makes the requested faces, and names in ``layout_source`` which face each was made from.

        Args:
            request: what to make.
            hooks: a vote, a table of faces, …; none that acts on denoising.

        Returns:
            n faces with their labels; their action units are NaN.

        Raises:
            ValueError: an expression outside the label space or without a training face, a hook on denoising, no
                sources, settings of another kind, or a face that is not finite.
        """
        check_request(self, request)
        refuse_denoising_hooks(hooks, self)
        settings = request.settings if isinstance(request.settings, PerturbationSettings) else self.sampling
        self._check_sources(sorted(set(request.expressions)), settings)
        parts = (self.networks.encoder, self.networks.decoder)
        was_training = {module: module.training for part in parts for module in part.modules()}
        for part in parts:
            part.eval()
        try:
            code, rows = self._perturbed(request, settings)
            image = (self.decode(code, request.expressions) + 1) / 2
        finally:
            for module, mode in was_training.items():
                module.training = mode
        step = None if self._training_step is None else self._training_step()
        check_finite_faces(image, request, self._weights(), _OVERFLOW, step)
        images = (image.clamp(0, 1) * 255).round().to(torch.uint8).expand(-1, 3, -1, -1)
        faces = Faces.as_asked(request, images.contiguous(), self.label_space, _number_format(self.bf16))
        faces.layout_source = self._known_sources().sample_ids(rows)
        for hook in hooks:
            hook.on_faces(faces)
        return faces

    @torch.no_grad()
    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Returns mean and standard deviation of the codes, float32 (n, Z) each, of uint8 faces (n, 1 or 3, H, W)."""
        found: list[tuple[Tensor, Tensor]] = []
        for part in images.split(_BATCH):
            with self._autocast():
                mean, log_variance = self.networks.encoder(self.as_input(part))
            found.append((mean.float(), (log_variance.float() / 2).exp()))
        return torch.cat([mean for mean, _ in found]), torch.cat([deviation for _, deviation in found])

    def codes_of(self, rows: np.ndarray) -> tuple[Tensor, Tensor]:
        """Returns the same of sources, int64 (n,); each is encoded once, until the weights change."""
        return self._codes.of(rows, self._state(), lambda new: self.encode(self._known_sources().images(new)))

    def decode(self, code: Tensor, expressions: Sequence[str]) -> Tensor:
        """Returns faces float32 (n, C, H, W), about [−1, 1], of codes (n, Z) and what they are to show."""
        label = None
        if self.networks.num_classes:
            label = torch.tensor([self.label_space.index(name) for name in expressions], device=code.device)
        with self._autocast():
            return self.networks.decoder(code, label).float()

    def as_input(self, images: Tensor) -> Tensor:
        """Returns what the encoder sees, (n, C, S, S) in [−1, 1], of uint8 faces (n, 1 or 3, H, W)."""
        faces = resize_faces(images.to(self.device).float() / 127.5 - 1, self.image_size)
        if self.networks.channels == 1:
            return faces.mean(1, keepdim=True)
        return faces.expand(-1, 3, -1, -1)

    # ---------------------------------------------------------------- codes

    def _perturbed(self, request: SynthesisRequest, settings: PerturbationSettings) -> tuple[Tensor, np.ndarray]:
        """Returns the codes to decode, float32 (n, Z), and the rows of the faces that they come from, int64 (n,)."""
        sources = self._known_sources()
        uniform = keyed_uniform(request.sample_ids, 2, request.seed, Stream.SOURCE_FACE)
        wanted = list(request.expressions)
        rows = self._source_rows(wanted, settings, uniform[:, 0])
        mean, deviation = self.codes_of(rows)
        if settings.mode == "noise":
            noise = initial_noise(request, (self.networks.latent_size,)).to(mean)
            return mean + settings.strength * deviation * noise, rows
        if settings.mode == "interpolate":
            others = self._others(wanted, rows, uniform[:, 1])
            return mean + settings.strength * (self.codes_of(others)[0] - mean), rows
        shown = [sources.label_space[code] for code in sources.labels(rows)]
        means = {name: self._mean_code(name) for name in {*shown, *wanted}}
        direction = torch.stack([means[b] - means[a] for a, b in zip(shown, wanted, strict=True)])
        return mean + settings.strength * direction, rows

    def _source_rows(self, wanted: Sequence[str], settings: PerturbationSettings, uniform: np.ndarray) -> np.ndarray:
        """Returns the face that each is made from, int64 (n,); one that shows the wanted already has nowhere to go."""
        sources = self._known_sources()
        if settings.source_of == OWN:
            return choose_sources(sources, wanted, uniform)
        other = np.array([settings.source_of in (ANY, name) for name in wanted])
        rows = np.empty(len(wanted), dtype=np.int64)
        if other.any():
            names = [name for name, is_other in zip(wanted, other, strict=True) if is_other]
            rows[other] = choose_others(sources, names, uniform[other])
        if not other.all():
            rows[~other] = choose_sources(sources, [settings.source_of] * int((~other).sum()), uniform[~other])
        return rows

    def _others(self, expressions: Sequence[str], rows: np.ndarray, uniform: np.ndarray) -> np.ndarray:
        """Returns another face of the same expression for each row, each of the others as likely as any."""
        others = np.empty_like(rows)
        for i, (name, row) in enumerate(zip(expressions, rows, strict=True)):
            members = self._known_sources().rows_of(name)
            members = members[members != row]
            others[i] = members[int(uniform[i] * len(members))]
        return others

    def _mean_code(self, expression: str) -> Tensor:
        """Returns the mean code of the training faces of an expression (of 512 of them where there are more), (Z,)."""
        members = self._known_sources().rows_of(expression)
        order = keyed_uniform(members, 1, Stream.MEAN_CODES)[:, 0].argsort(kind="stable")
        return self.codes_of(np.sort(members[order[:_MEAN_OVER]]))[0].mean(0)

    def _state(self) -> tuple[Any, ...]:
        """Returns what changes with the encoder's weights, with their place and their number format."""
        versions = ((w, 0 if w.is_inference() else w._version) for w in self.networks.encoder.parameters())
        # Whoever moves or casts a module leaves version and identity of its weights as they are, and so does a fused
        # optimiser.
        step = None if self._training_step is None else self._training_step()
        return step, *(part for w, version in versions for part in (id(w), version, w.device, w.dtype))

    def _autocast(self) -> AbstractContextManager[Any]:
        return bfloat16_autocast(self.device, self.bf16, "model.bf16_sampling")

    def _known_sources(self) -> SourceFaces:
        if self.sources is None:
            raise ValueError(
                f"{type(self).__name__}: found no training faces to encode, expected use_sources() before synthesise()"
            )
        return self.sources

    def _check_sources(self, expressions: Sequence[str], settings: PerturbationSettings) -> None:
        """Refuses expressions that the training faces cannot serve."""
        sources = self._known_sources()
        needed = list(expressions)
        if settings.mode == "transfer" and settings.source_of != ANY:
            needed.append(settings.source_of)
        for name in needed:
            least, found = 2 if settings.mode == "interpolate" else 1, len(sources.rows_of(name))
            if found < least:
                raise ValueError(
                    f"perturbation.mode={settings.mode}: found {found} training faces of '{name}', expected at least "
                    f"{least} to make more of them"
                )

    def _weights(self) -> list[tuple[str, Tensor]]:
        parts = (("encoder", self.networks.encoder), ("decoder", self.networks.decoder))
        return [found for prefix, part in parts for found in part.named_parameters(prefix=prefix)]


def _number_format(bf16: bool) -> torch.dtype:
    return torch.bfloat16 if bf16 else torch.float32
