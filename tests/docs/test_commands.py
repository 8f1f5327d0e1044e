"""What the pages tell a reader to type is what the programs take."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.documented_commands import Command, PageError, commented_commands, documented_commands
from tests.docs.pages import PROJECT, lines_of, name_of, pages, spans_of
from tests.docs.program_parsers import complaints, known_keys, missing_imports

GROUPS = (
    "data",
    "model",
    "trainer",
    "synthesis",
    "layout",
    "guidance",
    "pseudo_labels",
    "wandb",
    "cluster",
    "slurm",
    "checkpoint",
    "test",
    "misclassified",
)


@pytest.fixture(autouse=True)
def _in_the_project(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(PROJECT)


def test_every_command_of_the_pages_is_accepted() -> None:
    commands = [command for page in pages() for command in documented_commands(page)]
    assert len({command.words[1] for command in commands if command.words[0] == "python"}) > 5
    assert not complaints(commands)


def test_every_command_in_the_comments_of_configs_is_accepted() -> None:
    configs = (PROJECT / "configs").rglob("*.yaml")
    commands = [command for config in configs for command in commented_commands(config)]
    assert len(commands) > 8
    assert not complaints(commands)


def test_every_key_in_the_prose_exists() -> None:
    known = known_keys()
    assert {"data.synthetic_ratio", "guidance.step_size", "model.backbone", "run_dir"} <= known
    wrong = []
    for page in pages():
        for number, text in spans_of(page) if page.name != "CHANGELOG.md" else []:  # it names what is gone
            for key in named_keys(text):
                if key not in known:
                    wrong.append(f"{name_of(page)}:{number}: no option is called '{key}'")
    assert not wrong


def test_python_on_the_pages_imports_what_is_there() -> None:
    wrong = []
    for page in pages():
        block: list[str] = []
        for line in [*lines_of(page), None]:
            if line is not None and line.language == "python":
                block.append(line.text)
            elif block:
                said = missing_imports("\n".join(block))
                wrong += [f"{name_of(page)}: {said}"] if said else []
                block = []
    assert not wrong


def named_keys(text: str) -> list[str]:
    """Returns the options that a code span names, each to its second dot: what follows may be a class's own."""
    found = re.findall(rf"(?:^|\s)(?:--)?((?:{'|'.join(GROUPS)})\.\w+)", text)
    return [key for key in found if key.rpartition(".")[2] not in ("py", "yaml", "safetensors")]


# ------------------------------------------------------------------------------------------------ the test itself

PAGE = """# A page

```bash
D="--config configs/data/drawn.yaml \\
  --config configs/classifier/tiny.yaml"     # a remark
for s in 1 2; do
  python train.py fit $D --seed_everything $s \\
    --run_dir runs/seed$s
done
{command}
```
"""


def page_with(command: str, folder: Path) -> Path:
    page = folder / "page.md"
    page.write_text(PAGE.format(command=command))
    return page


def test_loops_variables_and_lines_that_go_on_are_expanded(tmp_path: Path) -> None:
    first, second, third = documented_commands(page_with("python compare.py 'runs/a b' --out runs/<name>", tmp_path))
    files = ("--config", "configs/data/drawn.yaml", "--config", "configs/classifier/tiny.yaml")
    words = ("python", "train.py", "fit", *files, "--seed_everything")
    assert first == Command("page.md", 7, (*words, "1", "--run_dir", "runs/seed1"))
    assert second == Command("page.md", 7, (*words, "2", "--run_dir", "runs/seed2"))
    assert third == Command("page.md", 10, ("python", "compare.py", "runs/a b", "--out", "runs/NAME"))
    assert not complaints([first, second, third])


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("python train.py fit $D --data.batchsize 3", "did you mean data.batch_size?"),
        ("python train.py fit $D --model.bacbone resnet18", "did you mean backbone?"),
        ("python train.py fit $D --trainer.max_steps many", "many"),
        ("python train.py fit $D\n--data.batchsize 3", "did you mean data.batch_size?"),  # an option to add
        ("python train.py train $D", "train"),
        ("python train.py fit --config configs/data/nowhere.yaml", "configs/data/nowhere.yaml"),
        ("torchrun --nproc_per_node 8 train.py fit $D --data.batchsize 3", "did you mean data.batch_size?"),
        ("python sweep.py configs/sweeps/guidance_strength.yaml --job 4", "--job"),
        ("python sweep.py configs/sweeps/nowhere.yaml", "configs/sweeps/nowhere.yaml"),
        (
            "python sweep.py configs/sweeps/guidance_strength.yaml -- --data.batchsize 3",
            "did you mean data.batch_size?",
        ),
        ("wandb sweep configs/sweeps/nowhere.yaml", "configs/sweeps/nowhere.yaml"),
        ("python compare.py runs/ --metrics val/accuracy", "--metrics"),
        ("python label.py faces/ --checkpoint runs/mine", "--out"),
        ("python preview.py --config configs/data/drawn.yaml --rows many", "--rows"),
        ("synfer preview --config configs/data/drawn.yaml --data.batchsize 3", "did you mean data.batch_size?"),
        ("python tests/benchmarks/mixing.py --pair 3x", "--pair"),
        ("python tests/benchmarks/nowhere.py", "tests/benchmarks/nowhere.py"),
        ("python -m datamodules.synthetic.repair_synthetic_set", "folder"),
        ("python -m datamodules.nowhere", "datamodules.nowhere"),
        ("python train_twice.py", "train_twice.py"),
        ("python -c 'from train import nothing'", "nothing"),
        ("make tests", "tests"),
        ("pytest tests/test_nowhere.py", "tests/test_nowhere.py"),
        ("pip install 'synfer[slum]'", "slum"),
        ("pyhton train.py fit $D", "pyhton"),
        ("synfer fit $D --data.batchsize 3", "did you mean data.batch_size?"),
        ("python -m synfer fit --preset mixd", "did you mean mixed?"),
        ("torchrun --nproc_per_node 8 -m synfer fit --preset demo --data.batchsize 3", "did you mean data.batch_size?"),
        ("synfer fti $D", "fti"),
        ("synfer compare runs/ --metrics val/accuracy", "--metrics"),
        ("synfer completion fish", "fish"),
    ],
)
def test_what_would_be_refused_is_named_with_page_and_line(command: str, said: str, tmp_path: Path) -> None:
    found = complaints(documented_commands(page_with(command, tmp_path)))
    assert len(found) == 1
    assert found[0].startswith(f"page.md:{10 + command.count(chr(10))}: ")
    assert said in found[0]


@pytest.mark.parametrize(
    "command", ["python train.py fit $UNKNOWN", "for s in 1 2", "./train.py fit", "make test > log"]
)
def test_what_bash_cannot_read_is_named(command: str, tmp_path: Path) -> None:
    with pytest.raises(PageError, match=r"page\.md:.* line \d+"):
        documented_commands(page_with(command, tmp_path))


def test_commands_and_keys_in_prose_are_looked_at(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A page\n\nRun `make tests`, then `python train.py fit …` with `--data.batchsize 3`.\n")
    assert [command.words for command in documented_commands(page)] == [("make", "tests")]
    assert [key for _, text in spans_of(page) for key in named_keys(text)] == ["data.batchsize"]
