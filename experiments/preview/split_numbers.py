"""What there is to know of the splits of a data set before training on it, as plain numbers and as text."""

from __future__ import annotations

from collections import Counter
from itertools import combinations
from typing import Any

import numpy as np
from PIL import Image

from datamodules.rows.alignment import AlignedImages
from datamodules.rows.grey_or_colour import is_grey
from datamodules.rows.images import FileImages
from datamodules.rows.sample_table import UNLABELLED, SampleTable
from experiments.preview.read_splits import SplitsRead

_RATINGS = ("ratings", "rows with valence or arousal")
_LOOKED_AT = 100
"""Pictures of a split that are decoded for sizes and colour: all of them may be hours."""


def split_numbers(table: SampleTable, said: list[str], seed: int) -> dict[str, Any]:
    """Returns what there is to know of one split, in plain types.

    Args:
        table: its rows.
        said: what its reader has warned of.
        seed: of the choice of the pictures that are looked at.
    """
    report = table.report
    soft = table.soft_label.max(axis=1) < 0.999
    return {
        "rows": len(table),
        "rows_read": report.read or len(table),
        "left_out": dict(report.excluded),
        "bad": len(report.skipped),
        "first_bad": list(report.skipped[:3]),
        "classes": table.class_counts(),
        "unlabelled": int((table.label == UNLABELLED).sum()),
        "soft_labels": int((soft & (table.label != UNLABELLED)).sum()),
        "action_units": 0 if table.au is None else int(np.isfinite(table.au).any(axis=1).sum()),
        "ratings": 0 if table.affect is None else int(np.isfinite(table.affect).any(axis=1).sum()),
        "agreement": dict(report.agreement),
        "people": None if table.group is None else len(set(table.group.tolist())),
        "attributes": {name: dict(Counter(values.tolist())) for name, values in table.attributes.items()},
        "repeated": len(table) - len(set(table.content_hash.tolist())),
        "is_synthetic": table.is_synthetic,
        "pictures": _pictures(table, seed),
        "alignment": table.alignment,
        "said": list(said),
    }


def across(tables: dict[str, SampleTable]) -> list[dict[str, Any]]:
    """Returns for each pair of splits what both have: rows with the same pixels, and people.

    Args:
        tables: name of the split → its rows.
    """
    found = []
    for (first, one), (second, other) in combinations(tables.items(), 2):
        pair: dict[str, Any] = {
            "splits": [first, second],
            "same_pixels": int(np.isin(other.content_hash, one.content_hash).sum()),
            "people": None,
            "rows_of_people": None,
        }
        if one.group is not None and other.group is not None:
            both = set(one.group.tolist()) & set(other.group.tolist())
            pair["people"], pair["rows_of_people"] = len(both), int(np.isin(other.group, list(both)).sum())
        found.append(pair)
    return found


def as_text(numbers: dict[str, Any], read: SplitsRead) -> str:
    """Returns the numbers as lines for the terminal.

    Args:
        numbers: with "splits" (:func:`split_numbers` by name) and "across".
        read: which splits are missing.
    """
    lines: list[str] = []
    for name, split in numbers["splits"].items():
        lines.append(f"{name}: {split['rows']:,} rows: {classes_in_words(split)}")
        lines += [f"  {line}" for line in _details(split)]
    lines += [f"{name}: cannot be read: {reason}" for name, reason in read.missing.items()]
    for pair in numbers["across"]:
        first, second = pair["splits"]
        if pair["same_pixels"]:
            rows = numbers["splits"][second]["rows"]
            lines.append(
                f"{first}, {second}: {pair['same_pixels']:,} of {rows:,} rows of {second} have pixels of {first}"
            )
        if pair["people"]:
            lines.append(
                f"{first}, {second}: {pair['people']:,} people (or clips) in both, {pair['rows_of_people']:,} rows of "
                f"{second}"
            )
    if not any(pair["same_pixels"] or pair["people"] for pair in numbers["across"]) and numbers["across"]:
        without = any(pair["people"] is None for pair in numbers["across"])
        lines.append("no pixels in two splits" + ("" if without else ", and nobody in two splits"))
    return "\n".join(lines)


def classes_in_words(split: dict[str, Any]) -> str:
    """Returns "happy 4,772, sad 1,982" of the numbers of a split."""
    counts = {**split["classes"], **({"unlabelled": split["unlabelled"]} if split["unlabelled"] else {})}
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())


def _details(split: dict[str, Any]) -> list[str]:
    lines = [f"left out: {count:,} {reason}" for reason, count in split["left_out"].items()]
    if split["bad"]:
        lines.append(f"bad: {split['bad']:,}: {'; '.join(split['first_bad'])}")
    pictures = split["pictures"]
    colour = f"{pictures['grey']} of {pictures['looked_at']} grey"
    if pictures["grey"] in (0, pictures["looked_at"]):
        colour = "in colour" if pictures["grey"] == 0 else "grey"
    files = f" (files {', '.join(pictures['files'])})" if pictures["files"] else ""
    lines.append(f"pictures: {', '.join(pictures['sizes'])}{files}, {colour} ({pictures['looked_at']} looked at)")
    known = []
    for key, words in (("soft_labels", "soft labels"), ("action_units", "rows with action units"), _RATINGS):
        known += [f"{split[key]:,} {words}"] if split[key] else []
    known += [] if split["people"] is None else [f"{split['people']:,} people (or clips)"]
    if "pairwise" in split["agreement"]:
        known.append(f"two annotators agree on {split['agreement']['pairwise']:.0%} of the faces")
    known += [f"{split['repeated']:,} rows repeat the pixels of another"] if split["repeated"] else []
    lines += ["; ".join(known)] if known else []
    for name, counts in split["attributes"].items():
        lines.append(
            f"{name}: {', '.join(f'{value or chr(8211)} {count:,}' for value, count in sorted(counts.items()))}"
        )
    return [*lines, *(f"said: {line}" for line in split["said"])]


def _pictures(table: SampleTable, seed: int) -> dict[str, Any]:
    """Returns sizes as "width x height" of faces and of their files, and how many are grey, of some rows."""
    chosen = chosen_rows(len(table), _LOOKED_AT, seed)
    sizes, files, grey = Counter[str](), Counter[str](), 0
    for row in chosen:
        face = table.images.batch(np.array([row]))
        sizes[f"{face.shape[-1]}x{face.shape[-2]}"] += 1
        grey += is_grey(face)
        source = table.images.source if isinstance(table.images, AlignedImages) else table.images
        if isinstance(source, FileImages):
            with Image.open(source.place(row)[0]) as picture:
                files[f"{picture.width}x{picture.height}"] += 1
    common = dict(files.most_common(3))
    if sum(common.values()) < sum(files.values()):
        common["others"] = sum(files.values()) - sum(common.values())
    return {"looked_at": len(chosen), "sizes": dict(sizes), "files": common, "grey": grey}


def chosen_rows(total: int, count: int, seed: int) -> list[int]:
    """Returns at most so many row numbers of ``total``, ascending, drawn at random."""
    drawn = np.random.default_rng(seed).permutation(total)[:count]
    return sorted(drawn.tolist())
