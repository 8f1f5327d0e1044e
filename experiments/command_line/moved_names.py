"""Names that have moved: what older configs and command lines call them, and what they are called now (C3)."""

from __future__ import annotations

import re

from synfer.foundation.renamed_settings import EVERYWHERE

CLASSES = {
    "callbacks.face_table.FaceTable": "callbacks.synthesis.face_table.FaceTable",
    "callbacks.layout_initialisation.LayoutInitialisation": (
        "callbacks.synthesis.layout_initialisation.LayoutInitialisation"
    ),
    "callbacks.metrics_csv.MetricsCsv": "callbacks.recording.metrics_csv.MetricsCsv",
    "callbacks.online_synthesis.OnlineSynthesis": "callbacks.synthesis.online_synthesis.OnlineSynthesis",
    "callbacks.pseudo_labeller.PseudoLabeller": "callbacks.synthesis.pseudo_labeller.PseudoLabeller",
    "callbacks.run_checkpoint.RunCheckpoint": "callbacks.recording.run_checkpoint.RunCheckpoint",
    "callbacks.semantic_guidance.SemanticGuidance": "callbacks.synthesis.semantic_guidance.SemanticGuidance",
    "callbacks.synthetic_set_writer.SyntheticSetWriter": "callbacks.synthesis.synthetic_set_writer.SyntheticSetWriter",
    "callbacks.throughput.Throughput": "callbacks.recording.throughput.Throughput",
    "callbacks.wandb_run.WandbRun": "callbacks.recording.wandb_run.WandbRun",
    "datamodules.expression.ExpressionDataModule": "datamodules.expression_data_module.ExpressionDataModule",
    "datamodules.readers.OtherSplitReader": "datamodules.readers.RemappedReader",
    "datamodules.readers.other_split.OtherSplitReader": "datamodules.readers.remapped.RemappedReader",
    "lightning_modules.action_unit_estimation.ActionUnitEstimation": (
        "lightning_modules.action_unit_estimator.ActionUnitEstimator"
    ),
    "lightning_modules.label_table_score.LabelTableScore": "lightning_modules.label_evaluation.LabelEvaluation",
}
"""Import path of a class that a config may name → its import path now."""

_OLD_SETTING = re.compile(r"(?<!\w)(" + "|".join(map(re.escape, EVERYWHERE)) + r")(?=\s*[:=])")
_OLD_CLASS = re.compile(r"(?<![\w.])(" + "|".join(map(re.escape, sorted(CLASSES, key=len, reverse=True))) + r")(?!\w)")


def with_present_names(text: str) -> str:
    """Returns a config, or a word of a command line, with the names of now for classes and settings that have moved."""
    return _OLD_SETTING.sub(lambda match: EVERYWHERE[match[1]], _OLD_CLASS.sub(lambda match: CLASSES[match[1]], text))
