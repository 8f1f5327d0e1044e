"""A list of faces to make, and its loader."""

from __future__ import annotations

from collections.abc import Sequence

from torch.utils.data import DataLoader, Dataset

from datamodules.loading.evaluation_sampler import EvaluationSampler
from datamodules.loading.mixed_dataset import as_is
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


def requests_loader(plan: Plan, batch_size: int, ranks: tuple[int, int]) -> DataLoader:
    """Returns one rank's requests of a plan, every place once over all ranks.

    Args:
        plan: what to make.
        batch_size: faces per request.
        ranks: number of ranks, and this one.
    """
    work = PlannedRequests(plan)
    sampler = EvaluationSampler(work, *ranks)
    return DataLoader(work, batch_size=batch_size, sampler=sampler, collate_fn=as_is)  # type: ignore[arg-type]
