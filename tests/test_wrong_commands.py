"""One wrong input per command: one line that names it, exit code 2, and nothing written."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import compare
import export
import sweep
import train

PROJECT = Path(train.__file__).parent
CONFIGS = PROJECT / "configs"
CLASSIFIER = f"--config={CONFIGS / 'classifier' / 'tiny.yaml'}"
GENERATOR = f"--config={CONFIGS / 'generator' / 'tiny.yaml'}"
DATA = f"--config={CONFIGS / 'data' / 'drawn.yaml'}"
PYTHON_WORDS = re.compile(r"Traceback|NoneType|has no attribute|KeyError|TypeError|codec can't|unexpected keyword")


@pytest.mark.parametrize(
    ("command", "named"),
    [
        (["fit", DATA], "fit needs model"),
        (["fit", CLASSIFIER], "--config configs/data/drawn.yaml"),
        (["fitt"], "fitt"),
        (["fit", CLASSIFIER, DATA, "--data.batchsize=3"], "did you mean data.batch_size?"),
        (["fit", CLASSIFIER, DATA, "--config=torn.yaml"], "config 'torn.yaml'"),
        (["fit", CLASSIFIER, DATA, "--config=latin.yaml"], "config 'latin.yaml'"),
        (["fit", CLASSIFIER, DATA, "--data.batch_size=${oc.env:NOT_SET}"], "NOT_SET"),
        (["fit", CLASSIFIER, DATA, "--ckpt_path=torn.ckpt"], "torn.ckpt"),
        (["fit", CLASSIFIER, DATA, "--ckpt_path=empty_run"], "empty_run"),
        (["fit", CLASSIFIER, DATA, "--model.pretrained_path=torn.ckpt"], "torn.ckpt"),
        (["fit", CLASSIFIER, DATA, "--synthesis.enabled=true", "--synthesis.generator=nowhere"], "nowhere"),
        (["fit", GENERATOR, DATA, "--model.base=torn_base"], "torn_base"),
        (["validate", CLASSIFIER, DATA, "--ckpt_path=torn.ckpt"], "torn.ckpt"),
        (["test", GENERATOR, DATA, "--test.judge=nowhere.ckpt"], "nowhere.ckpt"),
        (["test", GENERATOR, DATA, "--model.judge=torn.ckpt"], "model.judge has moved: use test.judge"),
        (["test", CLASSIFIER, DATA, "--test.judge=torn.ckpt"], "test.judge: found torn.ckpt with the model Expression"),
        (["fit", CLASSIFIER, DATA, "--test.samples=3"], "test.samples: found 3 with the model ExpressionClassifier"),
        (["predict", GENERATOR, DATA, "--ckpt_path=nowhere.ckpt"], "nowhere.ckpt"),
    ],
)
def test_train(
    command: list[str], named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = wrong_files(tmp_path, monkeypatch)
    with pytest.raises(SystemExit) as stopped:
        train.main(command)
    check(int(stopped.value.code or 0), capsys.readouterr().err, named)
    assert sorted(tmp_path.rglob("*")) == before  # no run folder, above all


@pytest.mark.parametrize(
    ("program", "command", "named"),
    [
        ("sweep", ["nowhere.yaml"], "nowhere.yaml"),
        ("sweep", ["latin.yaml"], "latin.yaml"),
        ("sweep", ["torn.yaml"], "torn.yaml"),
        ("sweep", ["sweep.yaml"], "did you mean data.batch_size?"),
        ("sweep", ["sweep.yaml", "--jobs=none"], "--jobs"),
        ("compare", ["nowhere"], "nowhere"),
        ("compare", ["torn_run"], "torn_run"),
        ("compare", [], "python compare.py runs/"),
        ("export", ["nowhere.ckpt", "--what=lora", "--out=out"], "nowhere.ckpt"),
        ("export", ["torn.ckpt", "--what=all", "--out=out"], "torn.ckpt"),
        ("export", ["torn_run", "--what=lora", "--out=out"], "torn_run"),
        ("export", ["torn.ckpt", "--what=loar", "--out=out"], "--what: found 'loar'"),
    ],
)
def test_other_programs(
    program: str,
    command: list[str],
    named: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = wrong_files(tmp_path, monkeypatch)
    main = {"sweep": sweep.main, "compare": compare.main, "export": export.main}[program]
    check(main(command), capsys.readouterr().err, named)
    assert sorted(tmp_path.rglob("*")) == before


def wrong_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Makes a folder with files of which each is wrong in its way the present one; returns what is in it."""
    monkeypatch.chdir(folder)
    Path("torn.yaml").write_text("data: {batch_size: [")
    Path("latin.yaml").write_bytes("# für mich\ndata: {batch_size: 8}\n".encode("latin-1"))
    Path("torn.ckpt").write_bytes(b"PK\x03\x04 and no more")
    for part in ("unet", "vae", "text_encoder", "tokenizer", "scheduler"):
        (Path("torn_base") / part).mkdir(parents=True)
    (Path("empty_run") / "checkpoints").mkdir(parents=True)
    Path("torn_run").mkdir()
    (Path("torn_run") / "summary.json").write_text('{"metrics": ')
    Path("sweep.yaml").write_text(
        "program: train.py\nmethod: grid\ncommand: ['${interpreter}', '${program}', fit, "
        f"'{CLASSIFIER}', '{DATA}', '${{args}}']\nparameters:\n  data.batchsize: {{values: [8, 16]}}\n"
    )
    return sorted(folder.rglob("*"))


def check(code: int, stderr: str, named: str) -> None:
    lines = [line for line in stderr.splitlines() if line.startswith("error")]
    assert code == 2 and len(lines) == 1, stderr[-2000:]
    assert named in lines[0] and not PYTHON_WORDS.search(lines[0]), lines[0]
    assert "Traceback" not in stderr
