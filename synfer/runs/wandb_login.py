"""The W&B key of this machine, where W&B itself looks for it; imports no wandb."""

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
