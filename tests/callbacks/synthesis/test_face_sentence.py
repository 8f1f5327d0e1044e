"""One line on what makes the faces."""

from __future__ import annotations

from types import SimpleNamespace

from callbacks.synthesis.face_sentence import face_sentence
from callbacks.synthesis.layout_initialisation import LayoutInitialisation
from callbacks.synthesis.pseudo_labeller import PseudoLabeller
from callbacks.synthesis.semantic_guidance import SemanticGuidance
from synfer.synthesis.request import SamplingSettings


class Maker(SimpleNamespace):
    """Stands for a synthesiser."""


def test_names_source_settings_guide_vote_layout_and_plan() -> None:
    guide, vote, layout = SemanticGuidance(step_size=0.2, start_step=7), PseudoLabeller(), LayoutInitialisation()
    for callback in (guide, vote, layout):
        callback.enabled = True
    guide.guide_path, vote.voter_paths, vote.discard_below = "runs/guide", ["runs/a", "runs/b"], 0.5
    settings = SamplingSettings(num_steps=12, guidance_scale=7.5, au_edits={"AU12": 0.8})
    line = face_sentence(Maker(), "runs/g", settings, [layout, guide, object(), vote], "fill", "50% of each batch")
    assert line == (
        "faces: Maker of runs/g; ddim 12 steps, guidance scale 7.5, au edits {'AU12': 0.8}; "
        "layouts of training faces of any expression (35 steps inverted); "
        "guided by runs/guide through the text (step size 0.2, from step 7); "
        "vote of 2 (runs/a, runs/b), discards below 0.5; plan fill; 50% of each batch"
    )


def test_what_is_switched_off_is_not_named() -> None:
    line = face_sentence(Maker(sampling=SamplingSettings()), "", None, [LayoutInitialisation()], "even")
    assert line == "faces: Maker; ddim 50 steps, guidance scale 2; plan even"
