"""Distributed training of one model: each process computes a part of every batch, the main one writes files.

`accelerate launch` starts the processes, and accelerate exchanges averaged gradients, losses and errors. A
single process does not import accelerate.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from core.device import find_device
from core.errors import UserError

if TYPE_CHECKING:
    from core.training.stage import Stage

T = TypeVar("T")
# The variables in which torchrun (and so accelerate) and the usual MPIs pass the number of processes.
_COUNTS = ("WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")
# The others wait while the main process draws images or samples; the launcher notices one that dies.
_PATIENCE = timedelta(days=2)


@dataclass(frozen=True)
class Share:
    """The part of each batch that a process computes; all of it for a single process.

    What is random is decided for the whole batch by every process, so the parts are those that one process
    alone would have computed together.
    """

    rank: int = 0
    count: int = 1

    def of(self, batch: int) -> slice:
        """Its part of `batch` examples. Where there are more processes than examples, those without one
        compute the first, with no weight: everyone has to take part in the averages.
        """
        first, end = self._ends(batch)
        return slice(first, end) if end > first else slice(0, 1)

    def weight(self, batch: int) -> float:
        """The weight of a part's mean, so that the mean over processes is the batch's; 1.0 if alone."""
        first, end = self._ends(batch)
        return (end - first) * self.count / batch

    def _ends(self, batch: int) -> tuple[int, int]:
        return batch * self.rank // self.count, batch * (self.rank + 1) // self.count


class Processes:
    """This process among those that train one model; the only one if there is no accelerator.

    All of them must make the same calls in the same order.
    """

    def __init__(self, device: torch.device | str = "cpu", accelerator: Any = None) -> None:
        self.device = torch.device(device)
        self.share = Share()
        self._accelerator = accelerator
        if accelerator is not None:
            self.share = Share(accelerator.process_index, accelerator.num_processes)

    @property
    def main(self) -> bool:
        """Whether this process writes the files and reports."""
        return self.share.rank == 0

    def each(self, work: Callable[[], T]) -> T:
        """The result of `work`; a UserError in one process is raised in all of them."""
        if self._accelerator is None:
            return work()
        from accelerate.utils import gather_object

        failed, found = "", None
        try:
            found = work()
        except UserError as error:
            failed = str(error)
        told = [message for message in gather_object([failed]) if message]
        if told:
            raise UserError(told[0])
        return found  # there is one where nothing failed  # pyrefly: ignore[bad-return]

    def alone(self, work: Callable[[], T]) -> T | None:
        """The result of `work` in the main process, for which the others wait; None in the others."""
        return self.each(lambda: work() if self.main else None)

    def first(self, work: Callable[[], T]) -> T:
        """The result of `work`, run first in the main process, so that the others find the files it makes."""
        found = self.alone(work)
        return self.each(lambda: found if self.main else work())  # pyrefly: ignore[bad-return]

    def losses(self, stage: Stage) -> Callable[[int], Tensor]:
        """`stage.loss`, wrapped so that its backward pass averages the gradients over the processes."""
        if self._accelerator is None:
            return stage.loss
        wrapped: Callable[[int], Tensor] = self._accelerator.prepare(_Loss(stage))
        return wrapped

    def agree(self, loss: Tensor, leave: bool) -> tuple[Tensor, bool]:
        """The mean of the scalar losses, and whether any process wants to stop: then all stop."""
        if self._accelerator is None:
            return loss, leave
        said = torch.stack([loss.float(), torch.full_like(loss, float(leave), dtype=torch.float32)])
        said = self._accelerator.reduce(said, "mean")
        return said[0], bool(said[1] > 0)

    def same(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """The tensors of the main process, in all processes."""
        if self._accelerator is None:
            return state
        from accelerate.utils import broadcast

        shared: dict[str, Tensor] = broadcast(state)
        return shared

    def leave(self) -> None:
        """End distributed training."""
        if self._accelerator is not None:
            self._accelerator.end_training()


class _Loss(nn.Module):
    """A stage's loss as the forward pass of a module, because accelerate wraps forward passes."""

    def __init__(self, stage: Stage) -> None:
        super().__init__()
        self.stage, self.weights = stage, stage.modules

    def forward(self, step: int) -> Tensor:
        return self.stage.loss(step)


@contextmanager
def together(device: str | None) -> Generator[Processes]:
    """The processes that were started to train one model, on the named device or the best one.

    Only the main process raises a UserError, so that it is reported once; the others exit. Raises UserError
    if the processes cannot train together.
    """
    count = _started()
    if count == 1:
        yield Processes(find_device(device))
        return
    main = os.environ.get("RANK", "0") == "0"
    try:
        processes = _joined(find_device(device), count)
        main = processes.main
        yield processes
        processes.leave()
    except UserError:
        if main:
            raise
        # Exit code 0: at the first failure the launcher would kill the main process before it reports.
        raise SystemExit(0) from None


def _started() -> int:
    """The number of processes that the launcher started."""
    said = (os.environ.get(name, "") for name in _COUNTS)
    return max([1, *(int(text) for text in said if text.isdecimal())])


def _joined(device: torch.device, count: int) -> Processes:
    if importlib.util.find_spec("accelerate") is None:
        raise UserError(
            f"{count} processes train one model through accelerate, which is not installed: "
            'install it with `pip install -c constraints.txt -e ".[train]"`, or start one process.'
        )
    if str(device) != device.type:
        raise UserError(f"{count} processes cannot share {device}: leave out its number, each takes its own.")
    from accelerate import Accelerator
    from accelerate.utils import InitProcessGroupKwargs

    accelerator = Accelerator(
        cpu=device.type == "cpu",
        mixed_precision="no",  # the stages apply the recipe's precision themselves
        kwargs_handlers=[InitProcessGroupKwargs(timeout=_PATIENCE)],
    )
    if accelerator.num_processes != count or accelerator.device.type != device.type:
        raise UserError(
            f"{count} processes were started, but cannot train together on {device.type}: start them with "
            "`accelerate launch --multi_gpu`, with --device cpu if there are too few GPUs."
        )
    return Processes(accelerator.device, accelerator)
