"""Sweeps: the files are known to train.py, grids expand, nothing runs twice, whatever is killed in between."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import sweep
from experiments.sweep import local_runner, sweep_command, sweep_file
from experiments.sweep.child_process import exit_text, last_error_line
from experiments.sweep.grid import expand, file_name, point_name, value_text
from experiments.sweep.parser_check import check_against_parser
from experiments.sweep.run_lock import RunLock
from experiments.sweep.sweep_error import SweepError
from experiments.sweep.sweep_file import read_sweep_file
from experiments.sweep.sweep_run import plan_runs
from tests.fixtures.processes import ended, run_to_end

PROJECT = Path(sweep.__file__).parent
FILES = sorted((PROJECT / "configs" / "sweeps").glob("*.yaml"))
NAMES = [path.stem for path in FILES]
COMMAND = ["${env}", "${interpreter}", "${program}", "fit", "${args}"]

PROGRAM = '''
"""Stands in for train.py: takes no time, and does what --mode says."""
import json, os, pathlib, signal, sys, time, zipfile

given = dict(word[2:].partition("=")[::2] for word in sys.argv[2:])
run_dir = pathlib.Path(given["run_dir"])
checkpoint = given.get("ckpt_path")
run_dir.mkdir(parents=True, exist_ok=True)
env = {name: os.environ.get(name) for name in ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "WANDB_RUN_GROUP")}
with (run_dir / "starts.txt").open("a") as file:
    file.write(json.dumps({"pid": os.getpid(), "ckpt_path": checkpoint, "given": given, "env": env}) + "\\n")



def summary(status, end=None, **metrics):
    config = {"mode": given["mode"], "seed": 7}
    record = {"task": "fit", "status": status, "wall_s": 61.0, "config": config, "metrics": metrics}
    text = json.dumps({**record, **(end or {})})
    (run_dir / "partial").write_text(text)
    (run_dir / "partial").replace(run_dir / "summary.json")


mode = given["mode"]
if mode == "fail":
    print("error: no such thing\\nwandb: some talk", file=sys.stderr)
    raise SystemExit(3)
if mode == "crash":
    raise KeyError("a bug")
if mode == "die":
    os.kill(os.getpid(), signal.SIGKILL)
if mode == "quiet":  # what a stop signal of Lightning leaves: exit code 0, not finished
    raise SystemExit(0)
if mode == "patient":  # early stopping
    summary("stopped", {"reason": "patience", "complete": True, "exit_code": 0}, **{"val/accuracy": 0.375})
    raise SystemExit(0)
if mode in ("timed", "preempted") and not checkpoint:
    (run_dir / "checkpoints").mkdir(exist_ok=True)
    with zipfile.ZipFile(run_dir / "checkpoints" / "last.ckpt", "w") as file:
        file.writestr("weights", "1")
    status, reason, code = ("stopped", "time", 0) if mode == "timed" else ("interrupted", "SIGTERM", 143)
    summary(status, {"reason": reason, "complete": False, "exit_code": code})
    raise SystemExit(code)
if mode in ("slow", "stubborn") and not checkpoint:
    stop = signal.SIG_IGN if mode == "stubborn" else signal.default_int_handler
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    (run_dir / "checkpoints").mkdir(exist_ok=True)
    with zipfile.ZipFile(run_dir / "checkpoints" / "last.ckpt", "w") as file:
        file.writestr("weights", "1")
    summary("running", **{"val/accuracy": 0.25})
    try:
        while not (run_dir / "go on").exists():
            time.sleep(0.02)
    except KeyboardInterrupt:
        summary("interrupted", **{"val/accuracy": 0.25})
        raise SystemExit(1)
summary("finished", **{"val/accuracy": 0.5})
'''

DRIVER = """
import sys, pathlib
import sweep
from experiments.sweep import sweep_command, sweep_file
sweep_file.PROJECT = pathlib.Path({project!r})
sweep_command.check_against_parser = lambda *args: None
raise SystemExit(sweep.main())
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a program in the place of train.py, which is the current folder."""
    (tmp_path / "train.py").write_text(PROGRAM)
    monkeypatch.setattr(sweep_file, "PROJECT", tmp_path)
    monkeypatch.setattr(sweep_command, "check_against_parser", lambda *args: None)
    monkeypatch.setattr(local_runner, "POLL_S", 0.02)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(folder: Path, parameters: dict[str, Any], **more: Any) -> Path:
    """Writes a sweep file, with the parameter ``mode`` of the program above unless the sweep has it."""
    content = {"program": "train.py", "method": "grid", "metric": {"name": "val/accuracy"}, "command": COMMAND}
    path = folder / "s.yaml"
    path.write_text(yaml.safe_dump({**content, "parameters": parameters, **more}, sort_keys=False))
    return path


def modes(*names: str) -> dict[str, Any]:
    return {"mode": {"values": list(names)}, "seed": {"value": 7}}


def starts(run_dir: Path) -> list[dict[str, Any]]:
    """What the program wrote down at each start."""
    path = run_dir / "starts.txt"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def wait_until(happened: Callable[[], object], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.02)


def is_alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def start(folder: Path, *args: str) -> subprocess.Popen[str]:
    """Starts sweep.py with the program above in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    return subprocess.Popen(
        [sys.executable, "-c", DRIVER.format(project=str(folder)), *args],
        cwd=folder,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


# The files of the project


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_each_key_and_value_is_known_to_the_parser(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import train

    monkeypatch.chdir(PROJECT)
    found = read_sweep_file(path)
    runs = plan_runs(found, Path("runs") / found.name)
    check_against_parser(found, runs)
    parsed = train.parse(runs[-1].options)
    point = expand(found)[-1]
    for key, value in {**point.constants, **point.swept}.items():
        assert parsed[key] == value
    assert parsed.trainer.accelerator == "auto"  # --devices and wandb agent hand out GPUs
    found.parameters["data.synthetic_ratios"] = {"value": 0.5}
    with pytest.raises(SweepError, match=r"data\.synthetic_ratios"):
        check_against_parser(found, plan_runs(found, Path("runs")))


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_wandb_agent_starts_the_same_command(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from wandb.sdk.launch.sweeps import utils

    import train

    monkeypatch.chdir(PROJECT)
    found = read_sweep_file(path)
    point, run = expand(found)[-1], plan_runs(found, Path("runs"))[-1]
    values = {key: {"value": value} for key, value in {**point.constants, **point.swept}.items()}
    macros = utils.create_sweep_command_args({"args": values})
    theirs = []
    for word in utils.create_sweep_command(list(found.command)):
        name = word.removeprefix("${").removesuffix("}")
        theirs += macros.get(name, [word])
    assert theirs[:5] == ["${env}", f"WANDB_RUN_GROUP={found.name}", "${interpreter}", "${program}", "fit"]
    assert train.parse(theirs[4:]) == train.parse(run.options)


def test_ratio_sweep_has_a_control_and_three_seeds() -> None:
    found = read_sweep_file(PROJECT / "configs/sweeps/real_synthetic_ratio.yaml")
    points = expand(found)
    assert len(points) == 15 and len({point.name for point in points}) == 15
    assert points[0].name == "synthetic_ratio=0-seed_everything=1"
    assert points[-1].name == "synthetic_ratio=1-seed_everything=3"


# Grids


def grid(tmp_path: Path, parameters: dict[str, Any], **more: Any) -> list[Any]:
    return expand(read_sweep_file(write(tmp_path, parameters, **more)))


def test_grid_is_the_product_with_the_last_parameter_fastest(tmp_path: Path) -> None:
    points = grid(
        tmp_path, {"data.ratio": {"values": [0, 0.5]}, "seed": {"values": [1, 2]}, "model.lr": {"value": 1e-4}}
    )
    assert [point.name for point in points] == [
        "ratio=0-seed=1",
        "ratio=0-seed=2",
        "ratio=0.5-seed=1",
        "ratio=0.5-seed=2",
    ]
    assert all(point.constants == {"model.lr": 1e-4} for point in points)
    assert points[2].swept == {"data.ratio": 0.5, "seed": 1}


def test_whole_numbers_and_steps(tmp_path: Path) -> None:
    parameters = {"a": {"min": 1, "max": 3}, "b": {"distribution": "q_uniform", "min": 0.1, "max": 0.3, "q": 0.1}}
    points = grid(tmp_path, parameters)
    assert [point.swept["a"] for point in points[::3]] == [1, 2, 3]
    assert [point.swept["b"] for point in points[:3]] == [0.1, 0.2, 0.3]


def test_nested_parameters_become_dotted_keys(tmp_path: Path) -> None:
    nested = {"data": {"parameters": {"reader": {"parameters": {"root": {"values": ["x", "y"]}}}}}}
    assert [point.swept for point in grid(tmp_path, nested)] == [{"data.reader.root": "x"}, {"data.reader.root": "y"}]


def test_run_cap(tmp_path: Path) -> None:
    assert len(grid(tmp_path, {"seed": {"values": [1, 2, 3]}}, run_cap=2)) == 2


def test_names_are_file_names_and_differ() -> None:
    assert point_name({}) == "run"
    assert point_name({"a.scale": 1, "b.scale": 2}) == "a.scale=1-b.scale=2"
    assert point_name({"path": "x/y"}) != point_name({"path": "x_y"}) == "path=x_y"
    assert "/" not in point_name({"path": "x/y"})
    assert len(point_name({"text": "y" * 500})) < 150
    assert point_name({"path": "x/y"}) == point_name({"path": "x/y"})
    assert file_name("../my sweep/1") == "_my_sweep_1"


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "null"), (True, "true"), (0, "0"), (1.0, "1"), (1e-4, "0.0001"), ("a b", "a b"), ([1, "x"], '[1, "x"]')],
)
def test_values_as_the_command_line_reads_them(value: Any, text: str) -> None:
    assert value_text(value) == text
    assert yaml.safe_load(text) == value


