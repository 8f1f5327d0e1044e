"""The W&B side of a run: offline unless logged in, never a prompt, never a crash without network."""

from __future__ import annotations

import netrc
import os
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.loggers.logger import rank_zero_experiment
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

CONNECT_SECONDS = 30
"""How long a run waits for the W&B server before it goes on offline."""


class WandbRun(WandbLogger):
    """W&B run of one run folder: its files lie in ``<run_dir>/wandb``, its name is the folder's name.

    Args:
        run_dir: the run folder.
        run_id: id of the W&B run to continue; None = a new one.
        project: W&B project; ``WANDB_PROJECT`` overrides it.
    """

    def __init__(self, run_dir: str | Path, run_id: str | None = None, project: str = "synfer") -> None:
        run_dir = Path(run_dir)
        super().__init__(
            name=run_dir.name,
            save_dir=run_dir,
            id=run_id,
            project=os.environ.get("WANDB_PROJECT", project),
            group=os.environ.get("WANDB_RUN_GROUP", run_dir.resolve().parent.name),
            mode=choose_mode(),
        )
        # Lightning always passes it, and W&B warns that it means nothing any more.
        self._wandb_init.pop("anonymous", None)

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The W&B run; made at the first use, offline where the server cannot be reached."""
        if self._experiment is None:
            import wandb

            # W&B picks another folder, with a warning, where this one does not exist yet.
            Path(str(self._save_dir)).mkdir(parents=True, exist_ok=True)
            self._wandb_init["settings"] = wandb.Settings(init_timeout=CONNECT_SECONDS, quiet=True)
            try:
                return WandbLogger.experiment.fget(self)  # type: ignore[attr-defined]
            except (wandb.errors.Error, OSError) as error:
                if self._wandb_init["mode"] == "offline":
                    raise
                rank_zero_warn(f"W&B cannot be reached ({error}): this run is kept offline in {self._save_dir}/wandb")
                self._wandb_init["mode"] = "offline"
                os.environ["WANDB_MODE"] = "offline"
        return WandbLogger.experiment.fget(self)  # type: ignore[attr-defined]


def choose_mode() -> str:
    """Returns the W&B mode: what ``WANDB_MODE`` says, else online when logged in, else offline.

    ``WANDB_MODE=online`` without a login would make W&B ask for a key, so it is offline too.
    """
    mode = os.environ.get("WANDB_MODE", "")
    if mode in ("disabled", "offline", "dryrun"):
        return "offline" if mode == "dryrun" else mode
    return "online" if _logged_in() else "offline"


def _logged_in() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
