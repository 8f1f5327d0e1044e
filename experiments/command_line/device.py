"""The device that a command is told to work on."""

from __future__ import annotations


def device_named(name: str) -> str:
    """Returns a device that this machine has; "auto" is a GPU where there is one.

    Raises:
        ValueError: it has no such device.
    """
    import torch  # a second, which --help need not wait for

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device: found '{name}', which this machine has not, expected auto or cpu") from error
    return name
