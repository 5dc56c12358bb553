"""What the VAE of Stable Diffusion takes for large pictures, whole and tiled.

    python -m tools.vae_memory

counts, on tensors without memory, the most bytes of maps at once in bfloat16 and the operations. The weights
are in no figure.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from core.models import vae
from core.models.config import VAEConfig
from core.models.vae import AutoencoderKL


@dataclass(frozen=True)
class Taken:
    """The most bytes at once, and the floating-point operations of convolutions and products."""

    peak: int
    operations: int


def both(call: str, shape: tuple[int, ...]) -> tuple[Taken, Taken]:
    """Tiled and whole: `call` ("encode" or "decode") on one input of this shape."""
    with torch.device("meta"):
        net = AutoencoderKL(VAEConfig()).to(torch.bfloat16).requires_grad_(False)
        x = torch.empty(shape, dtype=torch.bfloat16)
    tiled, whole = (_taken(net, lambda: getattr(net, call)(x), largest) for largest in (0, 1 << 40))
    return tiled, whole


@torch.no_grad()
def _taken(net: nn.Module, do: Callable[[], object], largest: int) -> Taken:
    # On a device attention's kernels hold no table of all positions by all, as it does without memory.
    no_table = mock.patch.object(F, "scaled_dot_product_attention", lambda q, *_, **__: torch.empty_like(q))
    with mock.patch.object(vae, "LARGEST_WHOLE", largest), no_table:
        with Living({weight.untyped_storage()._cdata for weight in net.parameters()}) as living:
            do()
        with FlopCounterMode(display=False) as counted:
            do()
    return Taken(int(living.peak), int(counted.get_total_flops()))


class Living(TorchDispatchMode):
    """Counts the bytes of the tensors that are made and not yet let go."""

    def __init__(self, known: set[int]) -> None:
        super().__init__()
        self.known = known
        self.now, self.peak = 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(tensor, Tensor):
                self._see(tensor.untyped_storage())
        return out

    def _see(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self.known:
            return
        self.known.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)

        def gone() -> None:
            self.known.discard(key)
            self.now -= size

        weakref.finalize(storage, gone)


def main() -> None:
    for call, shape in (
        ("decode", (1, 4, 128, 128)),
        ("decode", (1, 4, 256, 256)),
        ("encode", (1, 3, 1024, 1024)),
    ):
        tiled, whole = both(call, shape)
        sizes = f"{whole.peak / 2**20:.0f} MB whole, {tiled.peak / 2**20:.0f} MB tiled"
        work = f"{whole.operations / 1e12:.1f} TFLOP whole, {tiled.operations / 1e12:.1f} tiled"
        print(f"{call} {shape}: {sizes}, {tiled.peak / whole.peak:.2f}; {work}")


if __name__ == "__main__":
    main()
