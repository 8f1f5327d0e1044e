"""Shares on the fly: kept by every rank, moved by recalls, and known again by a run that goes on."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

import train
from callbacks.synthesis.online_synthesis import OnlineSynthesis
from callbacks.synthesis.planned_shares import PlannedShares, merged_states
from datamodules.expression_data_module import ExpressionDataModule
from datamodules.loading.augmentation import Augmentation
from synfer.synthesis import synthesiser as seam
from synfer.synthesis.class_shares import class_shares
from synfer.synthesis.feedback_shares import FeedbackSettings, feedback_shares
from synfer.synthesis.plan import EndlessPlan, Plan
from synfer.synthesis.proportional_plan import EndlessProportionalPlan
from tests.datamodules.synthetic.test_planned_set import ROWS, LongTailed
from tests.fixtures.drawn_synthesiser import LOADER, save_drawn
from tests.fixtures.tiny_data import BASIC7
from tests.fixtures.tiny_generator import tiny_classifier

COUNTS = dict(zip(BASIC7, ROWS, strict=True))
NAMES = list(BASIC7)
SIDE = 32
VIT = {"img_size": SIDE, "patch_size": 8, "embed_dim": 16, "depth": 1, "num_heads": 2}


def planned(plan: str, feedback: FeedbackSettings | None = None) -> PlannedShares:
    shares = PlannedShares(plan, feedback)
    shares.begin(NAMES, COUNTS, 0.5)
    return shares


def recalls(*values: float) -> dict[str, Any]:
    return {f"val/recall/{name}": torch.tensor(value) for name, value in zip(NAMES, values, strict=False)}


def names(plan: Plan, first: int, last: int) -> list[str]:
    return list(plan.request(range(first, last)).expressions)


def stored(shares: list[PlannedShares]) -> dict[str, Any]:
    """Returns what these ranks store together."""
    return merged_states([one.state() for one in shares])


# ---------------------------------------------------------------- shares


@pytest.mark.parametrize("plan", ["real", "fill", "inverse"])
def test_faces_come_in_the_shares_of_the_plan(plan: str) -> None:
    shares = planned(plan)
    assert shares.now == class_shares(plan, COUNTS, NAMES, "synthesis.plan")
    found = Counter(name for rank in range(3) for name in names(shares.plan(NAMES, 1, rank, None), 0, 100))
    for name, share in shares.now.items():
        assert found[name] / 300 == pytest.approx(share, abs=0.02)


def test_even_is_what_it_was() -> None:
    shares = planned("even")
    shares.go_on(0, 24)
    assert shares.is_even and shares.state()["history"] == {}
    assert names(shares.plan(NAMES, 1, 2, None), 0, 50) == names(EndlessPlan(NAMES, 1, 2), 0, 50)


def test_the_ratio_that_balances_is_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        planned("fill")
    assert "batches are balanced at data.synthetic_ratio=0.571, found 0.5" in caplog.text  # 160 of 280


def test_recalls_move_what_is_made_from_then_on() -> None:
    shares = planned("feedback")
    shares.go_on(1, 0)
    before = names(shares.plan(NAMES, 5, 1, None), 0, 300)
    assert max(Counter(before).values()) - min(Counter(before).values()) <= 4
    shares.follow(recalls(1.0, 1.0, 0.0, 1.0, 1.0, 1.0, 1.0), "Model")
    shares.go_on(1, 21)
    plan = shares.plan(NAMES, 5, 1, None)
    assert names(plan, 0, 21) == before[:21]
    found = Counter(names(plan, 21, 321))
    for name, share in (shares.now or {}).items():
        assert found[name] / 300 == pytest.approx(share, abs=0.02)
    assert found[NAMES[2]] > 260 and len(found) == 7
    shares.follow(recalls(*[0.5] * 7), "Model")
    shares.follow(recalls(*[0.2] * 6, 0.9), "Model")  # two validations without a face between them
    shares.go_on(1, 42)
    assert names(shares.plan(NAMES, 5, 1, None), 21, 42) == names(plan, 21, 42)
    assert [first for first, _ in shares.state()["history"]["1"]] == [0, 21, 42]


def test_a_model_without_recalls() -> None:
    with pytest.raises(ValueError, match=r"^synthesis.plan=feedback: found no val/recall/… of neutral, .* what Guess"):
        planned("feedback").follow({"val/accuracy": torch.tensor(0.5)}, "GuessWork")


# ---------------------------------------------------------------- going on


def test_a_run_that_goes_on_knows_all_its_shares() -> None:
    ranks = [planned("feedback"), planned("feedback")]
    for values, numbers in (((), (0, 0)), ((0.9, 0.1), (14, 21)), ((0.2, 0.7), (28, 21))):
        for rank, (one, number) in enumerate(zip(ranks, numbers, strict=True)):
            if values:
                one.follow(recalls(*values), "Model")
            one.go_on(rank, number)
    state = stored(ranks)
    for number_of_ranks in (1, 2, 3):
        for rank in range(number_of_ranks):
            again = planned("feedback")
            again.load(state, [0, 1])
            again.go_on(rank, {0: 35, 1: 42}.get(rank, 0))
            assert again.now == ranks[0].now
            for old in (0, 1):  # whoever makes their faces again
                first = ranks[old].plan(NAMES, 5, old, None)
                assert names(again.plan(NAMES, 5, old, None), 0, 60) == names(first, 0, 60)
            if rank == 2:
                new = EndlessProportionalPlan(ranks[0].now or {}, 5, 2)
                assert names(again.plan(NAMES, 5, 2, None), 0, 30) == names(new, 0, 30)


@pytest.mark.parametrize("before", ["even", "real", "feedback"])
@pytest.mark.parametrize("after", ["even", "fill", "feedback"])
def test_a_run_may_go_on_by_another_plan(before: str, after: str) -> None:
    first = planned(before)
    first.go_on(0, 0)
    again = planned(after)
    again.load(None if first.is_even else stored([first]), [0])
    again.go_on(0, 14)
    assert names(again.plan(NAMES, 5, 0, None), 0, 14) == names(first.plan(NAMES, 5, 0, None), 0, 14)
    expected = planned(after).plan(NAMES, 5, 0, None)
    assert names(again.plan(NAMES, 5, 0, None), 14, 60) == names(expected, 14, 60)
    assert again.is_even == (before == after == "even")


def test_feedback_on_other_expressions_begins_again() -> None:
    first = planned("feedback")
    first.go_on(0, 0)
    first.follow(recalls(0.9, 0.1), "Model")
    again = PlannedShares("feedback", None)
    again.begin(["happy", "sad"], COUNTS, 0.5)
    again.load(stored([first]), [0])
    assert again.now == {"happy": 0.5, "sad": 0.5}


# ---------------------------------------------------------------- in a fit


@pytest.fixture(autouse=True)
def _known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(seam.SYNTHESISERS, "drawn", LOADER)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_drawn(tmp_path_factory.mktemp("any") / "drawn", BASIC7, SIDE))


def logged(trainer: Trainer, prefix: str) -> dict[str, float]:
    """Returns what was logged last, by the names after the prefix."""
    metrics = trainer.callback_metrics
    return {name.removeprefix(prefix): float(value) for name, value in metrics.items() if name.startswith(prefix)}


class Watch(Callback):
    """Keeps the labels in the pool, and what each validation has found and each step has logged."""

    def __init__(self) -> None:
        self.recalls: list[dict[str, float]] = []
        self.shares: list[dict[str, float]] = []
        self.labels: list[str] = []

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        self.shares.append(logged(trainer, "synthesis/share/"))

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        self.recalls.append(logged(trainer, "val/recall/"))

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        pool = trainer.datamodule.pool  # type: ignore[attr-defined]
        self.labels = [NAMES[k] for k in pool.read(range(pool.filled))["label"].tolist()]


def fit(
    folder: Path,
    online: OnlineSynthesis,
    model: LightningModule | None = None,
    rows: tuple[int, ...] = ROWS,
    **more: Any,
) -> Watch:
    watch = Watch()
    settings: dict[str, Any] = {"max_epochs": 3, "num_sanity_val_steps": 1, **more}
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
        default_root_dir=folder,
        callbacks=[online, watch],
        **settings,
    )
    data = ExpressionDataModule(
        LongTailed(rows),
        batch_size=16,
        image_size=SIDE,
        seed=5,
        synthetic_ratio=0.5,
        steps_per_epoch=4,
        augmentation=Augmentation(enabled=False),
    )
    trainer.fit(model or tiny_classifier(BASIC7, image_size=SIDE, backbone_kwargs=VIT), datamodule=data)
    return watch


def test_a_pool_is_filled_up(drawn: str, tmp_path: Path) -> None:
    online = OnlineSynthesis(True, drawn, batch_size=70, initial_samples=280, max_reuse=1000, plan="fill")
    labels = Counter(fit(tmp_path, online, max_epochs=1).labels)
    assert labels.total() == 280 and NAMES[0] not in labels
    for name, count in COUNTS.items():
        assert labels[name] / 280 == pytest.approx((40 - count) / 160, abs=0.02)


def test_shares_follow_each_validation(drawn: str, tmp_path: Path) -> None:
    settings = FeedbackSettings(power=2.0, floor=0.2)
    online = OnlineSynthesis(True, drawn, batch_size=8, max_reuse=2, plan="feedback", feedback=settings)
    watch = fit(tmp_path, online)
    shares = watch.shares
    assert shares[0] == shares[3] == pytest.approx(dict.fromkeys(NAMES, 1 / 7))
    assert len(watch.recalls) == 4  # the sanity check moves nothing
    for epoch in (1, 2):
        expected = feedback_shares(watch.recalls[epoch], NAMES, settings)
        assert shares[4 * epoch] == pytest.approx(expected, abs=1e-6)
    assert shares[4] != pytest.approx(shares[0], abs=0.01)
    assert online.planned.now == pytest.approx(feedback_shares(watch.recalls[3], NAMES, settings))
    history = online.state_dict()["plan"]["history"]["0"]
    assert [first for first, _ in history] == sorted({first for first, _ in history}) and len(history) == 3


def test_feedback_needs_validations(drawn: str, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"^synthesis.plan=feedback: found trainer.limit_val_batches=0, expected valid"
    ):
        fit(tmp_path, OnlineSynthesis(True, drawn, plan="feedback"), limit_val_batches=0)


def test_feedback_needs_recalls(drawn: str, tmp_path: Path) -> None:
    class Silent(type(tiny_classifier())):  # type: ignore[misc]
        def _report_evaluation(self, stage: str) -> None: ...

    silent = Silent(list(BASIC7), "vit_tiny_patch16_224", backbone_kwargs=VIT, image_size=SIDE)
    with pytest.raises(ValueError, match=r"found no val/recall/… of neutral, .* what Silent logs in validation"):
        fit(tmp_path, OnlineSynthesis(True, drawn, batch_size=8, plan="feedback"), silent)


def test_plans_that_the_rows_do_not_allow(drawn: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^synthesis.plan=fill: .* there is nothing to fill up"):
        fit(tmp_path, OnlineSynthesis(True, drawn, plan="fill"), rows=(4,) * 7)
    with pytest.raises(ValueError, match=r"^synthesis.plan=real: found no training row of 'anger'.*synthesis.expressi"):
        fit(tmp_path, OnlineSynthesis(True, drawn, plan="real"), rows=(*ROWS[:6], 0))


# ---------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--synthesis.plan=evn"], "synthesis.plan: found 'evn', expected even, real, fill, inverse or feedback"),
        (
            ["--synthesis.plan=feedback", "--synthesis.feedback.floor=0"],
            "synthesis.feedback.floor: found 0.0, expected",
        ),
        (
            ["--synthesis.feedback.power=2"],
            "synthesis.feedback: found {'power': 2.0, 'floor': 0.1} beside synthesis.plan",
        ),
        (
            ["--data.synthesis_plan=feedback"],
            "data.synthesis_plan: found 'feedback', expected even, real, fill or inverse",
        ),
        (["--data.synthesis_count=null"], "data.synthesis_count=None: expected a number, or data.synthesis_plan=fill"),
    ],
)
def test_one_line_of_the_command_line(
    more: list[str], message: str, tiny_run: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        train.main(["fit", *tiny_run, *more, f"--run_dir={tmp_path / 'run'}"])
    lines = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    assert stopped.value.code == 2 and len(lines) == 1 and message in lines[0]
    assert not (tmp_path / "run").exists()
