"""A list of faces to make, for a loader."""

from __future__ import annotations

from collections.abc import Sequence

from torch.utils.data import Dataset

from synfer.synthesis.plan import Plan
from synfer.synthesis.request import SynthesisRequest


class PlannedRequests(Dataset):
    """Gives requests in place of samples: ``DataLoader`` hands all indices of a batch over; use ``collate_fn=as_is``.

    Args:
        plan: what to make.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    def __len__(self) -> int:
        return len(self.plan)

    def __getitem__(self, index: int) -> SynthesisRequest:
        """Returns a request of one face."""
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> SynthesisRequest:
        """Returns the request of these places in the plan.

        Raises:
            ValueError: none of them is a place: a rank was given nothing to make (``EvaluationSampler``).
        """
        return self.plan.request([index for index in indices if index >= 0])
