"""The page: what is on it, and what each control does; how it looks is in ``face_cards``."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

import gradio as gr

from experiments.command_line.errors import explain
from experiments.sample.face_maker import FaceMaker, as_text
from experiments.sample.face_order import FaceOrder, StartFace
from experiments.serve.face_cards import bars_of, cards, face_card
from experiments.serve.face_readers import FaceReaders
from synfer.faces.action_units import REGIONS
from synfer.faces.au_sentences import au_phrase
from synfer.synthesis.conditions import draw_conditions

MOVED = 0.004
"""A slider this far from where it was put has been moved by hand."""

_CONTROLS = (
    *("expression", "strength", "seed", "count", "guidance_scale", "steps"),
    *("guidance_step_size", "layout", "layout_shows", "layout_share"),
)
"""Names of the controls of a face, in the order in which the page hands over their values; sliders of units follow."""


class FacePage:
    """What stands behind the page: a generator, and whoever reads faces.

    Args:
        maker: makes the faces.
        readers: say what they show.
        hint: a sentence under the tab that reads a face; "" = none.
    """

    def __init__(self, maker: FaceMaker, readers: FaceReaders, hint: str = "") -> None:
        self.maker, self.readers, self.hint = maker, readers, hint

    # ---------------------------------------------------------------- what the controls do

    def show(self, edits: dict[str, float], **wanted: Any) -> str:
        """Returns the cards of the faces that the controls ask for.

        Args:
            edits: action units that were moved by hand.
            wanted: values of the controls, by the names in ``_CONTROLS``.

        Raises:
            ValueError: what cannot be made.
        """
        order = self.order(edits, **wanted)
        figures = []
        for faces in self.maker.make(order):
            images = faces.images.cpu()
            for place, readings in enumerate(self.readers.read(images)):
                record = self.maker.record(order, faces, place)
                name, number = record["expression"], record["sample_id"]
                title = f"seed {order.seed}, face {number}"
                file_name = f"{name}-seed{order.seed}-{number}.png"
                figures.append(face_card(images[place], title, file_name, as_text([record]), readings, name))
        return cards(figures)

    def order(self, edits: dict[str, float], **wanted: Any) -> FaceOrder:
        """Returns the controls' values as an order.

        Raises:
            ValueError: a value out of range.
        """
        start = None
        if wanted["layout"]:
            steps = wanted["steps"] or getattr(self.maker.synthesiser.sampling, "num_steps", 1)
            inverted = min(max(1, round(wanted["layout_share"] * steps)), max(1, int(steps) - 1))
            start = StartFace(Path(wanted["layout"]), wanted["layout_shows"], inverted)
        seed = wanted["seed"]
        if seed is None or seed != int(seed) or not 0 <= seed < 2**63:
            raise ValueError(f"seed: found {seed}, expected a whole number of at least 0")
        return FaceOrder(
            (wanted["expression"],),
            seed=int(seed),
            count=int(wanted["count"]),
            action_units=edits,
            strength=wanted["strength"],
            guidance_scale=wanted["guidance_scale"] if self.maker.denoises else None,
            steps=int(wanted["steps"]) if self.maker.denoises else None,
            start=start,
            guidance_step_size=wanted["guidance_step_size"],
        )

    def drawn_units(self, expression: str, seed: int) -> dict[str, float]:
        """Returns the action units that the first face has by itself, by name, in [0, 1]."""
        _, units = draw_conditions([expression], [0], int(seed), self.maker.au_names)
        return {name: float(value) for name, value in zip(self.maker.au_names, units[0], strict=True)}

    def moved(self, values: Sequence[float], shown: dict[str, float], edits: dict[str, float]) -> dict[str, float]:
        """Returns the action units that were moved by hand, with their values.

        Args:
            values: where the sliders stand, in the order of the generator's units.
            shown: where they were put for this face.
            edits: those that had been moved before.
        """
        now = dict(zip(self.maker.au_names, values, strict=True))
        return {
            name: float(value)
            for name, value in now.items()
            if name in edits or abs(value - shown.get(name, 0.0)) > MOVED
        }

    def read(self, path: str | None) -> str:
        """Returns the bars of an uploaded face.

        Raises:
            ValueError: no image, or nobody who reads it.
        """
        if not path:
            return ""
        if not len(self.readers):
            raise ValueError("found nobody who reads a face, expected --judge or --voter when the page is started")
        return f'<div class="bars">{"".join(bars_of(reading) for reading in self.readers.read_file(path))}</div>'

    # ---------------------------------------------------------------- what is on the page

    def blocks(self) -> gr.Blocks:
        """Returns the page."""
        with gr.Blocks(title="synfer", analytics_enabled=False, delete_cache=(600, 600)) as page:
            gr.Markdown("# Faces with an expression")
            with gr.Tab("Make a face"):
                self._making_tab(page)
            with gr.Tab("Read a face"):
                self._reading_tab()
        return page

    def _making_tab(self, page: gr.Blocks) -> None:
        maker, own = self.maker, self.maker.synthesiser.sampling
        begin = maker.label_space[min(1, len(maker.label_space) - 1)]
        drawn = self.drawn_units(begin, 1)
        state = gr.State({"shown": drawn, "edits": {}})
        with gr.Row():
            with gr.Column(scale=2, min_width=320):
                expression = gr.Radio(list(maker.label_space), value=begin, label="Expression", elem_id="expression")
                strength = gr.Slider(
                    *(0, 3),
                    value=getattr(own, "expression_strength", getattr(own, "strength", 1.0)),
                    step=0.1,
                    label="Strength",
                    info="0 = neutral, 1 = the expression, above = more of it" if maker.denoises else None,
                    elem_id="strength",
                )
                with gr.Row(equal_height=True):
                    seed = gr.Number(1, precision=0, label="Seed", min_width=100, elem_id="seed")
                    count = gr.Slider(1, 6, value=3, step=1, label="Faces", min_width=160, elem_id="count")
                another = gr.Button("Other people", size="md", elem_id="another")
                sliders = self._unit_sliders(drawn)
                reset = gr.Button("Action units of the expression again", visible=bool(sliders), size="sm")
                with gr.Accordion("How it is made", open=False, elem_id="how"):
                    guidance_scale = gr.Slider(
                        *(1, 8),
                        value=getattr(own, "guidance_scale", 1),
                        step=0.1,
                        label="Guidance scale",
                        info="how closely it keeps to the words; 1 = off",
                        visible=maker.denoises,
                    )
                    steps = gr.Slider(
                        *(2, 60),
                        value=getattr(own, "num_steps", 2),
                        step=1,
                        label="Denoising steps",
                        visible=maker.denoises,
                    )
                    guide_step = gr.Slider(
                        *(0, 12),
                        value=maker.step_size,
                        step=0.1,
                        label="Step of the guide",
                        info="how far the classifier of --guide moves the text, or the face; 0 = it does not guide",
                        visible=maker.guide is not None,
                    )
                with gr.Accordion("Begin at a face", open=maker.needs_a_face, elem_id="begin"):
                    layout = gr.Image(
                        type="filepath",
                        label="A face whose layout is taken",
                        sources=["upload", "clipboard"],
                        height=200,
                        elem_id="layout",
                    )
                    with gr.Row(visible=maker.denoises):
                        shows = gr.Dropdown(list(maker.label_space), value=maker.label_space[0], label="It shows")
                        share = gr.Slider(0.1, 0.95, value=0.7, step=0.05, label="Changed", info="share of the steps")
            with gr.Column(scale=3, min_width=320, elem_id="shown"):
                faces = gr.HTML(elem_id="faces")
        controls = [expression, strength, seed, count, guidance_scale, steps, guide_step, layout, shows, share]
        inputs = [state, *controls, *sliders]

        def changed(state: dict[str, Any], *values: Any) -> tuple[Any, ...]:
            wanted, units = self._wanted(values)
            edits = self.moved(units, state["shown"], state["edits"])
            return self.show(edits, **wanted), {"shown": state["shown"], "edits": edits}

        def anew(state: dict[str, Any], keep: bool, *values: Any) -> tuple[Any, ...]:
            wanted, units = self._wanted(values)
            edits = self.moved(units, state["shown"], state["edits"]) if keep else {}
            shown = {**self.drawn_units(wanted["expression"], wanted["seed"] or 0), **edits}
            html = self.show(edits, **wanted)
            return html, {"shown": shown, "edits": edits}, *(round(value, 2) for value in shown.values())

        once: dict[str, Any] = {
            "trigger_mode": "always_last",
            "show_progress": "minimal",
            "show_progress_on": faces,
            "api_visibility": "private",
        }
        small = [strength, count, guidance_scale, steps, share, guide_step, *sliders]
        gr.on(
            [c.input for c in small] + [shows.input, layout.change], in_words(changed), inputs, [faces, state], **once
        )
        outputs = [faces, state, *sliders]
        for_person = in_words(lambda state, *values: anew(state, True, *values))
        for_expression = in_words(lambda state, *values: anew(state, False, *values))
        seed.submit(for_person, inputs, outputs, **once)
        seed.blur(for_person, inputs, outputs, **once)
        gr.on([expression.input, reset.click], for_expression, inputs, outputs, **once)
        another.click(lambda seed: int(seed or 0) + 1, seed, seed, show_progress="hidden").then(
            for_person, inputs, outputs, **once
        )
        if not maker.needs_a_face:
            page.load(for_expression, inputs, outputs, **once)

    def _wanted(self, values: Sequence[Any]) -> tuple[dict[str, Any], Sequence[float]]:
        """Returns the values of the controls by name, and those of the sliders of action units."""
        return dict(zip(_CONTROLS, values[: len(_CONTROLS)], strict=True)), values[len(_CONTROLS) :]

    def _unit_sliders(self, drawn: dict[str, float]) -> list[gr.Slider]:
        """Returns a slider for each action unit, in the generator's order, a tab for each region of the face."""
        sliders: dict[str, gr.Slider] = {}
        regions = {region: [name for name in units if name in drawn] for region, units in REGIONS.items()}
        if not any(regions.values()):
            return []
        gr.Markdown("**Action units**", elem_classes="heading")
        with gr.Tabs(elem_id="units"):
            for region in sorted((name for name in regions if regions[name]), key=lambda name: name != "mouth"):
                sided = [name for name in regions[region] if name.startswith(("AUL", "AUR"))]
                with gr.Tab(region.capitalize()):
                    with gr.Row():
                        for name in (name for name in regions[region] if name not in sided):
                            sliders[name] = _unit_slider(name, drawn[name])
                    if sided:
                        with gr.Accordion("One side alone", open=False), gr.Row():
                            for name in sided:
                                sliders[name] = _unit_slider(name, drawn[name])
        return [sliders[name] for name in self.maker.au_names]

    def _reading_tab(self) -> None:
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                face = gr.Image(
                    type="filepath", label="A face", sources=["upload", "clipboard"], height=320, elem_id="face"
                )
            with gr.Column(scale=3, min_width=300):
                seen = gr.HTML(elem_id="seen")
                if self.hint:
                    gr.HTML(f'<p class="hint">{self.hint}</p>')
        face.change(in_words(self.read), face, seen, show_progress="hidden", api_visibility="private")


def _unit_slider(name: str, value: float) -> gr.Slider:
    return gr.Slider(
        *(0, 1),
        value=round(value, 2),
        step=0.01,
        label=f"{name} {au_phrase(name)}",
        min_width=170,
        buttons=[],
        elem_classes="unit",
        elem_id=name,
    )


def in_words(action: Callable[..., Any]) -> Callable[..., Any]:
    """Returns an action whose errors a person reads as one line on the page; of a bug the traceback is in the log."""

    @wraps(action)
    def told(*values: Any) -> Any:
        try:
            return action(*values)
        except Exception as error:
            line = explain(error, any_origin=True)
            if line is None:
                logging.getLogger(__name__).exception("the page met a bug")
                line = "something went wrong here; the terminal in which the page was started says what"
            raise gr.Error(" ".join(line.split()), duration=15, print_exception=False) from error

    return told


def theme() -> gr.themes.Base:
    """Returns a theme whose fonts are those of the machine: nothing is fetched."""
    sans, mono = ["ui-sans-serif", "system-ui", "sans-serif"], ["ui-monospace", "monospace"]
    return gr.themes.Base(primary_hue="blue", neutral_hue="slate", font=sans, font_mono=mono)
