"""Charts: the lines are the right ones, the PNGs are drawn, the SVGs follow the page's colours."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from experiments.compare.charts import draw_charts, lines_of, numeric_keys, shown_groups
from experiments.compare.drawing import COLOURS, MAX_LINES
from experiments.compare.groups import Comparison, compare
from experiments.compare.run_folders import read_run_folders
from tests.fixtures.synthetic_runs import write_run

RATIOS = (0.0, 0.5, 1.0)


def compared(folder: Path) -> Comparison:
    runs, _ = read_run_folders([folder])
    return compare(runs, "val/accuracy")


def two_generators(folder: Path) -> Comparison:
    for generator in ("own", "transfer"):
        for ratio in RATIOS:
            if ratio == 0 and generator == "transfer":
                continue  # one control for both
            for seed in (1, 2):
                accuracy = 0.6 + 0.05 * ratio + 0.01 * seed + 0.02 * (generator == "transfer")
                generator_path = f"runs/{generator}/checkpoints/last.ckpt"
                name = f"{generator}-{ratio}-{seed}"
                write_run(folder / name, ratio, seed, accuracy, synthesis__generator=generator_path)
    return compared(folder)


def test_the_control_belongs_to_the_line_of_each_generator(tmp_path: Path) -> None:
    found = two_generators(tmp_path)
    assert numeric_keys(found) == ["data.synthetic_ratio"]
    lines = lines_of(found, "data.synthetic_ratio")
    assert list(lines) == ["generator own", "generator transfer"]
    for points in lines.values():
        assert [x for x, _ in points] == list(RATIOS)
        assert points[0][1] is found.groups[0]


def test_guidance_that_is_off_at_every_number_is_a_line_of_its_own(tmp_path: Path) -> None:
    for scale in (2.0, 4.0):
        settings = {"synthesis__sampling": {"guidance_scale": scale}}
        write_run(tmp_path / f"off-{scale}", 0.5, guidance__enabled=False, **settings)
        for step_size in (0.1, 0.2):
            write_run(tmp_path / f"{step_size}-{scale}", 0.5, guidance__step_size=step_size, **settings)
    lines = lines_of(compared(tmp_path), "synthesis.sampling.guidance_scale")
    assert list(lines) == ["guidance.step_size off", "guidance.step_size 0.1", "guidance.step_size 0.2"]
    assert all([x for x, _ in points] == [2, 4] for points in lines.values())


def test_files_and_svgs(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "report.html").touch()
    (out / "curve_of_an_earlier_comparison.png").touch()
    charts = draw_charts(two_generators(tmp_path), out)
    assert [chart.name for chart in charts] == ["curve_synthetic_ratio", "differences", "learning", "recall"]
    assert {path.stem for path in out.glob("*.png")} == {chart.name for chart in charts}
    for chart in charts:
        with Image.open(out / f"{chart.name}.png") as picture:
            assert picture.width == 1000
            pixels = np.asarray(picture.convert("RGB"))
        assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 10  # something was drawn
        ElementTree.fromstring(chart.svg.replace("xlink:", ""))
        used = {colour.lower() for colour in re.findall(r"#[0-9a-fA-F]{6}\b", chart.svg)}
        assert used <= {"#000000"}, "a colour that does not change with the page"
        assert "var(--ink)" in chart.svg and "var(--series-1)" in chart.svg and "var(--font)" in chart.svg
    assert "synthetic share of each batch" in charts[0].svg and "val/accuracy in %" in charts[0].svg


def test_ids_of_two_charts_do_not_meet(tmp_path: Path) -> None:
    charts = draw_charts(two_generators(tmp_path), tmp_path)
    ids = [name for chart in charts for name in re.findall(r' id="([^"]+)"', chart.svg)]
    assert ids and len(ids) == len(set(ids))


def test_guidance_that_is_off_is_no_point_of_the_curve(tmp_path: Path) -> None:
    write_run(tmp_path / "off", 0.5, guidance__enabled=False, accuracy=0.5)
    for step_size in (0.1, 0.2):
        write_run(tmp_path / f"s{step_size}", 0.5, guidance__step_size=step_size)
    found = compared(tmp_path)
    (points,) = lines_of(found, "guidance.step_size").values()
    assert [x for x, _ in points] == [0.1, 0.2]
    charts = draw_charts(found, tmp_path)
    assert charts[0].name == "curve_guidance_step_size" and "guidance.step_size off" in charts[0].svg
    assert [chart.name for chart in charts[1:]] == ["groups", "learning", "recall"]


def test_no_curve_where_no_line_has_two_points(tmp_path: Path) -> None:
    write_run(tmp_path / "a", 0.5, data__training_fraction=0.05, data__batch_size=8)
    write_run(tmp_path / "b", 0.75, data__training_fraction=0.2, data__batch_size=8)
    write_run(tmp_path / "c", 0.75, data__training_fraction=0.4, data__batch_size=9)
    charts = draw_charts(compared(tmp_path), tmp_path)
    assert not [chart for chart in charts if chart.name == "curve_synthetic_ratio"]


def test_of_too_many_groups_the_controls_and_the_best_are_shown(tmp_path: Path) -> None:
    for number in range(10):
        write_run(tmp_path / f"r{number}", number / 10, accuracy=0.2 + number / 20)
    found = compared(tmp_path)
    shown = [group.values[0] for group in shown_groups(found, range(10))]
    assert len(shown) == MAX_LINES and shown == [0.0, 0.5, 0.6, 0.7, 0.8, 0.9]


@pytest.mark.parametrize("side", [0, 1])
def test_colours_stand_out_from_their_page(side: int) -> None:
    """WCAG: at least 4.5 for text, 3 for lines and bars."""
    page = COLOURS["page"][side]
    for role, colours in COLOURS.items():
        if role.startswith("series"):
            assert contrast(colours[side], page) >= 3, role
        elif role in ("ink", "muted"):
            assert contrast(colours[side], page) >= 4.5, role


def contrast(one: str, other: str) -> float:
    def luminance(colour: str) -> float:
        channels = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_one_metric_against_another(tmp_path: Path) -> None:
    found = two_generators(tmp_path)
    out = tmp_path / "out"
    out.mkdir()
    names = [chart.name for chart in draw_charts(found, out, against="val/mean_class_accuracy")]
    assert "trade_off" in names and (out / "trade_off.png").is_file()
    with pytest.raises(ValueError, match=r"--against val/nothing: found no run with this metric"):
        draw_charts(found, out, against="val/nothing")
