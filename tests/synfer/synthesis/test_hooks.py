"""Hooks are told by what they can do, whatever else they are."""

from __future__ import annotations

from typing import Any

import pytest

from callbacks.synthesis.face_table import FaceTable
from callbacks.synthesis.layout_initialisation import LayoutInitialisation
from callbacks.synthesis.pseudo_labeller import PseudoLabeller
from callbacks.synthesis.semantic_guidance import SemanticGuidance
from synfer.synthesis.hooks import DenoisingHook, FaceHook, OutputHook, active_hooks, refuse_denoising_hooks


class Plain:
    """Acts on finished faces, and says nothing of being enabled."""

    def on_faces(self, faces: Any) -> None: ...


class Steering(DenoisingHook):
    """Takes what it does not need from the protocol."""

    def on_denoising_step(self, state: Any) -> None: ...


def test_hooks_are_found_among_callbacks_in_their_order() -> None:
    layout, off, plain, table = LayoutInitialisation(True), SemanticGuidance(False), Plain(), FaceTable()
    assert active_hooks([layout, object(), off, plain, table]) == [layout, plain, table]


def test_what_acts_on_denoising_is_a_denoising_hook() -> None:
    steering = (LayoutInitialisation(), SemanticGuidance(), Steering())
    assert all(isinstance(hook, DenoisingHook) for hook in steering)
    finished = (PseudoLabeller(), FaceTable(), Plain())
    assert all(isinstance(hook, FaceHook) and not isinstance(hook, DenoisingHook) for hook in finished)


def test_what_acts_on_outputs_is_told_from_what_acts_before_the_network_runs() -> None:
    assert isinstance(SemanticGuidance(), OutputHook)
    assert not any(isinstance(hook, OutputHook) for hook in (LayoutInitialisation(), Plain(), FaceTable()))


def test_refusal_names_hook_setting_and_synthesiser() -> None:
    refuse_denoising_hooks([PseudoLabeller(), Plain()], Plain())
    with pytest.raises(ValueError) as refused:
        refuse_denoising_hooks([Plain(), SemanticGuidance()], Plain())
    assert str(refused.value) == (
        "guidance.enabled=true: found SemanticGuidance, which acts while a diffusion model denoises, beside Plain, "
        "which does not denoise; expected guidance.enabled=false"
    )
    with pytest.raises(ValueError, match=r"^Steering: found Steering, which acts .*; expected none such hook$"):
        refuse_denoising_hooks([Steering()], Plain())
