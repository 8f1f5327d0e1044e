"""Sets of captions that the package ``datasets`` loads: by Hub id, or as it saves them to disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from datamodules.captions.caption_row import CaptionColumns, CaptionRow, FoundRows
from datamodules.captions.split_names import split_of
from datamodules.captions.stored_image import DatasetImage
from synfer.foundation.file_reading import plain_reason


class HubCaptions:
    """A data set of the Hub (fetched once into the cache of ``datasets``), or a folder of ``save_to_disk``.

    ``HF_HUB_OFFLINE=1`` keeps it to what the cache has. Pictures stay in the memory-mapped tables. A folder in another
    layout is read by the other sources, not through that cache, which would not see that its files have changed.

    Args:
        path: Hub id or folder.
        columns: which of them hold what.
        revision: branch, tag or commit; None = the newest.

    Raises:
        FileNotFoundError: it cannot be loaded.
    """

    def __init__(self, path: str, columns: CaptionColumns, revision: str | None = None) -> None:
        self._path, self._columns = path, columns
        self._sets = sets_by_split(path, revision)
        self.splits = tuple(self._sets)

    def rows(self, split: str) -> FoundRows:
        """Returns the rows of one split.

        Raises:
            ValueError: a column is missing.
        """
        from datasets import Image

        found = FoundRows()
        for name, read in self._sets[split]:
            columns = self._columns.among(list(read.column_names), f"'{self._path}', {name}")
            assert columns.image is not None
            data = read.cast_column(columns.image, Image(decode=False))
            pictures = data.select_columns([columns.image])
            texts = data.select_columns([c for c in (columns.caption, columns.label, columns.sample_id) if c])
            label_names = getattr(data.features.get(columns.label), "names", None)
            for row, cell in enumerate(texts):
                label = None if columns.label is None else cell[columns.label]
                if label_names is not None and isinstance(label, int) and 0 <= label < len(label_names):
                    label = label_names[label]
                found.rows.append(
                    CaptionRow(
                        name="" if columns.sample_id is None else str(cell[columns.sample_id]),
                        place=f"{name}#{row}",
                        image=DatasetImage(pictures, columns.image, row),
                        caption=None if columns.caption is None else cell[columns.caption],
                        label=label,
                    )
                )
        return found


def sets_by_split(path: str, revision: str | None) -> dict[str, list[tuple[str, Any]]]:
    """Returns split → names and data sets of ``datasets``, of the Hub or saved to disk.

    Args:
        path: Hub id or folder.
        revision: branch, tag or commit; None = the newest.

    Raises:
        FileNotFoundError: it cannot be loaded.
    """
    from datasets import DatasetDict, load_dataset, load_from_disk

    try:
        loaded: Any = load_from_disk(path) if Path(path).is_dir() else load_dataset(path, revision=revision)
    except Exception as error:  # these libraries raise what they like
        raise FileNotFoundError(
            f"data.reader.init_args.path '{path}': {plain_reason(error)}, expected a data set of the Hub or one "
            "saved to disk"
        ) from error
    sets: dict[str, list[tuple[str, Any]]] = {}
    for name, rows in (dict(loaded) if isinstance(loaded, DatasetDict) else {"train": loaded}).items():
        sets.setdefault(split_of(f"{name}.x"), []).append((str(name), rows))
    return sets
