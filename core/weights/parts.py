"""A network's weights: where each is in a file, and the module built from them.

Modules are built on the meta device, without memory, and then get the file's tensors. Tensors that already
have the wanted dtype, device and layout stay memory-mapped; others are converted one at a time. Pages of the
file that were read are released: they are read again when the network runs. The weights themselves can also
be offloaded, of a whole network or layer by layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from core.errors import UserError
from core.models.build import make_coder
from core.models.clip import CLIPTextEncoder
from core.models.config import ModelConfig
from core.models.unet import UNet
from core.weights.readers.mapped_file import TensorEntry

M = TypeVar("M", bound=nn.Module)
C = TypeVar("C")


@dataclass(frozen=True)
class TensorSource:
    """The source of one weight: a tensor in a file, or its rows [first, last)."""

    entry: TensorEntry
    rows: tuple[int, int] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape in the file."""
        if self.rows is None:
            return self.entry.shape
        return (self.rows[1] - self.rows[0], *self.entry.shape[1:])

    def tensor(self) -> Tensor:
        """The weight, of the shape that the network has, memory-mapped from the file."""
        whole = self.entry.tensor()
        return whole if self.rows is None else whole[self.rows[0] : self.rows[1]]


@dataclass(frozen=True)
class Part:
    """The weights of one network, by our names for them; `unexpected` are other names in the file."""

    path: Path
    sources: Mapping[str, TensorSource]
    unexpected: tuple[str, ...] = ()

    @property
    def files(self) -> list[Path]:
        """The files that hold the weights."""
        return list(dict.fromkeys(source.entry.file.path for source in self.sources.values()))

    @property
    def dtypes(self) -> set[str]:
        return {source.entry.stored_dtype for source in self.sources.values()}


class StoredNetwork(Generic[M]):
    """A network, `module`, in evaluation mode, whose weights can be loaded from a file and offloaded again.

    Raises UserError when a weight of `part` is missing, unexpected or of another shape. While
    offloaded, its weights are on the meta device.
    """

    def __init__(
        self, build: Callable[[C], M], config: C, part: Part, device: torch.device, dtype: torch.dtype
    ) -> None:
        self.module, self._shapes = _built(build, config)
        check_part(self._shapes, part)
        self.module.eval().requires_grad_(False).to(dtype)
        self._nowhere = self.module.state_dict()
        self._part, self._device, self._dtype = part, device, dtype
        self._sound = False
        self._handles: list[RemovableHandle] = []
        self.present = False  # whether it can run: its weights are loaded, or load layer by layer

    @property
    def nbytes(self) -> int:
        """The bytes of its weights."""
        return sum(map(prod, self._shapes.values())) * self._dtype.itemsize

    def check(self) -> None:
        """Read every weight once without loading it. Raises UserError for a value that is not finite."""
        if not self._sound:
            self._weights(self._shapes, keep=False)
            self._sound = True

    def read(self) -> None:
        """Load all weights. Raises UserError for a value that is not finite."""
        weights = self._weights(self._shapes)
        self._sound = True
        self.module.load_state_dict(weights, assign=True)
        self.present = True

    def read_by_layer(self) -> None:
        """Load each layer's weights when it runs, and offload them afterwards. Only one-dimensional weights
        stay, norms and biases: a thousandth of the whole.
        """
        self.check()
        few = self._weights([name for name, shape in self._shapes.items() if len(shape) < 2])
        self.module.load_state_dict({**self._nowhere, **few}, assign=True)
        for prefix, layer in self.module.named_modules():
            own = layer.named_parameters(recurse=False)
            names = {name: f"{prefix}.{name}" for name, weight in own if weight.ndim > 1}
            if names:
                self._handles += self._visits(layer, names)
        self.present = True

    def let_go(self) -> None:
        """Offload the weights and release the file's pages."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self.module.load_state_dict(self._nowhere, assign=True)
        for source in self._part.sources.values():
            source.entry.release()
        self.present = False

    def _visits(self, layer: nn.Module, names: Mapping[str, str]) -> Iterable[RemovableHandle]:
        """Hooks that load a layer's weights before it runs and offload them after, also when it fails."""

        def load(*_: object) -> None:
            for name, weight in self._weights(names.values()).items():
                setattr(layer, name.rpartition(".")[2], nn.Parameter(weight, requires_grad=False))

        def offload(*_: object) -> None:
            for name, key in names.items():
                setattr(layer, name, nn.Parameter(self._nowhere[key], requires_grad=False))
                self._part.sources[key].entry.release()

        yield layer.register_forward_pre_hook(load)
        yield layer.register_forward_hook(offload, always_call=True)

    def _weights(self, names: Iterable[str], *, keep: bool = True) -> dict[str, Tensor]:
        """These weights in the wanted dtype, device and layout; checked when read for the first time."""
        weights: dict[str, Tensor] = {}
        ends: dict[str, Tensor] = {}
        for name in names:
            source = self._part.sources[name]
            stored = source.tensor().contiguous().view(self._shapes[name])
            weight = laid_out(stored, self._device, self._dtype)
            # A NaN or an infinity survives in the smallest or the largest: one quick pass finds it.
            if weight.numel() and not self._sound:
                ends[name] = torch.stack(torch.aminmax(_in_order(weight)))
            source.entry.release()
            if keep:
                weights[name] = weight
        _check_numbers(ends, self._part)
        return weights


