"""Stand-in until the real callback is written (owner: lead)."""

from __future__ import annotations

from lightning.pytorch import Callback


class LayoutInitialisation(Callback):
    """Stand-in.

    Args:
        enabled: whether the callback acts.
    """

    def __init__(self, enabled: bool = False) -> None:
        self.enabled = enabled
