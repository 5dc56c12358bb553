"""What runs cost in torch: kernel calls, allocations, bytes copied. Unlike times, these are exact."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from PIL import Image
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

if TYPE_CHECKING:
    from core.inference.pipeline import Pipeline

# Operations that only move data to another place, layout or dtype.
# fmt: off
MOVES = frozenset((
    "cat", "clone", "constant_pad_nd", "copy_", "gather", "index", "index_put_", "index_select", "repeat",
    "roll", "scatter", "scatter_", "slice_scatter", "stack", "_to_copy",
))
# fmt: on
# Operations that only allocate.
NO_KERNELS = frozenset({"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"})


@dataclass(frozen=True)
class Counts:
    """One run: evaluations of the denoiser, passes of the network per image, and torch operations."""

    evaluations: int
    passes: int
    kernel_calls: int
    allocations: int
    allocated_bytes: int
    copied_bytes: int

    def to_dict(self) -> dict[str, int]:
        return dataclasses.asdict(self)


class Counter(TorchDispatchMode):
    """Counts the torch operations of this thread inside a `with`.

    A view costs nothing and is not counted; a result in new memory is an allocation. Memory that a kernel
    allocates internally is not seen.
    """

    def __init__(self) -> None:
        super().__init__()
        self.kernel_calls = self.allocations = self.allocated_bytes = self.copied_bytes = 0

    def __torch_dispatch__(
        self, func: Any, types: object, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        known = {_place(tensor) for tensor in _tensors((args, kwargs))}
        new = {_place(tensor): tensor for tensor in _tensors(result) if _place(tensor) not in known}
        name = func.overloadpacket.__name__
        written = any(
            argument.alias_info is not None and argument.alias_info.is_write
            for argument in func._schema.arguments
        )
        if new or written:
            self.kernel_calls += name not in NO_KERNELS
        self.allocations += len(new)
        self.allocated_bytes += sum(tensor.untyped_storage().nbytes() for tensor in new.values())
        if name in MOVES and (new or written):
            self.copied_bytes += sum(tensor.nbytes for tensor in _tensors(result))
        return result


def _tensors(tree: object) -> Iterator[Tensor]:
    return (leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor))


def _place(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def count(pipeline: Pipeline, **fields: Any) -> Counts:
    """The counts of one run with these arguments of `Pipeline.stream`."""
    with Counter() as counter:
        result = pipeline.generate(**fields)
    return Counts(
        result.evals,
        result.passes,
        counter.kernel_calls,
        counter.allocations,
        counter.allocated_bytes,
        counter.copied_bytes,
    )


def count_all(pipeline: Pipeline, width: int, height: int, steps: int) -> dict[str, Counts]:
    """The counts of runs that differ in one setting each, by its name. Clears the pipeline's caches first.

    steps: at least 2.
    """
    plain = {
        "prompt": "a red house under a full moon", "sampler": "ddim", "schedule": "leading", "steps": steps,
        "cfg_scale": 4.0, "width": width, "height": height, "seed": 0,
    }  # fmt: skip
    picture = {"image": Image.new("RGB", (width, height), "gray"), "strength": 0.5}
    changes: dict[str, dict[str, Any]] = {
        "plain": {},
        "the same prompt again": {"seed": 1},
        "without guidance": {"cfg_scale": 1.0},
        "two pictures": {"batch": 2},
        "from a picture": picture,
        "from the same picture again": picture,
        "feature reuse 2": {"feature_reuse": 2},
        "token merging 0.5": {"token_merging": 0.5},
    }
    pipeline.forget()
    return {name: count(pipeline, **{**plain, **change}) for name, change in changes.items()}
