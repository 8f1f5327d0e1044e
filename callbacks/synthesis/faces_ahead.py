"""The next faces are made in a thread of their own while the network trains."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import nn

from synfer.synthesis.class_shares import FEEDBACK
from synfer.synthesis.diffusion.denoising_state import DenoisingState
from synfer.synthesis.faces import Faces
from synfer.synthesis.hooks import DenoisingHook, FaceHook, OutputHook


class FacesAhead:
    """Makes one batch of faces while others are trained on; on a GPU in a stream of its own.

    What is made is decided when it is begun, and it is handed over where it would have been made: the same faces at
    the same steps as without.

    Args:
        device: where they are made.
    """

    def __init__(self, device: torch.device) -> None:
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="synthesis")
        self._device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._pending: tuple[int, Future[Faces]] | None = None

    @property
    def is_busy(self) -> bool:
        """Whether a batch has been begun that nobody has taken yet."""
        return self._pending is not None

    def begin(self, number: int, make: Callable[[], Faces]) -> None:
        """Begins with the batch whose first face has this number, unless one is under way."""
        if not self.is_busy:
            self._pending = number, self._threads.submit(self._run, make)

    def _run(self, make: Callable[[], Faces]) -> Faces:
        if self._stream is None:
            return make()
        with torch.cuda.device(self._device), torch.cuda.stream(self._stream):
            faces = make()
        self._stream.synchronize()
        return faces

    def take(self, number: int) -> Faces | None:
        """Waits for the batch whose first face has this number; None = it has not been begun.

        Raises:
            Exception: whatever making it has raised.
        """
        if self._pending is None:
            return None
        begun, future = self._pending
        self._pending = None
        faces = future.result()
        if begun != number:  # another run's, or another plan's: nobody else may run meanwhile, hence after the wait
            return None
        if self._stream is not None:
            faces.images.record_stream(torch.cuda.current_stream(self._device))
        return faces

    def close(self) -> None:
        """Waits for what is under way, and forgets it."""
        self._pending = None
        self._threads.shutdown(wait=True, cancel_futures=True)


class _Steering:
    """A hook's part in denoising, without its look at finished faces: that is the training's thread's."""

    def __init__(self, hook: DenoisingHook) -> None:
        self._hook = hook

    def on_denoising_start(self, state: DenoisingState) -> None:
        self._hook.on_denoising_start(state)

    def on_denoising_step(self, state: DenoisingState) -> None:
        self._hook.on_denoising_step(state)

    def on_faces(self, faces: Faces) -> None:
        """Leaves the faces to whoever takes them."""


class _SteeringOutput(_Steering):
    _hook: OutputHook

    def on_guided_output(self, state: DenoisingState) -> None:
        self._hook.on_guided_output(state)


def steering(hooks: Sequence[FaceHook]) -> list[FaceHook]:
    """Returns what of these hooks acts while faces are denoised; counts and votes come when the faces are taken."""
    found = [hook for hook in hooks if isinstance(hook, DenoisingHook)]
    return [_SteeringOutput(hook) if isinstance(hook, OutputHook) else _Steering(hook) for hook in found]


@torch.no_grad()
def see_all(faces: Faces, hooks: Sequence[FaceHook]) -> Faces:
    """Has all hooks see finished faces, and returns these."""
    for hook in hooks:
        hook.on_faces(faces)
    return faces


def check_may_overlap(device: torch.device, network: nn.Module, plan: str) -> None:
    """Refuses what would not be the same run again where faces are made beside the training.

    Args:
        device: of both.
        network: that trains.
        plan: of the expressions.

    Raises:
        ValueError: shares that follow recalls, or attention on a CPU.
    """
    if plan == FEEDBACK:
        raise ValueError(
            f"synthesis.ahead=true beside synthesis.plan={FEEDBACK}: found shares that follow the last validation, "
            "expected another plan, or false"
        )
    if device.type != "cpu":
        return
    for name, module in network.named_modules():
        # Which kernel computes attention is one switch for the whole process, and the generator sets it for its own.
        if isinstance(module, nn.MultiheadAttention) or getattr(module, "fused_attn", False):
            raise ValueError(
                f"synthesis.ahead=true on a CPU: found attention in the network that trains ('{name}'), whose rounding "
                "would depend on what is made meanwhile; expected a network without, or false"
            )
