"""A step and a decoding of Stable Diffusion 1.5 beside diffusers' own, in turns, in one process.

    python -m tools.step_speed unet|decode [rounds] [float32] [default] [direct] [openvino] [clock]

The networks have random weights and their full size, both sides the same ones: ours in the dtype that this
hardware gets, or in `float32`; diffusers in the same one with channels last; with `default` also as diffusers
is by itself, float32; with `direct` also ours with no convolution by Winograd's way; with `openvino` our
network as OpenVINO runs it (`pip install openvino`), converted and compiled for this shape. Ratios are
medians over the rounds. The seconds are the processor's on one thread, so that what else runs on the machine
matters little; with `clock` they are the clock's, on all threads, for a machine that does nothing else.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from core.bench.peak import product_speed, step_flop
from core.device import find_dtype
from core.models.config import UNetConfig, VAEConfig
from core.models.fast import winograd
from core.models.unet import UNet
from core.models.vae import AutoencoderKL
from core.weights.parts import laid_out

CPU = torch.device("cpu")
LAST = torch.channels_last
WORDS = {"float32", "default", "direct", "openvino", "clock"}


def filled(module: nn.Module, dtype: torch.dtype) -> Any:
    """A module of the meta device with weights: a few numbers again and again, of a fitting size."""
    drawn = torch.randn(1 << 16, generator=torch.Generator().manual_seed(0))
    module = module.to(dtype).to_empty(device="cpu").eval().requires_grad_(False)
    for name, weight in module.named_parameters():
        spread = weight[0].numel() ** -0.5 if weight.ndim > 1 else 0.1
        flat, few = weight.view(-1), (drawn * spread).to(dtype)
        for start in range(0, len(flat), len(few)):
            flat[start : start + len(few)] = few[: len(flat) - start]
        if "norm" in name and name.endswith("weight"):
            weight.add_(1)
    return module


def theirs(part: str, dtype: torch.dtype) -> Any:
    """The network of diffusers with random weights."""
    diffusers = import_module("diffusers")
    kinds = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
    with torch.device("meta"):
        network = (
            diffusers.UNet2DConditionModel(cross_attention_dim=768)
            if part == "unet"
            else diffusers.AutoencoderKL(block_out_channels=(128, 256, 512, 512), layers_per_block=2, **kinds)
        )
    return filled(network, dtype)


def ours(part: str, peer: nn.Module) -> Any:
    """Our network with the peer's weights, laid out as a pipeline has them."""
    with torch.device("meta"):
        network = UNet(UNetConfig()) if part == "unet" else AutoencoderKL(VAEConfig())
    weights = {key: laid_out(weight, CPU, weight.dtype) for key, weight in peer.state_dict().items()}
    network.load_state_dict(weights, assign=True)
    return network.eval().requires_grad_(False)


def directly() -> Any:
    """Inside, no convolution goes by Winograd's way."""
    return patch.object(winograd, "suits", return_value=False)


def openvino(network: nn.Module, given: tuple[Tensor, ...], dtype: torch.dtype) -> Callable[[], Tensor]:
    """A float32 network as OpenVINO runs it in this dtype, on as many threads as torch has; `given` is what
    it is called with, float32.
    """
    engine = import_module("openvino")
    shapes = [list(each.shape) for each in given]
    with directly():  # it has its own ways for a convolution
        model = engine.convert_model(network, example_input=given, input=shapes)
    wanted = {
        "INFERENCE_PRECISION_HINT": "bf16" if dtype == torch.bfloat16 else "f32",
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
    }
    compiled, inputs = engine.compile_model(model, "CPU", wanted), [each.numpy() for each in given]
    return lambda: torch.from_numpy(compiled(inputs)[0])


class Decoder(nn.Module):
    """A VAE's way back alone."""

    def __init__(self, vae: AutoencoderKL) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, x: Tensor) -> Tensor:
        return self.vae.decode(x)


def calls(part: str, dtype: torch.dtype, words: set[str]) -> dict[str, Callable[[], Tensor]]:
    """What is measured, by name; ours first."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2 if part == "unet" else 1, 4, 64, 64, generator=generator)
    t, text = torch.tensor([501.0, 501.0]), torch.randn(2, 77, 768, generator=generator)

    def call(network: Any, kind: torch.dtype, layout: torch.memory_format) -> Callable[[], Tensor]:
        given = x.to(kind).contiguous(memory_format=layout)
        if part == "decode":
            return lambda: getattr(out := network.decode(given), "sample", out)
        context = text.to(kind)
        return lambda: getattr(out := network(given, t, context), "sample", out)

    best = theirs(part, dtype)
    mine = call(ours(part, best), dtype, torch.contiguous_format)

    def direct() -> Tensor:
        with directly():
            return mine()

    made = {
        "latentcanvas": mine,
        "diffusers, channels last": call(best.to(memory_format=LAST), dtype, LAST),
    }
    if "direct" in words:
        made["latentcanvas, direct"] = direct
        print(f"largest difference from direct: {(mine() - direct()).abs().max():.1e}")
    if "default" in words:
        made["diffusers, float32"] = call(theirs(part, torch.float32), torch.float32, torch.contiguous_format)
    if "openvino" in words:
        network = ours(part, theirs(part, torch.float32))
        if part == "unet":
            made["openvino"] = openvino(network, (x, t, text), dtype)
        else:
            made["openvino"] = openvino(Decoder(network), (x,), dtype)
    return made


@torch.no_grad()
def main(part: str, rounds: int, words: set[str]) -> None:
    dtype = torch.float32 if "float32" in words else find_dtype(None, CPU)
    clock = time.perf_counter if "clock" in words else time.process_time
    if "clock" not in words:
        torch.set_num_threads(1)
    sides = calls(part, dtype, words)
    spent: dict[str, list[float]] = {name: [] for name in sides}
    speeds = []
    print(f"ready: {dtype}, {torch.get_num_threads()} threads", flush=True)
    for _ in range(rounds + 1):  # the first one warms up
        for name, call in sides.items():
            began = clock()
            call()
            spent[name].append(clock() - began)
        speeds.append(product_speed(CPU, dtype))
        print({name: round(each[-1], 2) for name, each in spent.items()}, flush=True)
    own = spent["latentcanvas"][1:]
    for name, each in spent.items():
        pairs = [a / b for a, b in zip(own, each[1:], strict=True)]
        ratio = f"ours is {statistics.median(pairs):.2f} of it ({min(pairs):.2f} to {max(pairs):.2f})"
        print(f"{name}: {statistics.median(each[1:]):.2f} s; {ratio}")
    if part == "unet":
        speed, product = step_flop(UNetConfig(), VAEConfig(), (64, 64)) / statistics.median(own), max(speeds)
        print(f"{speed / 1e9:.0f} GFLOP/s, {100 * speed / product:.0f}% of a product's {product / 1e9:.0f}")


if __name__ == "__main__":
    asked = sys.argv[2:]
    if unknown := {*asked} - WORDS - {each for each in asked if each.isdecimal()}:
        sys.exit(f"not known: {', '.join(unknown)}")
    main(sys.argv[1], int(asked.pop(0)) if asked and asked[0].isdecimal() else 5, set(asked))
