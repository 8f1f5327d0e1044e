"""Where a model in diffusers' layout lies: a folder of this machine, or the copy of a model of the Hugging Face Hub."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from synfer.foundation.file_reading import FileError, one_line
from synfer.networks.stable_diffusion.weight_files import choose_weight_files

NETWORKS = ("unet", "vae", "text_encoder")
"""Folders of the parts that have weights."""

PARTS = (*NETWORKS, "tokenizer", "scheduler")
"""Folders of all parts that are read; a safety checker, a feature extractor and others are left where they are."""

_SHAPE = "a diffusers folder or Hub id of Stable Diffusion 1.x or 2.x"
_SINGLE_FILES = (".safetensors", ".ckpt", ".bin", ".pt", ".pth")


@dataclass(frozen=True)
class BaseFolder:
    """A folder in diffusers' layout.

    Attributes:
        name: what the user has called it, for errors: a path or a Hub id.
        path: the folder on this machine.
    """

    name: str
    path: Path


def find_base(base: str, parts: Sequence[str] = PARTS) -> BaseFolder:
    """Returns the folder of a model; what this machine lacks of the parts that are asked for comes from the Hub.

    ``HF_HUB_OFFLINE=1`` keeps it to what is there, and so does a network that does not answer.

    Args:
        base: a folder, or a Hub id ("stable-diffusion-v1-5/stable-diffusion-v1-5").
        parts: folders that are needed.

    Raises:
        FileNotFoundError: neither a folder nor a Hub id that can be had.
        ValueError: a single file in place of a folder.
    """
    path = Path(base)
    if path.is_file():
        if path.suffix not in _SINGLE_FILES:
            raise FileError(f"model.base '{base}': found a file, expected {_SHAPE}")
        raise FileError(
            f"model.base '{base}': found a single file, expected a folder in diffusers' layout ({_CONVERT})"
        )
    if path.is_dir():
        return BaseFolder(base, path)
    return BaseFolder(base, _from_hub(base, parts))


_CONVERT = "diffusers makes one: StableDiffusionPipeline.from_single_file(…).save_pretrained(…)"


def describe_folder(path: Path) -> str | None:
    """Returns what a folder without the parts of Stable Diffusion is, in words for an error; None = unknown."""
    names = sorted(file.name for file in path.iterdir())
    if "transformer" in names:
        return "a transformer in place of a unet, as in Stable Diffusion 3, Flux or PixArt (flow matching)"
    if "prior" in names or "decoder" in names:
        return "a prior or a decoder of its own, as in Stable Cascade or Kandinsky"
    if any(name in names for name in ("adapter_config.json", "pytorch_lora_weights.safetensors")):
        return "a LoRA alone"
    single = [name for name in names if name.endswith((".safetensors", ".ckpt"))]
    if "config.json" in names:
        return "one network alone" if single else "the config of one network"
    return f"the single file '{single[0]}' ({_CONVERT})" if single else None


def _from_hub(base: str, parts: Sequence[str]) -> Path:
    from huggingface_hub import HfApi, constants, snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    offline = constants.is_offline_mode()
    reason = "HF_HUB_OFFLINE is set"
    try:
        if not offline:
            try:
                wanted = _needed(HfApi().list_repo_files(base), parts)
                return Path(snapshot_download(base, allow_patterns=wanted))
            except (HFValidationError, GatedRepoError, RepositoryNotFoundError):
                raise
            except Exception as error:  # httpx, ssl and sockets each raise their own
                reason = f"the Hub does not answer: {one_line(error)[:120]}"
        return Path(snapshot_download(base, local_files_only=True))
    except HFValidationError as error:
        raise FileNotFoundError(f"model.base '{base}': found no such folder, expected {_SHAPE}") from error
    except GatedRepoError as error:
        raise FileNotFoundError(
            f"model.base '{base}': found a model of the Hub that asks for consent, expected access to it (agree on its "
            "page, then hf auth login)"
        ) from error
    except RepositoryNotFoundError as error:
        raise FileNotFoundError(
            f"model.base '{base}': found neither a folder nor a model of the Hub of this name, expected {_SHAPE} "
            "(misspelt, or private: hf auth login)"
        ) from error
    except LocalEntryNotFoundError as error:
        if (incomplete := getattr(error, "snapshot_path", None)) is not None:
            return Path(incomplete)  # what is not asked for may be missing; whoever reads the rest says so
        raise FileNotFoundError(
            f"model.base '{base}': found neither a folder nor a copy in {constants.HF_HUB_CACHE} ({reason}), expected "
            f"{_SHAPE}"
        ) from error


def _needed(names: Sequence[str], parts: Sequence[str]) -> list[str]:
    """Returns the files of a model of the Hub that loading reads: of all copies of the weights one."""
    needed = [name for name in names if "/" not in name and name.endswith(".json")]
    for part in parts:
        inside = [name.removeprefix(f"{part}/") for name in names if name.startswith(f"{part}/")]
        files = choose_weight_files(inside)
        weights = () if files is None else files.names
        texts = (name for name in inside if name.endswith((".json", ".txt")) and ".index." not in name)
        needed += [f"{part}/{name}" for name in (*texts, *weights)]
    return needed
