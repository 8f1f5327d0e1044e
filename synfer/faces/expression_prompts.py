"""Sentences that describe a face of each expression, for models that compare pictures with words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from synfer.faces.action_units import FACS_PROTOTYPES
from synfer.faces.au_sentences import AT_REST, au_phrase
from synfer.faces.captions import ADJECTIVES, TEMPLATES
from synfer.faces.expressions import canonical_expression

PromptSet = Literal["canonical", "templates", "actions", "all"]

_OF_ACTIONS = ("a photo of a face with {}", "a person with {}", "a close-up of a face: {}")


def prompts_of(prompts: PromptSet | Mapping[str, Sequence[str] | str], names: Sequence[str]) -> dict[str, list[str]]:
    """Returns the sentences of each expression, by name and in the order of the names.

    Args:
        prompts: "canonical" (one sentence), "templates" (the project's captions), "actions" (what FACS says that the
            face does: "raised cheeks and pulled-up lip corners"), "all" (templates and actions), or one's own:
            expression → sentence or sentences.
        names: of the expressions.

    Raises:
        ValueError: an expression without a sentence, an unknown one, or an unknown set.
    """
    if isinstance(prompts, Mapping):
        given = {canonical_expression(str(name)): [v] if isinstance(v, str) else list(v) for name, v in prompts.items()}
        for name in names:
            if not given.get(name) or not all(isinstance(text, str) and text.strip() for text in given[name]):
                raise ValueError(f"prompts: found no sentence for '{name}', expected one or more for each expression")
        return {name: given[name] for name in names}
    if prompts not in ("canonical", "templates", "actions", "all"):
        raise ValueError(f"prompts: found '{prompts}', expected canonical, templates, actions, all, or a map by name")
    found: dict[str, list[str]] = {name: [] for name in names}
    for name in names:
        if prompts == "canonical":
            found[name] = [TEMPLATES[0].format(ADJECTIVES[name])]
        if prompts in ("templates", "all"):
            found[name] += [text.format(ADJECTIVES[name]) for text in TEMPLATES]
        if prompts in ("actions", "all"):
            found[name] += [text.format(_actions(name)) for text in _OF_ACTIONS]
    return found


def _actions(name: str) -> str:
    units = [au_phrase(unit) for unit in FACS_PROTOTYPES[name].core]
    return " and ".join([", ".join(units[:-1]), units[-1]] if len(units) > 1 else units) if units else f"a {AT_REST}"
