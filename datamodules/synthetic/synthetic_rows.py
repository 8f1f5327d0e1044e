"""The rows of a synthetic set (contract C6), from finished faces to columns that other libraries know."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image


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


def table_of(rows: SyntheticRows, text_labels: bool = False) -> pa.Table:
    """Returns the rows as a table, column by column: a Python object per cell would cost as much as the picture.

    Args:
        rows: the faces.
        text_labels: labels as text, for a set that was begun so (``has_text_labels``).
    """
    names, n = list(rows.label_space), len(rows.index)
    images = pa.StructArray.from_arrays(
        # The layout of an image in the files of Hugging Face's datasets.
        [
            pa.array([png_of(image) for image in rows.image], pa.binary()),
            pa.array([f"{name}.png" for name in rows.sample_id], pa.string()),
        ],
        ["bytes", "path"],
    )
    columns: dict[str, pa.Array] = {
        "image": images,
        "label": pa.array(list(rows.label), pa.string())
        if text_labels
        else pa.array([names.index(name) for name in rows.label], pa.int64()),
        "soft_label": _by_name(names, rows.soft_label),
        "caption": pa.array(list(rows.caption), pa.string()),
        "au": _by_name(rows.au_names, rows.au),
        "seed": pa.array(np.full(n, rows.seed, dtype=np.int64)),
        "sample_id": pa.array(list(rows.sample_id), pa.string()),
        "layout_source": pa.array([source or None for source in rows.layout_source], pa.string()),
        "kept": pa.array(np.asarray(rows.kept, dtype=bool)),
        "votes": _votes(names, rows.votes, n),
        "index": pa.array(np.asarray(rows.index, dtype=np.int64)),
    }
    return with_features(pa.table(columns), None if text_labels else names)


def with_features(table: pa.Table, names: Sequence[str] | None) -> pa.Table:
    """Returns the table with the note that tells Hugging Face's ``datasets`` how to open it.

    Args:
        table: columns of a set.
        names: those of labels that are numbers; None = labels are text.
    """
    features = {field.name: _feature(field.type) for field in table.schema} | {"image": {"_type": "Image"}}
    if names is not None:
        features["label"] = {"names": list(names), "_type": "ClassLabel"}
    return table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def label_names(schema: pa.Schema) -> list[str]:
    """Returns the names of labels stored as numbers in the way of ``datasets``; empty where there are none."""
    if "label" not in schema.names or not pa.types.is_integer(schema.field("label").type):
        return []
    try:
        return list(json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]["label"]["names"])
    except (KeyError, TypeError, ValueError):
        return []


def png_of(image: np.ndarray) -> bytes:
    """Returns a picture, uint8 (H, W, 3), as a PNG file.

    Level 1 of its compression takes half the time of the usual 6 for 4 % more bytes of a drawn face.
    """
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG", compress_level=1)
    return file.getvalue()


def _by_name(names: Sequence[str], values: np.ndarray) -> pa.StructArray:
    """Returns numbers (n, len(names)) as one float32 column with a field per name; NaN = null."""
    found = np.asarray(values, dtype=np.float32)
    return pa.StructArray.from_arrays(
        [pa.array(found[:, place], pa.float32(), from_pandas=True) for place in range(len(names))], list(names)
    )


def _votes(names: Sequence[str], votes: Mapping[str, np.ndarray], n: int) -> pa.ListArray:
    """Returns for each of n faces a list with the probabilities of each voter."""
    voters = list(votes)
    each = np.stack([np.asarray(votes[v], dtype=np.float32) for v in voters], axis=1) if voters else np.empty((n, 0, 1))
    flat = each.reshape(n * len(voters), -1) if voters else np.empty((0, len(names)), dtype=np.float32)
    cells = pa.StructArray.from_arrays([pa.array(voters * n, pa.string()), _by_name(names, flat)], _VOTE)
    return pa.ListArray.from_arrays(pa.array(np.arange(n + 1, dtype=np.int32) * len(voters)), cells)


_VOTE = ["voter", "probabilities"]


def _feature(kind: pa.DataType) -> Any:
    """Returns a column's type in the words of ``datasets``."""
    if pa.types.is_struct(kind):
        return {kind.field(i).name: _feature(kind.field(i).type) for i in range(kind.num_fields)}
    if pa.types.is_list(kind):
        return [_feature(kind.value_type)]
    # pyarrow says float where datasets says float32
    return {"dtype": {"float": "float32"}.get(str(kind), str(kind)), "_type": "Value"}
