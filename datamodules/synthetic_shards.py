"""Synthetic sets on disk (contract C6): one Parquet shard per batch of finished faces, and what they were made with."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from datamodules.whole_file import whole_file

_RECORD = "synthesis.json"
_SHARDS = "data/*.parquet"


@dataclass(frozen=True)
class SyntheticRows:
    """n finished faces.

    Attributes:
        index: int64 (n,), place in the list of what is to be made.
        sample_id: n strings.
        image: uint8 (n, H, W, 3), RGB.
        label: n intended expressions.
        soft_label: float (n, K), rows sum to 1.
        label_space: the K names.
        caption: n captions.
        au: float (n, A) in [0, 1], NaN = not given.
        au_names: the A names.
        seed: of the set; with the index it fixes the noise.
        layout_source: n sample ids of real faces; "" = none.
        kept: bool (n,).
        votes: voter → float (n, K) probabilities.
    """

    index: np.ndarray
    sample_id: Sequence[str]
    image: np.ndarray
    label: Sequence[str]
    soft_label: np.ndarray
    label_space: Sequence[str]
    caption: Sequence[str]
    au: np.ndarray
    au_names: Sequence[str]
    seed: int
    layout_source: Sequence[str]
    kept: np.ndarray
    votes: Mapping[str, np.ndarray] = field(default_factory=dict)


def write_shard(folder: Path, rows: SyntheticRows) -> Path:
    """Writes ``data/<first index>-<n>.parquet``, whole or not at all; returns its path."""
    names, n = list(rows.label_space), len(rows.index)
    by_name = pa.struct([(name, pa.float32()) for name in names])
    units = pa.struct([(name, pa.float32()) for name in rows.au_names])
    vote = pa.struct([("voter", pa.string()), ("probabilities", by_name)])
    columns: dict[str, pa.Array] = {
        # The layout of an image in the files of Hugging Face's datasets.
        "image": pa.array(
            [
                {"bytes": _png(image), "path": f"{name}.png"}
                for image, name in zip(rows.image, rows.sample_id, strict=True)
            ],
            pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
        ),
        "label": pa.array(list(rows.label), pa.string()),
        "soft_label": pa.array([_named(names, row) for row in rows.soft_label], by_name),
        "caption": pa.array(list(rows.caption), pa.string()),
        "au": pa.array([_named(rows.au_names, row) for row in rows.au], units),
        "seed": pa.array([rows.seed] * n, pa.int64()),
        "sample_id": pa.array(list(rows.sample_id), pa.string()),
        "layout_source": pa.array([source or None for source in rows.layout_source], pa.string()),
        "kept": pa.array(rows.kept.tolist(), pa.bool_()),
        "votes": pa.array(
            [[{"voter": v, "probabilities": _named(names, p[i])} for v, p in rows.votes.items()] for i in range(n)],
            pa.list_(vote),
        ),
        "index": pa.array(rows.index.tolist(), pa.int64()),
    }
    path = folder / "data" / f"{int(rows.index[0]):08d}-{n}.parquet"
    with whole_file(path) as partial:
        pq.write_table(pa.table(columns), partial)
    return path


def finished_indices(folder: Path) -> np.ndarray:
    """Returns the indices of all faces in the set, int64, sorted.

    Raises:
        ValueError: a shard cannot be read, or an index occurs twice.
    """
    found: list[int] = []
    for shard in sorted(folder.glob(_SHARDS)):
        try:
            found += pq.read_table(shard, columns=["index"])["index"].to_pylist()
        except (pa.ArrowInvalid, KeyError) as error:
            raise ValueError(
                f"synthetic set: '{shard}' cannot be read ({str(error).splitlines()[0][:120]}), expected a shard that "
                "predict has written (remove it: its faces are made again)"
            ) from error
    index = np.sort(np.array(found, dtype=np.int64))
    if (np.diff(index) == 0).any():
        raise ValueError(f"synthetic set '{folder}': found face {index[:-1][np.diff(index) == 0][0]} in two shards")
    return index


def check_record(folder: Path, made_with: Mapping[str, Any]) -> None:
    """Compares with what the faces in the set were made with; the first time, that is written down.

    Raises:
        ValueError: something differs: the set would hold faces of two kinds.
    """
    path = folder / _RECORD
    wanted = json.loads(json.dumps(made_with))  # tuples become lists, as in the file
    if path.is_file():
        before = json.loads(path.read_text())
        for name in sorted({*before, *wanted}):
            if before.get(name) != wanted.get(name):
                raise ValueError(
                    f"synthetic set '{folder}': its faces were made with {name} {before.get(name)}, found "
                    f"{wanted.get(name)}, expected the same (or another folder)"
                )
        return
    with whole_file(path) as partial:
        partial.write_text(json.dumps(wanted, indent=2, sort_keys=True) + "\n")


def write_card(folder: Path, facts: Mapping[str, str] | None = None) -> dict[str, int]:
    """Writes README.md, the card of the set, from its shards and its record; returns faces kept, by expression.

    Args:
        folder: of the set.
        facts: name → one line each of what else was measured on these faces; they stand below the table.
    """
    made_with = json.loads((folder / _RECORD).read_text())
    total: Counter[str] = Counter()
    kept: Counter[str] = Counter()
    changed = 0
    for shard in sorted(folder.glob(_SHARDS)):
        for row in pq.read_table(shard, columns=["label", "soft_label", "kept"]).to_pylist():
            total[row["label"]] += 1
            kept[row["label"]] += row["kept"]
            changed += row["kept"] and max(row["soft_label"], key=row["soft_label"].get) != row["label"]
    settings = "\n".join(f"- {name}: `{json.dumps(value)}`" for name, value in sorted(made_with.items()))
    rows = "\n".join(f"| {name} | {total[name]} | {kept[name]} |" for name in sorted(total))
    measured = "".join(f"- {name}: {line}\n" for name, line in (facts or {}).items()) + ("\n" if facts else "")
    (folder / "README.md").write_text(
        "---\ntask_categories: [image-classification]\ntags: [synthetic, facial-expression-recognition]\n"
        "configs:\n- config_name: default\n  data_files: data/*.parquet\n---\n\n"
        "# Synthetic facial expressions\n\n"
        f"{total.total()} faces made by a diffusion model; {kept.total()} of them were kept, {changed} of these show "
        "another expression than the intended one by the vote of the classifiers.\n\n"
        f"| intended expression | made | kept |\n| --- | --- | --- |\n{rows}\n\n{measured}"
        "Columns: `image`, `label` (intended), `soft_label` (what training uses), `caption`, `au` (intensities in "
        "[0, 1]), `seed`, `sample_id`, `layout_source` (the real training face whose layout was taken), `kept`, "
        "`votes`, `index`.\n\n"
        f"Made with:\n\n{settings}\n\n"
        "The persons do not exist, but for near copies. The faces inherit what the generator's training data lacks or "
        "overdoes; whether they may be passed on depends on the licences of that data and of the base model.\n"
    )
    return dict(kept)


def _png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def _named(names: Sequence[str], values: np.ndarray) -> dict[str, float | None]:
    return {name: None if np.isnan(v) else float(v) for name, v in zip(names, values.tolist(), strict=True)}
