"""A list of faces to make, and its loader."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch.utils.data import DataLoader, Dataset

from datamodules.loading.evaluation_sampler import NO_ROW, EvaluationSampler
from datamodules.loading.mixed_dataset import as_is
from synfer.synthesis.plan import Plan
from synfer.synthesis.request import SynthesisRequest


class PlannedRequests(Dataset):
    """Gives requests in place of samples: all places of a batch are handed over at once; use ``collate_fn=as_is``.

    Args:
        plan: what to make.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    def __len__(self) -> int:
        return len(self.plan)

    def __getitem__(self, places: int | Sequence[int]) -> SynthesisRequest:
        """Returns a request of one face, or of those at several places."""
        return self.__getitems__([places] if isinstance(places, int) else places)

    def __getitems__(self, indices: Sequence[int]) -> SynthesisRequest:
        """Returns the request of these places in the plan.

        Raises:
            ValueError: none of them is a place: a rank was given nothing to make (``EvaluationSampler``).
        """
        return self.plan.request([index for index in indices if index >= 0])


class RequestSampler(EvaluationSampler):
    """One rank's places of a plan, a batch of them at a time.

    Lightning wraps the batch sampler of a loader in ``predict`` and remembers every index that it has seen, 40 MB of a
    million; a sampler whose items are batches it leaves alone.

    Args:
        work: what to make.
        batch_size: faces per request.
        ranks: number of ranks, and this one.
    """

    def __init__(self, work: PlannedRequests, batch_size: int, ranks: tuple[int, int]) -> None:
        super().__init__(work, *ranks)
        self.batch_size = batch_size

    def __iter__(self) -> Iterator[list[int]]:  # type: ignore[override]
        places = self._rows() or [NO_ROW] * super().__len__()
        return (list(places[i : i + self.batch_size]) for i in range(0, len(places), self.batch_size))

    def __len__(self) -> int:
        return -(-super().__len__() // self.batch_size)


def requests_loader(plan: Plan, batch_size: int, ranks: tuple[int, int]) -> DataLoader:
    """Returns one rank's requests of a plan, every place once over all ranks.

    Args:
        plan: what to make.
        batch_size: faces per request.
        ranks: number of ranks, and this one.
    """
    work = PlannedRequests(plan)
    return DataLoader(work, batch_size=None, sampler=RequestSampler(work, batch_size, ranks), collate_fn=as_is)  # type: ignore[arg-type]
