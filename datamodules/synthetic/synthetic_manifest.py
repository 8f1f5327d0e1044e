"""What a synthetic set has to hold: the number of faces planned, and each shard's faces, bytes and SHA-256.

``MANIFEST`` is JSON without an ending, for Hugging Face's ``datasets`` would take ``*.json`` for rows. While a set is
written every rank notes its shards in a journal of its own, each shard before it is there: whatever the moment of a
kill, a shard is listed, or it does not exist and its faces are made again.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from synfer.foundation.atomic_file import atomic_write
from synfer.foundation.file_reading import plain_reason

SET_FOLDER = "synthetic_set"
"""Where a run writes its set, in its own folder."""

MANIFEST = "MANIFEST"
_JOURNALS = f".{MANIFEST}-*"
_ANOTHER = "its SHA-256 is another than when written"


@dataclass(frozen=True)
class ShardEntry:
    """One shard as it was written.

    Attributes:
        faces: rows.
        size: of the file in bytes.
        sha256: of the file, hexadecimal.
    """

    faces: int
    size: int
    sha256: str

    @classmethod
    def of(cls, data: bytes | memoryview, faces: int) -> ShardEntry:
        """Returns the entry of a file with this content."""
        return cls(faces, len(data), hashlib.sha256(data).hexdigest())

    @classmethod
    def of_file(cls, path: Path, faces: int) -> ShardEntry:
        """Returns the entry of a file, which is read piece by piece.

        Raises:
            OSError: it cannot be read.
        """
        return cls(faces, path.stat().st_size, _sha256(path))

    def difference_of(self, path: Path) -> str:
        """Returns how a file differs from what was written; "" = not at all. It is read piece by piece.

        Raises:
            OSError: it cannot be read.
        """
        size = path.stat().st_size
        if size != self.size:
            return f"{size} bytes where {self.size} were written"
        return "" if _sha256(path) == self.sha256 else _ANOTHER

    def difference(self, data: bytes) -> str:
        """Returns how a file's content differs from what was written; "" = not at all."""
        if len(data) != self.size:
            return f"{len(data)} bytes where {self.size} were written"
        return "" if hashlib.sha256(data).hexdigest() == self.sha256 else _ANOTHER


@dataclass
class Manifest:
    """What a set has to hold.

    Attributes:
        planned: number of faces.
        shards: file name in ``data/`` → its entry.
    """

    planned: int
    shards: dict[str, ShardEntry] = field(default_factory=dict)

    @property
    def faces(self) -> int:
        """Faces in all shards listed."""
        return sum(entry.faces for entry in self.shards.values())


def read_manifest(folder: Path) -> Manifest | None:
    """Returns the manifest with what the journals add; None for a set of a version that wrote none.

    Raises:
        ValueError: it cannot be read.
    """
    path = folder / MANIFEST
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        manifest = Manifest(int(stored["planned"]), {n: _entry(e) for n, e in stored["shards"].items()})
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(
            f"'{path}' cannot be read ({plain_reason(error, 120)}), expected what predict has written; "
            f"{repair_command(folder)} writes it anew from the shards"
        ) from error
    for journal in sorted(folder.glob(_JOURNALS)):
        for line in journal.read_bytes().split(b"\n"):
            try:
                found = json.loads(line)
                manifest.shards[found.pop("shard")] = _entry(found)
            except (ValueError, TypeError, KeyError, AttributeError):
                continue  # the torn end of a journal: its shard was not there yet
    return manifest


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Writes the manifest and removes the journals; for one process, while no other writes shards."""
    stored = {"planned": manifest.planned, "shards": {n: asdict(e) for n, e in sorted(manifest.shards.items())}}
    with atomic_write(folder / MANIFEST) as partial:
        partial.write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")
    for journal in folder.glob(_JOURNALS):
        journal.unlink()


def note_shard(folder: Path, name: str, entry: ShardEntry) -> None:
    """Adds a shard to this process's journal; to be called before the shard takes its place."""
    journal = folder / f".{MANIFEST}-{socket.gethostname()}-{os.getpid()}"
    with journal.open("ab") as file:
        file.write((json.dumps({"shard": name, **asdict(entry)}) + "\n").encode())
        file.flush()
        os.fsync(file.fileno())


def shard_paths(folder: Path) -> list[Path]:
    """Returns the shards in ``<folder>/data``, sorted; hidden files are those of other tools, or half written."""
    return sorted(path for path in folder.glob("data/*.parquet") if not path.name.startswith("."))


def foreign_files(folder: Path, listed: Collection[str]) -> list[Path]:
    """Returns the files among the shards that are not listed, and Parquet files outside ``data``."""
    found = [path for path in sorted(folder.glob("data/*")) if path.name not in listed]
    return [path for path in (*found, *sorted(folder.glob("*.parquet"))) if not path.name.startswith(".")]


def missing_shards(folder: Path, manifest: Manifest) -> list[str]:
    """Returns the names of the shards that are listed and not there."""
    return sorted(set(manifest.shards) - {path.name for path in shard_paths(folder)})


def refuse_foreign(folder: Path, manifest: Manifest) -> None:
    """Refuses a set with files that its manifest does not list.

    Raises:
        ValueError: one line that names them and the way out.
    """
    foreign = foreign_files(folder, manifest.shards)
    if foreign:
        raise ValueError(
            f"synthetic set '{folder}': found {named_files(foreign)}, which its {MANIFEST} does not list, expected the "
            f"shards of predict alone (move it elsewhere, or {repair_command(folder)} does)"
        )


def check_complete(folder: Path, manifest: Manifest) -> None:
    """Refuses a set in which shards or faces are missing, or that holds files of others.

    Raises:
        ValueError: one line that says what, and the way out.
    """
    refuse_foreign(folder, manifest)
    missing = missing_shards(folder, manifest)
    way_out = (
        "expected all: the predict command that made the set makes them; "
        f"{repair_command(folder, '--as-it-is')} lets training go on without them"
    )
    if missing:
        lost = sum(manifest.shards[name].faces for name in missing)
        raise ValueError(
            f"synthetic set '{folder}': found no {named_files([Path('data', name) for name in missing])}, shards of "
            f"{lost} faces that its {MANIFEST} lists, {way_out}"
        )
    if manifest.faces < manifest.planned:
        raise ValueError(
            f"synthetic set '{folder}': found {manifest.faces} of the {manifest.planned} faces planned (it is "
            f"unfinished), {way_out}"
        )


def repair_command(folder: Path, option: str = "") -> str:
    """Returns the command that puts aside what does not belong in a set, for an error to name."""
    return f"`python -m datamodules.synthetic.repair_synthetic_set {folder}{option and ' ' + option}`"


def named_files(paths: Sequence[Path]) -> str:
    """Returns the first three of some files by name."""
    more = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
    return ", ".join(f"'{path}'" for path in paths[:3]) + more


def _sha256(path: Path) -> str:
    found = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            found.update(piece)
    return found.hexdigest()


def _entry(stored: dict[str, object]) -> ShardEntry:
    return ShardEntry(int(str(stored["faces"])), int(str(stored["size"])), str(stored["sha256"]))
