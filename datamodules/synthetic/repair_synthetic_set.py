"""Puts aside what does not belong in a set: ``python -m datamodules.synthetic.repair_synthetic_set <folder>``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from datamodules.synthetic.synthetic_manifest import (
    MANIFEST,
    Manifest,
    foreign_files,
    missing_shards,
    read_manifest,
    shard_paths,
    write_manifest,
)
from datamodules.synthetic.synthetic_shards import LOCK, DamagedShardError, indices_in, list_shards
from synfer.foundation.folder_lock import NoLocksError, RanksLock


def repair(folder: Path, as_it_is: bool = False) -> list[str]:
    """Moves damaged, doubled and foreign files to ``<folder>-damaged`` and lists what is left; nothing is deleted.

    The faces that are missing then are made by the predict command that made the set.

    Args:
        folder: of the set.
        as_it_is: take the faces that are left as all that were planned.

    Returns:
        One line per thing done, and one on the set as it is now.

    Raises:
        ValueError: no set there, or a predict is at work in it.
    """
    if not (folder / "data").is_dir():
        raise ValueError(f"'{folder}': found no folder data, expected the folder of a synthetic set")
    lock = RanksLock(folder / LOCK)
    try:
        holder = lock.take()
    except NoLocksError as error:
        print(f"{error}; see to it that no predict is at work in the set", file=sys.stderr)
        holder = ""
    if holder:
        raise ValueError(f"synthetic set '{folder}': found {holder} at work in it, expected it to have ended")
    try:
        return _repair(folder, as_it_is)
    finally:
        lock.release()


def _repair(folder: Path, as_it_is: bool) -> list[str]:
    done: list[str] = []
    listed = (folder / MANIFEST).is_file()
    try:
        manifest = read_manifest(folder)
    except ValueError:
        manifest = None
        done.append(f"{MANIFEST} could not be read and is written anew; how many faces were planned is lost")
    lost = missing_shards(folder, manifest) if manifest else []
    if listed:
        for path in foreign_files(folder, manifest.shards if manifest else [p.name for p in shard_paths(folder)]):
            done.append(f"foreign: {_put_aside(path, folder)}")
    whole: dict[Path, list[int]] = {}
    for shard in shard_paths(folder):
        try:
            whole[shard] = indices_in(shard, manifest).tolist()
        except DamagedShardError as error:
            done.append(f"damaged: {error}: {_put_aside(shard, folder)}")
    seen: set[int] = set()
    for shard in sorted(whole, key=lambda path: (-len(whole[path]), path.name)):  # the largest stay
        if seen.isdisjoint(whole[shard]):
            seen.update(whole[shard])
        else:
            done.append(f"doubled: {_put_aside(shard, folder)}")
    done += [f"missing: '{folder / 'data' / name}' is listed no more" for name in lost]
    if listed or as_it_is:
        shards = list_shards(folder)
        planned = manifest.planned if manifest and not as_it_is else len(seen)
        write_manifest(folder, Manifest(planned, shards))
        missing = max(planned - len(seen), 0)
        state = f"{missing} of {planned} faces are missing: the predict command that made the set makes them"
        done.append(state if missing else f"the set is whole: {len(seen)} faces")
    else:
        done.append(
            f"{len(seen)} faces are left; this set has no {MANIFEST}, so that nothing says how many are missing"
        )
    return done


def _put_aside(path: Path, folder: Path) -> str:
    """Moves a file beside the set, where nobody takes it for a shard; returns both places."""
    target = folder.with_name(f"{folder.name}-damaged") / path.name
    target.parent.mkdir(exist_ok=True)
    number = 1
    while target.exists():
        target, number = target.with_name(f"{path.name}.{number}"), number + 1
    path.rename(target)
    return f"'{path}' moved to '{target}'"


def main(args: list[str] | None = None) -> None:
    """Runs the command.

    Raises:
        SystemExit: 2 after an error; one line has been printed.
    """
    parser = argparse.ArgumentParser(prog="python -m datamodules.synthetic.repair_synthetic_set", description=__doc__)
    parser.add_argument("folder", type=Path, help="the set: the folder that holds data/ and MANIFEST")
    parser.add_argument("--as-it-is", action="store_true", help="take the faces that are left as all that were planned")
    given = parser.parse_args(args)
    try:
        lines = repair(given.folder.resolve(), given.as_it_is)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    print("\n".join(lines))


if __name__ == "__main__":
    main()
