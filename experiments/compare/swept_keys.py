"""Which settings a set of runs was swept over, and which of them mean nothing in a run."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import yaml

from experiments.compare.run import Run
from synfer.foundation.renamed_settings import MOVED, present_key
from synfer.runs.flat_settings import LABEL_SPACE_KEY, Value

SEED_KEYS = ("seed_everything", "data.seed")

BOOKKEEPING = (
    *("run_dir", "ckpt_path", "weights_only", "checkpoint", "wandb", "cluster", "slurm", "misclassified"),
    *("data.pool_dir", "data.num_workers"),
    *("trainer.logger", "trainer.default_root_dir", "trainer.log_every_n_steps", "trainer.profiler"),
    *("trainer.enable_progress_bar", "trainer.enable_model_summary", "trainer.enable_checkpointing"),
    *("trainer.model_registry", "trainer.enable_autolog_hparams", "trainer.accelerator", "trainer.inference_mode"),
    *("data.eval_batch_size", "test.batch_size", "model.test_batch_size"),
    *("layout.cache_dir", "layout.cache_bytes", "layout.cache_ahead"),
)
"""Keys, or first parts of keys, that change where results lie or how they are computed, and not what they are."""

STUDIED = (
    "data.synthetic_ratio",
    "data.synthetic_multiple",
    "guidance.step_size",
    "guidance.latent_step_size",
    "synthesis.sampling.guidance_scale",
    "model.sampling.guidance_scale",
    "data.training_fraction",
    LABEL_SPACE_KEY,
)
"""Where two keys always change together, the one named first here is taken as swept."""

ALWAYS_GROUPS = (*STUDIED, "data.class_balance", "synthesis.generator")
"""Keys that make groups although no sweep declared them: a mean over 5 % and 20 % of the rows, or over two generators,
means nothing, and runs of one sweep file in several folders differ in them."""

OFF = "off"
"""Value of a setting of something that was switched off in a run: any value would have given the same run."""

ABSENT = "not in its config"
"""Value of a key that a run's configuration does not have."""

SYNTHESIS_KEYS = (
    *("synthesis", "layout", "guidance", "pseudo_labels"),
    *("data.synthetic_multiple", "data.synthetic_reader", "data.pool_size"),
)
"""Keys, or first parts of keys, that mean nothing to a classifier trained on real faces only."""


@dataclass(frozen=True)
class SweptKeys:
    """How runs differ.

    Attributes:
        keys: the keys that make the groups.
        tied: other keys that differ, each → the swept key that determines it in these runs.
        others: keys that differ although they were not swept (only where it is known which were).
        named: whether the user named the swept keys; then ``tied`` was not swept either.
    """

    keys: tuple[str, ...]
    tied: Mapping[str, str] = field(default_factory=dict)
    others: tuple[str, ...] = ()
    named: bool = False


def effective_config(run: Run) -> dict[str, Value]:
    """Returns the settings with :data:`OFF` in place of those that had no effect in this run.

    A group with ``enabled: false`` switches its other keys off, a command other than ``test`` the group ``test``, and a
    classifier's fit at synthetic ratio 0 everything that makes synthetic faces, so that one real-only run is the
    control of every generator.
    """
    config = dict(run.config)
    for switch in [key for key, value in config.items() if key.endswith(".enabled") and value is False]:
        prefix = switch.removesuffix("enabled")
        config.update({key: OFF for key in config if key.startswith(prefix) and key != switch})
    if run.task not in ("test", ""):
        config.update({key: OFF for key in config if _starts_with(key, ("test",))})
    is_fit = run.task in ("fit", "") and str(config.get("model.class_path", "")).endswith("ExpressionClassifier")
    if is_fit and config.get("data.synthetic_ratio") == 0:
        config.update({key: OFF for key in config if _starts_with(key, SYNTHESIS_KEYS)})
    return config


def comparable_settings(config: Mapping[str, Value]) -> dict[str, Value]:
    """Returns the settings without seeds and bookkeeping."""
    return {key: value for key, value in config.items() if not _starts_with(key, (*SEED_KEYS, *BOOKKEEPING))}


