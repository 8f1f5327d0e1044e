"""Which of the files in a part of a model hold its weights."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from safetensors import safe_open

from synfer.foundation.file_reading import FileError, one_line

_STEM = r"(?:diffusion_pytorch_)?model"
_SHARD = r"(?:-\d+-of-\d+)?"
_WEIGHTS = re.compile(rf"{_STEM}(?:\.(\w+))?{_SHARD}(?:\.(\w+))?\.safetensors")  # an old form has the variant behind
_INDEX = re.compile(rf"{_STEM}\.safetensors\.index(?:\.(\w+))?\.json")
_PICKLED = (".bin", ".ckpt", ".pt", ".pth", ".pkl")
_OTHERS = (".msgpack", ".onnx", ".h5", ".gguf", ".safetensors", *_PICKLED)
_POINTER = b"version https://git-lfs"


@dataclass(frozen=True)
class WeightFiles:
    """The weights of one network, in one file or in several with an index.

    Attributes:
        variant: "fp16" of ``model.fp16.safetensors``; None = the plain ones.
        names: file names, the index among them.
    """

    variant: str | None
    names: tuple[str, ...]

    @property
    def index(self) -> str | None:
        """Name of the file that says which tensor lies in which of the others; None where there is one file alone."""
        return next((name for name in self.names if name.endswith(".json")), None)


def choose_weight_files(names: Iterable[str]) -> WeightFiles | None:
    """Returns the safetensors among the file names of one part; None where there are none.

    Plain weights come before variants, ``fp16`` before other variants.
    """
    found: dict[str | None, list[str]] = {}
    for name in sorted(names):
        if match := _WEIGHTS.fullmatch(name) or _INDEX.fullmatch(name):
            found.setdefault(next((group for group in match.groups() if group), None), []).append(name)
    if not found:
        return None
    chosen = min(found, key=lambda variant: (variant is not None, variant != "fp16", variant or ""))
    whole = [name for name in found[chosen] if "-of-" not in name and not name.endswith(".json")]
    return WeightFiles(chosen, tuple(whole or found[chosen]))


def whole_weight_files(folder: Path, base: str) -> WeightFiles:
    """Returns the weight files of one part, all of them there.

    Args:
        folder: of the part.
        base: of which model, for errors.

    Raises:
        FileNotFoundError: there are none.
        ValueError: in another format than safetensors alone, a part of them missing, a file cut off, or a pointer of
            Git LFS.
    """
    names = [file.name for file in folder.iterdir() if file.is_file()]
    files = choose_weight_files(names)
    if files is None:
        others = sorted(name for name in names if name.endswith(_OTHERS))
        pickled = [name for name in others if name.endswith(_PICKLED)]
        if pickled:
            raise FileError(
                f"model.base '{base}': found pickled weights alone in {folder.name} ('{pickled[0]}'), expected "
                "safetensors (diffusers writes them: from_pretrained(…, use_safetensors=False).save_pretrained(…))"
            )
        expected = "expected safetensors of diffusers or transformers"
        if others:
            raise FileError(f"model.base '{base}': found '{others[0]}' alone in {folder.name}, {expected}")
        raise FileNotFoundError(f"model.base '{base}': found no weights in {folder.name}, {expected}")
    shards = [name for name in files.names if "-of-" in name]
    if files.index is not None:
        expected = sorted(set(_weight_map(folder / files.index, base).values()))
        if missing := [name for name in expected if name not in names]:
            raise FileError(
                f"model.base '{base}': found no '{folder.name}/{missing[0]}' ({len(missing)} of {len(expected)} weight "
                "files missing), expected all that its index names"
            )
    elif shards:
        raise FileError(
            f"model.base '{base}': found '{folder.name}/{shards[0]}' without an index, expected a file "
            "….safetensors.index.json beside it"
        )
    for name in files.names:
        with (folder / name).open("rb") as file:
            if file.read(len(_POINTER)) == _POINTER:
                raise FileError(
                    f"model.base '{base}': found a pointer of Git LFS in '{folder.name}/{name}', expected the weights "
                    "themselves (git lfs pull)"
                )
        if name.endswith(".safetensors"):
            _check_header(folder / name, base)
    return files


def _check_header(path: Path, base: str) -> None:
    """Refuses a file that is shorter than its header says."""
    try:
        with safe_open(path, "pt"):
            pass
    except Exception as error:  # SafetensorError is no subclass of anything that tells more
        raise FileError(
            f"model.base '{base}': found '{path.parent.name}/{path.name}' cut off or damaged "
            f"({one_line(error)[:120]}), expected whole safetensors"
        ) from error


def _weight_map(index: Path, base: str) -> dict[str, str]:
    try:
        return dict(json.loads(index.read_text())["weight_map"])
    except (ValueError, KeyError, TypeError) as error:
        raise FileError(
            f"model.base '{base}': found no weight_map in '{index.parent.name}/{index.name}', expected the index of "
            "weight files"
        ) from error
