"""One line on what makes the faces of a run, and how."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, fields, is_dataclass
from typing import Any

from synfer.synthesis.hooks import active_hooks
from synfer.synthesis.request import SamplingSettings

LONGEST = 60
"""Characters of one setting; longer ones are in config.yaml."""


def face_sentence(
    synthesiser: Any, source: str, settings: Any, callbacks: Iterable[object], plan: str, *more: str
) -> str:
    """Returns for example "faces: ExpressionGenerator of runs/g; ddim 12 steps, guidance scale 2; plan even".

    Args:
        synthesiser: what makes them.
        source: where its weights are from; "" = the run's own model.
        settings: how it makes them; None = its own settings.
        callbacks: the trainer's, of which those that act on faces are named.
        plan: how often which expression is made.
        more: what else there is to say.
    """
    of = f" of {source}" if source else ""
    words = [f"{type(synthesiser).__name__}{of}", _settings_in_words(settings or synthesiser.sampling)]
    words += [hook.in_words() for hook in active_hooks(callbacks) if hasattr(hook, "in_words")]
    return "faces: " + "; ".join(word for word in [*words, f"plan {plan}", *more] if word)


def _settings_in_words(settings: Any) -> str:
    """Returns sampler, steps and guidance scale, and every other setting that is not the default."""
    if not is_dataclass(settings) or isinstance(settings, type):
        return ""
    words = []
    skipped: set[str] = set()
    if isinstance(settings, SamplingSettings):
        words.append(f"{settings.scheduler} {settings.num_steps} steps, guidance scale {settings.guidance_scale:g}")
        skipped = {"scheduler", "num_steps", "guidance_scale"}
    default = asdict(type(settings)())
    for field in fields(settings):
        value = getattr(settings, field.name)
        text = f"{field.name.replace('_', ' ')} {value}"
        if field.name not in skipped and _plain(value) != _plain(default.get(field.name)) and len(text) <= LONGEST:
            words.append(text)
    return ", ".join(words)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
