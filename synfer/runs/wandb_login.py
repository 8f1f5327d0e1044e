"""The W&B key of this machine, where W&B itself looks for it, and what follows from it; imports no wandb."""

from __future__ import annotations

import netrc
import os
from urllib.parse import urlparse


def find_wandb_key() -> tuple[str, str]:
    """Returns (where it is from, the key); the key is "" where nobody has logged in to the server in use."""
    key = os.environ.get("WANDB_API_KEY", "")
    if key:
        return "WANDB_API_KEY", key
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    try:
        login = netrc.netrc(os.environ.get("NETRC")).authenticators(host)
    except (OSError, netrc.NetrcParseError):
        login = None
    return "the netrc file", (login[2] or "") if login else ""


def choose_mode() -> str:
    """Returns the W&B mode: what ``WANDB_MODE`` says, else online when logged in, else offline.

    ``WANDB_MODE=online`` without a login would make W&B ask for a key, so it is offline too.
    """
    mode = os.environ.get("WANDB_MODE", "")
    if mode in ("disabled", "offline", "dryrun"):
        return "offline" if mode == "dryrun" else mode
    return "online" if find_wandb_key()[1] else "offline"


def web_address() -> str:
    """Returns where people look at the runs of the server in use, without a slash at its end."""
    return os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai").rstrip("/").replace("//api.wandb.ai", "//wandb.ai")