def test_macros(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NODES", "4")
    command = ["torchrun", "--nnodes=${envvar:NODES}", "train.py", "fit", "${args}", "--last=1"]
    launcher, options = read_sweep_file(write(tmp_path, {}, command=command)).words(["--a=1"])
    assert launcher[:2] == ["torchrun", "--nnodes=4"] and Path(launcher[2]).name == "train.py"
    assert options == ["fit", "--a=1", "--last=1"]


# Bad input


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ({"method": "random"}, "method random stays with W&B"),
        ({"method": "bayes"}, "method bayes stays with W&B"),
        ({"method": "gird"}, "method 'gird', expected one of grid"),
        ({"program": "other.py"}, "program 'other.py', expected train.py"),
        ({"parameters": {}}, "empty grid: no parameters"),
        ({"parameters": {"seed": {"values": []}}}, "empty grid: parameter seed has no values"),
        ({"parameters": {"seed": {"values": [1, 1.0]}}}, "run seed=1 twice"),
        ({"parameters": {"seed": 1}}, "parameter seed: found '1', expected value or values"),
        ({"parameters": [1]}, "parameters: found list"),
        ({"parameters": {"lr": {"min": 0.1, "max": 0.2}}}, "parameter lr: found uniform"),
        ({"parameters": {"lr": {"distribution": "normal", "mu": 0}}}, "parameter lr: found normal"),
        ({"parameters": {"lr": {"distribution": "q_uniform", "min": 1, "max": 0}}}, "parameter lr: min 1, max 0"),
        ({"parameters": {"lr": {"valeus": [1]}}}, "parameter lr: found nothing"),
        ({"command": ["${env}", "${program}", "${args}"]}, "expected 'fit' after ${program}"),
        ({"command": ["${program}", "fit"]}, "expected ${args} once"),
        ({"command": ["${program}", "fit", "${args}", "${args_json}"]}, "macro ${args_json}"),
        ({"command": "python train.py"}, "command: found str"),
        ({"run_cap": 0}, "run_cap 0"),
        ({"metric": "accuracy"}, "metric 'accuracy'"),
    ],
)
def test_bad_sweep_is_one_line(
    content: dict[str, Any], named: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(folder, **{"parameters": {"seed": {"values": [1]}}, **content})
    assert sweep.main([str(path)]) == 2
    said = capsys.readouterr()
    assert said.out == "" and len(said.err.splitlines()) == 1
    assert said.err.startswith("error: ") and named in said.err and "s.yaml" in said.err


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (None, "No such file"),
        ("a: [", "not YAML"),
        ("- 1", "found a list"),
        ("", "found nothing"),
        ("data: {}", "'program'"),
    ],
)
def test_not_a_sweep_file(text: str | None, named: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if text is not None:
        (folder / "s.yaml").write_text(text)
    assert sweep.main(["s.yaml"]) == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1 and named in said and "s.yaml" in said


@pytest.mark.parametrize(
    ("args", "named"),
    [
        (["--jobs", "0"], "expected a whole number"),
        (["--devices", "0,,1"], "--devices"),
        (["--devices", "0,0"], "--devices"),
        (["--job", "1"], "--job"),
        (["--slurm_executor", "pbs"], "pbs"),
        (["--slurm_parameter", "timeout"], "expected NAME=VALUE"),
        (["--slurm_executor", "local", "--slurm_parameter", "no_such=1"], "no_such"),
        (["--", "--mode=ok"], "option --mode after --"),
        (["--", "--mode", "ok"], "option --mode after --"),
        (["--", "--run_dir=x"], "option --run_dir after --"),
        (["--", "--ckpt_path=x"], "option --ckpt_path after --"),
    ],
)
def test_bad_options(args: list[str], named: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sweep.main([str(write(folder, modes("ok", "slow"))), *args]) == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1 and said.startswith("error: ") and named in said
    assert not (folder / "runs" / "s").exists() or not list((folder / "runs" / "s").glob("*/starts.txt"))


def test_unknown_key_is_named_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(PROJECT)
    command = [*COMMAND[:-1], "--config=configs/data/drawn.yaml", "--config=configs/classifier/tiny.yaml", "${args}"]
    where = ["--sweep_dir", str(tmp_path / "runs")]
    for parameters, named in [
        ({"data.synthetic_ratios": {"values": [0, 1]}}, "data.synthetic_ratios"),
        ({"data.batch_size": {"values": [8, "many"]}}, "data.batch_size"),
    ]:
        assert sweep.main([str(write(tmp_path, parameters, command=command)), *where]) == 2
        said = capsys.readouterr().err
        assert len(said.splitlines()) == 1 and named in said and "s.yaml" in said
    fine = str(write(tmp_path, {"data.batch_size": {"values": [8]}}, command=command))
    assert sweep.main([fine, *where, "--", "--trainer.max_step=1"]) == 2
    assert "--trainer.max_step" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


# Runs on this machine


def test_runs_all_and_keeps_what_is_finished(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(write(folder, modes("ok", "fine"), name="both"))
    assert sweep.main([path, "--", "--trainer.max_steps=10"]) == 0
    said = capsys.readouterr().out
    assert "2 runs: 2 finished" in said and said.count("0.5000") == 4
    (first,) = starts(folder / "runs/both/mode=ok")
    assert first["given"] == {"mode": "ok", "seed": "7", "trainer.max_steps": "10", "run_dir": "runs/both/mode=ok"}
    assert first["env"]["WANDB_RUN_GROUP"] == "both"
    assert sweep.main([path, "--", "--trainer.max_steps=10"]) == 0
    assert "2 runs: 2 skipped" in capsys.readouterr().out
    assert len(starts(folder / "runs/both/mode=ok")) == len(starts(folder / "runs/both/mode=fine")) == 1


def test_failed_runs_are_named_and_the_others_go_on(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(write(folder, modes("fail", "crash", "die", "quiet", "ok")))
    assert sweep.main([path, "--jobs", "2"]) == 1
    said = capsys.readouterr().out
    assert "mode=fail: failed with exit code 3: no such thing" in said
    assert "mode=crash: failed with exit code 1: KeyError: 'a bug'" in said
    assert "mode=die: failed with exit code -9 (SIGKILL): it printed nothing" in said
    assert "mode=quiet: failed with exit code 0" in said
    assert "5 runs: 4 failed, 1 finished" in said
    assert sweep.main([path, "--status"]) == 0
    assert "5 runs: 4 failed, 1 finished" in capsys.readouterr().out
    assert sweep.main([path]) == 1  # tried again, the finished one kept
    assert "4 failed, 1 skipped" in capsys.readouterr().out
    assert len(starts(folder / "runs/s/mode=fail")) == 2 and len(starts(folder / "runs/s/mode=ok")) == 1


def test_a_run_that_was_cut_short_is_gone_on_with_and_one_whose_patience_ended_is_whole(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(write(folder, modes("timed", "preempted", "patient")))
    assert sweep.main([path]) == 1
    said = capsys.readouterr().out
    assert "3 runs: 2 interrupted, 1 finished" in said and "failed" not in said
    assert "mode=timed: stopped, not finished; the same command goes on with it" in said
    assert sweep.main([path]) == 0
    said = capsys.readouterr().out
    assert "mode=timed: resumed from last.ckpt" in said and "mode=preempted: resumed from last.ckpt" in said
    assert "3 runs: 2 finished, 1 skipped" in said


def test_launcher_that_is_not_there(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(folder, modes("ok"), command=["no_such_launcher", "train.py", "fit", "${args}"])
    assert sweep.main([str(path)]) == 1
    assert "could not be started" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("visible", "options"), [(None, ["--devices", "0,MIG-1"]), ("0,MIG-1", ["--jobs", "2"])], ids=["named", "visible"]
)
def test_one_device_each_and_cores_shared(
    visible: str | None, options: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr(local_runner, "available_cores", lambda: 8)
    path = str(write(folder, {"mode": {"value": "slow"}, "seed": {"values": [1, 2]}}))
    for run in ("seed=1", "seed=2"):  # both at a time: neither ends before the other has started
        (folder / "runs/s" / run).mkdir(parents=True)
    process = start(folder, path, *options)
    wait_until(lambda: all(starts(folder / "runs/s" / run) for run in ("seed=1", "seed=2")))
    for run in ("seed=1", "seed=2"):
        (folder / "runs/s" / run / "go on").touch()
    assert ended(process) and process.returncode == 0
    seen = [starts(folder / "runs/s" / run)[0]["env"] for run in ("seed=1", "seed=2")]
    assert [env["CUDA_VISIBLE_DEVICES"] for env in seen] == ["0", "MIG-1"]
    cores = len(os.sched_getaffinity(0))
    assert {env["OMP_NUM_THREADS"] for env in seen} == {str(max(1, cores // 2))}


def test_what_the_user_set_wins(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setenv("WANDB_RUN_GROUP", "mine")
    command = ["${env}", "WANDB_RUN_GROUP=file", "CUDA_VISIBLE_DEVICES=${envvar:GPU}", *COMMAND[1:]]
    monkeypatch.setenv("GPU", "5")
    path = str(write(folder, modes("ok"), command=command))
    assert sweep.main([path, "--jobs", "2"]) == 0
    (only,) = starts(folder / "runs/s/run")
    assert only["env"] == {"CUDA_VISIBLE_DEVICES": "5", "OMP_NUM_THREADS": "3", "WANDB_RUN_GROUP": "mine"}
    monkeypatch.delenv("WANDB_RUN_GROUP")
    assert sweep.main([path, "--sweep_dir", "runs/other"]) == 0  # other settings, another group
    assert starts(folder / "runs/other/run")[0]["env"]["WANDB_RUN_GROUP"] == "other"


def test_dry_run_prints_what_is_left(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(write(folder, modes("ok", "fail")))
    assert sweep.main([path, "--dry_run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and not (folder / "runs").exists()
    assert lines[0].endswith("train.py fit --seed=7 --mode=ok --run_dir=runs/s/mode=ok")
    subprocess.run(lines[0], shell=True, check=True)  # the line is ready for a shell
    assert sweep.main([path, "--dry_run"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "# mode=ok: finished"


def test_other_settings_do_not_go_into_the_same_folders(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "c.yaml").write_text("a: 1\n")
    command = [*COMMAND[:-1], "--config=c.yaml", "${args}"]
    path = str(write(folder, modes("ok", "fail"), command=command))
    assert sweep.main([path]) == 1
    (folder / "c.yaml").write_text("a: 1  # a comment\n")
    assert sweep.main([path]) == 1
    (folder / "c.yaml").write_text("a: 2\n")
    capsys.readouterr()
    assert sweep.main([path]) == 2
    said = capsys.readouterr().err  # the failed run left nothing behind and may change
    assert "1 of 2 runs" in said and "mode=ok: c.yaml has changed" in said and "--sweep_dir" in said
    (folder / "c.yaml").write_text("a: 1\n")
    assert sweep.main([path, "--", "--seed=8"]) == 2
    assert "mode=ok: found less then, --seed=8 now" in capsys.readouterr().err
    assert sweep.main([path, "--sweep_dir", "locked", "--", "--seed=8"]) == 1
    assert len(starts(folder / "runs/s/mode=ok")) == 1


def test_foreign_folder_is_left_alone(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "runs/s/run").mkdir(parents=True)
    (folder / "runs/s/run/summary.json").write_text('{"status": "finished"}')
    assert sweep.main([str(write(folder, modes("ok")))]) == 2
    assert "it was not made by this sweep" in capsys.readouterr().err


# Broken off and gone on with


def test_kill_in_the_middle_and_start_again(folder: Path) -> None:
    path = str(write(folder, modes("ok", "slow", "fine")))
    first = start(folder, path)
    slow = folder / "runs/s/mode=slow"
    wait_until(lambda: (slow / "checkpoints/last.ckpt").exists() and (slow / "summary.json").exists())
    first.kill()
    first.communicate()
    child = starts(slow)[0]["pid"]
    wait_until(lambda: not is_alive(child))  # it does not go on without its runner
    second = start(folder, path)
    said, _ = ended(second)
    assert second.returncode == 0, said
    assert "mode=slow: resumed from last.ckpt" in said and "3 runs: 2 finished, 1 skipped" in said
    assert [len(starts(folder / f"runs/s/mode={name}")) for name in ("ok", "slow", "fine")] == [1, 2, 1]
    assert starts(slow)[1]["ckpt_path"] == "runs/s/mode=slow/checkpoints/last.ckpt"
    attempts = json.loads((slow / "sweep.json").read_text())["attempts"]
    assert [attempt.get("outcome") for attempt in attempts] == [None, "finished"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stop_signals_reach_the_runs(folder: Path, number: signal.Signals) -> None:
    path = str(write(folder, modes("slow", "ok")))
    process = start(folder, path)
    slow = folder / "runs/s/mode=slow"
    wait_until(lambda: (slow / "summary.json").exists())
    process.send_signal(number)
    said, error = ended(process)
    assert process.returncode == 128 + number and not error
    assert "2 runs: 1 interrupted, 1 waiting" in said and "the same command goes on" in said
    assert json.loads((slow / "summary.json").read_text())["status"] == "interrupted"
    assert not is_alive(starts(slow)[0]["pid"])
    assert sweep.main([path]) == 0
    assert starts(slow)[1]["ckpt_path"] is not None


def test_second_signal_kills(folder: Path) -> None:
    process = start(folder, str(write(folder, modes("stubborn", "ok"))))
    run = folder / "runs/s/mode=stubborn"
    wait_until(lambda: (run / "summary.json").exists())
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert process.poll() is None and is_alive(starts(run)[0]["pid"])
    process.send_signal(signal.SIGINT)
    said, _ = ended(process)
    assert process.returncode == 130 and "1 interrupted" in said
    assert not is_alive(starts(run)[0]["pid"])


def test_run_that_does_not_stop_is_killed_in_the_end(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_runner, "STOP_TIMEOUT_S", 0.3)
    run = folder / "runs/s/run"
    path = write(folder, modes("stubborn"))
    original = local_runner.LocalRunner._collect

    def collect(runner: local_runner.LocalRunner) -> None:
        if (run / "summary.json").exists() and not runner.signals:
            os.kill(os.getpid(), signal.SIGTERM)
        original(runner)

    monkeypatch.setattr(local_runner.LocalRunner, "_collect", collect)
    assert sweep.main([str(path)]) == 143
    assert not is_alive(starts(run)[0]["pid"])


def test_truncated_checkpoint_is_put_aside(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(write(folder, modes("fail", "ok")))
    sweep.main([path])
    checkpoints = folder / "runs/s/mode=fail/checkpoints"
    checkpoints.mkdir()
    (checkpoints / "last.ckpt").write_text("half of it")
    assert sweep.main([path]) == 1
    assert starts(folder / "runs/s/mode=fail")[1]["ckpt_path"] is None
    assert [file.name for file in checkpoints.iterdir()] == ["last.ckpt.broken"]


# Nobody else at work


def test_two_sweeps_share_the_work(folder: Path) -> None:
    path = str(write(folder, {"mode": {"value": "slow"}, "seed": {"values": [1, 2]}}))
    processes = [start(folder, path) for _ in range(2)]
    runs = [folder / "runs/s" / f"seed={seed}" for seed in (1, 2)]
    wait_until(lambda: all(starts(run) for run in runs))
    for run in runs:
        (run / "go on").touch()
    for process in processes:
        said, error = ended(process)
        assert process.returncode == 0, error
        assert "failed" not in said and "2 runs: " in said
    assert [len(starts(run)) for run in runs] == [1, 1]


def test_run_of_a_dead_process_is_taken_over(folder: Path) -> None:
    path = str(write(folder, modes("ok")))
    run = folder / "runs/s/run"
    code = "from pathlib import Path; from experiments.sweep.run_lock import RunLock; import time\n"
    code += f"lock = RunLock(Path({str(run)!r})); lock.take(); time.sleep(60)"
    holder = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(PROJECT)})
    wait_until(RunLock(run).is_held)
    process = start(folder, path)
    time.sleep(1.0)
    assert process.poll() is None and not starts(run)
    assert f"process {holder.pid} on" in RunLock(run).holder()
    holder.kill()
    holder.wait()
    said, _ = ended(process)
    assert process.returncode == 0 and "is at work on it" in said and len(starts(run)) == 1


def test_lock_lives_as_long_as_the_run(tmp_path: Path) -> None:
    lock = RunLock(tmp_path)
    assert lock.take() and not RunLock(tmp_path).take()
    child = subprocess.Popen(["sleep", "60"], pass_fds=(lock.fd,))
    lock.release()  # as if the runner had died
    assert RunLock(tmp_path).is_held() and not RunLock(tmp_path).take()
    child.kill()
    child.wait()
    assert not RunLock(tmp_path).is_held()
    with RunLock(tmp_path) as again:
        assert again.take()
    assert not RunLock(tmp_path).is_held()


def test_a_file_system_without_locks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: int, mode: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(SweepError, match=r"sweep\.lock: found a file system without locks"):
        RunLock(tmp_path).take()


# SLURM, without SLURM


@pytest.mark.parametrize("executor", ["local", "debug"])
def test_array_job(folder: Path, executor: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("submitit")
    path = str(write(folder, modes("ok", "fail")))
    options = [
        "--slurm_executor",
        executor,
        "--slurm_parameter",
        "timeout_min=5",
        "--slurm_parameter",
        "slurm_partition=x",
    ]
    assert sweep.main([path, *options]) == 1
    said = capsys.readouterr().out
    assert "2 runs: 1 failed, 1 finished" in said and "exit code 3: no such thing" in said
    assert sweep.main([path, *options]) == 1
    assert [len(starts(folder / f"runs/s/mode={name}")) for name in ("ok", "fail")] == [1, 2]


def test_array_task_leaves_a_run_that_is_at_work_or_done(folder: Path) -> None:
    from experiments.sweep.slurm_runner import ArrayTask

    (run,) = plan_runs(read_sweep_file(write(folder, modes("ok"))), Path("runs"))
    with run.lock as lock:
        assert lock.take()
        assert ArrayTask(run, {})().startswith(f"locked: process {os.getpid()}")
    assert ArrayTask(run, {})() == "finished"
    assert ArrayTask(run, {})() == "skipped"
    assert len(starts(run.run_dir)) == 1


def test_other_tasks_of_a_run_wait_for_the_word_of_the_first(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from experiments.sweep import slurm_runner
    from experiments.sweep.slurm_runner import ArrayTask, RunFailed

    (run,) = plan_runs(read_sweep_file(write(folder, modes("slow"))), Path("runs"))
    for name, value in (("SLURM_NTASKS", "2"), ("SLURM_JOB_ID", "7"), ("SLURM_PROCID", "1")):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(slurm_runner, "START_TIMEOUT_S", 0.3)
    with pytest.raises(RunFailed, match="task 0 said nothing"):
        ArrayTask(run, {})()
    assert not starts(run.run_dir)

    monkeypatch.setenv("SLURM_PROCID", "0")
    (run.run_dir / "checkpoints").mkdir(parents=True)
    with zipfile.ZipFile(run.run_dir / "checkpoints" / "last.ckpt", "w") as file:
        file.writestr("weights", "1")
    assert ArrayTask(run, {})() == "finished"
    (run.run_dir / "summary.json").unlink()
    monkeypatch.setenv("SLURM_PROCID", "1")
    assert ArrayTask(run, {})() == "exit code 0"  # as if beside task 0: both from its checkpoint
    assert [Path(start["ckpt_path"]).name for start in starts(run.run_dir)] == ["last.ckpt", "last.ckpt"]

    assert ArrayTask(run, {})() == "skipped" and len(starts(run.run_dir)) == 2  # requeued after the run's end
    (run.run_dir / "summary.json").unlink()
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    with pytest.raises(RunFailed, match="task 0 said nothing"):  # the word of an earlier attempt does not count
        ArrayTask(run, {})()

    monkeypatch.setenv("SLURM_PROCID", "0")
    with run.lock as lock:
        assert lock.take()
        assert ArrayTask(run, {})().startswith("locked")
    monkeypatch.setenv("SLURM_PROCID", "1")
    assert ArrayTask(run, {})().startswith("locked") and len(starts(run.run_dir)) == 2


def test_array_task_that_runs_out_of_time_is_queued_again(folder: Path) -> None:
    pytest.importorskip("submitit")
    from experiments.sweep.child_process import ChildProcess
    from experiments.sweep.slurm_runner import ArrayTask

    (run,) = plan_runs(read_sweep_file(write(folder, modes("slow"))), Path("runs"))
    task, lock = ArrayTask(run, {}), run.lock
    assert lock.take()
    task.child = ChildProcess(run, lock, {})
    wait_until(lambda: run.summary())
    again = task.checkpoint()
    assert run.status() == "interrupted" and not is_alive(task.child.process.pid)
    assert again.result() == "finished"
    assert starts(run.run_dir)[1]["ckpt_path"] is not None


def test_slurm_gets_one_array_job(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("submitit")
    (folder / "bin").mkdir()
    for name, line in (("srun", "exit 0"), ("sbatch", 'cp "$1" job.sh; echo Submitted batch job 12')):
        (folder / "bin" / name).write_text(f"#!/bin/sh\n{line}\n")
        (folder / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder / 'bin'}:{os.environ['PATH']}")
    parameters = [f"--slurm_parameter={pair}" for pair in ("timeout_min=90", "gpus_per_node=1", "slurm_partition=gpu")]
    command = [str(write(folder, modes("ok", "fail", "fine"))), "--slurm", "--jobs", "2", *parameters]
    assert sweep.main([*command, "--requeues", "7"]) == 0
    said = capsys.readouterr().out
    assert "3 runs: 3 submitted" in said and "job 12_0" in said and "job 12_2" in said
    assert "each start may take 90 min" in said and "at most 7 times" in said
    script = (folder / "job.sh").read_text()
    for line in ("--array=0-2%2", "--time=90", "--gpus-per-node=1", "--partition=gpu", "--job-name=s"):
        assert f"#SBATCH {line}" in script


def with_slurm(folder: Path, monkeypatch: pytest.MonkeyPatch, queue: dict[str, str], refusal: str = "") -> None:
    """Puts programs of SLURM in place that give jobs the number 12, and show a queue."""
    (folder / "bin").mkdir(exist_ok=True)
    shown = "\n".join(f"echo '{job}|{state}'" for job, state in queue.items())
    answer = (
        f"echo 'sbatch: error: {refusal}' >&2; exit 1" if refusal else "echo x >> jobs; echo Submitted batch job 12"
    )
    for name, lines in (("srun", "exit 0"), ("sbatch", answer), ("squeue", shown or "true")):
        (folder / "bin" / name).write_text(f"#!/bin/sh\n{lines}\n")
        (folder / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder / 'bin'}:{os.environ['PATH']}")


def test_submitting_twice_does_not_double(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("submitit")
    path = str(write(folder, modes("ok", "fail", "fine")))
    with_slurm(folder, monkeypatch, {"12_0": "PENDING", "12_1": "RUNNING", "12_2": "REQUEUE_HOLD", "3": "RUNNING"})
    assert sweep.main([path, "--slurm"]) == 0
    assert "each start may take 60 min" in capsys.readouterr().out  # submitit's own are 5
    assert sweep.main([path, "--slurm"]) == 0
    assert "3 runs: 1 running, 2 pending" in capsys.readouterr().out
    assert (folder / "jobs").read_text() == "x\n"
    assert sweep.main([path, "--status"]) == 0
    said = capsys.readouterr().out
    assert "3 runs: 1 running, 2 pending" in said and "job 12_2" in said
    with_slurm(folder, monkeypatch, {"12_1": "RUNNING"})  # the others were cancelled before they began
    assert sweep.main([path, "--slurm"]) == 0
    assert "3 runs: 1 running, 2 submitted" in capsys.readouterr().out
    assert (folder / "jobs").read_text() == "x\nx\n"


def test_where_slurm_does_not_answer_runs_are_submitted(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from experiments.sweep.slurm_runner import ArrayTask

    path = write(folder, modes("ok", "fail"))
    for number, run in enumerate(plan_runs(read_sweep_file(path), folder / "runs/s")):
        run.note_job(f"12_{number}")
    monkeypatch.setenv("PATH", str(folder))
    assert sweep.main([str(path), "--status"]) == 0
    assert "2 runs: 2 submitted" in capsys.readouterr().out
    (_, run) = plan_runs(read_sweep_file(path), folder / "runs/s")
    monkeypatch.setenv("SLURM_JOB_ID", "14")
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "12")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "1")
    ArrayTask(run, {}, fails_loudly=False)()
    assert sweep.main([str(path), "--status"]) == 0
    assert "2 runs: 1 failed, 1 submitted" in capsys.readouterr().out


def test_a_job_that_slurm_refuses_is_one_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("submitit")
    with_slurm(folder, monkeypatch, {}, refusal="invalid partition specified: gpuu")
    assert sweep.main([str(write(folder, modes("ok", "fail"))), "--slurm"]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len([line for line in said if line.startswith("error")]) == 1
    assert "SLURM refuses the job" in said[-1] and "invalid partition specified: gpuu" in said[-1]


def test_runs_are_deaf_to_the_signals_of_a_step(folder: Path) -> None:
    """SLURM sends them to every process of a step at the time limit; the sweep alone decides, by SIGTERM."""
    from experiments.sweep.child_process import ChildProcess

    (run,) = plan_runs(read_sweep_file(write(folder, modes("slow"))), Path("runs"))
    lock = run.lock
    assert lock.take()
    child = ChildProcess(run, lock, {})
    wait_until(lambda: run.summary())
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        child.process.send_signal(number)
    time.sleep(0.2)
    assert child.poll() is None
    child.stop()
    wait_until(lambda: child.poll(stopped=True) is not None)
    assert run.status() == "interrupted" and run.summary()["status"] == "interrupted"


def test_slurm_without_slurm_is_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", str(folder))  # SLURM or not, no program of it is found
    assert sweep.main([str(write(folder, modes("ok"))), "--slurm"]) == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1 and "slurm" in said.lower()


# What a run said


def test_last_error_line(tmp_path: Path) -> None:
    path = tmp_path / "stderr.log"
    assert last_error_line(path) == "it printed nothing"
    path.write_text("error: of an earlier attempt\n")
    offset = path.stat().st_size
    with path.open("a") as file:
        file.write("epoch 1\repoch 2\r\n\n")
    assert last_error_line(path, offset) == "epoch 2"
    assert last_error_line(path) == "of an earlier attempt"


def test_exit_codes_in_words() -> None:
    assert (exit_text(1), exit_text(-15), exit_text(-1000)) == (
        "exit code 1",
        "exit code -15 (SIGTERM)",
        "exit code -1000",
    )


# The whole thing


@pytest.mark.slow
def test_real_runs_survive_a_kill(tmp_path: Path, tiny_run: list[str]) -> None:
    command = [*COMMAND[:-1], *(word for word in tiny_run if "max_epochs" not in word), "${args}"]
    path = write(tmp_path, {"trainer.max_epochs": {"values": [1, 30]}}, command=command)
    words = [sys.executable, str(PROJECT / "sweep.py"), str(path), "--sweep_dir", str(tmp_path / "runs"), "--jobs", "2"]
    environment = {**os.environ, "WANDB_MODE": "disabled"}
    short, long = (tmp_path / "runs" / f"max_epochs={number}" for number in (1, 30))
    first = subprocess.Popen(words, cwd=PROJECT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def is_half_way() -> bool:
        summary = short / "summary.json"
        finished = summary.exists() and json.loads(summary.read_text())["status"] == "finished"
        return first.poll() is not None or (finished and (long / "checkpoints/last.ckpt").exists())

    wait_until(is_half_way, seconds=300)
    first.kill()
    output = first.communicate()[0]
    assert first.returncode == -signal.SIGKILL, output
    before = (short / "summary.json").read_bytes()
    # The training is told to stop when its sweep dies; how far it has come with that is a race.
    assert json.loads((long / "summary.json").read_text())["status"] in ("running", "interrupted")
    done = run_to_end(words, cwd=PROJECT, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 runs: 1 finished, 1 skipped" in done.stdout and "max_epochs=30: resumed from last.ckpt" in done.stdout
    assert (short / "summary.json").read_bytes() == before
    assert len(json.loads((short / "sweep.json").read_text())["attempts"]) == 1
    summary = json.loads((long / "summary.json").read_text())
    assert summary["steps"] == 60 and summary["epochs"] == 30
    assert summary["counts"]["real"] == 30 * 112  # every sample once per epoch, over both attempts
