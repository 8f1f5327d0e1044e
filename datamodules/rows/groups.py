"""Rows that belong together: those of one person, or of one photograph, lie on one side of every split."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from datamodules.rows.sample_table import SampleTable


def units_of(table: SampleTable) -> np.ndarray:
    """Returns the units of a table's rows, by pixels and by its own groups; see :func:`units`."""
    return units(table.content_hash, table.group)


def units(content_hash: np.ndarray, group: np.ndarray | None) -> np.ndarray:
    """Returns a number for each row, int64 (N,) from 0: rows that share pixels or a group, directly or over others.

    The numbers follow the content hashes, not the order of the rows: the same set of images has the same ones.

    Args:
        content_hash: str (N,).
        group: str (N,); None = pixels alone.
    """
    hashes, image = np.unique(content_hash, return_inverse=True)
    if group is None:
        return image
    from scipy.sparse import coo_matrix  # seconds that most trainings have no use for
    from scipy.sparse.csgraph import connected_components

    _, group = np.unique(group, return_inverse=True)
    # A graph between images and groups, for images among each other would be as many as a person's images squared.
    size = len(hashes) + int(group.max()) + 1
    links = coo_matrix((np.ones(len(content_hash), dtype=np.int8), (image, len(hashes) + group)), shape=(size, size))
    unit = connected_components(links, directed=False)[1][: len(hashes)]
    _, numbered = np.unique(_first_image(unit)[image], return_inverse=True)
    return numbered


def _first_image(unit: np.ndarray) -> np.ndarray:
    """Returns for each image the first image of its unit: a number that does not depend on how units are numbered."""
    _, first, place = np.unique(unit, return_index=True, return_inverse=True)
    return first[place]


def refuse_shared_groups(train: SampleTable, evaluation: Sequence[SampleTable]) -> None:
    """Checks that nobody who is evaluated was trained on.

    Raises:
        ValueError: a person, or a photograph, with rows on both sides.
    """
    if train.group is None:
        return
    known = set(train.group.tolist())
    for table in evaluation:
        if table.group is None:
            continue
        shared = sorted(known & set(table.group.tolist()))
        if shared:
            rows = int(np.isin(table.group, shared).sum())
            raise ValueError(
                f"split '{table.split}': found {rows} rows of {len(shared)} people or photographs that the training "
                f"rows show too ({', '.join(shared[:3])}{', …' if len(shared) > 3 else ''}), expected others: what is "
                "scored would have been seen"
            )
