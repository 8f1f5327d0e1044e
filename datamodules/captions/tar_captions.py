"""Sets of captions in WebDataset's archives: ``0001.jpg`` with ``0001.txt`` or ``0001.json`` in ``*.tar``."""

from __future__ import annotations

import hashlib
import json
import tarfile
from pathlib import Path
from typing import Any

from datamodules.captions.caption_row import USUAL_CAPTION, CaptionColumns, CaptionRow, FoundRows
from datamodules.captions.split_names import files_by_split
from datamodules.captions.stored_image import PartOfFile
from datamodules.rows.image_files import image_suffixes
from synfer.foundation.file_reading import reading

_EXPECTED = "an uncompressed tar archive with pictures and texts"


class TarCaptions:
    """``*.tar`` below a folder, or one archive; files of one key, the name up to its first dot, are one sample.

    Pictures stay in the archives and are read when asked for. The caption is the ``.txt``, or the entry ``caption`` or
    ``text`` of the ``.json``; where a column is given, that entry of the ``.json``.

    Args:
        path: folder or archive.
        columns: entries of the ``.json``; the image's is of no account.

    Raises:
        FileNotFoundError: no archive there.
    """

    def __init__(self, path: str, columns: CaptionColumns) -> None:
        self._columns = columns
        self._root, self._files = archives_by_split(path)
        self.splits = tuple(self._files)

    def rows(self, split: str) -> FoundRows:
        """Returns the rows of one split; each archive is a part.

        Raises:
            ValueError: an archive is damaged or compressed.
        """
        found = FoundRows()
        for part, name in enumerate(self._files[split]):
            with (
                reading("image-caption set", self._root / name, _EXPECTED),
                tarfile.open(self._root / name, "r:") as archive,
            ):
                self._read_archive(name, archive, found, part)
        return found

    def _read_archive(self, name: str, archive: tarfile.TarFile, found: FoundRows, part: int) -> None:
        images: dict[str, tarfile.TarInfo] = {}
        texts: dict[str, str] = {}
        entries: dict[str, Any] = {}
        for member in archive:
            if not member.isfile() or Path(member.name).name.startswith("."):
                continue
            key, ending = key_and_ending(member.name)
            where = f"{self._root / name}: '{member.name}'"
            if f".{ending}" in image_suffixes():
                if key in images:
                    found.bad.append(f"{where}: found a second picture of key '{key}', expected one")
                images.setdefault(key, member)
            elif ending in ("txt", "json"):
                self._read_text(archive, member, key, ending, where, found, texts, entries)
            elif Path(member.name).suffix.lower() in image_suffixes():
                found.bad.append(further_dots(where, key, ending))
            else:
                reason = f"neither picture nor caption, by the ending '{ending}'"
                found.excluded[reason] = found.excluded.get(reason, 0) + 1
        for key, member in images.items():
            entry = entries.get(key, {})
            place = f"{name}#{key}"
            digest = hashlib.sha256(f"{place} {member.offset_data} {member.size} {member.chksum}".encode())
            named = entry.get(self._columns.sample_id) if self._columns.sample_id is not None else key
            found.rows.append(
                CaptionRow(
                    name="" if named is None else str(named),
                    place=place,
                    image=PartOfFile(self._root / name, member.offset_data, member.size),
                    caption=self._caption(texts.get(key), entry),
                    label=entry.get(self._columns.label) if self._columns.label is not None else None,
                    part=part,
                    digest=digest.hexdigest()[:16],
                )
            )
        lonely = len((texts.keys() | entries.keys()) - images.keys())
        if lonely:
            reason = f"texts without a picture in {name}"
            found.excluded[reason] = lonely

    def _read_text(
        self,
        archive: tarfile.TarFile,
        member: tarfile.TarInfo,
        key: str,
        ending: str,
        where: str,
        found: FoundRows,
        texts: dict[str, str],
        entries: dict[str, Any],
    ) -> None:
        opened = archive.extractfile(member)
        try:
            text = opened.read().decode("utf-8-sig") if opened is not None else ""
            if ending == "txt":
                texts[key] = text
            else:
                entry = json.loads(text)
                entries[key] = entry if isinstance(entry, dict) else {}
        except ValueError:  # no UTF-8, or no JSON
            found.bad.append(f"{where}: found no {ending.upper() if ending == 'json' else 'UTF-8'}, expected a caption")

    def _caption(self, text: str | None, entry: dict[str, Any]) -> Any:
        if self._columns.caption is not None:
            return entry.get(self._columns.caption)
        if text is not None:
            return text
        return next((entry[name] for name in USUAL_CAPTION if entry.get(name) is not None), None)


def archives_by_split(path: str) -> tuple[Path, dict[str, list[str]]]:
    """Returns the folder of a set's archives, and split → their names in it.

    Args:
        path: folder or archive.

    Raises:
        FileNotFoundError: no archive there.
    """
    root = Path(path)
    if root.is_file():
        files, root = [root.name], root.parent
    else:
        files = [file.relative_to(root).as_posix() for file in root.rglob("*.tar")]
    found = files_by_split(files)
    if not found:
        raise FileNotFoundError(f"data.reader.init_args.path: found no *.tar in '{path}', expected some")
    return root, found


def further_dots(where: str, key: str, ending: str) -> str:
    """Returns a line about a picture whose name has a second dot, and so another key than it seems to have."""
    return (
        f"{where}: found the key '{key}' and the ending '{ending}' (a key ends at the first dot), expected a name "
        "without further dots"
    )


def key_and_ending(name: str) -> tuple[str, str]:
    """Returns key and ending as WebDataset does: folders belong to the key, which ends at the first dot of the file."""
    folder, slash, file = name.rpartition("/")
    stem, _, ending = file.partition(".")
    return f"{folder}{slash}{stem}", ending.lower()
