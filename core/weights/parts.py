"""A network's weights: where each lies in a file, and the module made of them.

Modules are built on the meta device, without memory of their own, and the file's tensors put in their places.
What already has the wanted dtype, device and layout stays mapped from the file; what has not is converted one
tensor at a time. The pages of the file that were read are let go: they come back when the network runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from core.errors import UserError
from core.models.build import make_coder
from core.models.clip import CLIPTextEncoder
from core.models.config import ModelConfig
from core.models.unet import UNet
from core.weights.mapped import Entry

M = TypeVar("M", bound=nn.Module)
C = TypeVar("C")


@dataclass(frozen=True)
class Source:
    """Where one weight lies: a tensor of a file, or its rows from the first to before the last."""

    entry: Entry
    rows: tuple[int, int] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape as the file has it."""
        if self.rows is None:
            return self.entry.shape
        return (self.rows[1] - self.rows[0], *self.entry.shape[1:])

    def tensor(self) -> Tensor:
        """The weight as it lies in the file, mapped."""
        whole = self.entry.tensor()
        return whole if self.rows is None else whole[self.rows[0] : self.rows[1]]


@dataclass(frozen=True)
class Part:
    """The weights of one network, by our names for them; `unexpected` are the file's names left over."""

    path: Path
    sources: Mapping[str, Source]
    unexpected: tuple[str, ...] = ()

    @property
    def files(self) -> list[Path]:
        """The files that the weights lie in."""
        return list(dict.fromkeys(source.entry.file.path for source in self.sources.values()))

    @property
    def dtypes(self) -> set[str]:
        return {source.entry.dtype for source in self.sources.values()}


def load_part(build: Callable[[C], M], config: C, part: Part, device: torch.device, dtype: torch.dtype) -> M:
    """A module with the weights of `part`, in evaluation mode.

    Raises UserError when a weight is missing, left over, of another shape, or not a number.
    """
    module, expected = _built(build, config)
    check_part(expected, part)
    tensors, ends = {}, []
    for key, shape in expected.items():
        source = part.sources[key]
        tensors[key] = laid_out(source.tensor().contiguous().view(shape), device, dtype)
        # A NaN or an infinity survives in the smallest or the largest: one quick pass finds it.
        if tensors[key].numel():
            ends.append(torch.stack(torch.aminmax(tensors[key])))
        source.entry.release()
    _check_numbers([key for key, tensor in tensors.items() if tensor.numel()], ends, part)
    module.load_state_dict(tensors, assign=True)
    return module.eval().requires_grad_(False)


def laid_out(weight: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
    """A weight in its place as the kernels like it best: on a CPU a convolution's with its channels last,
    which makes all that it computes so, too. float16 is left as it lies in the file: a CPU has nothing to
    gain from it.
    """
    if weight.ndim != 4 or device.type != "cpu" or dtype == torch.float16:
        return weight.to(device, dtype)
    return weight.to(device, dtype, memory_format=torch.channels_last)


def expected_shapes(config: ModelConfig) -> list[dict[str, tuple[int, ...]]]:
    """The weights that text encoder, VAE and UNet of this configuration have."""
    return [
        _built(CLIPTextEncoder, config.text)[1],
        _built(make_coder, config.vae)[1],
        _built(UNet, config.unet)[1],
    ]


def _built(build: Callable[[C], M], config: C) -> tuple[M, dict[str, tuple[int, ...]]]:
    """The module without memory, and the shapes of its weights by name."""
    with torch.device("meta"):
        module = build(config)
    return module, {key: tuple(tensor.shape) for key, tensor in module.state_dict().items()}


def check_part(expected: Mapping[str, tuple[int, ...]], part: Part) -> None:
    """Raises UserError unless the part has these weights in these shapes, and no others."""
    missing, left = expected.keys() - part.sources.keys(), part.sources.keys() - expected.keys()
    if missing:
        raise UserError(f"{part.path} lacks {some(missing)}: it is not complete, or not of this model.")
    if left or part.unexpected:
        names = some([*left, *part.unexpected])
        raise UserError(f"{part.path} has unexpected {names}: it does not belong to this model.")
    for key, shape in expected.items():
        source = part.sources[key]
        if _squeezed(source.shape) != _squeezed(shape):
            raise UserError(
                f"{part.path}: {key} has shape {source.shape}, not {shape}: it does not belong to this model."
            )
        if "float" not in source.entry.dtype:
            raise UserError(
                f"{part.path}: {key} is of {source.entry.dtype}: quantised models cannot be read here."
            )


def some(names: Iterable[str]) -> str:
    """The first three names, and how many more there are."""
    ordered = sorted(names)
    return ", ".join(ordered[:3]) + (f" and {len(ordered) - 3} more" if len(ordered) > 3 else "")


def _squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A 1x1 convolution (O, I, 1, 1) and a linear layer (O, I) are the same numbers."""
    return shape[:2] if shape[2:] == (1, 1) else shape


def _check_numbers(names: list[str], ends: list[Tensor], part: Part) -> None:
    """Raises UserError when the smallest or largest number of a weight is none; one look at the device."""
    if not ends:
        return
    bad = (~torch.stack(ends).isfinite().all(dim=1)).nonzero().flatten().tolist()
    if bad:
        raise UserError(
            f"{part.path} holds values that are not numbers (in {some([names[i] for i in bad])}): it was "
            "damaged when it was made or merged, or does not fit the dtype."
        )
