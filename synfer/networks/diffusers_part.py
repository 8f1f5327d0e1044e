"""One network out of a folder or Hub model in diffusers' layout."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from synfer.foundation.checkpoint_file import check_finite
from synfer.foundation.file_reading import FileError


def load_part(base: str, part: str, kind: Any) -> Any:
    """Returns one network in float32, whatever number format it is stored in, and under whatever variant's name.

    Args:
        base: folder or Hub id in diffusers' layout.
        part: folder in it: "vae", "unet", …
        kind: class that reads it.

    Raises:
        OSError: nothing there.
        ValueError: damaged, pickled weights alone, tensors missing, or weights that are not finite.
    """
    variant = _variant(Path(base) / part)
    options = {"subfolder": part, "use_safetensors": True, "output_loading_info": True}
    try:
        network, info = kind.from_pretrained(base, variant=variant, **options)
    except OSError:
        if variant is not None or Path(base).exists():
            raise
        network, info = kind.from_pretrained(base, variant="fp16", **options)  # of a Hub model, the usual name
    missing = sorted(info.get("missing_keys") or ())
    if missing:
        raise FileError(
            f"model.base '{base}': found no '{missing[0]}' in the weights of {part} ({len(missing)} tensors missing), "
            "expected all that its config asks for"
        )
    check_finite(network.state_dict(), "model.base", f"{base}/{part}")
    return network.float()  # transformers keeps the stored format


def _variant(folder: Path) -> str | None:
    """Returns the variant of a local folder's weights, "fp16" of ``model.fp16.safetensors``; None = the plain ones.

    Raises:
        ValueError: pickled weights alone.
    """
    names = sorted(file.name for file in folder.glob("*model*")) if folder.is_dir() else []
    stored = [name for name in names if ".safetensors" in name]
    if names and not stored and any(name.endswith(".bin") for name in names):
        raise FileError(f"model.base '{folder}': found pickled weights alone, expected safetensors")
    kinds = r"\w*model\.(\w+)(?:-\d+-of-\d+)?\.safetensors"
    variants = [re.fullmatch(kinds, name) for name in stored]
    plain = any(re.fullmatch(r"\w*model(-\d+-of-\d+)?\.safetensors(\.index\.json)?", name) for name in stored)
    found = sorted({match[1] for match in variants if match is not None})
    return found[0] if found and not plain else None