def find_swept_keys(
    configs: Sequence[Mapping[str, Value]], named: Sequence[str] | None = None, declared: Sequence[str] | None = None
) -> SweptKeys:
    """Finds the keys that differ between runs, seeds and bookkeeping apart.

    Where one key's value determines another's in all runs (``data.steps_per_epoch`` set for each ratio), only the first
    makes groups; the label space always does. A key that some runs lack counts when the values of the rest differ, and
    so does one that is off in some.

    Args:
        configs: effective settings of each run.
        named: the swept keys as the user named them, all of which make groups; None = found here.
        declared: the parameters of the sweep that started all the runs; :data:`ALWAYS_GROUPS` are added. None =
            all keys that differ are taken as swept.

    Raises:
        ValueError: a named key is in no run's settings.
    """
    values: dict[str, set[Value]] = {}
    for config in configs:
        for key, value in config.items():
            values.setdefault(key, set()).add(value)
    differing = list(comparable_settings({key: 0 for key, found in values.items() if len(found - {OFF}) > 1}))
    # Of the rest, settings of the trainer last: the same backbone in other epochs reads better than the reverse.
    differing.sort(key=lambda key: (_rank(key), key.startswith("trainer.")))
    if named is not None:
        keys = tuple(dict.fromkeys(resolve_key(name, values) for name in named))
        if LABEL_SPACE_KEY in differing and LABEL_SPACE_KEY not in keys:
            keys = (*keys, LABEL_SPACE_KEY)  # a mean over different label spaces means nothing
        rest = [key for key in differing if key not in keys]
        tied = {key: by for key in rest if (by := _determined_by(key, keys, configs))}
        return SweptKeys(keys, tied, tuple(key for key in rest if key not in tied), named=True)
    kept: list[str] = []
    tied = {}
    wanted = {*(_known_key(key, values) for key in declared), *ALWAYS_GROUPS} if declared else set(differing)
    for key in [key for key in differing if key in wanted]:
        by = _determined_by(key, kept, configs)
        if by and key != LABEL_SPACE_KEY:  # tied to the ratio, it still forbids differences between ratios
            tied[key] = by
        else:
            kept.append(key)
    others = tuple(key for key in differing if key not in kept and key not in tied)
    return SweptKeys(tuple(kept), tied, others)


def resolve_key(name: str, keys: Iterable[str]) -> str:
    """Returns the key that a user means: the whole key, or its last parts where only one key ends so.

    Raises:
        ValueError: no key, or several, end in these parts.
    """
    known = list(keys)
    wanted = _known_key(name, known)
    if wanted in known:
        return wanted
    ending = sorted(key for key in known if key.endswith(f".{wanted}"))
    ending = ending or sorted({new for old, new in MOVED.items() if old.endswith(f".{wanted}") and new in known})
    if len(ending) == 1:
        return ending[0]
    if ending:
        raise ValueError(f"key '{name}': found {', '.join(ending)}, expected one of them in full")
    last = wanted.rsplit(".", 1)[-1]
    near = sorted(key for key in known if last in key)[:3]
    hint = f" (near: {', '.join(near)})" if near else ""
    raise ValueError(f"key '{name}': found in no run's settings, expected a key of the command line{hint}")


def parse_setting(text: str) -> tuple[str, Value]:
    """Returns key and value of ``KEY=VALUE``, the value read as YAML.

    Raises:
        ValueError: no equals sign, or nothing before it.
    """
    key, sign, value = text.partition("=")
    if not sign or not key.strip():
        raise ValueError(f"'{text}': expected KEY=VALUE, such as data.synthetic_ratio=0")
    try:
        parsed = yaml.safe_load(value)
    except yaml.YAMLError:
        parsed = value
    if parsed is False and value.strip().lower() == OFF:
        return key.strip(), OFF  # YAML reads it as false
    return key.strip(), parsed if isinstance(parsed, (str, int, float, bool, type(None))) else value


def short_name(key: str) -> str:
    """Returns a key without the part that everyone knows: ``data.synthetic_ratio`` → ``synthetic_ratio``."""
    for start in ("synthesis.sampling.", "synthesis.", "data.", "model.", "trainer."):
        if key.startswith(start):
            return key.removeprefix(start)
    return key


def show_values(values: Iterable[Value]) -> dict[Value, str]:
    """Returns how the values of one key are shown; of paths only what tells them apart."""
    values = list(dict.fromkeys(values))
    paths = {value: value.split("/") for value in values if isinstance(value, str) and "/" in value}
    shown = {value: _show(value) for value in values}
    if len(paths) > 1:
        parts = list(paths.values())
        shortest = min(map(len, parts))
        start = next((i for i in range(shortest) if len({p[i] for p in parts}) > 1), 0)
        end = next((i for i in range(shortest - start) if len({p[-1 - i] for p in parts}) > 1), 0)
        shown.update({value: "/".join(p[start : len(p) - end]) or value for value, p in paths.items()})
    return shown


def _show(value: Value) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def _known_key(name: str, known: Collection[str]) -> str:
    """Returns a key as runs hold it: without ``init_args``, and by its name of now where none has it by an old one."""
    key = ".".join(part for part in name.replace("/", ".").split(".") if part != "init_args")
    return key if key in known else MOVED.get(key, present_key(key))


def _rank(key: str) -> int:
    return STUDIED.index(key) if key in STUDIED else len(STUDIED)


def _determined_by(key: str, by: Sequence[str], configs: Sequence[Mapping[str, Value]]) -> str:
    """Returns the first key of ``by`` whose value fixes that of ``key`` in all runs; "" where none does."""
    for other in by:
        seen: dict[Value, set[Value]] = {}
        for config in configs:
            seen.setdefault(config.get(other, ABSENT), set()).add(config.get(key, ABSENT))
        if all(len(found) == 1 for found in seen.values()):
            return other
    return ""


def _starts_with(key: str, starts: Iterable[str]) -> bool:
    return any(key == start or key.startswith(f"{start}.") for start in starts)
