from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import sample
from experiments.sample.sample_command import as_options, main
from lightning_modules.augmenter import SemanticAugmenter
from lightning_modules.generator import ExpressionGenerator
from synfer.synthesis.diffusion.temperature_table import CalibratedLevel, TemperatureTable
from synfer.synthesis.plan import EvenPlan
from tests.fixtures.tiny_augmenter import tiny_augmenter
from tests.fixtures.tiny_generator import SIDE, save_base, save_checkpoint, tiny_classifier, tiny_generator


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with the last checkpoint of a tiny generator."""
    run = tmp_path_factory.mktemp("run")
    (run / "checkpoints").mkdir()
    save_checkpoint(tiny_generator(), run / "checkpoints" / "last.ckpt")
    return run


@pytest.fixture
def face(tmp_path: Path) -> Path:
    path = tmp_path / "a face.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(path)
    return path


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.array(picture)


def text(path: Path) -> dict[str, str]:
    with Image.open(path) as picture:
        return dict(picture.text)


def test_one_face_is_that_of_a_set_and_says_how_it_was_made(checkpoint: Path, tmp_path: Path) -> None:
    """Face 4 of a set of three expressions shows the second of them: the same seed and id give the same pixels."""
    out = tmp_path / "happy.png"
    command = ["--checkpoint", str(checkpoint), "--expression", "Happiness", "--seed", "7", "--sample-id", "4"]
    assert sample.main([*command, "--out", str(out)]) == 0
    generator = ExpressionGenerator.load_trained(checkpoint)
    request = EvenPlan(5, generator.label_space, 7).request([4])
    assert np.array_equal(pixels(out), generator.synthesise(request).images[0].permute(1, 2, 0).numpy())
    said = text(out)
    assert (said["expression"], said["seed"], said["sample_id"]) == ("happy", "7", "4")
    assert said["weights"] == generator.weights_fingerprint()
    assert json.loads(said["settings"])["num_steps"] == 4
    assert json.loads(said["action_units"])["AU12"] == pytest.approx(float(request.action_units[0][9]), abs=1e-4)


def test_action_units_strength_steps_and_caption_change_the_face(checkpoint: Path, tmp_path: Path) -> None:
    seen = set()
    for number, more in enumerate(
        (
            ["--seed", "1"],
            ["--seed", "2"],
            ["--au", "AU12=0", "--au", "au4=1"],
            ["--strength", "3"],
            ["--guidance-scale", "6"],
            ["--steps", "3"],
            ["--caption", "a sad face"],
        )
    ):
        out = tmp_path / f"{number}.png"
        assert main(["--checkpoint", str(checkpoint), "--expression", "happy", *more, "--out", str(out)]) == 0
        seen.add(pixels(out).tobytes())
    assert len(seen) == 7
    assert json.loads(text(tmp_path / "2.png")["action_units"])["AU4"] == 1.0
    assert text(tmp_path / "6.png")["caption"] == "a sad face"


def test_several_faces_are_a_grid_or_a_folder(checkpoint: Path, tmp_path: Path) -> None:
    command = ["--checkpoint", str(checkpoint), "--expression", "sad", "--expression", "happy", "--count", "2"]
    assert main([*command, "--zoom", "2", "--out", str(tmp_path / "grid.png")]) == 0
    grid = pixels(tmp_path / "grid.png")
    assert grid.shape == (2 * 2 * SIDE, 110 + 2 * 2 * SIDE, 3)
    assert json.loads(text(tmp_path / "grid.png")["expression"]) == ["sad", "sad", "happy", "happy"]
    assert main([*command, "--out", str(tmp_path / "faces")]) == 0
    names = ["happy-seed1-0.png", "happy-seed1-1.png", "sad-seed1-0.png", "sad-seed1-1.png"]
    assert sorted(path.name for path in (tmp_path / "faces").iterdir()) == names
    assert np.array_equal(grid[: 2 * SIDE : 2, 110::2][:, :SIDE], pixels(tmp_path / "faces" / "sad-seed1-0.png"))


def test_all_expressions_and_the_default_name(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["--checkpoint", str(checkpoint), "--expression", "all"]) == 0
    assert capsys.readouterr().out == f"neutral-happy-sad.png: 3 faces, {SIDE}x{SIDE} pixels, seed 1\n"
    assert main(["--checkpoint", str(checkpoint), "--expression", "sad"]) == 0
    assert pixels(tmp_path / "sad.png").shape == (SIDE, SIDE, 3)


def test_the_shipped_generator_needs_no_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # found from any folder
    assert main(["--expression", "happy", "--steps", "2"]) == 0
    assert pixels(tmp_path / "happy.png").shape == (48, 48, 3)
    assert text(tmp_path / "happy.png")["checkpoint"] == "demo/weights/drawn_generator"


def test_a_layout_and_a_guide_steer_it(checkpoint: Path, face: Path, tmp_path: Path) -> None:
    guide = save_checkpoint(tiny_classifier(), tmp_path / "guide.ckpt")
    plain = ["--checkpoint", str(checkpoint), "--expression", "happy", "--out"]
    assert main([*plain, str(tmp_path / "plain.png")]) == 0
    assert main([*plain, str(tmp_path / "layout.png"), "--layout", str(face), "--layout-steps", "2"]) == 0
    guided = ["--guide", str(guide), "--guidance-step-size", "50"]
    assert main([*plain, str(tmp_path / "guided.png"), *guided]) == 0
    pictures = [pixels(tmp_path / f"{name}.png").astype(int) for name in ("plain", "layout", "guided")]
    assert all(np.abs(pictures[0] - other).max() > 2 for other in pictures[1:])
    assert json.loads(text(tmp_path / "layout.png")["layout"])["image"] == "a face.png"
    recipe = json.loads(text(tmp_path / "guided.png")["guidance"])
    assert (recipe["step_size"], recipe["start_step"]) == (50, 2)
    assert main([*plain, str(tmp_path / "moved.png"), *guided, "--guidance-through", "latents"]) == 0
    recipe = json.loads(text(tmp_path / "moved.png")["guidance"])
    assert (recipe["through"], recipe["latent_step_size"], recipe["start_step"]) == ("latents", 50, 2)
    moved = pixels(tmp_path / "moved.png").astype(int)
    assert all(np.abs(moved - other).max() > 2 for other in pictures)


def test_the_temperatures_of_a_run_calibrate_the_guide(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    guide = save_checkpoint(tiny_classifier(), tmp_path / "guide.ckpt")
    who = (tiny_classifier().weights_fingerprint(), tiny_generator().synthesiser.network_fingerprint())
    levels = tuple(CalibratedLevel(noise, 9.0, 0.5, 1.0, 0.9) for noise in (0.1, 0.9))
    table = TemperatureTable(*who, "0" * 16, 4, levels).write(tmp_path / "temperatures.json")
    steered = ["--checkpoint", str(checkpoint), "--expression", "happy", "--guide", str(guide)]
    steered += ["--guidance-through", "latents", "--out", str(tmp_path / "calibrated.png")]
    assert main([*steered, "--guidance-calibration", str(table)]) == 0, capsys.readouterr().err
    assert json.loads(text(tmp_path / "calibrated.png")["guidance"])["calibration"] == "0" * 16
    capsys.readouterr()
    for path, said in ((tmp_path / "nowhere.json", "found no such file"), (guide, "guide.ckpt")):
        assert main([*steered, "--guidance-calibration", str(path)]) == 2
        assert (line := capsys.readouterr().err).startswith("error: --guidance-calibration '") and said in line
    TemperatureTable("f" * 16, who[1], "0" * 16, 4, levels).write(tmp_path / "other.json")
    assert main([*steered, "--guidance-calibration", str(tmp_path / "other.json")]) == 2
    assert "the temperatures of another guide" in capsys.readouterr().err


def test_folders_of_weights_bases_and_augmenters_serve_too(
    face: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_generator().save_trained(tmp_path / "weights")
    base = save_base(tmp_path / "base")
    augmenter = save_checkpoint(tiny_augmenter(), tmp_path / "augmenter.ckpt")
    assert SemanticAugmenter.load_trained(augmenter).au_names == ()
    out = ["--expression", "happy", "--out", str(tmp_path / "face.png")]
    for path, more in ((tmp_path / "weights", []), (base, ["--steps", "2"]), (augmenter, ["--layout", str(face)])):
        assert main(["--checkpoint", str(path), *more, *out]) == 0, capsys.readouterr().err
    capsys.readouterr()
    assert main(["--checkpoint", str(augmenter), *out]) == 2
    assert "--layout: found none for" in (said := capsys.readouterr().err) and "from a real one" in said
    assert main(["--checkpoint", str(base), "--au", "AU12=1", *out]) == 2
    assert "hears no action units" in capsys.readouterr().err


def test_whatever_cannot_be_made_is_one_line_and_leaves_nothing(
    checkpoint: Path, face: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    classifier = save_checkpoint(tiny_classifier(), tmp_path / "classifier.ckpt")
    (tmp_path / "no image.png").write_bytes(b"torn")
    augmenter = save_checkpoint(tiny_augmenter(), tmp_path / "augmenter.ckpt")
    before = sorted(tmp_path.rglob("*"))
    own = ["--checkpoint", str(checkpoint)]
    for words, said in (
        (["--expression", "hapy"], "did you mean happy?"),
        ([*own, "--expression", "contempt"], "--expression: found 'contempt', expected one that"),
        ([*own, "--expression", "happy", "--au", "AU12=1.2"], "--au AU12: found 1.2, expected an intensity in [0, 1]"),
        ([*own, "--expression", "happy", "--au", "AU12=nan"], "--au AU12: found nan"),
        ([*own, "--expression", "happy", "--au", "AU12"], "--au: found 'AU12', expected a name and an intensity"),
        ([*own, "--expression", "happy", "--au", "AU99=1"], "--au: found 'AU99', expected some of AU1, AU2"),
        ([*own, "--expression", "happy", "--guidance-scale", "0.5"], "--guidance-scale: found 0.5, expected at least"),
        ([*own, "--expression", "happy", "--strength", "-1"], "--strength: found -1.0"),
        ([*own, "--expression", "happy", "--steps", "0"], "--steps: found 0, expected at least 1"),
        ([*own, "--expression", "happy", "--count", "0"], "--count: found 0"),
        ([*own, "--expression", "happy", "--seed", "-1"], "--seed: found -1"),
        ([*own, "--expression", "happy", "--zoom", "0"], "--zoom: found 0"),
        ([*own, "--expression", "happy", "--caption", "a face", "--strength", "2"], "expected one with that word"),
        ([*own, "--expression", "happy", "--layout", str(tmp_path / "no image.png")], "cannot be decoded"),
        ([*own, "--expression", "happy", "--layout", str(tmp_path / "nowhere.png")], "--layout '"),
        ([*own, "--expression", "happy", "--layout", str(face), "--layout-steps", "9"], "--layout-steps: found 9"),
        ([*own, "--expression", "happy", "--guide", str(tmp_path / "nowhere.ckpt")], "--guide '"),
        ([*own, "--expression", "happy", "--guidance-step-size", "1"], "found it without --guide"),
        ([*own, "--expression", "happy", "--guidance-through", "latents"], "--guidance-through: found it without --g"),
        (["--checkpoint", str(classifier), "--expression", "happy"], "found the kind 'classifier'"),
        (["--checkpoint", str(tmp_path / "nowhere"), "--expression", "happy"], "--checkpoint '"),
        (
            ["--checkpoint", str(augmenter), "--expression", "happy", "--layout", str(face), "--steps", "3"],
            "--steps: found 3",
        ),
        (["--checkpoint", str(augmenter), "--expression", "happy", "--guide", str(classifier)], "does not denoise"),
        ([*own, "--expression", "happy", "--out", str(tmp_path / "face.jpg")], "expected a .png file or a folder"),
        ([*own, "--expression", "happy", "--layout", str(face), "--out", str(face)], "the image of --layout"),
    ):
        target = [] if "--out" in words else ["--out", str(tmp_path / "out.png")]
        assert main([*words, *target]) == 2, words
        line = capsys.readouterr().err
        assert said in line and line.startswith("error: ") and line.count("\n") == 1, (words, line)
        assert sorted(tmp_path.rglob("*")) == before, words


@pytest.mark.parametrize("words", [[], ["--expresion", "happy"], ["--expression", "happy", "--strength", "nan"]])
def test_a_misspelt_command_is_one_line(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(words)
    assert stopped.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_words_that_a_small_generator_does_not_know_are_said(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["--checkpoint", str(checkpoint), "--expression", "happy", "--out", str(tmp_path / "face.png")]
    assert main([*command, "--caption", "a happy pirate"]) == 0
    assert "'pirate'" in capsys.readouterr().err


def test_errors_are_told_in_the_words_of_the_options() -> None:
    assert as_options("sampling.num_steps: found 0, expected at least 1") == "--steps: found 0, expected at least 1"
    assert as_options("model.base 'x': found nothing") == "--checkpoint 'x': found nothing"
    assert as_options("'file.png': found nothing") == "'file.png': found nothing"
