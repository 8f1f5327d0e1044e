"""Exponential moving average of what is trained, and of nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from synfer.foundation.rank_states import own_state, states_of_ranks


class ParameterEMA:
    """Keeps a smoothed copy of a module's trained parameters and of the float buffers that belong to them.

    Frozen parts (a VAE, a text encoder) are neither copied nor saved. BatchNorm's running statistics are averaged too,
    because statistics of the raw weights do not fit the averaged ones. After n updates the decay is
    min(decay, (1 + n) / (10 + n)), so that a short run does not evaluate its random start; the first update copies.

    This is a plain object, not a module: the smoothed tensors enter a checkpoint through :meth:`state_dict` alone.
    Tensors are looked up by name at each call, so that a module may be moved, or its BatchNorm converted, meanwhile.

    Args:
        module: the module that is trained; it is referred to, not copied.
        decay: share of the old average that stays at each update, in [0, 1).

    Raises:
        ValueError: decay outside [0, 1), or the module has no parameter with ``requires_grad``.
    """

    def __init__(self, module: nn.Module, decay: float = 0.999) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"EMA decay: found {decay}, expected a number in [0, 1)")
        self.module = module
        self.decay = decay
        self.num_updates = 0
        self.parameter_names = [name for name, p in module.named_parameters() if p.requires_grad]
        self.buffer_names = _trained_buffer_names(module)
        if not self.parameter_names:
            raise ValueError(f"EMA of {type(module).__name__}: found no parameter that requires a gradient")
        self.average: dict[str, Tensor] = {}
        self._backup: dict[str, Tensor] | None = None

    @property
    def is_swapped(self) -> bool:
        """Whether the module holds the averaged tensors at the moment."""
        return self._backup is not None

    @property
    def backup(self) -> dict[str, Tensor]:
        """The module's own tensors by name while it holds the averaged ones; otherwise empty."""
        return dict(self._backup or {})

    @torch.no_grad()
    def update(self) -> None:
        """Takes the module's present tensors into the average; call it after each optimiser step, on every rank.

        Raises:
            RuntimeError: the averaged tensors are in the module at the moment.
        """
        if self._backup is not None:
            raise RuntimeError("EMA update while the averaged weights are in the module: call restore() first")
        live = self._live()
        if self.num_updates == 0:
            self.average = {name: tensor.detach().clone() for name, tensor in live.items()}
        else:
            self._follow(live)
            decay = min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
            torch._foreach_lerp_(list(self.average.values()), [t.detach() for t in live.values()], 1 - decay)
        self.num_updates += 1

    @torch.no_grad()
    def average_buffers_over_ranks(self) -> None:
        """Makes the averaged buffers the same on all ranks (their mean); does nothing without a process group.

        BatchNorm statistics come from each rank's own samples. Without this, every rank would evaluate a slightly
        different network. A collective: every rank must call it.
        """
        if self.num_updates == 0 or not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
            return
        self._follow(self._live())
        for name in self.buffer_names:
            dist.all_reduce(self.average[name])
            self.average[name].div_(dist.get_world_size())

    def apply(self) -> None:
        """Puts the averaged tensors into the module, the same ones on all ranks, until :meth:`restore`.

        Before the first update there is no average yet, and the module stays as it is. An earlier evaluation that was
        interrupted, and never came to its :meth:`restore`, is undone first. A collective: every rank must call it.
        """
        self.restore()
        self.average_buffers_over_ranks()
        self._swap_in()

    def restore(self) -> None:
        """Puts the module's own tensors back; does nothing where it holds them."""
        if self._backup is None:
            return
        with torch.inference_mode(False), torch.no_grad():
            for name, tensor in self._live().items():
                tensor.copy_(self._backup[name])
        self._backup = None

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """Has this rank's averaged tensors in the module inside the ``with`` block; no collective."""
        if self.is_swapped:  # in the middle of an evaluation
            yield
            return
        self._swap_in()
        try:
            yield
        finally:
            self.restore()

    def _swap_in(self) -> None:
        # Evaluation hooks run under inference_mode; tensors made there could never take part in training again.
        with torch.inference_mode(False), torch.no_grad():
            live = self._live()
            self._backup = {name: tensor.detach().clone() for name, tensor in live.items()}
            if self.num_updates:
                for name, tensor in live.items():
                    tensor.copy_(self.average[name])

    def state_dict(self) -> dict[str, Any]:
        """Returns plain types and tensors only, so that a checkpoint loads with ``weights_only=True``.

        Tensors whose shards lie on several ranks come whole: a collective then.
        """
        whole = {name: _whole(tensor) for name, tensor in self.average.items()}
        return {"decay": self.decay, "num_updates": self.num_updates, "average": whole}

    def buffers_of_ranks(self) -> list[dict[str, Tensor]]:
        """Returns the averaged buffers of every rank; empty where they cannot differ. A collective.

        BatchNorm statistics come from each rank's own samples, and between two evaluations so does their average.
        """
        found = states_of_ranks({name: self.average[name].cpu() for name in self.buffer_names})
        return found if len(found) > 1 and self.buffer_names else []

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes over a saved average; the decay stays the one given here.

        Args:
            state: what :meth:`state_dict` returned, perhaps with ``buffers_of_ranks``: on as many ranks each takes its
                own.

        Raises:
            ValueError: the saved names or shapes are not those of the module.
        """
        saved = dict(state["average"])
        saved.update(own_state(state.get("buffers_of_ranks")) or {})
        if state["num_updates"]:
            live = self._live()
            odd = sorted(set(saved) ^ set(live)) or [n for n, t in live.items() if saved[n].shape != t.shape]
            if odd:
                raise ValueError(
                    f"EMA state does not fit {type(self.module).__name__}: '{odd[0]}' differs "
                    f"({len(odd)} of {len(live)} tensors)"
                )
            self.average = {
                name: _sharded_as(t, saved[name].to(device=t.device, dtype=t.dtype, copy=True))
                for name, t in live.items()
            }
        self.num_updates = int(state["num_updates"])

    def _live(self) -> dict[str, Tensor]:
        parameters, buffers = dict(self.module.named_parameters()), dict(self.module.named_buffers())
        found: dict[str, Tensor] = {name: parameters[name] for name in self.parameter_names}
        found.update({name: buffers[name] for name in self.buffer_names})
        return found

    def _follow(self, live: dict[str, Tensor]) -> None:
        """Moves the average to where the module is now (Lightning moves modules after they are built)."""
        for name, tensor in live.items():
            if self.average[name].device != tensor.device:
                self.average[name] = self.average[name].to(tensor.device)


def _whole(tensor: Any) -> Tensor:
    whole: Tensor = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return whole


def _sharded_as(like: Any, tensor: Tensor) -> Tensor:
    """Returns a whole tensor in shards as another one's, or as it is where that one is whole."""
    if not hasattr(like, "full_tensor"):
        return tensor
    from torch.distributed.tensor import distribute_tensor  # a second to import

    return distribute_tensor(tensor, like.device_mesh, like.placements)


def _trained_buffer_names(module: nn.Module) -> list[str]:
    """Names of float buffers in trained parts.

    A buffer belongs to the nearest enclosing module that has parameters at all (BatchNorm without affine weights has
    none); it counts as trained if any of those parameters is.
    """
    modules = dict(module.named_modules())
    names = []
    for name, buffer in module.named_buffers():
        if not buffer.is_floating_point():
            continue
        owner = name.rpartition(".")[0]
        while owner and next(modules[owner].parameters(), None) is None:
            owner = owner.rpartition(".")[0]
        if any(p.requires_grad for p in modules[owner].parameters()):
            names.append(name)
    return names