def laid_out(weight: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
    """A weight of any shape on its device in the fastest layout: on a CPU convolutions in channels_last,
    which their outputs inherit. float16 keeps the file's layout: a CPU gains nothing from channels_last
    there.
    """
    if weight.ndim != 4 or device.type != "cpu" or dtype == torch.float16:
        return weight.to(device, dtype)
    return weight.to(device, dtype, memory_format=torch.channels_last)


def _in_order(weight: Tensor) -> Tensor:
    """The same values in memory order, which is the fastest to read."""
    if weight.ndim == 4 and not weight.is_contiguous():
        return weight.permute(0, 2, 3, 1)
    return weight


def expected_shapes(config: ModelConfig) -> list[dict[str, tuple[int, ...]]]:
    """The weights that text encoder, VAE and UNet of this configuration have."""
    return [
        _built(CLIPTextEncoder, config.text)[1],
        _built(make_coder, config.vae)[1],
        _built(UNet, config.unet)[1],
    ]


class _Bare(TorchFunctionMode):
    """Skips the random initialisation of layers made inside. On the meta device it has no effect, and torch
    would import its compiler for it: a second or two.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", "") == nn.init.__name__:
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return func(*args, **kwargs)


def _built(build: Callable[[C], M], config: C) -> tuple[M, dict[str, tuple[int, ...]]]:
    """The module without memory, and the shapes of its weights by name."""
    with torch.device("meta"), _Bare():
        module = build(config)
    return module, {key: tuple(tensor.shape) for key, tensor in module.state_dict().items()}


def check_part(expected: Mapping[str, tuple[int, ...]], part: Part) -> None:
    """Raises UserError unless the part has these weights in these shapes, and no others."""
    missing, left = expected.keys() - part.sources.keys(), part.sources.keys() - expected.keys()
    if missing:
        raise UserError(f"{part.path} lacks {some(missing)}: it is incomplete, or not of this model.")
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
                f"{part.path}: {key} is of dtype {source.entry.dtype}: quantised models are not supported."
            )


def some(names: Iterable[str]) -> str:
    """The first three names, and how many more there are."""
    ordered = sorted(names)
    return ", ".join(ordered[:3]) + (f" and {len(ordered) - 3} more" if len(ordered) > 3 else "")


def _squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A 1x1 convolution (O, I, 1, 1) and a linear layer (O, I) are the same numbers."""
    return shape[:2] if shape[2:] == (1, 1) else shape


def _check_numbers(ends: Mapping[str, Tensor], part: Part) -> None:
    """Raises UserError when a weight's smallest or largest value is not finite; one device sync."""
    if not ends:
        return
    finite = torch.stack([*ends.values()]).isfinite().all(dim=1).tolist()
    bad = [name for name, sound in zip(ends, finite, strict=True) if not sound]
    if bad:
        raise UserError(
            f"{part.path} has NaN or infinite values (in {some(bad)}): it was "
            "damaged when it was made or merged, or exceeds the dtype's range."
        )
